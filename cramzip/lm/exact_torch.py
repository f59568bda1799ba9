"""The arithmetic of `exact.llama` in torch, on a CPU or with CUDA: the same bits, on more rows at once.

Every function mirrors one of `exact.llama`, where the comments are. What differs is what torch has to be kept from:
TF32 and bfloat16 in products; numbers divided by a tensor, or tensors by a number, which it turns into products with a
reciprocal; addcmul and other fused operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..exact.arithmetic import SIGMOID_RANGE, SIGMOID_STEPS, TINY, Floats, levels, powers, sigmoids
from ..exact.cache import Cache
from ..exact.llama import PER_SCORE, Llama, Model
from ..exact.probe import checked, numpy_type
from ..exact.rotations import Rotations
from ..exact.weights import Layer, Matrix, Shape, Weights
from .precision import plain_float32

KEYS_AT_ONCE = 2**21
Facts = tuple[torch.Tensor | None, ...]  # bias of queries, keys and values; norms of queries and keys

KINDS = {np.int8: torch.int8, np.int16: torch.int16}  # of keys and values


def load(weights: Weights, device: str = "cpu") -> TorchLlama:
    """A model in torch that gives the right bits. Raises ModelError if this torch or this device cannot."""
    return tried_out(TorchLlama(weights, device))


def tried_out(model: TorchLlama) -> TorchLlama:
    """The model itself. Raises ModelError if it does not give the right bits."""
    model.dtype = numpy_type(checked(model).shape)
    return model


class TorchCache(Cache):
    """Keys and values on a device of torch."""

    def __init__(self, shape: Shape, n_rows: int, n_positions: int, device: torch.device):
        self.device = device
        super().__init__(shape, n_rows, n_positions)

    def allocate(self, slots: tuple[int, int, int, int], width: int) -> None:
        self.integers = torch.zeros((*slots, width), dtype=KINDS[self.dtype], device=self.device)
        self.scales = torch.zeros(slots, device=self.device)


class TorchLlama(Model):
    """A model in torch. Takes and gives arrays of NumPy, as Llama does, or tensors where a name says so."""

    precision = Llama.precision

    def __init__(self, weights: Weights, device: str = "cpu"):
        super().__init__(weights)
        self.device = torch.device(device)
        shape = weights.shape
        self._rotations = Rotations(shape.theta, shape.head_width // 2, shape.slowdowns)
        self._per_score = PER_SCORE
        self._powers_at, self._sigmoids_at = self._tensor(powers()), self._tensor(sigmoids())
        self._layers_at = [
            (
                self._tensor(layer.attention_norm),
                self._matrix(layer.qkv),
                self._matrix(layer.out),
                self._tensor(layer.mlp_norm),
                self._matrix(layer.gate_up),
                self._matrix(layer.down),
            )
            for layer in weights.layers
        ]
        self._facts = [self._facts_of(layer) for layer in weights.layers]
        self._norm_at, self._head_at = self._tensor(weights.norm), self._matrix(weights.head)
        self._head_most_at = self._tensor(self.precision.of_heads(shape))
        self._norm_most = self._tensor(self.precision.norm)
        self._most_of = {n_terms: self._tensor(self._levels(n_terms)) for n_terms in shape.n_terms}

    @staticmethod
    def _levels(n_terms: int) -> np.float32:
        return np.float32(levels(n_terms))

    def new_cache(self, n_rows: int, n_positions: int) -> TorchCache:
        return TorchCache(self.shape, n_rows, n_positions, self.device)

    @torch.inference_mode()
    def product(self, integers: Floats, matrix: Matrix) -> Floats:
        with plain_float32(self.device.type):
            return self._linear(self._tensor(integers), self._matrix(matrix)).cpu().numpy()

    def forward(self, x: Floats, cache: Cache, n_last: int | None = None) -> tuple[Floats, Floats]:
        units, scale = self.forward_tensor(self._tensor(x), cache, n_last)
        return units.cpu().numpy(), scale.cpu().numpy()

    def states(self, x: Floats, cache: Cache, n_last: int | None = None) -> tuple[Floats, Floats]:
        integers, scale = self.states_tensor(self._tensor(x), cache, n_last)
        return integers.cpu().numpy(), scale.cpu().numpy()

    @torch.inference_mode()
    def forward_tensor(
        self, x: torch.Tensor, cache: Cache, n_last: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`forward` with tensors on the device."""
        integers, scale = self.states_tensor(x, cache, n_last)
        with plain_float32(self.device.type):
            units = self._linear(integers.reshape(-1, integers.shape[-1]), self._head_at)
        return units.view(*integers.shape[:2], -1), scale

    @torch.inference_mode()
    def states_tensor(
        self, x: torch.Tensor, cache: Cache, n_last: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`states` with tensors on the device."""
        n_rows, n, width = x.shape
        n_last = n if n_last is None else n_last
        hidden, done = [], 0
        with plain_float32(self.device.type):
            while done < n:
                count = cache.take(n - done)
                hidden.append(self._run_layers_at(x[:, done : done + count], cache))
                done += count
            last = torch.cat(hidden, dim=1)[:, n - n_last :].reshape(-1, width)
            integers, scale = self._normalise_at(last, self._norm_at)
        return integers.view(n_rows, n_last, -1), scale.view(n_rows, n_last, 1)

    def _run_layers_at(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        n_rows, n, width = x.shape
        rotation = [self._tensor(table)[:, None] for table in self._rotations.at(cache.position, n)]
        states = x.reshape(-1, width)
        for index, (attention_norm, qkv, out, mlp_norm, gate_up, down) in enumerate(self._layers_at):
            integers, scale = self._normalise_at(states, attention_norm)
            heads, scales = self._heads_at(self._facts[index], self._linear(integers, qkv), scale)
            queries, query_scales = self._store_at(heads, scales, rotation, cache, index)
            seen = self._attend_at(queries, query_scales, cache, index)
            integers, scale = to_integers(seen, self._most_of[seen.shape[1]])
            states = states + self._linear(integers, out) * scale
            integers, scale = self._normalise_at(states, mlp_norm)
            gate, up = self._linear(integers, gate_up).tensor_split(2, dim=1)
            place = gate * (scale * SIGMOID_STEPS) + (SIGMOID_RANGE * SIGMOID_STEPS + 0.5)
            place = self._sigmoids_at[place.long().clamp_(0, len(self._sigmoids_at) - 1)]
            integers, unit = to_integers(place.mul_(gate).mul_(up), self._most_of[self.shape.hidden])
            states = states + self._linear(integers, down).mul_(unit * (scale * scale))
        cache.advance(n)
        return states.view(n_rows, n, width)

    def _heads_at(
        self, facts: Facts, projected: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return projected.view(len(projected), -1, self.shape.head_width), scale

    def _store_at(
        self, heads: torch.Tensor, scale: torch.Tensor, rotation: list[torch.Tensor], cache: Cache, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape, n_rows, first = self.shape, cache.n_rows, cache.length
        n_heads, n_keys, half = shape.n_heads, shape.n_key_heads, shape.head_width // 2
        heads = heads.view(n_rows, -1, *heads.shape[1:])
        n, (cosines, sines) = heads.shape[1], rotation
        turned, values = heads[:, :, : n_heads + n_keys], heads[:, :, n_heads + n_keys :]
        left, right = turned[..., :half], turned[..., half:]
        first_half = (left * cosines).sub_(right * sines)
        second_half = (right * cosines).add_(left * sines)
        heads = torch.cat([torch.cat([first_half, second_half], dim=3), values], dim=2)
        integers, units = to_integers(heads, self._head_most_at)
        scales = units[..., 0] * scale.view(n_rows, n, -1)
        cache.integers[index, :, :, first : first + n] = integers[:, :, n_heads:].transpose(1, 2)
        cache.scales[index, :, :, first : first + n] = scales[:, :, n_heads:].transpose(1, 2)
        queries = integers[:, :, :n_heads].reshape(n_rows, n, n_keys, -1, shape.head_width)
        query_scales = (scales[:, :, :n_heads] * float(self._per_score)).clamp_(min=float(TINY))
        return queries.permute(0, 2, 3, 1, 4), query_scales.reshape(n_rows, n, n_keys, -1).permute(0, 2, 3, 1)

    def _attend_at(self, queries: torch.Tensor, query_scales: torch.Tensor, cache: Cache, index: int) -> torch.Tensor:
        n_rows, n_keys, n_shared, n, width = queries.shape
        n_seen = cache.length + n
        step = max(1, KEYS_AT_ONCE // (n_keys * n_seen * max(width, n_shared * n)))
        parts = []
        for first in range(0, n_rows, step):
            rows = slice(first, first + step)
            stored, scales = cache.integers[index, rows, :, :n_seen], cache.scales[index, rows, :, :n_seen]
            by_key = queries[rows].reshape(-1, n_keys, n_shared * n, width)
            scores = self._scores_at(by_key, stored[:, :n_keys].float().transpose(2, 3)).mul_(scales[:, :n_keys, None])
            shares, units = self._shares_at(scores.view(-1, n_keys, n_shared, n, n_seen), query_scales[rows], scales)
            seen = shares.view(-1, n_keys, n_shared * n, n_seen) @ stored[:, n_keys:].float()
            seen = seen.view(-1, n_keys, n_shared, n, width) * units[:, :, None, :, None]
            parts.append(seen.permute(0, 3, 1, 2, 4).reshape(len(seen), n, -1))
        return torch.cat(parts).view(n_rows * n, -1)

    def _scores_at(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return queries @ keys

    def _shares_at(
        self, scores: torch.Tensor, query_scales: torch.Tensor, scales: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, n_seen, n_keys = scores.shape[3], scores.shape[4], scores.shape[1]
        last = len(self._powers_at) - 1
        if n > 1:
            later = torch.ones((n, n), dtype=torch.bool, device=self.device).triu_(1)
            scores[..., n_seen - n :].masked_fill_(later, -torch.inf)
        places = scores.amax(dim=-1, keepdim=True).sub(scores).mul_(query_scales[..., None])
        if n > 1:
            places[..., n_seen - n :].masked_fill_(later, last)
        weights = self._powers_at[places.long().clamp_(max=last)]
        total = weights.sum(dim=-1, keepdim=True, dtype=torch.float64)
        largest = scales[:, n_keys:].cummax(dim=-1).values[..., n_seen - n :].clamp(min=float(TINY))
        weights.mul_(scales[:, n_keys:, None, None])
        one = torch.tensor(float(self.precision.share_one), dtype=torch.float64, device=self.device)
        weights.mul_(torch.div(one, total * largest[:, :, None, :, None].double()).float())
        return weights.round_(), largest * (1 / self.precision.share_one)

    def _normalise_at(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small, unit = to_integers(x, self._norm_most)
        wide, one = unit.double(), torch.ones((), dtype=torch.float64, device=self.device)
        total = small.double().square_().sum(dim=1, keepdim=True)
        width = torch.full((), float(x.shape[1]), dtype=torch.float64, device=self.device)
        inverse = torch.div(one, torch.sqrt(torch.div(total, width) * (wide * wide) + self.shape.epsilon)).float()
        integers, scale = to_integers(x * weight, self._most_of[x.shape[1]])
        return integers, scale * inverse

    def _facts_of(self, layer: Layer) -> Facts:
        vectors = layer.bias, layer.query_norm, layer.key_norm
        return tuple(None if vector is None else self._tensor(vector) for vector in vectors)

    def _tensor(self, array: npt.NDArray[Any] | np.float32) -> torch.Tensor:
        return torch.tensor(np.asarray(array), device=self.device)

    def _matrix(self, matrix: Matrix) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (K, N) as floats, and scales (N)."""
        return self._tensor(matrix.integers).float().t().contiguous(), self._tensor(matrix.scales)

    def _linear(self, integers: torch.Tensor, matrix: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.mm(integers, matrix[0]).mul_(matrix[1])


def to_integers(x: torch.Tensor, most: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    largest = x.abs().amax(dim=-1, keepdim=True).clamp_(min=float(TINY))
    return (x * torch.div(most, largest)).round_(), torch.div(largest, most)
