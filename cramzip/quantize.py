"""Float vectors to integer codes and back.

The codes are what a file holds, and the only thing that decoding ever sees: whatever is verified is
verified on `dequantize(quantize(mem))`. torch is imported for tensors only: to list a file takes none.
Coding 1 of section 6.1 of formats/cram.md: binary16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import DamagedFileError
from .wire import Bytes

if TYPE_CHECKING:
    import torch

FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class QuantizedMem:
    """Integer codes of `[mem]`, shape (M, D): the bit patterns of binary16 numbers."""

    codes: np.ndarray  # uint16


def round_trip(mem: torch.Tensor) -> torch.Tensor:
    """What `mem` (any shape, float32) is after storage; gradients pass straight through."""
    stored = mem.detach().clamp(-FLOAT16_MAX, FLOAT16_MAX).half().float()
    return mem + (stored - mem).detach()


def quantize(mem: torch.Tensor) -> QuantizedMem:
    """Codes for `mem` (M, D), nearest-even, clamped to the finite range."""
    clamped = mem.detach().float().clamp(-FLOAT16_MAX, FLOAT16_MAX).cpu().numpy()
    return QuantizedMem(clamped.astype("<f2").view("<u2"))


def dequantize(quantized: QuantizedMem) -> torch.Tensor:
    """Vectors (M, D) in float32, on the CPU."""
    import torch

    return torch.from_numpy(quantized.codes.view("<f2").astype(np.float32))


def pack(quantized: QuantizedMem) -> bytes:
    return quantized.codes.astype("<u2").tobytes()


def packed_size(n_vectors: int, width: int) -> int:
    """Bytes that `pack` gives for `n_vectors` vectors of `width`."""
    return 2 * n_vectors * width


def unpack(data: Bytes, n_vectors: int, width: int) -> QuantizedMem:
    """The inverse of `pack`. Raises DamagedFileError (stage `vectors`) for numbers that are not finite."""
    codes = np.frombuffer(data, dtype="<u2", count=n_vectors * width).reshape(n_vectors, width)
    if (codes & 0x7C00 == 0x7C00).any():
        raise DamagedFileError("vectors", "a value is infinite or not a number")
    return QuantizedMem(codes)
