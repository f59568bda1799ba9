"""The arithmetic of `exact.wide` in torch: the same bits. Mirrors it, as `exact_torch` mirrors `exact.llama`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from ..exact.weights import Weights
from ..exact.wide import (
    ACTIVATION_MOST,
    HALF,
    NORM_MOST,
    QUERY_HALF,
    TERMS,
    WideProduct,
    per_score,
    precision_of,
)
from .exact_torch import Facts, TorchLlama, to_integers, tried_out


def load(weights: Weights, device: str = "cpu") -> TorchLlama:
    """A model in torch that gives the right bits. Raises ModelError if this torch or this device cannot."""
    return tried_out(TorchWideLlama(weights, device))


class TorchWideLlama(TorchLlama):
    """A model that was not made for exact arithmetic."""

    def __init__(self, weights: Weights, device: str = "cpu"):
        self.precision = precision_of(weights.shape)
        super().__init__(weights, device)
        self._per_score = per_score(weights.shape)

    def head(self) -> WideProduct:
        return WideProduct(self.weights.head, self.dtype)

    @staticmethod
    def _levels(n_terms: int) -> np.float32:
        return np.float32(ACTIVATION_MOST)

    def _linear(self, integers: torch.Tensor, matrix: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        weights, scales = matrix
        halves, n_rows, n_terms = _halves(integers, HALF, dim=0), len(integers), len(weights)
        n_parts = -(-n_terms // TERMS)
        borders = [n_terms * part // n_parts for part in range(n_parts + 1)]
        total = torch.zeros((n_rows, weights.shape[1]), dtype=torch.float64, device=integers.device)
        for begin, end in pairwise(borders):
            part = torch.mm(halves[:, begin:end], weights[begin:end])
            total.add_(part[:n_rows].mul_(HALF)).add_(part[n_rows:])
        return total.float().mul_(scales)

    def _heads_at(
        self, facts: Facts, projected: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bias, *norms = facts
        shape, part = self.shape, 0
        if bias is not None:
            projected = (projected * scale).add_(bias)
            scale = torch.ones_like(scale)
        heads = projected.view(len(projected), -1, shape.head_width)
        if any(norm is None for norm in norms):
            return heads, scale
        scales = scale.expand(-1, heads.shape[1]).clone()
        width = torch.full((), float(shape.head_width), dtype=torch.float64, device=self.device)
        one, most = torch.ones((), dtype=torch.float64, device=self.device), self._tensor(NORM_MOST)
        for size, weight in zip((shape.n_heads, shape.n_key_heads), norms, strict=True):
            assert weight is not None
            own = slice(part, part + size)
            integers, unit = to_integers(heads[:, own], most)
            wide = unit[..., 0].double() * scales[:, own].double()
            total = integers.double().square_().sum(dim=-1)
            inverse = torch.div(one, torch.sqrt(torch.div(total, width) * (wide * wide) + shape.epsilon))
            scales[:, own] *= inverse.float()
            heads[:, own] *= weight
            part += size
        return heads, scales

    def _scores_at(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        n = queries.shape[2]
        found = _halves(queries, QUERY_HALF, dim=2) @ keys
        return found[:, :, :n].mul_(QUERY_HALF).add_(found[:, :, n:])


def _halves(integers: torch.Tensor, half: int, dim: int) -> torch.Tensor:
    """Upper halves, then lower ones, along a dimension."""
    upper = (integers * (1 / half)).round_()
    return torch.cat([upper, integers - upper * half], dim=dim)
