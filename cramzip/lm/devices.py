"""What is known of each kind of device: one record a kind, so that a new kind is one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import ModelError


@dataclass(frozen=True)
class Device:
    """How much goes through a model at once on a kind of device, and what it can do.

    Decoding: `groups` in a batch at most, with `cached_positions` in all of them together, since their cache takes
    memory. Cramming: `chunks` at once, of which `crammed_positions` go through the model together, no more than fit
    the caches of the processor, and `crammed_logits` exist at a time. Compressing: `segment_bytes` of text. Laboratory:
    `texts` in a batch, so that not much is lost with a process that is killed, and their `text_logits`.
    """

    groups: int
    cached_positions: int
    chunks: int
    crammed_positions: int
    crammed_logits: int
    segment_bytes: int
    texts: int
    text_logits: int
    has_float64: bool = True


DEVICES = {
    "cpu": Device(64, 2**16, 64, 2**12, 2**22, 2**17, 16, 2**26),
    "cuda": Device(512, 2**19, 512, 2**17, 2**28, 2**18, 128, 2**29),
    "mps": Device(128, 2**16, 64, 2**14, 2**25, 2**18, 16, 2**27, has_float64=False),
}


def pick(name: str) -> str:
    """The device that a user names; `auto` is the fastest that is here. Raises ModelError if it is not here."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available.get(name):
        raise ModelError(f"device {name} is not available here")
    return name


def has_fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are quicker than in float32; on many CPUs they are much slower."""
    if device == "cpu":
        return _cpu_has_bfloat16()
    return device == "cuda" and torch.cuda.is_bf16_supported()


def _cpu_has_bfloat16() -> bool:
    """As PyTorch says publicly, or as older versions say privately; False where it says neither."""
    if (capabilities := getattr(torch.cpu, "get_capabilities", None)) is not None:
        known = capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_tile"))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def summable(values: torch.Tensor) -> torch.Tensor:
    """The same values, on a device that can sum them in float64."""
    return values if DEVICES[values.device.type].has_float64 else values.cpu()
