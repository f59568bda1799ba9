"""Codes of vectors to bytes and back (section 6.1 of formats/cram.md). `coding.quantize` knows what codes stand for."""

from __future__ import annotations

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


def pack(quantized: QuantizedMem) -> bytes:
    """Scale and codes, vector after vector."""
    coding, codes = quantized.coding, quantized.codes
    if coding is Coding.FLOAT16:
        return codes.astype("<u2").tobytes()
    if coding is Coding.TERNARY:
        padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 5)))
        rows = (padded.reshape(len(codes), -1, 5) * 3 ** np.arange(5)).sum(2).astype(np.uint8)
    else:
        bits = codes[:, :, None] >> np.arange(int(coding.bits)) & 1
        rows = np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return np.concatenate([quantized.scales[:, None], rows], axis=1).tobytes()


def unpack(data: Bytes, n_vectors: int, width: int, coding: Coding) -> QuantizedMem:
    """The inverse of `pack`. Raises DamagedFileError (stage `vectors`) for what `pack` would not write."""
    raw = np.frombuffer(data, np.uint8).reshape(n_vectors, coding.vector_size(width))
    if coding is Coding.FLOAT16:
        codes = raw.copy().view("<u2")
        if (codes & 0x7C00 == 0x7C00).any():
            raise DamagedFileError("vectors", "a value is infinite or not a number")
        return QuantizedMem(coding, codes, np.zeros(n_vectors, np.uint8))
    scales, rows = raw[:, 0], raw[:, 1:]
    if coding is Coding.TERNARY:
        codes = (rows[:, :, None] // 3 ** np.arange(5) % 3).reshape(n_vectors, -1)
        valid = bool((rows < 3**5).all())
    else:
        bits = np.unpackbits(rows, axis=1, bitorder="little")
        n_bits = int(coding.bits)
        filled = np.pad(bits, ((0, 0), (0, -bits.shape[1] % n_bits))).reshape(n_vectors, -1, n_bits)
        codes = (filled << np.arange(n_bits)).sum(2)
        valid = not bits[:, width * n_bits :].any()
    if not valid or codes[:, width:].any():
        raise DamagedFileError("vectors", "a code is out of range, or filling is not zero")
    return QuantizedMem(coding, codes[:, :width].astype(np.uint8), scales)


def check(data: Bytes, width: int, coding: Coding) -> None:
    """Raise DamagedFileError (stage `vectors`) for bytes that `pack` would not write; nothing is unpacked."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, coding.vector_size(width))
    if coding is Coding.FLOAT16:
        if (raw.view("<u2") & 0x7C00 == 0x7C00).any():
            raise DamagedFileError("vectors", "a value is infinite or not a number")
        return
    last = raw[:, -1]  # what fills it up are its highest digits, in base 3 or 2
    if coding is Coding.TERNARY:
        valid = bool((raw[:, 1:] < 3**5).all()) and bool((last < 3 ** ((width - 1) % 5 + 1)).all())
    else:
        valid = bool((last >> ((width * int(coding.bits) - 1) % 8 + 1) == 0).all())
    if not valid:
        raise DamagedFileError("vectors", "a code is out of range, or filling is not zero")
