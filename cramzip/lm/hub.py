"""Models of the Hugging Face Hub: in its cache on this machine or, where the user agrees, fetched into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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
_GGUF = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*\.gguf", re.ASCII)


class FoundFile(NamedTuple):
    """A file of a repository in the cache, and the commit that it is of."""

    path: Path
    commit: str


def is_hub_id(name: str) -> bool:
    """Whether a repository can have this name; one such as `..` would lead out of the cache."""
    parts = name.split("/")
    edges = all(part == part.strip("-.") for part in parts)
    return bool(_ID.fullmatch(name)) and len(name) <= MAX_ID and edges and not re.search(r"--|\.\.", name)


def is_hub_name(name: str) -> bool:
    """Whether a model of the Hub can be called so: by its repository, or by that and a GGUF file in it."""
    repository, colon, file = name.partition(":")
    return is_hub_id(repository) and (not colon or (len(file) <= MAX_ID and bool(_GGUF.fullmatch(file))))


def find_file(name: str, file: str, revision: str | None, *, download: bool) -> FoundFile:
    """A GGUF file of a repository. Raises MissingModelError for what a download may bring, and ModelError."""
    from huggingface_hub import hf_hub_download

    with _told(f"{name}:{file}", download):
        found = Path(hf_hub_download(name, file, revision=revision, local_files_only=not download))
    return FoundFile(found, found.parents[file.count("/")].name)  # in the cache, .../snapshots/COMMIT/FILE


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

    with _told(name, download):
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=not download)
        )


@contextmanager
def _told(name: str, download: bool) -> Iterator[None]:
    """Tell what goes wrong with a model of the Hub, and what to do, in one line each."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except LocalEntryNotFoundError as error:
        if not download:
            raise MissingModelError(name) from error
        raise ModelError(
            f"model {name} is not on this machine, and this machine is offline, or Hugging Face does not answer"
        ) from error
    except GatedRepoError as error:
        page = f"https://huggingface.co/{name.partition(':')[0]}"
        raise ModelError(
            f"model {name} is gated: accept its conditions at {page}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"Hugging Face has no model {name}; or it is private, and needs `hf auth login` or HF_TOKEN"
        ) from error
    except Exception as error:
        raise ModelError(f"{name} cannot be {'downloaded' if download else 'found'}: {one_line(error)}") from error
