"""The arithmetic that gives the same bits on every machine: roundings, and tables in place of exp and cos.

IEEE 754 fixes the result of +, -, x, /, square root, rounding, comparing and converting. A sum of integers is exact in
any order while it fits. Nothing else is used: no library's exp or cos, no sum or mean of fractions, no fused
multiply-add. The tables come from integers of any length; their hashes are checked. Section 2 of formats/exact.md.
"""

from __future__ import annotations

import hashlib
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

EXACT_IN_FLOAT32 = 2**24  # integers below it, and sums of them, are exact
WEIGHT_MOST = 127
MOST_LEVELS = 2**14 - 1  # of activations: an adapter can add up as many as there are lanes, 1,024 at most
STEPS = 256  # entries of POWERS for each factor of two
POWER_ONE = 2**24  # what POWERS begins with
SIGMOID_STEPS, SIGMOID_RANGE = 128, 16  # entries of SIGMOIDS for 1, and where they end on both sides
TINY = np.float32(2.0**-100)  # the least that a row is divided by
STRETCH_STEPS = 4096  # entries of STRETCHES for probabilities from 0 to 1

_FRACTION = 128  # bits after the point of the integers that tables are made from
_ONE = 1 << _FRACTION
_POWERS_HASH = "0c5a298ff3f3a2b6c901dad71aee8405d5087789a01ca8c9e43ae70b50a35859"
_STRETCHES_HASH = "243dc5e5b92bfb06e783f39d6bd2b6afd298bea7c5a3ca7a0bd59694f2856924"
_SIGMOIDS_HASH = "eaed268169abf4b6aa6aadd53f340397fe46ff1ae0667bfcfdb1553923ec1f6d"


def to_integers(x: Floats, most: np.float32 | Floats, out: Floats | None = None) -> tuple[Floats, Floats]:
    """Integers of at most `most` in proportion to the rows x (..., K), and what one of them stands for (..., 1).

    `out`, if given, takes the integers; it must not be `x`.
    """
    integers: Floats = np.abs(x, out=out)
    largest: Floats = np.maximum.reduce(integers, axis=-1, keepdims=True, initial=TINY)
    np.multiply(x, most / largest, out=integers)
    np.rint(integers, out=integers)
    return integers, largest / most


def levels(n_terms: int) -> int:
    """The largest integers that activations can be, where `n_terms` products with weights are summed."""
    return min((EXACT_IN_FLOAT32 - 1) // (WEIGHT_MOST * n_terms), MOST_LEVELS)


@cache
def powers() -> Floats:
    """2^24 * 2^(-k / 256), rounded to integers, for k from 0 on; the last is 0."""
    root = _ONE >> 1
    for _ in range(STEPS.bit_length() - 1):
        root = isqrt(root << _FRACTION)
    octave = [_ONE]
    while len(octave) < STEPS:
        octave.append(octave[-1] * root >> _FRACTION)
    shifts = range(_FRACTION - 24, _FRACTION + 1)
    table = np.array([(value >> shift - 1) + 1 >> 1 for shift in shifts for value in octave] + [0], dtype=np.float32)
    return _checked(table, _POWERS_HASH, "powers of two")


@cache
def sigmoids() -> Floats:
    """1 / (1 + e^-x), rounded to multiples of 2^-24, for x from -16 to 16 in steps of 1 / 128."""
    step = term = _ONE
    for n in range(1, 40):  # e^(-1/128) by its series
        term = -term // (SIGMOID_STEPS * n)
        step += term
    fall, upper = _ONE, []
    for _ in range(SIGMOID_RANGE * SIGMOID_STEPS + 1):
        upper.append((_ONE << 25) // (_ONE + fall) + 1 >> 1)
        fall = fall * step >> _FRACTION
    whole = [2**24 - value for value in reversed(upper[1:])] + upper
    return _checked(np.array(whole, dtype=np.float32) * np.float32(2.0**-24), _SIGMOIDS_HASH, "sigmoids")


@cache
def stretches() -> Floats:
    """ln(p / (1 - p)) for p = (k + 1/2) / 4096, rounded to multiples of 2^-16, for k from 0 to 4095; the last is twice
    there.
    """
    logarithm, logarithms = 0, [0]  # of odd numbers
    for n in range(2, 2 * STRETCH_STEPS, 2):  # ln((n + 1) / (n - 1)) = 2 (1 / n + 1 / (3 n^3) + ...)
        power, k = 2 * _ONE // n, 1
        while power:
            logarithm += power // k
            power, k = power // (n * n), k + 2
        logarithms.append(logarithm)
    values = [over - under for over, under in zip(logarithms, reversed(logarithms), strict=True)]
    rounded = [(value >> _FRACTION - 17) + 1 >> 1 for value in [*values, values[-1]]]
    return _checked(np.array(rounded, dtype=np.float32) * np.float32(2.0**-16), _STRETCHES_HASH, "stretches")


def _checked(table: Floats, expected: str, name: str) -> Floats:
    if table_hash(table) != expected:
        raise ModelError(f"the table of {name} comes out wrong here: exact arithmetic is impossible on this machine")
    table.flags.writeable = False
    return table


def table_hash(*tables: Floats) -> str:
    """SHA-256 of tables as little-endian float32, in hexadecimal digits."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(table.astype("<f4").tobytes())
    return digest.hexdigest()
