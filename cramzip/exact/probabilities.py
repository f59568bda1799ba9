"""Logits to probabilities that are integers: 2^24 in all, at least 1 for every token. Section 7 of formats/exact.md."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .arithmetic import Floats, powers
from .llama import PER_NAT

TOTAL_BITS = 24
TOTAL = 2**TOTAL_BITS

Counts = npt.NDArray[np.int32]


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
    units *= ((TOTAL - units.shape[-1]) / total).astype(np.float32)
    shares: Counts = units.astype(np.int32)
    shares += 1
    left = TOTAL - shares.sum(axis=-1)
    flat = shares.reshape(-1, shares.shape[-1])
    flat[np.arange(len(flat)), best.reshape(-1)] += left.reshape(-1)
    return shares


def cumulated(shares: Counts) -> Counts:
    """The sums of the counts (..., V) before each token, and of all: (..., V + 1)."""
    sums = np.zeros((*shares.shape[:-1], shares.shape[-1] + 1), np.int32)
    np.cumsum(shares, axis=-1, dtype=np.int32, out=sums[..., 1:])
    return sums
