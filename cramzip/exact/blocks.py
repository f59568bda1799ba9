"""The weights of a matrix as products of wide models take them: blocks of a few columns, in integers of eight bits.

A block becomes floats when a product takes it, in memory that stays near. That costs no more time than to read floats
from memory, takes a quarter of it, and needs nothing to be done when a model is loaded from where it lies in blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .arithmetic import Floats
from .weights import Matrix

COLUMNS = 64  # of a block


class Blocks(Matrix):
    """A matrix (N, K) in blocks (N / 64, K, 64), of zeros after the last column, and its scales (N,)."""

    def __init__(self, blocks: npt.NDArray[np.int8], scales: Floats):
        object.__setattr__(self, "blocks", blocks)
        object.__setattr__(self, "scales", scales)

    blocks: npt.NDArray[np.int8]

    @classmethod
    def of(cls, matrix: Matrix) -> Blocks:
        """The same weights in blocks."""
        if isinstance(matrix, cls):
            return matrix
        height, n_terms = matrix.integers.shape
        blocks = np.zeros(shape_of_blocks(height, n_terms), np.int8)
        for block, first in zip(blocks, range(0, height, COLUMNS), strict=True):
            rows = matrix.integers[first : first + COLUMNS]
            block[:, : len(rows)] = rows.T
        return cls(blocks, matrix.scales)

    @property
    def integers(self) -> npt.NDArray[np.int8]:  # type: ignore[override]
        """The weights (N, K), laid out anew."""
        n_terms = self.blocks.shape[1]
        return self.blocks.transpose(0, 2, 1).reshape(-1, n_terms)[: len(self.scales)]

    def rows(self, places: npt.NDArray[np.int64]) -> Floats:
        taken = self.blocks[places // COLUMNS, :, places % COLUMNS]
        rows: Floats = taken * self.scales[places][..., None]
        return rows


def shape_of_blocks(height: int, n_terms: int) -> tuple[int, int, int]:
    """Of the blocks of a matrix."""
    return -(-height // COLUMNS), n_terms, COLUMNS
