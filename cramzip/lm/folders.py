"""Where the files of this user are that cramzip keeps: XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder(variable: str, usual: str, name: str) -> Path | None:
    """`name` among those of cramzip in the folder that `variable` names, or else in `usual` of the user's home.

    None for a user without a home.
    """
    base = Path(os.environ.get(variable, ""))
    try:
        return (base if base.is_absolute() else Path.home() / usual) / "cramzip" / name
    except RuntimeError:
        return None
