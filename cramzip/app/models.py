"""Which model a command works with: the one that its user names, or the one that a file needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ..errors import InputOutputError, MissingModelError, ModelError
from ..lm.identity import ModelReference, locate
from . import files
from .console import Console, human

if TYPE_CHECKING:
    from ..lm.models import LM

MUCH_MEMORY = 4 * 10**9  # bytes; what takes less is not told

LoadModel = Callable[[], "LM"]
FindModel = Callable[[ModelReference], "LM"]


@dataclass(frozen=True)
class Machine:
    """Where a model is computed, and the most bytes of memory that it may take."""

    device: str
    most_memory: int | None = None


def model_loader(name: str | None, revision: str | None, machine: Machine, console: Console) -> LoadModel:
    """A function that loads a model at its first call. What users name themselves may be downloaded."""

    @cache
    def load() -> LM:
        from ..lm import models
        from ..lm.source import find

        with console.waiting(f"loading {name or 'the built-in model'}"):
            source = find(name, revision=revision, download=name is not None)
            model = models.loaded(source, machine.device, machine.most_memory)
        console.detail(f"model {model.model_id}, {model.n_parameters:,} parameters, on {model.device}")
        return model

    return load


def made_ready(lm: LM, console: Console) -> None:
    """Load what takes time and memory of a model in exact arithmetic, if it is not there yet, and say so before."""
    from ..lm.exact import ExactLM

    if isinstance(lm, ExactLM) and not lm.is_loaded:
        if lm.memory > MUCH_MEMORY:
            console.say(f"{lm.model_id} takes about {human(lm.memory)} of memory")
        with console.waiting(f"making integers of {lm.model_id}"):
            lm.model  # noqa: B018


@dataclass(frozen=True)
class Samples:
    """What files may need beside a model: a dictionary, and a codebook that is not the model's own."""

    dictionary: bytes | None = None
    codebook: bytes | None = None

    @property
    def codebook_hash(self) -> bytes | None:
        if self.codebook is None:
            return None
        from ..exact.codebook import hash_of

        return hash_of(self.codebook)


NONE = Samples()


def samples_of(dictionary: str | None, codebook: str | None) -> Samples:
    """The dictionary and the codebook that a user names. Raises UsageError, and errors which name the file."""
    content = _named(codebook, "codebook")
    if content is not None:
        from ..exact.codebook import unpack

        try:
            unpack(content)
        except ModelError as error:
            raise ModelError(f"{codebook} is no codebook: {error}") from None
    return Samples(_named(dictionary, "dictionary"), content)


def _named(path: str | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        return files.read_file(path)
    except (OSError, InputOutputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputOutputError(f"the {what} {path}: {reason}") from None


def with_samples(load: LoadModel, samples: Samples) -> LoadModel:
    """The same function for a model that goes on from a dictionary, or has another codebook."""

    @cache
    def load_with() -> LM:
        from ..lm.models import with_codebook, with_dictionary

        lm = load()
        lm = lm if samples.codebook is None else with_codebook(lm, samples.codebook)
        return lm if samples.dictionary is None else with_dictionary(lm, samples.dictionary)

    return load_with


def model_finder(where: str | None, machine: Machine, console: Console, *, download: bool) -> FindModel:
    """A function that loads the model a file needs, from `where` if the user says so, and keeps the last one.

    Nothing is downloaded unless `download` says so, or the user does when asked. Raises ModelError.
    """
    kept: dict[ModelReference, LM] = {}

    def find_model(needed: ModelReference) -> LM:
        if needed in kept:
            return kept[needed]
        try:
            source = locate(needed, where, download=download)
        except MissingModelError as missing:
            if not console.ask(f"model {missing.model_id} is not on this machine; download it from Hugging Face?"):
                raise
            source = locate(needed, where, download=True)
        from ..lm.models import loaded

        kept.clear()
        with console.waiting(f"loading {source.model_id}"):
            kept[needed] = loaded(source, machine.device, machine.most_memory)
        return kept[needed]

    return find_model
