"""What this user's machine has found out about outside models: `cramzip/models` in the folder for caches.

A file for each model, found by its path. It counts only while the files of the model have the sizes and times that they
had, and its own checksum is right; whatever is wrong with it, the facts are found out again. Nothing depends on it but
time, and which models `d` can find.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..whole import write_whole
from . import folders

VERSION = 1  # of the facts: another version knows nothing
MODEL_FILES = (".json", ".safetensors", ".txt", ".gguf", ".model")
LONGEST = 2**26  # bytes of a file of facts

Facts = dict[str, Any]


def folder() -> Path | None:
    """Where the facts are; None for a user without a home."""
    return folders.user_folder("XDG_CACHE_HOME", ".cache", "models")


def recall(path: Path) -> Facts:
    """The facts about the model at `path`, as far as there are any."""
    place = _place(path)
    record = _read(place) if place else None
    return record["facts"] if record and _is_current(record) and record["path"] == _absolute(path) else {}


def remember(path: Path, **facts: Any) -> None:
    """Add to the facts about the model at `path`, if they can be kept. Of two processes, the last one is heard."""
    place = _place(path)
    if place is None:
        return
    with suppress(OSError, ValueError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = {"path": _absolute(path), "files": _stamps(path), "facts": recall(path) | facts}
        write_whole(place, json.dumps(record | {"check": _check(record)}).encode())


def models() -> Iterator[tuple[Path, Facts]]:
    """All models that are known and still there."""
    place = folder()
    with suppress(OSError):
        for file in sorted(place.glob("*.json")) if place else ():
            record = _read(file)
            if record and _is_current(record):
                yield Path(record["path"]), record["facts"]


def versions(*packages: str) -> str:
    """The versions of packages that a fact depends on, as a part of its name."""
    return " ".join(f"{package}-{version(package)}" for package in packages)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (links of a Hub's cache are not followed)


def _place(path: Path) -> Path | None:
    place = folder()
    name = hashlib.sha256(os.fsencode(_absolute(path))).hexdigest()
    return place / f"{name[:32]}.json" if place else None


def _stamps(path: Path) -> dict[str, list[int]]:
    """Size and times of each file of a model. Raises OSError."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in MODEL_FILES)
    return {file.name: [(found := file.stat()).st_size, found.st_mtime_ns, found.st_ctime_ns] for file in files}


def _check(record: Facts) -> str:
    return hashlib.sha256(json.dumps([VERSION, record], sort_keys=True).encode()).hexdigest()


def _read(place: Path) -> Facts | None:
    try:
        if place.stat().st_size > LONGEST:
            return None
        record: Facts = json.loads(place.read_bytes())
        return record if record.pop("check") == _check(record) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def _is_current(record: Facts) -> bool:
    try:
        return bool(record["files"] == _stamps(Path(record["path"])))
    except (OSError, ValueError):
        return False
