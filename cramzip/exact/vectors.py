"""What the codes of a vector stand for, to the last bit. Section 11 of formats/exact.md.

The same rotation as in `coding.quantize`, with cosines that are integers, so that every sum is exact.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .arithmetic import Doubles, Floats

COSINE_ONE = 2.0**14
EVEN = 11585.0  # 2^14 / sqrt(2), of the frequency 0
EIGHTH_POWERS = tuple(
    map(
        float.fromhex,
        (
            "0x1.0000000000000p+0",
            "0x1.172b83c7d517bp+0",
            "0x1.306fe0a31b715p+0",
            "0x1.4bfdad5362a27p+0",
            "0x1.6a09e667f3bcdp+0",
            "0x1.8ace5422aa0dbp+0",
            "0x1.ae89f995ad3adp+0",
            "0x1.d5818dcfba487p+0",
        ),
    )
)
AT_ONCE = 1040  # frequencies, so that a wide model's need no more memory than this
ROTATION_SEED = b"cramzip-rotation-1"

Codes = npt.NDArray[np.uint8]


def dequantised(codes: Codes, scales: Codes, n_levels: int) -> Floats:
    """Vectors (M, D) of their codes (M, D), 0 to `n_levels` - 1, and scale bytes (M,)."""
    width = codes.shape[1]
    levels, sums = 2.0 * codes - (n_levels - 1), np.zeros(codes.shape)
    for first in range(0, width, AT_ONCE):
        sums += levels[:, first : first + AT_ONCE] @ _cosines(width, first)  # exact: integers below 2^53
    sums *= signs(width)
    units = [
        EIGHTH_POWERS[scale % 8] * 2.0 ** (scale // 8 - 30) * np.sqrt(2 / width) / (n_levels - 1)
        for scale in scales.tolist()
    ]
    vectors: Floats = (sums * np.array(units)[:, None]).astype(np.float32)
    return vectors


@lru_cache(maxsize=2)
def _cosines(width: int, first: int) -> Doubles:
    """2^14 cos(pi / D f (n + 1/2)), rounded, as a matrix of frequencies f, from `first` on, and of places n (D).

    Up to a width of 2^14 no entry is nearer than 10^-9 to a tie, so every library's cosine rounds alike.
    """
    frequencies = np.arange(first, min(first + AT_ONCE, width))
    eighths = np.outer(frequencies, 2 * np.arange(width) + 1) % (4 * width)
    exact = COSINE_ONE * np.cos(np.pi / (2 * width) * np.arange(4 * width))
    exact[[width, 3 * width]] = 0.0
    table: Doubles = np.rint(exact)[eighths]
    table[frequencies == 0] = EVEN
    return table


@lru_cache(maxsize=2)
def signs(width: int) -> Doubles:
    """The sign of each dimension, 1 or -1 (D,): a hash of D decides."""
    size = -(-width // 8)
    stream = hashlib.shake_256(ROTATION_SEED + width.to_bytes(4, "little")).digest(size)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")[:width]
    found: Doubles = 1.0 - 2.0 * bits.astype(np.float64)
    return found
