"""Keys and values of the positions that are still seen, as integers with a scale each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .weights import BLOCK, BLOCKS_SEEN, Shape

WINDOW = BLOCKS_SEEN * BLOCK  # the most that a position of the built-in model sees, itself included
LAST_SEEN = 64  # positions from the last one of an entry on that see it: those at which the first tokens are told


class Cache:
    """What all layers keep of B rows, which stand at the same position.

    A position sees its own block (of 256 for the built-in model) and the two before it. When a block begins that has
    three before it, the oldest is dropped, but for the first positions of all, if the model keeps these. `entry`
    positions after the first, if there are any, are dropped when LAST_SEEN more have come.
    """

    entry = 0  # vectors of a codebook

    def __init__(self, shape: Shape, n_rows: int, n_positions: int):
        """Room for `n_positions` in each of `n_rows` rows: as much memory as the window needs, at most."""
        self._block, self._n_kept = shape.block, shape.n_kept
        self._most = BLOCKS_SEEN * shape.block
        self.dtype = np.int16 if shape.wide else np.int8
        slots = min(self._most + shape.n_kept, n_positions)
        heads = shape.n_layers, n_rows, 2 * shape.n_key_heads  # of keys, then of values
        self.allocate((*heads, slots), shape.head_width)
        self.position = 0  # of the next token
        self.length = 0  # positions that are kept
        self._n_dropped = 0  # of an entry
        self._scratch: dict[str, npt.NDArray[Any]] = {}

    def allocate(self, slots: tuple[int, int, int, int], width: int) -> None:
        self.integers: Any = np.zeros((*slots, width), self.dtype)
        self.scales: Any = np.zeros(slots, np.float32)

    @property
    def n_rows(self) -> int:
        return len(self.scales[0])

    def take(self, n: int) -> int:
        """Make room for at most `n` positions that follow, as many as the block has left; return how many."""
        block, first = self._block, self._n_kept
        n = min(n, block - self.position % block)
        if self.entry:
            if self.position < self.entry + LAST_SEEN:
                n = min(n, self.entry + LAST_SEEN - self.position)
            else:
                self._drop(1, self.entry)
                self._n_dropped, self.entry = self.entry, 0
        n_oldest = self.length + self._n_dropped + block - self._most - first
        if n_oldest > 0 and self.position % block == 0:
            self._drop(first, n_oldest - self._n_dropped)
            self._n_dropped = 0
        if self.length + n > self.scales.shape[3]:
            raise ValueError(f"a cache of {self.scales.shape[3]} positions is full")
        return n

    def _drop(self, first: int, n: int) -> None:
        """Forget `n` of the positions that are kept; those after them move up."""
        self.length -= n
        for kept in (self.integers, self.scales):
            for begin in range(first, self.length, BLOCK):
                end = min(begin + BLOCK, self.length)
                kept[:, :, :, begin:end] = kept[:, :, :, begin + n : end + n] + 0  # a copy: the two may overlap

    def advance(self, n: int) -> None:
        self.position += n
        self.length += n

    def keep(self, rows: Sequence[int] | slice) -> None:
        """Go on with some of the rows only."""
        self.integers, self.scales = self.integers[:, rows], self.scales[:, rows]

    def take_over(self, other: Cache) -> None:
        """Begin, in every row, with the positions of another cache, which has one row."""
        for own, kept in ((self.integers, other.integers), (self.scales, other.scales)):
            own[:, :, :, : other.length] = kept[:, :, :, : other.length]
        self.position, self.length = other.position, other.length

    def scratch(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> npt.NDArray[Any]:
        """Memory to work in, the same for every call with this name: contents are lost."""
        size = prod(shape)
        flat = self._scratch.get(name)
        if flat is None or len(flat) < size:
            flat = self._scratch[name] = np.empty(size, dtype)
        return flat[:size].reshape(shape)
