"""Profiles: what has been measured of a model, looked up by its fingerprint.

Some come with the package; what `cramzip capacity --save-profile` finds goes into the user's configuration folder, and
is looked at first. A profile is a JSON object in a file of its own.
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputOutputError
from ..whole import write_whole
from . import folders

SHIPPED = Path(__file__).parents[1] / "profiles"
DIGITS = 16  # of the fingerprint, in the names of files


@dataclass(frozen=True)
class Profile:
    """What was measured of a model.

    `bits_per_vector`: bits of text that a vector recites. `learning_rate`: the best for that, and `origin`: D numbers
    around which such vectors were found, or none; both in units of `embedding_scale`. `noise`: the largest error of a
    logit. `measured`: with what.
    """

    fingerprint: str
    model: str
    bits_per_vector: float
    learning_rate: float
    embedding_scale: float
    noise: float
    measured: dict[str, Any]
    origin: tuple[float, ...] = ()


def user_folder() -> Path | None:
    """Where the profiles of this user are; None for a user without a home."""
    return folders.user_folder("XDG_CONFIG_HOME", ".config", "profiles")


def find(fingerprint: bytes) -> Profile | None:
    """The profile of a model, the user's own before the one that comes with cramzip; None also for unreadable ones."""
    for folder in filter(None, (user_folder(), SHIPPED)):
        profile = _read(folder / _file_name(fingerprint.hex()))
        if profile is not None and profile.fingerprint == fingerprint.hex():
            return profile
    return None


def save(profile: Profile, folder: Path | None = None) -> Path:
    """Write a profile, for this user unless a folder is given, in place of an older one. Raises InputOutputError."""
    folder = folder or user_folder()
    if folder is None:
        raise InputOutputError("there is no folder for profiles: neither XDG_CONFIG_HOME nor HOME says where")
    path = folder / _file_name(profile.fingerprint)
    text = json.dumps(asdict(profile) | {"origin": _packed(profile.origin)}, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise InputOutputError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _file_name(fingerprint: str) -> str:
    return f"{fingerprint[:DIGITS]}.json"


def _read(path: Path) -> Profile | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        profile = Profile(**record | {"origin": _unpacked(record.get("origin", ""))})
        positive = (profile.bits_per_vector, profile.learning_rate)
        usable = all(number > 0 for number in positive) and all(map(math.isfinite, (*positive, *profile.origin)))
        return profile if usable else None
    except (OSError, ValueError, TypeError, AttributeError, struct.error):
        return None


def _packed(numbers: Sequence[float]) -> str:
    """Numbers as text: float16, base64."""
    return b64encode(struct.pack(f"<{len(numbers)}e", *numbers)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    content = b64decode(text, validate=True)
    return struct.unpack(f"<{len(content) // 2}e", content)
