"""Keys and values of the positions that are still seen, as int8 with a scale each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .weights import HEAD_WIDTH, Shape

BLOCK = 256  # positions that are forgotten together
WINDOW = 3 * BLOCK  # the most that a position sees, itself included


class Cache:
    """What all layers keep of B rows, which stand at the same position.

    A position sees its own block of 256 and the two before it. When a block begins that has three before it, the
    oldest is dropped.
    """

    def __init__(self, shape: Shape, n_rows: int, n_positions: int):
        """Room for `n_positions` in each of `n_rows` rows: as much memory as the window needs, at most."""
        slots = min(WINDOW, n_positions)
        heads = shape.n_layers, n_rows, 2 * shape.n_key_heads  # of keys, then of values
        self.allocate(heads, slots)
        self.position = 0  # of the next token
        self.length = 0  # positions that are kept
        self._scratch: dict[str, npt.NDArray[Any]] = {}

    def allocate(self, heads: tuple[int, int, int], slots: int) -> None:
        self.integers: Any = np.zeros((*heads, slots, HEAD_WIDTH), np.int8)
        self.scales: Any = np.zeros((*heads, slots), np.float32)

    @property
    def n_rows(self) -> int:
        return len(self.scales[0])

    def take(self, n: int) -> int:
        """Make room for at most `n` positions that follow, as many as the block has left; return how many."""
        n = min(n, BLOCK - self.position % BLOCK)
        if self.length == WINDOW:
            self.length -= BLOCK
            for kept in (self.integers, self.scales):
                for block in range(0, self.length, BLOCK):
                    kept[:, :, :, block : block + BLOCK] = kept[:, :, :, block + BLOCK : block + 2 * BLOCK]
        if self.length + n > self.scales.shape[3]:
            raise ValueError(f"a cache of {self.scales.shape[3]} positions is full")
        return n

    def advance(self, n: int) -> None:
        self.position += n
        self.length += n

    def keep(self, rows: Sequence[int] | slice) -> None:
        """Go on with some of the rows only."""
        self.integers, self.scales = self.integers[:, rows], self.scales[:, rows]

    def take_over(self, other: Cache) -> None:
        """Begin, in every row, with the positions of another cache, which has one row and has forgotten nothing."""
        for own, kept in ((self.integers, other.integers), (self.scales, other.scales)):
            own[:, :, :, : other.length] = kept[:, :, :, : other.length]
        self.position = self.length = other.length

    def scratch(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> npt.NDArray[Any]:
        """Memory to work in, the same for every call with this name: contents are lost."""
        size = prod(shape)
        flat = self._scratch.get(name)
        if flat is None or len(flat) < size:
            flat = self._scratch[name] = np.empty(size, dtype)
        return flat[:size].reshape(shape)
