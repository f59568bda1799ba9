"""Logits to probabilities that are integers: 2^24 in all, at least 1 for every token; or 2^30, where there are many.

Section 7 of formats/exact.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .arithmetic import Floats, powers
from .llama import PER_NAT

TOTAL_BITS, MOST_TOTAL_BITS = 24, 30
TOTAL = 2**TOTAL_BITS
LARGE_VOCABULARY = 2**14  # tokens: with more, counts add up to 2^30

Counts = npt.NDArray[np.int32]


def total_bits(vocabulary: int) -> int:
    """The logarithm, to the base 2, of what the counts of so many tokens add up to."""
    return TOTAL_BITS if vocabulary <= LARGE_VOCABULARY else MOST_TOTAL_BITS


def total_of(vocabulary: int) -> int:
    """What the counts of so many tokens add up to."""
    return 1 << total_bits(vocabulary)


def counts(units: Floats, scale: Floats) -> Counts:
    """Integers (..., V) in proportion to e^(units x scale), for units (..., V) and scale (..., 1).

    `units` is used as memory to work in. What rounding leaves over, or takes too much, is up to the first of the
    likeliest tokens.
    """
    best = units.argmax(axis=-1)
    np.subtract(np.maximum.reduce(units, axis=-1, keepdims=True), units, out=units)
    units *= scale * PER_NAT
    np.take(powers(), units.astype(np.intp), out=units, mode="clip")
    total = np.add.reduce(units, axis=-1, keepdims=True, dtype=np.float64)
    whole = total_of(units.shape[-1])
    units *= ((whole - units.shape[-1]) / total).astype(np.float32)
    shares: Counts = units.astype(np.int32)
    shares += 1
    left = whole - shares.sum(axis=-1)
    flat = shares.reshape(-1, shares.shape[-1])
    flat[np.arange(len(flat)), best.reshape(-1)] += left.reshape(-1)
    return shares


def cumulated(shares: Counts) -> Counts:
    """The sums of the counts (..., V) before each token, and of all: (..., V + 1)."""
    sums = np.zeros((*shares.shape[:-1], shares.shape[-1] + 1), np.int32)
    np.cumsum(shares, axis=-1, dtype=np.int32, out=sums[..., 1:])
    return sums
