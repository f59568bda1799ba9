"""Models of the Hugging Face Hub: in its cache on this machine or, where the user agrees, fetched into it."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import MissingModelError, ModelError, one_line
from .weights import INDEX, SINGLE, TOKENIZERS, missing_file, named_by

# What is read of a repository, but for the parts of weights that an index names. Other precisions and formats of the
# same weights, adapters and what lies in folders are not.
DESCRIPTION = (
    *("config.json", "adapter_config.json", INDEX, SINGLE, *TOKENIZERS),
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
MAX_ID = 96  # characters

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a repository can have this name; one such as `..` would lead out of the cache."""
    parts = name.split("/")
    edges = all(part == part.strip("-.") for part in parts)
    return bool(_ID.fullmatch(name)) and len(name) <= MAX_ID and edges and not re.search(r"--|\.\.", name)


def find_snapshot(name: str, revision: str | None, *, download: bool) -> Path:
    """The folder of a model in the cache; its name is the commit.

    Raises MissingModelError for what a download may bring, and ModelError.
    """
    folder = _snapshot(name, revision, DESCRIPTION, download)
    try:
        if download and not (folder / SINGLE).is_file() and (folder / INDEX).is_file():
            _snapshot(name, folder.name, tuple(named_by(folder / INDEX)), download)
        missing = missing_file(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{name}: {INDEX} cannot be read: {one_line(error)}") from error
    if missing and not download:
        raise MissingModelError(name, missing)
    return folder


def _snapshot(name: str, revision: str | None, files: tuple[str, ...], download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=not download)
    except LocalEntryNotFoundError as error:
        if not download:
            raise MissingModelError(name) from error
        raise ModelError(f"{name} cannot be downloaded: {one_line(error)}") from error
    except Exception as error:
        raise ModelError(f"{name} cannot be {'downloaded' if download else 'found'}: {one_line(error)}") from error
    return Path(folder)
