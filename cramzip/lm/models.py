"""The model that somebody names: in exact arithmetic where that can run it, else in floats of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from ..errors import UsageError
from .exact import ExactLM, suited
from .source import ModelSource, find
from .tensors import FloatModel
from .with_torch import in_torch

if TYPE_CHECKING:
    from .frozen import FrozenLM

LM = Union["FrozenLM", ExactLM]


def load(model: str | None = None, *, revision: str | None = None, device: str = "auto", download: bool = False) -> LM:
    """Find and load a model; see `find` for what `model` can be. Raises ModelError."""
    return loaded(find(model, revision=revision, download=download), device)


def with_dictionary(lm: LM, content: bytes) -> ExactLM:
    """A model that goes on from a sample. Raises UsageError for a model in floats, and for content that is no sample.

    What was made of the last sample is kept for the next call.
    """
    if not isinstance(lm, ExactLM):
        raise UsageError(f"dictionary: {lm.model_id} is computed in floats; a dictionary needs exact arithmetic")
    return lm.with_dictionary(content)


def as_torch(lm: LM) -> FrozenLM:
    """The same model in torch, which has gradients."""
    return lm.frozen if isinstance(lm, ExactLM) else lm


def loaded(source: ModelSource, device: str = "auto") -> LM:
    """The model of a source: in exact arithmetic, if that can run it."""
    if source.is_exact:
        return ExactLM(source, device)
    floats = suited(source)
    return ExactLM(source, device, floats=floats) if isinstance(floats, FloatModel) else in_torch(source, device)
