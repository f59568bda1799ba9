"""Which entry of a codebook each lane of a group begins with, by counted bits.

All of it is exact arithmetic, so that the same original gives the same file everywhere. What the model makes of the
first tokens of a lane after the start token tells which entries may suit it; these are tried, on a few tokens and then
the best of them on more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..exact.arithmetic import Doubles, Floats, powers
from ..exact.codebook import EARLIER, Codebook, Prior
from ..exact.llama import PER_NAT, Model
from ..exact.probabilities import TOTAL_BITS
from ..exact.run import lane_lengths
from ..exact.threads import one_blas_thread, side_by_side

MOST_ASKED = 16  # lanes; where there are more, these choose for all, since nearly all choose the same in any case
LOOKED_AT = 48  # tokens of a lane that choices are made for
TRIED_ON = 24  # tokens, at first
TRIED = 96  # entries for all lanes of a group together, at first, but to each lane
LEAST_TRIED, MOST_TRIED = 6, 10
KEPT = 3  # entries of a lane that are tried on all tokens that are looked at
POPULAR = 2  # entries of other lanes that are tried, too
SWEEPS = 2  # over all lanes, after each of which they know better what others choose
NUMBERS_AT_ONCE = 2**20  # logits that are computed together; but of a few tokens, always

Rows = npt.NDArray[np.int64]


class Choice(NamedTuple):
    """The entry of each lane; bits spent on saying so, and saved on the first tokens, by the model alone."""

    entries: list[int]
    spent: float
    saved: float


@one_blas_thread()
def choose(model: Model, codebook: Codebook, ids: Sequence[int], n_lanes: int, threads: int) -> Choice | None:
    """What is likely to make a group smaller; None where nothing is. `ids` are the tokens of the group."""
    rows = first_tokens(ids, n_lanes, LOOKED_AT)[:: -(-n_lanes // MOST_ASKED)]
    n_asked = len(rows)
    search = _Search(model, codebook, rows, threads)
    without, guesses = search.begun()
    n_tried = min(max(TRIED // n_asked, LEAST_TRIED), MOST_TRIED, codebook.n_entries)
    likely = np.argsort(-guesses, axis=1, kind="stable")[:, :n_tried]
    rates = _rates(codebook, n_asked)
    few = search.bits(likely, min(TRIED_ON, rows.shape[1])) + np.take_along_axis(rates, likely, axis=1)
    best = np.take_along_axis(likely, np.argsort(few, axis=1, kind="stable")[:, :KEPT], axis=1)
    known = search.known(best)
    if n_asked > 1:
        gains = np.maximum(without[:, None] - known, 0.0)  # (L, K); entries that were not tried save nothing
        popular = np.argsort(-gains.sum(axis=0), kind="stable")[:POPULAR]
        known = np.minimum(known, search.known(np.broadcast_to(popular, (n_asked, len(popular)))))
    if n_asked < n_lanes:
        entries = [int(known.sum(axis=0).argmin())] * n_lanes  # one of the popular ones, which all were asked about
        saved = float((without - known[:, entries[0]]).sum()) * n_lanes / n_asked
    else:
        entries = _settled(codebook, known)
        saved = float((without - known[np.arange(n_lanes), entries]).sum())
    spent = spent_on(codebook, entries)
    return Choice(entries, spent, saved) if saved > spent else None


def first_tokens(ids: Sequence[int], n_lanes: int, most: int) -> Rows:
    """The first tokens (L, n) of all lanes; n is as many as each has, at most `most`."""
    lengths = lane_lengths(len(ids), n_lanes)
    flat, n = np.asarray(ids, np.int64), min(most, lengths[-1])
    firsts = np.cumsum([0, *lengths[:-1]])
    return flat[firsts[:, None] + np.arange(n)]


def beginnings(ids: Sequence[int], n_lanes: int, most: int) -> list[int]:
    """The same tokens, lane after lane: a text of so many lanes that begin alike."""
    found: list[int] = first_tokens(ids, n_lanes, most).reshape(-1).tolist()
    return found


class _Search:
    """What the first tokens of lanes, `rows` (L, n), cost after entries of a codebook."""

    def __init__(self, model: Model, codebook: Codebook, rows: Rows, threads: int):
        self._model, self._codebook, self._rows, self._threads = model, codebook, rows, threads

    def begun(self) -> tuple[Doubles, Floats]:
        """Bits (L,) after the start token, and how well each entry may suit each lane, (L, K)."""
        model, rows, head = self._model, self._rows, self._model.head()
        n_lanes, n = rows.shape

        def work(part: slice) -> tuple[Doubles, Floats]:
            x = model.embed(rows[part])
            x = np.concatenate([self._start(len(x)), x], axis=1)
            integers, scale = model.states(x, model.new_cache(len(x), n + 1), n + 1)
            flat = integers[:, :-1].reshape(-1, model.shape.width)
            units = head(flat, np.empty((len(flat), head.width), np.float32)).reshape(len(x), n, -1)
            return _bits(units, scale[:, :-1], rows[part]), self._codebook.guesses(integers[:, 1:], scale[:, 1:])

        found = self._shared(work, n_lanes, n + 1)
        return np.concatenate([bits for bits, _ in found]), np.concatenate([guess for _, guess in found])

    def _start(self, n_lanes: int) -> Floats:
        start = self._model.embed([self._model.shape.start])
        return np.broadcast_to(start, (n_lanes, *start.shape))

    def bits(self, entries: npt.NDArray[np.intp], n: int) -> Doubles:
        """Bits (L, C) of the first `n` tokens of each lane after the start token and each of some entries (L, C)."""
        model, rows = self._model, np.repeat(self._rows[:, :n], entries.shape[1], axis=0)
        flat = entries.reshape(-1)

        def work(part: slice) -> Doubles:
            own = self._codebook.vectors(flat[part].tolist())
            x = np.concatenate([self._start(len(own)), own, model.embed(rows[part, :-1])], axis=1)
            return _bits(*model.forward(x, model.new_cache(*x.shape[:2]), n), rows[part])

        found = np.concatenate(self._shared(work, len(flat), n))
        return found.reshape(entries.shape)

    def known(self, entries: npt.NDArray[np.intp]) -> Doubles:
        """Bits of all rows after these entries (L, C) as (L, K); infinite for others."""
        found = np.full((len(entries), self._codebook.n_entries), np.inf)
        np.put_along_axis(found, entries, self.bits(entries, self._rows.shape[1]), axis=1)
        return found

    def _shared(self, work: Callable[[slice], Any], n_rows: int, n: int) -> list[Any]:
        step = max(1, NUMBERS_AT_ONCE // self._model.shape.vocabulary // n)
        parts = [slice(*borders) for borders in pairwise([*range(0, n_rows, step), n_rows])]
        with side_by_side(max(1, min(self._threads, len(parts)))) as run:
            return list(run(work, parts))


def _bits(units: Floats, scale: Floats, tokens: Rows) -> Doubles:
    """Bits (R,) of the `tokens` (R, n) under logits, units (R, n, V) times scale (R, n, 1); `units` is worked in."""
    own = np.take_along_axis(units, tokens[..., None], axis=-1)
    largest = np.maximum.reduce(units, axis=-1, keepdims=True)
    table, factor = powers(), scale * PER_NAT
    np.subtract(largest, units, out=units)
    units *= factor
    np.take(table, units.astype(np.intp), out=units, mode="clip")
    total = np.add.reduce(units, axis=-1, dtype=np.float64)
    share = np.take(table, ((largest - own) * factor)[..., 0].astype(np.intp), mode="clip") / total
    bits: Doubles = -np.log2(np.maximum(share, 2.0**-TOTAL_BITS)).sum(axis=1)
    return bits


def _rates(codebook: Codebook, n_lanes: int) -> Doubles:
    """Bits (L, K) that saying each entry takes, without what other lanes have chosen."""
    rates: Doubles = -np.log2(codebook.priors / codebook.priors.sum(axis=1, keepdims=True))
    return rates[np.minimum(np.arange(n_lanes), 1)]


def _settled(codebook: Codebook, known: Doubles) -> list[int]:
    """An entry for each lane by what it costs (L, K) and what saying so takes."""
    n_lanes = len(known)
    begins = [[int(entry) for entry in (known + _rates(codebook, n_lanes)).argmin(axis=1)]]
    begins += [[entry] * n_lanes for entry in np.flatnonzero(np.isfinite(known).all(axis=0)).tolist()]
    found = begins + [_swept(codebook, known, begin) for begin in begins]
    costs = [float(known[np.arange(n_lanes), one].sum()) + spent_on(codebook, one) for one in found]
    return found[int(np.argmin(costs))]


def _swept(codebook: Codebook, known: Doubles, begin: Sequence[int]) -> list[int]:
    """What becomes of choices when every lane, in turn, looks at those of the others."""
    chosen = list(begin)
    counts = np.bincount(chosen, minlength=codebook.n_entries).astype(np.float64)
    for _ in range(SWEEPS):
        for lane, bits in enumerate(known):
            counts[chosen[lane]] -= 1
            weights = codebook.priors[min(lane, 1)] + EARLIER * counts
            chosen[lane] = int((bits - np.log2(weights / weights.sum())).argmin())
            counts[chosen[lane]] += 1
    return chosen


def spent_on(codebook: Codebook, entries: Sequence[int]) -> float:
    """Bits that saying the entries of these lanes takes."""
    prior, bits = Prior(codebook), 0.0
    for entry in entries:
        bounds = prior.bounds()
        bits += TOTAL_BITS - math.log2(bounds[entry + 1] - bounds[entry])
        prior.add(entry)
    return bits
