"""Which model a command works with: the one that its user names, or the one that a file needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ..errors import InputOutputError, MissingModelError
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


def dictionary_of(path: str | None) -> bytes | None:
    """The dictionary that a user names. Raises UsageError and InputOutputError, which name it."""
    if path is None:
        return None
    try:
        content = files.read_file(path)
    except (OSError, InputOutputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputOutputError(f"the dictionary {path}: {reason}") from None
    return content


def going_on(load: LoadModel, dictionary: bytes | None) -> LoadModel:
    """The same function for a model that goes on from a dictionary, if there is one."""
    if dictionary is None:
        return load
    from ..lm.models import with_dictionary

    return cache(lambda: with_dictionary(load(), dictionary))


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
