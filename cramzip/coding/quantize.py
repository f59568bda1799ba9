"""Float vectors to integer codes and back.

The codes are what a file holds, and the only thing that decoding ever sees: vectors are optimised through
`round_trip`, and whatever is verified is verified on `dequantize(quantize(mem))`. Section 6.1 of formats/cram.md.

A coding of L levels stores a vector of D numbers as D codes and one scale. The levels are equally spaced from -scale
to +scale in a rotated space, where no dimension of the model is larger than others.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..container.records import Coding
from ..container.vectors import QuantizedMem, blocks
from ..exact.vectors import signs

if TYPE_CHECKING:
    import torch

FLOAT16_MAX = float(np.finfo(np.float16).max)
SCALES_PER_OCTAVE, SCALE_OF_ONE = 8, 128  # a scale is 2^((byte - 128) / 8)

# What the largest level stands for, in standard deviations of a normal distribution: where rounding errs least.
CLIPPING = {2: 0.80, 3: 1.22, 4: 1.49, 8: 2.05, 16: 2.51, 256: 3.92}


@lru_cache(maxsize=1)
def rotation(width: int) -> np.ndarray:
    """An orthogonal matrix (D, D), float32: a cosine transform (DCT-II) of signs.

    For vectors in the making, on the device of the model. It takes D^2 numbers, so the vectors of a file, whose D
    may be that of no model, are rotated back without it.
    """
    place = np.arange(width) + 0.5
    basis = np.empty((width, width), np.float32)  # (frequency, place)
    for frequency in range(width):
        norm = math.sqrt((2 if frequency else 1) / width)
        basis[frequency] = norm * np.cos(np.pi / width * frequency * place)
    basis *= signs(width)
    return basis


def turn_back(turned: np.ndarray) -> np.ndarray:
    """The vectors (M, D), float32, that `rotation` turns into `turned` (M, D), float64.

    A cosine transform of D numbers is the real part of a Fourier transform of 2 D, most of them zero.
    """
    width = turned.shape[1]
    frequency = np.arange(width)
    norm = np.sqrt(np.where(frequency, 2, 1) / width)
    phase = norm * np.exp(0.5j * np.pi / width * frequency)
    waves = np.fft.ifft(turned * phase, n=2 * width, norm="forward")
    vectors: np.ndarray = (waves[:, :width].real * signs(width)).astype(np.float32)
    return vectors


def _rotation_on(like: torch.Tensor) -> torch.Tensor:
    return _rotation_of(like.shape[-1], str(like.device))


@lru_cache(maxsize=4)
def _rotation_of(width: int, device: str) -> torch.Tensor:
    """The rotation where it is needed: cramming turns vectors in every step."""
    import torch

    with torch.inference_mode(False):
        return torch.from_numpy(rotation(width)).to(device)


def round_trip(mem: torch.Tensor, coding: Coding) -> torch.Tensor:
    """What `mem` (..., D), float32, is after storage. Gradients pass through: a straight-through estimator."""
    if coding is Coding.FLOAT16:
        stored = mem.detach().clamp(-FLOAT16_MAX, FLOAT16_MAX).half().float()
    else:
        turn = _rotation_on(mem)
        turned = mem.detach() @ turn.T
        codes, scales = _codes(turned, coding)
        stored = _values(codes, scales, coding) @ turn
    return mem + (stored - mem).detach()


def _codes(turned: torch.Tensor, coding: Coding) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (..., D) and scale bytes (..., 1) of rotated vectors, both as floats."""
    spread = turned.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-30)
    wanted = (spread * CLIPPING[coding.levels]).log2() * SCALES_PER_OCTAVE + SCALE_OF_ONE
    scales = wanted.round().clamp(0, 255)
    unit = turned / ((scales - SCALE_OF_ONE) / SCALES_PER_OCTAVE).exp2()  # -1 to 1, but for what is clipped
    steps = coding.levels - 1
    return ((unit + 1) * steps / 2).round().clamp(0, steps), scales


def _values(codes: torch.Tensor, scales: torch.Tensor, coding: Coding) -> torch.Tensor:
    return (codes * (2 / (coding.levels - 1)) - 1) * ((scales - SCALE_OF_ONE) / SCALES_PER_OCTAVE).exp2()


def quantize(mem: torch.Tensor, coding: Coding) -> QuantizedMem:
    """Codes for `mem` (M, D)."""
    mem = mem.detach().float()
    if coding is Coding.FLOAT16:
        clamped = mem.clamp(-FLOAT16_MAX, FLOAT16_MAX).cpu().numpy()
        return QuantizedMem(coding, clamped.astype("<f2").view("<u2"), np.zeros(len(mem), np.uint8))
    codes, scales = _codes(mem @ _rotation_on(mem).T, coding)
    return QuantizedMem(coding, codes.byte().cpu().numpy(), scales[:, 0].byte().cpu().numpy())


def dequantize(quantized: QuantizedMem) -> torch.Tensor:
    """Vectors (M, D) in float32, on the CPU."""
    import torch

    if quantized.coding is Coding.FLOAT16:
        return torch.from_numpy(quantized.codes.view("<f2").astype(np.float32))
    out = torch.empty(quantized.codes.shape, dtype=torch.float32, device="cpu")
    for rows in blocks(*quantized.codes.shape):
        unit = quantized.codes[rows] * (2 / (quantized.coding.levels - 1)) - 1
        lengths = 2.0 ** ((quantized.scales[rows, None].astype(np.float64) - SCALE_OF_ONE) / SCALES_PER_OCTAVE)
        out[rows] = torch.from_numpy(turn_back(unit * lengths))
    return out
