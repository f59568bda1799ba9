"""Frozen linear layers with their weights laid out for oneDNN: on CPUs 2 to 5 times as fast as `torch.nn.Linear`.

For small products in float32, PyTorch is far slower than processors can be (examples/results/NOTES.md). The operators
of oneDNN that its own compiler uses are not, and they need no compiling. Where they are missing, layers stay as they
are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...errors import ModelError
from ..precision import onednn_is_plain, require_float32

ROWS_HINT = 8  # products of about so many rows: the layout hardly depends on it, but one row would get none
PACKABLE = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """The frozen layer `linear` for inputs (..., D): float32, or bfloat16 where autocast says so; others are slow.

    Gradients flow to the input only. What it needs for bfloat16 or for gradients is laid out when it is first used.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._packed = {(torch.float32, False): _pack(linear.weight.detach())}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype is torch.float32 and torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        if torch.is_grad_enabled() and x.requires_grad:
            product: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return product
        return self.product(x)

    def product(self, x: torch.Tensor, *, transposed: bool = False) -> torch.Tensor:
        """x W^T + b; or x W, as for gradients, if `transposed`."""
        bias = None if self.bias is None or transposed else self.bias.to(x.dtype)
        weights = self._weights(x.dtype, transposed)
        return _multiply(x, weights, bias) if weights.is_mkldnn else functional.linear(x, weights, bias)

    @property
    def weight(self) -> torch.Tensor:
        """As it was; for models that look at it."""
        return self._packed[torch.float32, False].to_dense()

    def _weights(self, dtype: torch.dtype, transposed: bool) -> torch.Tensor:
        if (dtype, transposed) not in self._packed:
            weight = self.weight.to(dtype)
            weight = weight.t().contiguous() if transposed else weight
            self._packed[dtype, transposed] = _pack(weight) if dtype in PACKABLE else weight
        return self._packed[dtype, transposed]


class _Product(torch.autograd.Function):
    """A packed product with a gradient for its input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: PackedLinear) -> torch.Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.layer.product(gradients[0], transposed=True), None


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
    return packed


def _multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def is_available() -> bool:
    """Whether the operators of oneDNN are there and give what they should, in float32."""
    if not (onednn_is_plain() and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    try:
        require_float32("cpu", PackedLinear)
    except (AttributeError, NotImplementedError, RuntimeError, ModelError):
        return False
    return True


def pack_layers(module: nn.Module) -> None:
    """Put packed layers in the place of all linear ones in `module`, one after the other, if that is possible here."""
    if not is_available():
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
