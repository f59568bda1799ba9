"""What needs torch and transformers, which may not be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .packages import torch_needed_by
from .source import ModelSource

if TYPE_CHECKING:
    from .frozen import FrozenLM


def in_torch(source: ModelSource, device: str = "auto") -> FrozenLM:
    """The model of a source in torch, whatever weights it has. Raises ModelError where torch is not installed."""
    with torch_needed_by(source.model_id):
        from .frozen import FrozenLM

        return FrozenLM(source, device)
