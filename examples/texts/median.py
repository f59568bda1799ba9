"""The median of a stream of numbers, with two heaps."""

import heapq


class RunningMedian:
    """Takes numbers one at a time and knows the median of all so far."""

    def __init__(self):
        self._low = []  # a max-heap: the smaller half, negated
        self._high = []  # a min-heap: the larger half

    def add(self, number):
        heapq.heappush(self._low, -number)
        heapq.heappush(self._high, -heapq.heappop(self._low))
        if len(self._high) > len(self._low):
            heapq.heappush(self._low, -heapq.heappop(self._high))

    @property
    def median(self):
        if not self._low:
            raise ValueError("no numbers yet")
        if len(self._low) > len(self._high):
            return -self._low[0]
        return (self._high[0] - self._low[0]) / 2
