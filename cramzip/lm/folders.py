"""Where the files of this user are that cramzip keeps, by the XDG Base Directory Specification; and what made them."""

from __future__ import annotations

import hashlib
import os
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


def program_hash(*more: Path) -> bytes:
    """A hash of the version, of the code of exact arithmetic, and of more files: of what kept results depend on."""
    digest = hashlib.sha256(__version__.encode())
    with suppress(OSError):  # a package need not be a folder
        for path in (*sorted(Path(exact.__file__).parent.glob("*.py")), *more):
            digest.update(path.read_bytes())
    return digest.digest()
