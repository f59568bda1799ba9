"""What lanes begin with where there is a dictionary: a sample of texts like theirs. Section 13 of formats/exact.md.

The tokens of the sample are counted as a learner counts them. The model reads the last of them alone, and the learner
learns with it what they are worth; then lanes begin as if their tokens came next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise
from struct import Struct
from typing import NamedTuple

import numpy as np

from .arithmetic import Floats
from .cache import Cache
from .contexts import ALL, COUNT_BITS, Known, Packed, Place
from .learner import Learner
from .llama import Model
from .threads import one_blas_thread

MOST_BYTES = 2**20
CONTEXT = 255  # that the model reads, at most; after the start token they fill a block of the cache
BLANKS = list(b"\t\n\v\f\r ")
COUNTS = Struct("<QQQ")  # keys, followers of all of them, bytes of the place


class Seen(NamedTuple):
    """What keys know after all tokens but the `last`, which the model is to read, and where these tokens have led."""

    known: Known
    place: Place
    last: list[int]


@dataclass(frozen=True, eq=False)
class Context:
    """What lanes go on from: positions of one row in `cache`, then the token `last`, which has no position yet."""

    cache: Cache
    last: int
    learner: Learner

    def begun(self, model: Model, n_lanes: int, n_more: int) -> Cache:
        """A cache of so many rows that all stand here, with room for `n_more` positions."""
        cache = model.new_cache(n_lanes, self.cache.position + n_more)
        cache.take_over(self.cache)
        return cache


def cut(content: bytes, table: Sequence[bytes | None]) -> list[int]:
    """Tokens of `content`: neighbours are joined as long as they make a token, those with the lowest id first.

    But the last of several blanks before a word goes with the word, as usual tokenizers have it. Raises ValueError for
    a byte that no token stands for.
    """
    ids = {token: i for i, token in reversed(list(enumerate(table))) if token}
    joint = np.zeros(2**16, bool)  # pairs of bytes that stand side by side in some token
    joint[[first << 8 | second for token in ids for first, second in pairwise(token)]] = True
    values = np.frombuffer(content, np.uint8).astype(np.intp)
    apart = ~joint[values[:-1] << 8 | values[1:]]
    blank = np.isin(values, BLANKS)
    apart[:-1] |= blank[:-2] & blank[1:-1] & ~blank[2:]
    borders = np.flatnonzero(apart) + 1
    made: dict[bytes, list[int]] = {}
    tokens: list[int] = []
    for begin, end in pairwise([0, *borders.tolist(), len(content)]):
        part = content[begin:end]
        found = made.get(part)
        if found is None:
            found = made[part] = list(_joined(part, ids))
        tokens += found
    return tokens


def _joined(part: bytes, ids: Mapping[bytes, int]) -> Iterator[int]:
    """The tokens of a few bytes."""
    missing = next((byte for byte in part if bytes([byte]) not in ids), None)
    if missing is not None:
        raise ValueError(f"no token stands for the byte {missing:02X}")
    size = len(part)
    ends, begins = list(range(1, size + 1)), list(range(-1, size))  # of the piece at, and before, each place
    pairs = [(ids[part[i : i + 2]], i) for i in range(size - 1) if part[i : i + 2] in ids]
    heapify(pairs)
    while pairs:
        token, begin = heappop(pairs)
        middle = ends[begin]
        if not begin < middle < size or ids.get(part[begin : ends[middle]]) != token:
            continue  # one of the two is no longer what it was
        ends[begin] = end = ends[middle]
        ends[middle] = 0
        if end < size:
            begins[end] = begin
        before = begins[begin]
        if before >= 0 and (joined := ids.get(part[before:end])) is not None:
            heappush(pairs, (joined, before))
        if end < size and (joined := ids.get(part[begin : ends[end]])) is not None:
            heappush(pairs, (joined, begin))
    place = 0
    while place < size:
        yield ids[part[place : ends[place]]]
        place = ends[place]


def count(tokens: Sequence[int], learner: Learner) -> Seen:
    """What a new learner has seen after all tokens that the model does not read."""
    learner.read(tokens[:-CONTEXT])
    return Seen(*learner.seen, list(tokens[-CONTEXT:]))


@one_blas_thread()
def read(model: Model, seen: Seen, learner: Learner) -> Context:
    """The context after all tokens; `learner` is a new one. `seen.last` is not empty."""
    learner.start_from(seen.known, seen.place)
    last = seen.last
    cache = model.new_cache(1, len(last))
    logits = model.logits(model.embed([[model.shape.start, *last[:-1]]]), cache)[0]
    for row, token in zip(logits, last, strict=True):
        _learn(learner, row[None], token)
    return Context(cache, last[-1], learner.forked(1))


def _learn(learner: Learner, logits: Floats, token: int) -> None:
    sums = learner.sums(logits)
    learner.encode(0, sums[0], token)
    learner.end_step(list(sums), [token])


def pack(seen: Seen) -> bytes:
    """What was counted, for the inverse of this function alone."""
    known, place, last = seen
    sizes = np.array([1 if isinstance(entry, int) else len(entry) - 1 for entry in known.values()], "<u4")
    followers = np.fromiter(_followers(known), "<u4", int(sizes.sum()))
    keys = np.fromiter(known, "<u8", len(known))
    state = json.dumps([place.state, last]).encode()
    head = COUNTS.pack(len(keys), len(followers), len(state))
    return b"".join((head, state, keys.tobytes(), sizes.tobytes(), followers.tobytes()))


def _followers(known: Known) -> Iterator[int]:
    for entry in known.values():
        if isinstance(entry, int):
            yield entry
        else:
            yield from (token << COUNT_BITS | n for token, n in entry.items() if token != ALL)


def unpack(data: bytes, place: Place) -> Seen:
    """What was packed; `place` is a new one. Raises ValueError, and what else there is, for other bytes."""
    n_keys, n_followers, size = COUNTS.unpack_from(data)
    at = COUNTS.size + size
    if len(data) != at + 12 * n_keys + 4 * n_followers:
        raise ValueError("not what was packed")
    place.state, last = json.loads(data[COUNTS.size : at])
    keys = np.frombuffer(data, "<u8", n_keys, at)
    sizes = np.frombuffer(data, "<u4", n_keys, at + 8 * n_keys)
    return Seen(Packed(keys, sizes, np.frombuffer(data, "<u4", n_followers, at + 12 * n_keys)), place, last)
