"""The search for the longest text that passes. Knows nothing of texts but their lengths."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


class Search:
    """Looks for the longest length that passes: in strides that double, from `begin` on, and then by bisection.

    After a length that passed, the next is at most twice as long where the lengths allow it, since a length that fails
    takes all steps of the optimiser.
    """

    def __init__(self, lengths: Sequence[int], begin: float):
        self.lengths = lengths
        self.low, self.high = -1, len(lengths)  # the last that passed, the first that did not
        self.begin = max((i for i, length in enumerate(lengths) if length <= begin), default=0)
        self.stride = 1

    @property
    def found(self) -> int:
        return self.lengths[self.low] if self.low >= 0 else 0

    def next(self) -> int | None:
        """The length to try, or None when all is known."""
        if self.high - self.low <= 1:
            return None
        if self.low < 0 and self.high == len(self.lengths):
            return self.lengths[self.begin]
        if self.low >= 0 and self.high < len(self.lengths):
            return self.lengths[(self.low + self.high) // 2]
        place = self.low + self.stride if self.low >= 0 else self.high - self.stride
        self.stride *= 2
        if self.low < 0:
            return self.lengths[max(place, 0)]
        within = bisect_right(self.lengths, 2 * self.lengths[self.low]) - 1
        return self.lengths[min(place, max(within, self.low + 1), len(self.lengths) - 1)]

    def answer(self, length: int, *, passed: bool) -> None:
        place = self.lengths.index(length)
        if passed:
            self.low = max(self.low, place)
        else:
            self.high = min(self.high, place)
