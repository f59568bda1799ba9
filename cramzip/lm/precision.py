"""Float32 that is float32, whatever the environment and the program around ask of PyTorch and its libraries.

Products of float32 numbers that are computed in TensorFloat-32 or bfloat16 are quick, but err by far more than the
noise that files withstand. There are four ways to ask for them: settings of PyTorch of an older and a newer kind,
autocast, and environment variables of the libraries beneath.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from ..errors import ModelError

DEVICES = ("cpu", "cuda", "mps")
ONEDNN_VARIABLES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
PROBE_ROWS, PROBE_WIDTH = 8, 256
PROBE_TOLERANCE = 1e-4  # of the deviation of products: float32 errs by 2e-6, TensorFloat-32 by 1e-3, bfloat16 by 1e-2


@contextmanager
def usual_settings() -> Iterator[None]:
    """What PyTorch does when nobody has asked for something else: float32 on the CPU, and gradients can be had."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device in filter(torch.is_autocast_enabled, DEVICES):
                stack.enter_context(torch.autocast(device, enabled=False))
            if torch.get_default_device().type != "cpu":  # costs some time in every function of PyTorch
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def plain_float32(device: str) -> Iterator[None]:
    """Products of float32 numbers are computed in float32; after that, the settings are what they were."""
    newer = _newer_settings()
    values = [setting.fp32_precision for setting in newer]
    precision = _readable(torch.get_float32_matmul_precision)
    convolutions = _readable(lambda: torch.backends.cudnn.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    onednn = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = onednn and onednn_is_plain()  # type: ignore[assignment]
    for setting in newer:
        setting.fp32_precision = "ieee"
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.backends.mkldnn.enabled = onednn
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for setting, value in zip(newer, values, strict=True):
            setting.fp32_precision = "none"  # that of all kinds together, which may be what was there
            if setting.fp32_precision != value:
                setting.fp32_precision = value


def _newer_settings() -> list[Any]:
    """Objects whose `fp32_precision` can be set, one for each kind of operation. PyTorch before 2.9 has none."""
    backends = torch.backends
    kinds = [(backends.cuda, "matmul"), (backends.cudnn, "conv"), (backends.cudnn, "rnn")]
    kinds += [(backends.mkldnn, name) for name in ("matmul", "conv", "rnn")]
    found = [getattr(backend, name, None) for backend, name in kinds]
    return [setting for setting in found if _readable(partial(getattr, setting, "fp32_precision")) is not None]


def _readable(read: Callable[[], Any]) -> Any:
    """What `read` gives; None where older and newer settings are at odds, or there is no such setting."""
    try:
        return read()
    except (AttributeError, RuntimeError):
        return None


def onednn_is_plain() -> bool:
    """Whether no environment variable asks oneDNN for less than float32.

    It reads them when PyTorch is loaded. After that, the only help is to do without oneDNN.
    """
    return all(os.environ.get(name, "").upper() in ("", "STRICT") for name in ONEDNN_VARIABLES)


def require_float32(device: str, layer: Callable[[torch.nn.Linear], Any] = lambda linear: linear) -> None:
    """Raise ModelError unless the products of linear layers, as `layer` makes them, are right to float32 here."""
    if device not in ("cpu", "cuda"):
        return
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(PROBE_ROWS, PROBE_WIDTH, generator=generator, device="cpu", dtype=torch.float32)
    linear = torch.nn.Linear(PROBE_WIDTH, PROBE_WIDTH, bias=False, device="cpu", dtype=torch.float32)
    weight = torch.randn(PROBE_WIDTH, PROBE_WIDTH, generator=generator, device="cpu", dtype=torch.float32)
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    with torch.inference_mode(), plain_float32(device):
        found = layer(linear.to(device))(x.to(device)).cpu().double()
    expected = functional.linear(x.double(), weight.double())
    if not (found - expected).abs().max() <= PROBE_TOLERANCE * expected.std():
        variables = ", ".join((*ONEDNN_VARIABLES, "NVIDIA_TF32_OVERRIDE"))
        raise ModelError(f"products in float32 are not exact to float32 here: unset {variables} and the like")
