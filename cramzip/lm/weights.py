"""Which files of a folder a model is loaded from. Knows nothing of what they hold."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from ..exact import CODEBOOK_NAME, WEIGHTS_NAME
from .strict_json import parse_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.json")


def has_exact_weights(folder: Path) -> bool:
    """Whether a folder holds integer weights for exact arithmetic, and no others."""
    return (folder / WEIGHTS_NAME).is_file() and not any((folder / name).is_file() for name in (SINGLE, INDEX))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a folder's model consists of, with its codebook in exact arithmetic.

    Pickles do not count. Raises ModelError.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if has_exact_weights(folder):
        return [folder / name for name in (WEIGHTS_NAME, CODEBOOK_NAME) if (folder / name).is_file()]
    if not (folder / INDEX).is_file():
        raise ModelError(f"{folder}: no {SINGLE} (pickled weights are never loaded)")
    return [folder / name for name in named_by(folder / INDEX)]


def named_by(index: Path) -> list[str]:
    """The files that an index of weights names, all in its own folder. Raises ModelError."""
    names = sorted(set(parse_object(index.read_bytes(), str(index))["weight_map"].values()))
    if bad := next((name for name in names if Path(name).name != name or not name.endswith(".safetensors")), None):
        raise ModelError(f"{index}: {bad!r} is not a safetensors file in the folder itself")
    return names


def missing_file(folder: Path) -> str | None:
    """A file without which the model in a folder cannot be loaded, if one is missing there."""
    needed = ["config.json"]
    if not (folder / SINGLE).is_file():
        needed += named_by(folder / INDEX) if (folder / INDEX).is_file() else [SINGLE]
    if not any((folder / name).is_file() for name in TOKENIZERS):
        needed.append(TOKENIZERS[0])
    return next((name for name in needed if not (folder / name).is_file()), None)
