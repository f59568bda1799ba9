"""Lanes on their way through the model: what they begin with, and how many positions are computed at once.

Knows nothing of the coder. Section 9 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DamagedFileError
from .adapter import Adapter
from .arithmetic import Floats
from .cache import Cache
from .codebook import Codebook
from .llama import Model
from .probabilities import Counts
from .rotations import MAX_POSITIONS
from .threads import one_blas_thread, side_by_side

MOST_LANES = 1024
MOST_VECTOR = 2.0**16  # of the numbers in vectors

Tokens = npt.NDArray[np.int64]
Finish = Callable[[Floats, Floats], Any]  # of logits (lanes, n, V), and of what one of their units stands for


class Context(Protocol):
    """Tokens before those of the lanes: where their positions are, and the last of them, which has none yet."""

    @property
    def cache(self) -> Cache: ...

    @property
    def last(self) -> int: ...

    def begun(self, model: Model, n_lanes: int, n_more: int) -> Cache:
        """A cache of so many rows that all stand after the positions, with room for `n_more`."""


class Learner(Protocol):
    """What changes the model's probabilities by what was coded before. It sees tokens in the order of the coder.

    There may be an `Adapter`, too, which changes the logits before.
    """

    def sums(self, logits: Floats) -> Counts:
        """Cumulated counts (L, V + 1), instead of the model's, of logits (L, V) of some lanes for a step.

        `logits` may be used as memory to work in. Threads may call this side by side.
        """

    def encode(self, lane: int, sums: Counts, token: int) -> tuple[int, int]:
        """Where in the whole the interval of this token begins, and its width, by `sums` (V + 1,); and learn the token.

        All intervals together fill the whole, 2^24 or 2^30, and none is empty.
        """

    def decode(self, lane: int, sums: Counts, target: int) -> tuple[int, int, int]:
        """The token whose interval holds this number, where the interval begins, its width; and learn the token."""

    def end_step(self, sums: Sequence[Counts], tokens: Sequence[int]) -> None:
        """Take in that all lanes have their token of this step: their cumulated counts, and the tokens."""


@dataclass(frozen=True, eq=False)
class Options:
    """What a text may have beside its tokens, and how it is worked on; all but `threads` and `progress` changes bytes.

    `vectors` (M, D), or (L, M, D) for each lane, stand in place of the start token, or `after_start`; or `context` in
    place of both; or after it the entry of a `codebook` that each lane chooses: an encoder is told the `choices`.
    `learner` changes the model's probabilities; with it, an `Adapter` may do so, too (`adapts`). `threads` share
    the lanes. `progress` is called with the number of tokens that are done.
    """

    vectors: Floats | None = None
    after_start: bool = False
    context: Context | None = None
    codebook: Codebook | None = None
    choices: Sequence[int] = ()
    learner: Learner | None = None
    adapts: bool = False
    threads: int = 1
    progress: Callable[[int], object] | None = None


USUAL = Options()


def lane_lengths(n_tokens: int, n_lanes: int) -> list[int]:
    """How many tokens each lane has: as equal as can be, the longer ones first."""
    length, n_longer = divmod(n_tokens, n_lanes)
    return [length + (lane < n_longer) for lane in range(n_lanes)]


class Run:
    """Lanes on their way through the model: `known` (L, T) are their tokens, as far as they are known.

    With an adapter, what comes out of the model is not logits but the states that its head would take.
    """

    def __init__(self, model: Model, n_tokens: int, n_lanes: int, options: Options):
        if not 1 <= n_lanes <= min(MOST_LANES, max(n_tokens, 1)):
            raise ValueError(f"{n_lanes} lanes for {n_tokens} tokens; at least one token a lane, at most {MOST_LANES}")
        self._model, self._lengths = model, lane_lengths(n_tokens, n_lanes)
        self.adapter = Adapter(model) if options.adapts else None
        self._forward = model.states if options.adapts else model.forward
        self._prefix = _prefix(model, n_lanes, options)  # (L, 1, M or 1 + M, D)
        n_more, context = self._prefix.shape[1] + self._lengths[0] - 1, options.context
        n_positions = n_more + (context.cache.position if context else 0)
        if n_positions > MAX_POSITIONS:
            raise ValueError(f"a lane of {n_positions} positions; at most {MAX_POSITIONS} are exact")
        firsts = [n_lanes * thread // options.threads for thread in range(options.threads + 1)]
        new_cache = (
            partial(context.begun, model, n_more=n_more)
            if context
            else partial(model.new_cache, n_positions=n_positions)
        )
        self._parts = [(first, new_cache(stop - first)) for first, stop in pairwise(firsts) if stop > first]
        for _, cache in self._parts:
            cache.entry = options.codebook.n_each if options.codebook else 0
        self.known: Tokens = np.zeros((n_lanes, self._lengths[0]), np.int64)

    def fill(self, tokens: Sequence[int]) -> None:
        flat = np.asarray(tokens, np.int64)
        if len(flat) and not (flat.min() >= 0 and flat.max() < self._model.shape.vocabulary):
            raise ValueError(f"a token is not in the vocabulary of {self._model.shape.vocabulary}")
        first = 0
        for lane, length in enumerate(self._lengths):
            self.known[lane, :length] = flat[first : first + length]
            first += length

    def tokens(self) -> list[int]:
        return [token for lane, length in enumerate(self._lengths) for token in self.known[lane, :length].tolist()]

    def n_tokens_before(self, step: int) -> int:
        return sum(min(step, length) for length in self._lengths)

    def steps(self, sizes: Iterator[int], finish: Finish) -> Iterator[tuple[int, int, list[Any]]]:
        """First steps, numbers of steps, and for each lane what `finish` makes of the logits (steps, V) for its tokens,
        or of the states.

        `sizes`: how many steps at once. Before those of a step are asked for, the tokens of all before must be in
        `known`.
        """
        with one_blas_thread(), side_by_side(len(self._parts)) as run:
            for first, n, n_lanes in self._schedule(sizes):

                def compute(part: tuple[int, Cache], first: int = first, n: int = n, n_lanes: int = n_lanes) -> Any:
                    return finish(*self._compute(*part, first, n, n_lanes))

                active = [part for part in self._parts if part[0] < n_lanes]
                yield first, n, [lane for part in run(compute, active) for lane in part]

    def _compute(self, lane: int, cache: Cache, first: int, n: int, n_lanes: int) -> tuple[Floats, Floats]:
        """Logits (lanes, n, V) for n steps of the lanes in `cache`, of which `lane` is the first; and their units.

        Or states (lanes, n, D) and theirs.
        """
        if n_lanes - lane < cache.n_rows:
            cache.keep(slice(n_lanes - lane))
        lanes = slice(lane, lane + cache.n_rows)
        x = self._model.embed(self.known[lanes, max(0, first - 1) : first + n - 1])
        if first == 0:
            x = np.concatenate([self._prefix[lanes], x], axis=1)
        return self._forward(x, cache, n)

    def _schedule(self, sizes: Iterator[int]) -> Iterator[tuple[int, int, int]]:
        """First step, number of steps, number of lanes: all lanes as far as they all go, then the longer ones."""
        longest, shortest, first = self._lengths[0], self._lengths[-1], 0
        while first < shortest:
            n = min(next(sizes), shortest - first)
            yield first, n, len(self._lengths)
            first += n
        if longest > shortest:
            yield shortest, 1, self._lengths.count(longest)


def _prefix(model: Model, n_lanes: int, options: Options) -> Floats:
    """The input embeddings that lanes begin with."""
    if options.context:
        return np.broadcast_to(model.embed([options.context.last]), (n_lanes, 1, model.shape.width))
    start = np.broadcast_to(model.embed([model.shape.start]), (n_lanes, 1, model.shape.width))
    if options.codebook:
        return np.concatenate([start, options.codebook.vectors(options.choices)], axis=1)
    if options.vectors is None:
        return start
    if not (np.abs(options.vectors) <= MOST_VECTOR).all():
        raise DamagedFileError("content", f"vectors have numbers that are not finite or beyond {MOST_VECTOR:.0f}")
    vectors = np.broadcast_to(options.vectors, (n_lanes, *options.vectors.shape[-2:]))
    return np.concatenate([start, vectors], axis=1) if options.after_start else vectors
