"""Where a model's files are. Knows nothing of how they are loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from ..container.records import DIGEST_SIZE
from ..container.wire import CONTROL_CHARACTER
from ..errors import CramError, MissingModelError, ModelError, UsageError, WrongModelError, first_line
from .fingerprint import folder_fingerprint, gguf_fingerprint, weight_files

BUILTIN_MODELS = Path(__file__).parents[1] / "models"
DEFAULT_BUILTIN = "primer"
DOWNLOADED_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.txt")
GGUF_PACKAGES = ("gguf", "accelerate")  # the one reads the file, transformers loads none without the other
MAX_NAME = 200  # bytes of a folder's name that go into a file

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_REVISION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)  # no way out of the cache's folder
_COMMIT = re.compile(r"[0-9a-f]{40}")

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are; `path` is a folder or a GGUF file."""

    model_id: str
    revision: str
    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()

    @property
    def weight_bytes(self) -> int:
        files = [self.path] if self.is_gguf else weight_files(self.path)
        return sum(file.stat().st_size for file in files)

    @cached_property
    def fingerprint(self) -> bytes:
        """Model_Fingerprint, read off the files. Raises ModelError."""
        if self.is_gguf:
            self._require_packages()
        read = gguf_fingerprint if self.is_gguf else folder_fingerprint
        return explained(f"{self.model_id} cannot be read", lambda: read(self.path))

    def _require_packages(self) -> None:
        """Raise ModelError if what reads GGUF files is not installed."""
        if missing := [package for package in GGUF_PACKAGES if not find_spec(package)]:
            raise ModelError(f"{self.model_id} needs {' and '.join(missing)}: pip install 'cramzip[gguf]'")

    @property
    def is_builtin(self) -> bool:
        return self.path.parent == BUILTIN_MODELS

    @property
    def digest(self) -> bytes:
        """What files call a built-in model: the first bytes of its fingerprint."""
        return self.fingerprint[:DIGEST_SIZE]

    def require(self, fingerprint: bytes) -> None:
        """Raise WrongModelError unless this is the model that a file asks for, by its fingerprint or its digest."""
        if self.fingerprint[: len(fingerprint)] != fingerprint:
            raise WrongModelError(
                f"Model_Fingerprint: the file needs {fingerprint.hex()}, {self.model_id} here is "
                f"{self.fingerprint.hex()}; pass the right model with -m"
            )


def find(
    model: str | None = None, *, revision: str | None = None, download: bool = False, commit: str | None = None
) -> ModelSource:
    """The model that a user names: None, `builtin:NAME`, a folder, a `.gguf` file, or a Hugging Face id.

    `revision` is for Hugging Face models alone; where none is given, `commit` is looked for. Nothing is downloaded
    without `download`. Raises ModelError, MissingModelError for what a download may bring, UsageError.
    """
    if model is None or model.startswith("builtin:"):
        source = _find_builtin((model or f"builtin:{DEFAULT_BUILTIN}").partition(":")[2])
    elif not model:
        raise ModelError("the name of the model is empty")
    elif (path := Path(model)).is_dir() or (path.is_file() and path.suffix == ".gguf"):
        source = ModelSource(f"local:{_storable(path.resolve().name)}", "", path)
    elif path.exists():
        raise ModelError(f"{model}: expected a model folder or a .gguf file")
    else:
        name = model.removeprefix("hf:")
        if not _HUB_ID.fullmatch(name):
            raise ModelError(f"{model}: no such folder or file, and not a Hugging Face id")
        if revision is not None and not _REVISION.fullmatch(revision):
            raise UsageError(f"--revision: {revision} is no commit, tag or branch")
        return _find_on_hub(name, revision or commit, download)
    if revision is not None:
        raise UsageError("--revision is for models of Hugging Face")
    return source


def find_named(model_id: str, revision: str, *, download: bool = False) -> ModelSource:
    """The model that a `.cram` file names. No part of what the file says is ever taken for a path.

    Raises ModelError, and MissingModelError for what a download may bring.
    """
    kind, _, name = model_id.partition(":")
    if kind == "hf" and _HUB_ID.fullmatch(name):
        return _find_on_hub(name, as_commit(revision), download)
    if kind == "local":
        raise ModelError(f"the file was made with a local model, {name!r}: say where it is with -m")
    raise ModelError(f"the file names its model {model_id!r}: say where it is with -m")


def find_digest(digest: bytes) -> ModelSource:
    """The built-in model that a `.cram` file means. Raises WrongModelError."""
    for path in sorted(path for path in BUILTIN_MODELS.iterdir() if (path / "config.json").exists()):
        source = ModelSource(f"builtin:{path.name}", "", path)
        if source.digest == digest:
            return source
    raise WrongModelError(
        f"the file was made with the built-in model {digest.hex()} of another version of cramzip; "
        "say where it is with -m"
    )


def as_commit(revision: str) -> str | None:
    """A Revision out of a file, if it is a commit; names and paths of any other kind are not followed."""
    return revision if _COMMIT.fullmatch(revision) else None


def _find_builtin(name: str) -> ModelSource:
    path = BUILTIN_MODELS / name
    if not re.fullmatch(r"\w[\w.-]*", name) or not path.is_dir():
        raise ModelError(f"no built-in model is called {name!r}")
    return ModelSource(f"builtin:{name}", "", path)


def _find_on_hub(name: str, revision: str | None, download: bool) -> ModelSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=list(DOWNLOADED_FILES), local_files_only=not download
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise ModelError(f"{name} cannot be downloaded: {first_line(error)}") from error
        raise MissingModelError(name) from error
    except Exception as error:
        raise ModelError(f"{name} cannot be downloaded: {first_line(error)}") from error
    return ModelSource(f"hf:{name}", Path(folder).name, Path(folder))


def _storable(name: str) -> str:
    """A folder's name as a file can hold it; it is a hint for people."""
    text = CONTROL_CHARACTER.sub("_", name.encode(errors="replace").decode())
    return text.encode()[:MAX_NAME].decode(errors="ignore") or "_"


def explained(problem: str, read: Callable[[], Loaded]) -> Loaded:
    """What `read` gives; whatever the libraries raise over bad files, as one ModelError."""
    try:
        return read()
    except CramError:
        raise
    except Exception as error:
        raise ModelError(f"{problem}: {first_line(error)}") from error
