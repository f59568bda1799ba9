"""What stood before a token, as keys, and which tokens followed each key so far. Section 12 of formats/exact.md.

A key is a hash of 64 bits; keys that coincide share what they know. What a key knows is one of

    None            nothing
    an int          one token followed, so often:  token x 2^8 + count
    a dict          {token: count, ..., ALL: the sum of the counts}, in the order in which the tokens were first seen
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ALL = -1  # the key of a dict at which the sum of its counts stands
COUNT_BITS = 8
MOST_COUNT = 2**COUNT_BITS - 1  # of the sum: then all counts are halved before the next
N_CONTEXTS = 9
N_ORDERS = 5  # contexts of the tokens right before, short to long: the first ones
GENERATION = 2**17  # keys that are new or seen again, before those that are not are forgotten
MOST_FIELDS = MOST_IN_LINE = 256
SEPARATORS = b' ",;|\t'
NO_PLACE = MOST_IN_LINE  # in a line
MULTIPLIER = 0x9E3779B97F4A7C15
MASK = 2**64 - 1

Entry = int | dict[int, int] | None
Entries = dict[int, int | dict[int, int]]  # by keys


class Kinds:
    """What the bytes of tokens say about lines and fields."""

    def __init__(self, table: Iterable[bytes | None]):
        """`table`: the bytes of each token, None where it has none."""
        contents = [content or b"" for content in table]
        self.ends_line = [b"\n" in content for content in contents]
        self.separators = [len(content) - len(content.translate(None, SEPARATORS)) for content in contents]


class Place:
    """Where a lane stands: its last eight tokens, its line, and the line above.

    `field` is the number of separators since the line began, `starts` where in the line each field begins. `above` is
    where in the line above the token stands that lies above the next one.
    """

    def __init__(self, kinds: Kinds):
        self._kinds = kinds
        self.last: tuple[int, ...] = (0,) * 8  # the youngest first
        self.field, self.above = 0, 0
        self.line: list[int] = []
        self.starts = [0]
        self.line_above: list[int] = []
        self.starts_above = [0]

    @property
    def state(self) -> list[Any]:
        """All of this, as JSON can hold it."""
        lines = self.line, self.starts, self.line_above, self.starts_above
        return [list(self.last), self.field, self.above, *map(list, lines)]

    @state.setter
    def state(self, state: Sequence[Any]) -> None:
        last, self.field, self.above, *lines = state
        self.last = tuple(last)
        self.line, self.starts, self.line_above, self.starts_above = map(list, lines)

    def fork(self) -> Place:
        """Another place, which is the same now."""
        other = Place(self._kinds)
        other.state = self.state
        return other

    def keys(self) -> tuple[int, ...]:
        """The keys of the next token: its last 1, 2, 3, 5 and 8 tokens; its column; what lies above; the line's first.

        All but the longer orders include the last token.
        """
        a, b, c, d, e, f, g, h = self.last
        one = (a + 1) * MULTIPLIER & MASK
        two = (one + b + 1) * MULTIPLIER & MASK
        three = (two + c + 1) * MULTIPLIER & MASK
        five = ((three + d + 1) * MULTIPLIER + e + 1) * MULTIPLIER & MASK
        eight = (((five + f + 1) * MULTIPLIER + g + 1) * MULTIPLIER + h + 1) * MULTIPLIER & MASK
        line, place = self.line_above, self.above
        above = line[place] + 2 if place < len(line) else 1
        before = line[place - 1] + 2 if 0 < place <= len(line) else 1
        start = self.line[0] + 2 if self.line else 1
        below = (one ^ above) * MULTIPLIER + 1 & MASK
        below_two = ((below ^ before) * MULTIPLIER ^ b) * MULTIPLIER & MASK
        column = (below ^ self.field + 1) * MULTIPLIER + 2 & MASK
        in_line = (one ^ start) * MULTIPLIER + 3 & MASK
        return one, two, three, five, eight, column, below, below_two, in_line

    def move(self, token: int) -> None:
        """Go on after this token."""
        self.last = (token, *self.last[:7])
        if self._kinds.ends_line[token]:
            self.line_above, self.starts_above = self.line, self.starts
            self.line, self.starts, self.field, self.above = [], [0], 0, 0
            return
        if len(self.line) < MOST_IN_LINE:
            self.line.append(token)
        n_separators = self._kinds.separators[token]
        if not n_separators:
            self.above += 1
            return
        self.field = min(self.field + n_separators, MOST_FIELDS - 1)
        self.starts += [len(self.line)] * min(n_separators, MOST_FIELDS - len(self.starts))
        self.above = self.starts_above[self.field] if self.field < len(self.starts_above) else NO_PLACE


class Packed(Mapping[int, int | dict[int, int]]):
    """What many keys know, unpacked for each when it is first asked for: a text asks for few of them."""

    def __init__(self, keys: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint32], followers: npt.NDArray[np.uint32]):
        """`sizes`: how many followers each key has, of all in a row, as token x 2^8 + count."""
        self._index = dict(zip(keys.tolist(), range(len(keys)), strict=True))
        self._ends, self._followers = np.cumsum(sizes), followers
        self._unpacked: Entries = {}

    def __bool__(self) -> bool:
        return bool(self._index or self._unpacked)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[int]:
        yield from self._index
        yield from (key for key in self._unpacked if key not in self._index)

    def __getitem__(self, key: int) -> int | dict[int, int]:
        entry = self._unpacked.get(key)
        if entry is None:
            entry = self._unpacked[key] = self._entry(self._index[key])
        return entry

    def get(self, key: int, default: Any = None) -> Any:
        entry = self._unpacked.get(key)
        if entry is not None:
            return entry
        return self[key] if key in self._index else default

    def __or__(self, news: Entries) -> Packed:
        """The same with these entries added, or in place of others."""
        other = object.__new__(Packed)
        other._index, other._ends, other._followers = self._index, self._ends, self._followers
        other._unpacked = {**self._unpacked, **news}
        return other

    def _entry(self, index: int) -> int | dict[int, int]:
        followers = self._followers[self._ends[index - 1] if index else 0 : self._ends[index]].tolist()
        if len(followers) == 1:
            return int(followers[0])
        counts = {follower >> COUNT_BITS: follower & MOST_COUNT for follower in followers}
        return {ALL: sum(counts.values()), **counts}


Known = Entries | Packed


class Followers:
    """What is known of keys: of at most two generations, each as many keys as were seen before the next began.

    `known` is what was known before: it stays, and is never changed.
    """

    def __init__(self, generation: int = GENERATION, known: Known | None = None):
        self._generation = generation
        self._young: Entries = {}
        self._old: Entries = {}
        self._known: Known = known or {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    @property
    def known(self) -> Known:
        """All that is known now."""
        if not (self._young or self._old):
            return self._known
        return self._known | {**self._old, **self._young}

    def following(self, known: Known) -> Followers:
        """New ones, after `known`."""
        return Followers(self._generation, known)

    def of(self, keys: Iterable[int]) -> list[Entry]:
        young, old, known = self._young, self._old, self._known
        if known:
            return [young.get(key) or old.get(key) or known.get(key) for key in keys]
        if not old:
            return [young.get(key) for key in keys]
        return [entry if (entry := young.get(key)) is not None else old.get(key) for key in keys]

    def count(self, keys: Sequence[int], entries: Sequence[Entry], token: int) -> None:
        """Count a token after each of these keys, whose `entries` came from `of`.

        But of the orders, those that are shorter than the longest that knew the token are left as they are.
        """
        first = N_ORDERS - 1
        while first and not _knows(entries[first], token):
            first -= 1
        young, known = self._young, self._known
        for key, entry in zip(keys[first:], entries[first:], strict=True):
            if entry is None:
                young[key] = token << COUNT_BITS | 1
            elif isinstance(entry, int):
                only, n = entry >> COUNT_BITS, entry & MOST_COUNT
                n = n if n < MOST_COUNT else n >> 1
                if only == token:
                    young[key] = only << COUNT_BITS | n + 1
                else:
                    young[key] = {ALL: n + 1, only: n, token: 1}
            else:
                if known and known.get(key) is entry:
                    entry = entry.copy()
                if entry[ALL] == MOST_COUNT:
                    halve(entry)
                entry[token] = entry.get(token, 0) + 1
                entry[ALL] += 1
                young[key] = entry
        if len(young) >= self._generation:
            self._young, self._old = {}, young


def _knows(entry: Entry, token: int) -> bool:
    if isinstance(entry, int):
        return entry >> COUNT_BITS == token
    return entry is not None and token in entry


def halve(entry: dict[int, int]) -> None:
    """Halve all counts, rounded down, and forget the tokens that have none left."""
    del entry[ALL]
    halves = {token: half for token, count in entry.items() if (half := count >> 1)}
    entry.clear()
    entry.update({ALL: sum(halves.values()), **halves})
