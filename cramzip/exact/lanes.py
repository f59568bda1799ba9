"""A text in lanes: stretches of it that go through the model side by side, and into one range coder.

The coder takes step after step, and in a step lane after lane, so that a lane costs no bytes of its own. Every lane
begins with the start token and knows nothing of the others. Encoder and decoder get the same numbers from the model;
the encoder, which knows all tokens, asks for many positions at once. Section 9 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DamagedFileError
from .arithmetic import Floats
from .cache import Cache
from .llama import Model
from .probabilities import Counts, counts, cumulated
from .rotations import MAX_POSITIONS
from .threads import one_blas_thread, side_by_side
from .tokencoder import TokenDecoder, TokenEncoder

MOST_LANES = 1024
TOKENS_AT_ONCE = 512  # that an encoder has the model compute
MOST_VECTOR = 2.0**16  # of the numbers in vectors

Tokens = npt.NDArray[np.int64]


class Learner(Protocol):
    """What changes the model's probabilities by what was coded before. It sees tokens in the order of the coder."""

    def predict(self, lane: int, shares: Counts) -> Counts:
        """Counts (V,) that add up to 2^24, none of them 0, instead of the model's."""

    def learn(self, lane: int, token: int) -> None:
        """Take in the token that was coded next in this lane."""


@dataclass(frozen=True, eq=False)
class Options:
    """What a text may have beside its tokens, and how it is worked on; all but `threads` and `progress` changes bytes.

    `vectors` (M, D), or (L, M, D) for each lane, follow the start token. `learner` changes the model's probabilities.
    `threads` share the lanes. `progress` is called with the number of tokens that are done.
    """

    vectors: Floats | None = None
    learner: Learner | None = None
    threads: int = 1
    progress: Callable[[int], object] | None = None


def encode_lanes(model: Model, tokens: Sequence[int], n_lanes: int, options: Options = Options()) -> bytes:
    """Code `tokens` in `n_lanes` lanes; the inverse of `decode_lanes`."""
    run, learner = _Run(model, len(tokens), n_lanes, options), options.learner
    run.fill(tokens)
    encoder = TokenEncoder()
    for first, n, lanes in run.steps(max(1, TOKENS_AT_ONCE // n_lanes), _unchanged if learner else cumulated):
        for step in range(n):
            for lane, rows in enumerate(lanes):
                token = run.known.item(lane, first + step)
                row = rows[step]
                if learner:
                    row = cumulated(learner.predict(lane, row))
                    learner.learn(lane, token)
                before = row.item(token)
                encoder.encode(before, row.item(token + 1) - before)
        if options.progress:
            options.progress(run.n_tokens_before(first + n))
    return encoder.finish()


def decode_lanes(model: Model, payload: bytes, n_tokens: int, n_lanes: int, options: Options = Options()) -> list[int]:
    """The tokens of `encode_lanes`. Raises DamagedFileError if `payload` cannot come from it."""
    run, learner = _Run(model, n_tokens, n_lanes, options), options.learner
    decoder = TokenDecoder(payload)
    for step, _, lanes in run.steps(1, _unchanged if learner else cumulated):
        for lane, (row,) in enumerate(lanes):
            if learner:
                row = cumulated(learner.predict(lane, row))
            token = int(row.searchsorted(np.int32(decoder.target()), side="right")) - 1
            before = row.item(token)
            decoder.take(before, row.item(token + 1) - before)
            run.known[lane, step] = token
            if learner:
                learner.learn(lane, token)
        if options.progress:
            options.progress(run.n_tokens_before(step + 1))
    decoder.finish()
    return run.tokens()


def _unchanged(shares: Counts) -> Counts:
    return shares


def lane_lengths(n_tokens: int, n_lanes: int) -> list[int]:
    """How many tokens each lane has: as equal as can be, the longer ones first."""
    length, n_longer = divmod(n_tokens, n_lanes)
    return [length + (lane < n_longer) for lane in range(n_lanes)]


class _Run:
    """Lanes on their way through the model: `known` (L, T) are their tokens, as far as they are known."""

    def __init__(self, model: Model, n_tokens: int, n_lanes: int, options: Options):
        if not 1 <= n_lanes <= min(MOST_LANES, max(n_tokens, 1)):
            raise ValueError(f"{n_lanes} lanes for {n_tokens} tokens; at least one token a lane, at most {MOST_LANES}")
        self._model, self._lengths = model, lane_lengths(n_tokens, n_lanes)
        self._prefix = _prefix(model, n_lanes, options.vectors)  # (L, 1 + M, D)
        n_positions = self._prefix.shape[1] + self._lengths[0] - 1
        if n_positions > MAX_POSITIONS:
            raise ValueError(f"a lane of {n_positions} positions; at most {MAX_POSITIONS} are exact")
        firsts = [n_lanes * thread // options.threads for thread in range(options.threads + 1)]
        self._parts = [
            (first, model.new_cache(stop - first, n_positions)) for first, stop in pairwise(firsts) if stop > first
        ]
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

    def steps(self, at_once: int, finish: Callable[[Counts], Counts]) -> Iterator[tuple[int, int, list[Counts]]]:
        """First steps, numbers of steps, and for each lane what `finish` makes of the counts (steps, V) for its tokens.

        Before the counts of a step are asked for, the tokens of all steps before must be in `known`.
        """
        with one_blas_thread(), side_by_side(len(self._parts)) as run:
            for first, n, n_lanes in self._schedule(at_once):

                def compute(part: tuple[int, Cache], first: int = first, n: int = n, n_lanes: int = n_lanes) -> Counts:
                    return finish(self._counts(*part, first, n, n_lanes))

                active = [part for part in self._parts if part[0] < n_lanes]
                yield first, n, [lane for part in run(compute, active) for lane in part]

    def _counts(self, lane: int, cache: Cache, first: int, n: int, n_lanes: int) -> Counts:
        """The counts (lanes, n, V) for n steps of the lanes in `cache`, of which `lane` is the first."""
        if n_lanes - lane < cache.n_rows:
            cache.keep(slice(n_lanes - lane))
        lanes = slice(lane, lane + cache.n_rows)
        x = self._model.embed(self.known[lanes, max(0, first - 1) : first + n - 1])
        if first == 0:
            x = np.concatenate([self._prefix[lanes], x], axis=1)
        return counts(*self._model.forward(x, cache, n))

    def _schedule(self, at_once: int) -> Iterator[tuple[int, int, int]]:
        """First step, number of steps, number of lanes: all lanes as far as they all go, then the longer ones."""
        longest, shortest = self._lengths[0], self._lengths[-1]
        for first in range(0, shortest, at_once):
            yield first, min(at_once, shortest - first), len(self._lengths)
        if longest > shortest:
            yield shortest, 1, self._lengths.count(longest)


def _prefix(model: Model, n_lanes: int, vectors: Floats | None) -> Floats:
    start = np.broadcast_to(model.embed([model.shape.start]), (n_lanes, 1, model.shape.width))
    if vectors is None:
        return start
    if not (np.abs(vectors) <= MOST_VECTOR).all():
        raise DamagedFileError("content", f"vectors have numbers that are not finite or beyond {MOST_VECTOR:.0f}")
    return np.concatenate([start, np.broadcast_to(vectors, (n_lanes, *vectors.shape[-2:]))], axis=1)
