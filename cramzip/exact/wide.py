"""Llamas that were not made for exact arithmetic: wide activations, keys and values, in products that are exact all
the same.

An integer of 16 bits is 256 times one half and another half, of at most 128 each. Both go through a product in float32,
whose partial sums fit; what they come to is an exact sum, rounded once. So it does not matter to the bits that it was
computed in halves. Section 14 of formats/exact.md.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .arithmetic import EXACT_IN_FLOAT32, STEPS, WEIGHT_MOST, Floats, to_integers
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


def precision_of(shape: Shape) -> Precision:
    """The more numbers a head has, the smaller are its keys."""
    key_most = min(MOST_KEY, (EXACT_IN_FLOAT32 - 1) // (QUERY_HALF_MOST * shape.head_width))
    return Precision(key_most, QUERY_MOST, VALUE_MOST, SHARE_ONE, NORM_MOST)


def per_score(shape: Shape) -> np.float32:
    """Entries of POWERS for a factor of e, by the root of the width of a head."""
    return np.float32(STEPS * LOG2_E / np.sqrt(shape.head_width))


class WideProduct(Product):
    """The same for rows of wide integers: exact sums, rounded once to float32, times the scales."""

    def __call__(self, integers: Floats, out: Floats) -> Floats:
        n_rows, blocks, size = len(integers), self._blocks, self._block
        if blocks.dtype != np.float32:
            return super().__call__(integers, out)
        halves = np.empty((2 * n_rows, self.n_terms), np.float32)
        upper, lower = halves[:n_rows], halves[n_rows:]
        np.multiply(integers, np.float32(1 / HALF), out=upper)
        np.rint(upper, out=upper)
        np.multiply(upper, np.float32(-HALF), out=lower)
        lower += integers
        n_parts = -(-self.n_terms // TERMS)
        borders = [self.n_terms * part // n_parts for part in range(n_parts + 1)]
        at_once = max(1, COLUMNS_AT_ONCE // (2 * n_rows * size))
        for first in range(0, len(blocks), at_once):
            some = blocks[first : first + at_once]
            columns = slice(first * size, (first + len(some)) * size)
            part = np.empty((2 * n_rows, len(some) * size), np.float32)
            by_block = part.reshape(2 * n_rows, len(some), size).transpose(1, 0, 2)
            if n_parts == 1:
                np.matmul(halves[None], some, out=by_block)
                part[:n_rows] *= np.float32(HALF)
                np.add(part[:n_rows], part[n_rows:], out=out[:, columns])
                continue
            total = np.zeros((n_rows, part.shape[1]))
            for begin, end in pairwise(borders):
                np.matmul(halves[None, :, begin:end], some[:, begin:end], out=by_block)
                part[:n_rows] *= np.float32(HALF)
                total += part[:n_rows]
                total += part[n_rows:]
            out[:, columns] = total
        out *= self._scales
        return out[:, : self.n_columns]


class WideLlama(Llama):
    """A model in NumPy; `wide` if its products are to be computed in float64, where float32 goes wrong."""

    def __init__(self, weights: Weights, *, wide: bool = False):
        self.precision = precision_of(weights.shape)
        super().__init__(weights, wide=wide)
        self.weights = replace(weights, layers=())  # which are in the products now
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
