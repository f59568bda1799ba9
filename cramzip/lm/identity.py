"""Which model a file needs: how the file names it, where it is, and whether the one at hand is the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..container.records import BuiltinModel, OutsideModel
from ..errors import ModelError, WrongModelError
from .source import ModelSource, as_commit, find, find_digest, find_known, find_named

if TYPE_CHECKING:
    from .models import LM

ModelReference = BuiltinModel | OutsideModel


def reference(lm: LM) -> ModelReference:
    """How a file names a model."""
    if lm.source.is_builtin:
        return BuiltinModel(lm.source.digest)
    return OutsideModel(lm.model_id, lm.revision, lm.fingerprint, lm.tokenizer_hash)


def name_of(needed: ModelReference) -> str:
    """What people call the model that a file names."""
    if isinstance(needed, BuiltinModel):
        return f"the built-in model {needed.digest.hex()}".rstrip()
    return f"the model {needed.model_id or needed.fingerprint.hex()}"


def locate(needed: ModelReference, where: str | None = None, *, download: bool = False) -> ModelSource:
    """Find the model that a file names, at `where` if the user gives it, else by its name, else among those that were
    used on this machine. Nothing is loaded yet.

    Raises ModelError, MissingModelError for what a download may bring, and WrongModelError if another model is there.
    """
    fingerprint = needed.digest if isinstance(needed, BuiltinModel) else needed.fingerprint
    if where is not None:
        commit = None if isinstance(needed, BuiltinModel) else as_commit(needed.revision)
        source = find(where, download=download, commit=commit)
    else:
        try:
            source = _named(needed, download)
        except ModelError:
            used_before = find_known(fingerprint)
            if used_before is None:
                raise
            source = used_before
    source.require(fingerprint)
    return source


def _named(needed: ModelReference, download: bool) -> ModelSource:
    if isinstance(needed, BuiltinModel):
        return find_digest(needed.digest)
    return find_named(needed.model_id, needed.revision, download=download)


def require(lm: LM | None, needed: ModelReference) -> LM:
    """The model, if it is the one that a file needs, with its tokenizer. Raises WrongModelError."""
    if lm is None:
        raise WrongModelError(f"the file needs {name_of(needed)}")
    if isinstance(needed, BuiltinModel):
        lm.source.require(needed.digest)
        return lm
    lm.source.require(needed.fingerprint)
    if needed.tokenizer_hash != lm.tokenizer_hash[: len(needed.tokenizer_hash)]:
        raise WrongModelError(
            f"Tokenizer_Hash: the file needs {needed.tokenizer_hash.hex()}, {lm.model_id} here has "
            f"{lm.tokenizer_hash.hex()}; pass the right model with -m"
        )
    return lm
