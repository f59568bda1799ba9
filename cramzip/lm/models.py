"""The model that somebody names: in exact arithmetic where that can run it, else in floats of torch."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING, Union

from ..errors import ModelError, UsageError
from ..exact import layouts
from .exact import ExactLM, memory_of_weight, suited
from .fingerprint import tensors_of
from .source import ModelSource, find
from .tensors import FloatModel
from .with_torch import in_torch

if TYPE_CHECKING:
    from .frozen import FrozenLM

LM = Union["FrozenLM", ExactLM]

MEMORY_OF_FLOAT = 4  # bytes of a weight in torch


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    device: str = "auto",
    download: bool = False,
) -> LM:
    """Find and load a model; see `find` for what `model` can be. Raises ModelError."""
    name = None if model is None else os.fspath(model)
    return loaded(find(name, revision=revision, download=download), device)


def with_dictionary(lm: LM, content: bytes) -> ExactLM:
    """A model that goes on from a sample. Raises UsageError for a model in floats, and for content that is no sample.

    What was made of the last sample is kept for the next call.
    """
    if not isinstance(lm, ExactLM):
        raise UsageError(f"dictionary: {lm.model_id} is computed in floats; a dictionary needs exact arithmetic")
    return lm.with_dictionary(content)


def with_codebook(lm: LM, content: bytes) -> ExactLM:
    """A model whose lanes may begin with entries of a codebook. Raises UsageError for a model in floats, and ModelError
    for what can be no codebook of this model.
    """
    if not isinstance(lm, ExactLM):
        raise UsageError(f"codebook: {lm.model_id} is computed in floats; a codebook needs exact arithmetic")
    return lm.with_codebook(content)


def as_torch(lm: LM) -> FrozenLM:
    """The same model in torch, which has gradients."""
    return lm.frozen if isinstance(lm, ExactLM) else lm


def loaded(source: ModelSource, device: str = "auto", most_memory: int | None = None) -> LM:
    """The model of a source: in exact arithmetic, if that can run it.

    Raises ModelError, also for one that would take more than `most_memory` bytes, of which none is loaded then.
    """
    found = None if source.is_exact else suited(source)
    floats = found if isinstance(found, FloatModel) else None
    if most_memory is not None and (needed := memory_of(source, floats, device)) > most_memory:
        raise ModelError(f"{source.model_id} takes about {needed:,} bytes of memory; {most_memory:,} are allowed")
    if source.is_exact or floats:
        return ExactLM(source, device, floats=floats)
    return in_torch(source, device)


def memory_of(source: ModelSource, floats: FloatModel | None, device: str = "auto") -> int:
    """Bytes that a model takes in memory, about, by what its files say: `floats` if exact arithmetic can run these."""
    if source.is_exact:
        return memory_of_weight(device, is_wide=False) * source.weight_bytes
    if floats:
        return memory_of_weight(device, is_wide=True) * layouts.n_parameters(floats.shape)
    return MEMORY_OF_FLOAT * sum(prod(tensor.shape) for tensor in tensors_of(source.path))
