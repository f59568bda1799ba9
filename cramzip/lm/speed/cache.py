"""A key-value cache with room to grow: the one of transformers is copied as a whole for every token.

Where transformers has changed what is built upon here, caches stay as they are.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

try:
    from transformers.cache_utils import DynamicLayer
except ImportError:  # it has moved: no layer is one
    DynamicLayer = object

ROOM = 256  # positions to spare, besides half as many as are taken


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """The cache of one layer; `keys` and `values` (B, H, N, d) are views of larger tensors."""

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = self._keys, self._values = layer.keys, layer.values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        before = self.keys.shape[2]
        after = before + key_states.shape[2]
        if after > self._keys.shape[2]:
            self._keys, self._values = _larger(self.keys, after), _larger(self.values, after)
        self._keys[:, :, before:after] = key_states
        self._values[:, :, before:after] = value_states
        self.keys, self.values = self._keys[:, :, :after], self._values[:, :, :after]
        return self.keys, self.values


def _larger(states: torch.Tensor, least: int) -> torch.Tensor:
    rows, heads, n, width = states.shape
    larger = states.new_empty(rows, heads, least + least // 2 + ROOM, width)
    larger[:, :, :n] = states
    return larger


@functools.cache
def is_available() -> bool:
    """Whether a layer with room gives what one of transformers does."""
    states = torch.arange(8.0).view(1, 1, 4, 2)  # of four positions
    try:
        plain, first = DynamicLayer(), DynamicLayer()
        for layer in (plain, first):
            layer.update(states[:, :, :2], -states[:, :, :2])
        roomy = RoomyLayer(first)
        for n in (2, 3):
            expected = plain.update(states[:, :, n : n + 1], -states[:, :, n : n + 1])
            found = roomy.update(states[:, :, n : n + 1], -states[:, :, n : n + 1])
            if not all(map(torch.equal, found, expected)) or roomy.get_seq_length() != plain.get_seq_length():
                return False
    except Exception:  # whatever comes of parts that are no longer there
        return False
    return bool(plain.is_initialized)


def with_room(cache: Any) -> Any:
    """The same cache after the first step, with room in its plain layers. Layers of other kinds stay as they are."""
    for index, layer in enumerate(getattr(cache, "layers", [])):
        if type(layer) is DynamicLayer and is_available() and layer.is_initialized:
            cache.layers[index] = RoomyLayer(layer)
    return cache
