"""Products of integers by BLAS: exact because every partial sum fits, whatever the order, blocking or kernel.

The weights lie in blocks of a few columns, each contiguous. One call of NumPy multiplies a few rows with each block;
products that small are ones for which OpenBLAS has kernels that copy nothing. On a CPU with AVX-512 they are two to
three times as fast as one large product of 16 rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .arithmetic import Floats
from .weights import Matrix

SMALL = 10**6  # multiplications in a product that OpenBLAS takes for small


class Product:
    """Rows of integers times the transposed weights of a matrix, then its scales."""

    def __init__(self, matrix: Matrix, dtype: type = np.float32):
        n_columns, self.n_terms = matrix.integers.shape
        self.n_columns = n_columns
        self._block = 64 if self.n_terms <= SMALL // (64 * 32) else 32
        n_blocks = -(-n_columns // self._block)
        padded: npt.NDArray[Any] = np.zeros((n_blocks * self._block, self.n_terms), np.int8)
        padded[:n_columns] = matrix.integers
        blocks = padded.reshape(n_blocks, self._block, self.n_terms).transpose(0, 2, 1)
        self._blocks: npt.NDArray[Any] = np.ascontiguousarray(blocks, dtype=dtype)  # (blocks, K, columns of a block)
        self._scales = np.ones(n_blocks * self._block, np.float32)
        self._scales[:n_columns] = matrix.scales
        self.width = len(self._scales)  # columns of the result; those after n_columns are 0

    def __call__(self, integers: Floats, out: Floats) -> Floats:
        """The product (M, n_columns) with `integers` (M, K), without their own scales, in `out` (M, width)."""
        if len(integers) == 1:  # twice: products of one row with a block are slower than those of two
            return self(np.repeat(integers, 2, axis=0), np.empty((2, self.width), np.float32))[:1]
        blocks = self._blocks
        n_rows = len(integers)
        if blocks.dtype != np.float32:
            exact = np.empty(out.shape, blocks.dtype)
            self._multiply(integers.astype(blocks.dtype), exact, n_rows)
            out[...] = exact
        else:
            step = max(1, SMALL // (self.n_terms * self._block))
            self._multiply(integers, out, -(-n_rows // -(-n_rows // step)))
        out *= self._scales
        return out[:, : self.n_columns]

    def _multiply(self, integers: npt.NDArray[Any], out: npt.NDArray[Any], step: int) -> None:
        by_block = out.reshape(len(out), len(self._blocks), self._block).transpose(1, 0, 2)
        for first in range(0, len(integers), step):
            np.matmul(integers[None, first : first + step], self._blocks, out=by_block[:, first : first + step])
