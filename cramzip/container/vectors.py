"""Codes of vectors to bytes and back (section 6.1 of formats/cram.md). `coding.quantize` knows what codes stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import DamagedFileError
from .records import Coding
from .wire import Bytes


@dataclass(frozen=True)
class QuantizedMem:
    """Codes of `[mem]` (M, D), 0 to L - 1, or bit patterns of binary16 numbers; and a scale byte for each vector."""

    coding: Coding
    codes: np.ndarray
    scales: np.ndarray  # (M,), zeros for FLOAT16


AT_ONCE = 2**18  # numbers that are unpacked or rotated at a time, so that little memory goes beside the result
POWERS_OF_3 = np.array([1, 3, 9, 27, 81], np.uint8)


def blocks(n_vectors: int, width: int) -> Iterator[slice]:
    """Slices that cover all vectors, of about AT_ONCE numbers each."""
    step = max(1, AT_ONCE // width)
    return (slice(first, first + step) for first in range(0, n_vectors, step))


def pack(quantized: QuantizedMem) -> bytes:
    """Scale and codes, vector after vector."""
    coding, codes = quantized.coding, quantized.codes
    if coding is Coding.FLOAT16:
        return codes.astype("<u2").tobytes()
    if coding is Coding.TERNARY:
        padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 5)))
        rows = padded.reshape(len(codes), -1, 5) @ POWERS_OF_3
    else:
        bits = codes[:, :, None] >> np.arange(int(coding.bits), dtype=np.uint8) & np.uint8(1)
        rows = np.packbits(bits.reshape(len(codes), -1), axis=1, bitorder="little")
    return np.concatenate([quantized.scales[:, None], rows], axis=1).tobytes()


def unpack(data: Bytes, n_vectors: int, width: int, coding: Coding) -> QuantizedMem:
    """The inverse of `pack`, for bytes that have passed `check`."""
    raw = np.frombuffer(data, np.uint8).reshape(n_vectors, coding.vector_size(width))
    if coding is Coding.FLOAT16:
        return QuantizedMem(coding, raw.copy().view("<u2"), np.zeros(n_vectors, np.uint8))
    codes = np.empty((n_vectors, width), np.uint8)
    for rows in blocks(n_vectors, width):
        codes[rows] = _unpack_codes(raw[rows, 1:], width, coding)
    return QuantizedMem(coding, codes, raw[:, 0])


def _unpack_codes(packed: np.ndarray, width: int, coding: Coding) -> np.ndarray:
    """The codes (M, D) of vectors without their scales."""
    if coding is Coding.TERNARY:
        digits = (packed[:, :, None] // POWERS_OF_3 % np.uint8(3)).reshape(len(packed), -1)
        return digits[:, :width]
    n_bits = int(coding.bits)
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : width * n_bits]
    codes: np.ndarray = np.packbits(bits.reshape(len(packed), width, n_bits), axis=2, bitorder="little")[:, :, 0]
    return codes


def check(data: Bytes, width: int, coding: Coding) -> None:
    """Raise DamagedFileError (stage `vectors`) for bytes that `pack` would not write; nothing is unpacked."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, coding.vector_size(width))
    if coding is Coding.FLOAT16:
        if (raw.view("<u2") & 0x7C00 == 0x7C00).any():
            raise DamagedFileError("vectors", "a value is infinite or not a number")
        return
    last = raw[:, -1]  # the filling is its highest digits, in base 3 or 2
    if coding is Coding.TERNARY:
        valid = bool((raw[:, 1:] < 3**5).all()) and bool((last < 3 ** ((width - 1) % 5 + 1)).all())
    else:
        valid = bool((last >> ((width * int(coding.bits) - 1) % 8 + 1) == 0).all())
    if not valid:
        raise DamagedFileError("vectors", "a code is out of range, or filling is not zero")
