"""A model in exact arithmetic with its tokenizer: the built-in one, or any other that such arithmetic can run.

Without torch, unless vectors are to be found, or unless a GPU is asked for.
"""

from __future__ import annotations

import copy
import os
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..exact import codebook, layouts
from ..exact.codebook import Codebook
from ..exact.probe import load, model_hash
from ..exact.rotations import MAX_POSITIONS
from ..exact.weights import read_model
from .codebook import GivenCodebook
from .dictionary import Dictionary
from .integers import integers_of
from .packages import torch_needed_by
from .source import ModelSource, explained
from .tensors import FloatModel, open_floats
from .tokens import ByteExactTokenizer, read_tokenizer
from .with_torch import in_torch

if TYPE_CHECKING:
    from ..exact.llama import Model
    from .frozen import FrozenLM

MEMORY_OF_WEIGHT = 5  # bytes: floats and integers
MEMORY_OF_WIDE_WEIGHT = 2  # of a model that was not made for exact arithmetic, while its integers are made; then 1


class ExactLM:
    """A Llama whose every bit is the same on every machine: `model` computes it.

    `width` D is the width of an input embedding, `vocabulary_size` V the number of logits, `context` the most positions
    of a lane, `start` the token that stands before a text. `threads` is how many may work at a time. `dictionary` is
    what texts go on from, None for nothing. `given`: a codebook in place of the model's own. `is_wide`: it was not made
    for exact arithmetic.
    """

    dictionary: Dictionary | None = None
    given: GivenCodebook | None = None

    def __init__(
        self,
        source: ModelSource,
        device: str = "auto",
        threads: int | None = None,
        *,
        floats: FloatModel | None = None,
    ):
        """`floats`: the model as its files have it, if that is known. Raises ModelError, also if this machine does not
        get the right bits.
        """
        self.source = source
        self.model_id, self.revision = source.model_id, source.revision
        self.fingerprint, self.weight_bytes = source.fingerprint, source.weight_bytes
        self._wanted_device = device
        self._floats = None if source.is_exact else floats or floats_of(source)
        self.is_wide = self._floats is not None
        self.shape = shape = self._floats.shape if self._floats else self.model.shape
        self.n_parameters = layouts.n_parameters(shape) if self._floats else self.model.weights.n_parameters
        self.vocabulary_size, self.width, self.start = shape.vocabulary, shape.width, shape.start
        self.n_layers, self.context = shape.n_layers, MAX_POSITIONS
        self.threads = threads or n_cores()
        if self.is_wide:
            self.tokenizer  # noqa: B018 (what is wrong with it or with the device is to be known before the model is loaded)
            _require_device(source, device)
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

    def with_codebook(self, content: bytes) -> ExactLM:
        """The same model with the codebook in a file. Raises ModelError for what can be none of this model."""
        other = copy.copy(self)
        other.given = GivenCodebook.of(content, self.shape, self.fingerprint)
        return other

    @property
    def device(self) -> str:
        return "cuda" if self._wanted_device == "cuda" else "cpu"

    @cached_property
    def model(self) -> Model:
        """What computes. One that was not made for exact arithmetic is loaded when it is first asked for."""
        return _load(self.source, self._floats, self._wanted_device)

    @property
    def is_loaded(self) -> bool:
        return "model" in vars(self)

    @property
    def memory(self) -> int:
        """Bytes that the model takes, about."""
        return memory_of_weight(self._wanted_device, is_wide=self.is_wide) * self.n_parameters

    @cached_property
    def probe(self) -> bytes | None:
        """A hash of what a model that was not made for exact arithmetic computes, for other machines to compare."""
        return bytes.fromhex(model_hash(self.model)) if self.is_wide else None

    @cached_property
    def tokenizer(self) -> ByteExactTokenizer:
        if self.source.is_exact:
            file, problem = self.source.path / "tokenizer.json", f"the tokenizer of {self.model_id} cannot be loaded"
            stated = explained(problem, lambda: read_tokenizer(file.read_bytes()))
            return explained(problem, lambda: ByteExactTokenizer(stated, self.vocabulary_size))
        from .loading import load_tokenizer

        return load_tokenizer(self.source, self.vocabulary_size, when_needed=True)

    @property
    def tokenizer_hash(self) -> bytes:
        return self.tokenizer.hash

    @cached_property
    def codebook(self) -> Codebook | None:
        """The vectors that lanes may begin with, if the model comes with some. Raises ModelError."""
        path = codebook.beside(self.source.path) if self.source.is_exact else None
        return codebook.read_codebook(path, self.width) if path else None

    @cached_property
    def frozen(self) -> FrozenLM:
        """The same model in torch, in float32: nearly the same logits, and gradients for cramming."""
        return in_torch(self.source, self._wanted_device)


def memory_of_weight(device: str, *, is_wide: bool) -> int:
    """Bytes of memory that a weight takes: NumPy keeps integers alone of models that were not made for them."""
    return MEMORY_OF_WIDE_WEIGHT if is_wide and device != "cuda" else MEMORY_OF_WEIGHT


def suited(source: ModelSource) -> FloatModel | str:
    """A model with float weights, or why exact arithmetic cannot run it. No weight is looked at."""
    try:
        return floats_of(source)
    except ModelError as error:
        return str(error)


def floats_of(source: ModelSource) -> FloatModel:
    """A model with float weights that exact arithmetic can run. Raises ModelError."""

    def read() -> FloatModel:
        model = open_floats(source.path)
        layouts.check_tensors(model.shape, model.tensors)
        return model

    return explained(f"{source.model_id} cannot be read", read)


def _load(source: ModelSource, floats: FloatModel | None, device: str) -> Model:
    if floats is None:
        weights = read_model(source.path)
    else:
        problem = f"{source.model_id} cannot be loaded"
        weights = explained(problem, lambda: integers_of(floats, source.fingerprint))
    if device != "cuda":
        return load(weights)
    with torch_needed_by(source.model_id):
        from . import exact_torch, exact_torch_wide
        from .devices import pick
    if weights.shape.wide:
        return exact_torch_wide.load(weights, pick(device))
    return exact_torch.load(weights, pick(device))


def _require_device(source: ModelSource, device: str) -> None:
    """Raise ModelError if a GPU is asked for that is not here."""
    if device not in ("auto", "cpu"):
        with torch_needed_by(source.model_id):
            from .devices import pick
        pick(device)


def n_cores() -> int:
    """Cores that this process may use, as far as the system says; macOS and Windows only count them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
