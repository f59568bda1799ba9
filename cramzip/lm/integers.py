"""The integers that exact arithmetic makes of a model with float weights, kept for the next time.

`cramzip/integers` in the folder for caches has a file for each model: a hash of all that comes after it, then the
arrays, which are mapped into memory. Its name is a hash of everything that it depends on: the fingerprint of the model,
and the code that makes integers. Whatever is wrong with it, the integers are made anew.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exact import layouts
from ..exact.weights import Weights
from ..whole import write_whole
from . import folders, tensors

if TYPE_CHECKING:
    from .tensors import FloatModel

HEAD_BYTES = 64  # of the hash, with zeros after it, so that arrays begin at even places
MOST_BYTES = 2**32  # of all files; those that were used last stay
SPARE = 4  # how many times as much space as a file takes has to be free


def folder() -> Path | None:
    """Where the files are; None for a user without a home."""
    return folders.user_folder("XDG_CACHE_HOME", ".cache", "integers")


def integers_of(model: FloatModel, fingerprint: bytes) -> Weights:
    """The integers of a model, made now or at an earlier time. Raises ModelError."""
    place = folder()
    if place is None:
        return layouts.read(model.shape, model.tensors)
    file = place / hashlib.sha256(_program() + fingerprint).hexdigest()
    with suppress(Exception):  # what is damaged is made anew
        return _mapped(file, model)
    weights = layouts.read(model.shape, model.tensors)
    with suppress(OSError, ValueError):  # a mapped file is not removed everywhere
        _keep(file, weights)
    return weights


@cache
def _program() -> bytes:
    """A hash of versions, and of the code that reads tensors and makes integers."""
    digest = hashlib.sha256(folders.program_hash(Path(tensors.__file__)))
    with suppress(PackageNotFoundError):
        digest.update(version("gguf").encode())
    return digest.digest()


def _mapped(file: Path, model: FloatModel) -> Weights:
    with file.open("rb") as source:
        data = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
    if _head([data[HEAD_BYTES:]]) != data[:HEAD_BYTES]:
        raise ValueError("damaged")
    weights = layouts.unpack(model.shape, data[HEAD_BYTES:])
    with suppress(OSError):
        os.utime(file)  # it is in use
    return weights


def _keep(file: Path, weights: Weights) -> None:
    size = HEAD_BYTES + layouts.packed_size(weights.shape)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if size > MOST_BYTES or shutil.disk_usage(file.parent).free < SPARE * size:
        return
    parts: list[Any] = list(layouts.pack(weights))
    write_whole(file, _head(parts), *parts)
    folders.keep_latest(file.parent, MOST_BYTES, lambda path: path.stat().st_size)


def _head(parts: Iterable[Any]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest().ljust(HEAD_BYTES, b"\0")
