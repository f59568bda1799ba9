"""Where cramzip keeps files of this user, by the XDG Base Directory Specification, which stay, and what made them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .. import __version__, exact


def user_folder(variable: str, usual: str, name: str) -> Path | None:
    """`name` among those of cramzip in the folder that `variable` names, or else in `usual` of the user's home.

    None for a user without a home.
    """
    base = Path(os.environ.get(variable, ""))
    try:
        return (base if base.is_absolute() else Path.home() / usual) / "cramzip" / name
    except RuntimeError:
        return None


def keep_latest(folder: Path, most: int, cost: Callable[[Path], int]) -> None:
    """Remove files of a cache, those first that were used longest ago, until the others cost at most `most` together.

    Raises OSError.
    """
    total = 0
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        total += cost(path)
        if total > most:
            path.unlink()


def program_hash(*more: Path) -> bytes:
    """A hash of the version, of the code of exact arithmetic, and of more files: of what kept results depend on."""
    digest = hashlib.sha256(__version__.encode())
    with suppress(OSError):  # a package need not be a folder
        for path in (*sorted(Path(exact.__file__).parent.glob("*.py")), *more):
            digest.update(path.read_bytes())
    return digest.digest()
