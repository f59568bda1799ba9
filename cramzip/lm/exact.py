"""A model in exact arithmetic with its tokenizer: what files of the built-in model are made and opened with.

Without torch, unless vectors are to be found, or unless a GPU is asked for.
"""

from __future__ import annotations

import copy
import os
from functools import cached_property
from typing import TYPE_CHECKING

from ..exact.probe import load
from ..exact.rotations import MAX_POSITIONS
from ..exact.weights import read_model
from .dictionary import Dictionary
from .source import ModelSource
from .tokens import ByteExactTokenizer, read_tokenizer
from .with_torch import in_torch, torch_needed_by

if TYPE_CHECKING:
    from ..exact.llama import Model
    from .frozen import FrozenLM


class ExactLM:
    """A Llama whose every bit is the same on every machine: `model` computes it.

    `width` D is the width of an input embedding, `vocabulary_size` V the number of logits, `context` the most positions
    of a lane, `start` the token that stands before a text. `threads` is how many may work at a time. `dictionary` is
    what texts go on from, None for nothing.
    """

    dictionary: Dictionary | None = None

    def __init__(self, source: ModelSource, device: str = "auto", threads: int | None = None):
        """Raises ModelError, also if this machine does not get the right bits."""
        self.source = source
        self.model_id, self.revision = source.model_id, source.revision
        self.fingerprint, self.weight_bytes = source.fingerprint, source.weight_bytes
        self._wanted_device = device
        self.model = _load(source, device)
        shape = self.model.shape
        self.vocabulary_size, self.width, self.start = shape.vocabulary, shape.width, shape.start
        self.n_layers, self.context = shape.n_layers, MAX_POSITIONS
        self.n_parameters = self.model.weights.n_parameters
        self.threads = threads or n_cores()
        self._dictionaries: dict[bytes, Dictionary] = {}  # the last one, by its content

    def with_dictionary(self, content: bytes) -> ExactLM:
        """The same model with a dictionary. Raises UsageError for content that can be none."""
        known, table = self._dictionaries, self.tokenizer.table
        if content not in known:
            new = Dictionary(content, self.fingerprint, self.model, table)
            known.clear()
            known[content] = new
        other = copy.copy(self)
        other.dictionary = known[content]
        return other

    @property
    def device(self) -> str:
        return "cuda" if self._wanted_device == "cuda" else "cpu"

    @cached_property
    def tokenizer(self) -> ByteExactTokenizer:
        file = self.source.path / "tokenizer.json"
        return ByteExactTokenizer(read_tokenizer(file.read_bytes()), self.vocabulary_size)

    @property
    def tokenizer_hash(self) -> bytes:
        return self.tokenizer.hash

    @cached_property
    def frozen(self) -> FrozenLM:
        """The same model in torch, in float32: nearly the same logits, and gradients for cramming."""
        return in_torch(self.source, self._wanted_device)


def _load(source: ModelSource, device: str) -> Model:
    weights = read_model(source.path)
    if device != "cuda":
        return load(weights)
    with torch_needed_by(source.model_id):
        from . import exact_torch
        from .devices import pick
    return exact_torch.load(weights, pick(device))


def n_cores() -> int:
    """Cores that this process may use, as far as the system says; macOS and Windows only count them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
