"""Llamas that were not made for exact arithmetic: wide activations, keys and values, in products that are exact all
the same.

An integer of 16 bits is 256 times one half and another half, of at most 128 each. Both go through a product in float32,
whose partial sums fit; what they come to is an exact sum, rounded once. So it does not matter to the bits that it was
computed in halves. Section 14 of formats/exact.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .arithmetic import EXACT_IN_FLOAT32, STEPS, WEIGHT_MOST, Floats, to_integers
from .blocks import Blocks
from .cache import Cache
from .llama import LOG2_E, Llama, Precision, RunningLayer
from .product import Product
from .weights import Matrix, Shape, Weights

HALF = 256  # how much more a unit of the upper half is than one of the lower
HALF_MOST = HALF // 2  # of both halves
ACTIVATION_MOST = 127 * HALF + 127  # so that both halves of it are integers of eight bits
TERMS = (EXACT_IN_FLOAT32 - 1) // (WEIGHT_MOST * HALF_MOST)  # the most products with halves that are summed in float32
FULL_HALVES = 127 * HALF - HALF_MOST  # an activation whose halves are as large as can be
QUERY_HALF, QUERY_HALF_MOST = 128, 64
QUERY_MOST = 2**13 - 1
VALUE_MOST = 480
SHARE_ONE = 2**15
NORM_MOST = np.float32(2**16 - 1)
MOST_KEY = 2**12 - 1
COLUMNS_AT_ONCE = 2**16  # numbers of a product that are put together while they are near
WEIGHTS_AT_ONCE = 2**17  # that become floats together, and are near when they are multiplied


def precision_of(shape: Shape) -> Precision:
    """The more numbers a head has, the smaller are its keys."""
    key_most = min(MOST_KEY, (EXACT_IN_FLOAT32 - 1) // (QUERY_HALF_MOST * shape.head_width))
    return Precision(key_most, QUERY_MOST, VALUE_MOST, SHARE_ONE, NORM_MOST)


def per_score(shape: Shape) -> np.float32:
    """Entries of POWERS for a factor of e, by the root of the width of a head."""
    return np.float32(STEPS * LOG2_E / np.sqrt(shape.head_width))


class WideProduct(Product):
    """The same for rows of wide integers: exact sums, rounded once to float32, times the scales.

    Blocks stay integers of eight bits, and become floats a few at a time.
    """

    def __init__(self, matrix: Matrix, dtype: type = np.float32):
        laid = Blocks.of(matrix)
        self._integers, self._dtype = laid.blocks, dtype
        n_blocks, self.n_terms, self._block = laid.blocks.shape
        self.n_columns, self.width = len(laid.scales), n_blocks * self._block
        self._scales = np.ones(self.width, np.float32)
        self._scales[: self.n_columns] = laid.scales

    def __call__(self, integers: Floats, out: Floats) -> Floats:
        n_rows, size = len(integers), self._block
        is_halved = self._dtype is np.float32
        left = _halves(integers) if is_halved else integers.astype(self._dtype)
        n_parts = -(-self.n_terms // TERMS) if is_halved else 1
        borders = [self.n_terms * part // n_parts for part in range(n_parts + 1)]
        at_once = max(1, min(WEIGHTS_AT_ONCE // self.n_terms, COLUMNS_AT_ONCE // len(left)) // size)
        floats = np.empty((min(at_once, len(self._integers)), self.n_terms, size), self._dtype)
        for first in range(0, len(self._integers), at_once):
            some = floats[: len(self._integers) - first]
            np.copyto(some, self._integers[first : first + len(some)])
            columns = slice(first * size, (first + len(some)) * size)
            part: npt.NDArray[Any] = np.empty((len(left), len(some) * size), self._dtype)
            by_block = part.reshape(len(left), len(some), size).transpose(1, 0, 2)
            total = np.zeros((n_rows, part.shape[1])) if n_parts > 1 else None
            for begin, end in pairwise(borders):
                np.matmul(left[None, :, begin:end], some[:, begin:end], out=by_block)
                if is_halved:
                    part[:n_rows] *= np.float32(HALF)
                if total is not None:
                    total += part[:n_rows]
                    total += part[n_rows:]
            if total is not None:
                out[:, columns] = total
            elif is_halved:
                np.add(part[:n_rows], part[n_rows:], out=out[:, columns])
            else:
                out[:, columns] = part
        out *= self._scales
        return out[:, : self.n_columns]


def _halves(integers: Floats) -> Floats:
    """Rows of upper halves, then of lower ones: (2 M, K) of (M, K)."""
    n_rows = len(integers)
    halves = np.empty((2 * n_rows, integers.shape[1]), np.float32)
    upper, lower = halves[:n_rows], halves[n_rows:]
    np.multiply(integers, np.float32(1 / HALF), out=upper)
    np.rint(upper, out=upper)
    np.multiply(upper, np.float32(-HALF), out=lower)
    lower += integers
    return halves


class WideLlama(Llama):
    """A model in NumPy; `wide` if its products are to be computed in float64, where float32 goes wrong."""

    def __init__(self, weights: Weights, *, wide: bool = False):
        self.precision = precision_of(weights.shape)
        super().__init__(weights, wide=wide)
        self._per_score = per_score(weights.shape)

    def _product(self, matrix: Matrix) -> Product:
        return WideProduct(matrix, self.dtype)

    @staticmethod
    def _levels(n_terms: int) -> np.float32:
        return np.float32(ACTIVATION_MOST)

    def _heads(self, layer: RunningLayer, projected: Floats, scale: Floats) -> tuple[Floats, Floats]:
        facts, shape = layer.layer, self.shape
        n_heads, n_keys = shape.n_heads, shape.n_key_heads
        if facts.bias is not None:
            projected *= scale
            projected += facts.bias
            scale = np.ones_like(scale)
        heads = projected.reshape(len(projected), -1, shape.head_width)
        if facts.query_norm is None or facts.key_norm is None:
            return heads, scale
        scales = np.repeat(scale, n_heads + 2 * n_keys, axis=1)
        for part, weight in (
            (slice(n_heads), facts.query_norm),
            (slice(n_heads, n_heads + n_keys), facts.key_norm),
        ):
            integers, unit = to_integers(heads[:, part], NORM_MOST)
            wide = unit[..., 0].astype(np.float64) * scales[:, part].astype(np.float64)
            total = np.add.reduce(np.square(integers, dtype=np.float64), axis=-1)
            inverse = 1 / np.sqrt(total / shape.head_width * (wide * wide) + shape.epsilon)
            scales[:, part] *= inverse.astype(np.float32)
            heads[:, part] *= weight
        return heads, scales

    def _scores(self, queries: Floats, keys: npt.NDArray[Any], cache: Cache) -> Floats:
        if self.dtype is not np.float32:
            return super()._scores(queries, keys, cache)
        n = queries.shape[2]
        halves = np.concatenate([queries, queries], axis=2)
        upper, lower = halves[:, :, :n], halves[:, :, n:]
        upper *= np.float32(1 / QUERY_HALF)
        np.rint(upper, out=upper)
        lower -= upper * np.float32(QUERY_HALF)
        found = self._product_with(keys, halves, cache, transposed=True)
        found[:, :, :n] *= np.float32(QUERY_HALF)
        return np.add(found[:, :, :n], found[:, :, n:])


assert ACTIVATION_MOST // HALF <= HALF_MOST
