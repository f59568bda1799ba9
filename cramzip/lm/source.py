"""Where a model's files are. Knows nothing of how they are loaded."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from ..container.records import DIGEST_SIZE
from ..container.wire import CONTROL_CHARACTER
from ..errors import CramError, ModelError, UsageError, WrongModelError, one_line
from . import known
from .fingerprint import folder_fingerprint, gguf_fingerprint
from .hub import find_file, find_snapshot, is_hub_name
from .weights import has_exact_weights, weight_files

BUILTIN_MODELS = Path(__file__).parents[1] / "models"
DEFAULT_BUILTIN = "primer"
GGUF_SUFFIX = ".gguf"
GGUF_PACKAGES = ("gguf", "accelerate")  # the one reads the file, transformers loads none without the other
MAX_NAME = 200  # bytes of a folder's name that go into a file

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
    def is_exact(self) -> bool:
        """Whether it has integer weights, for exact arithmetic."""
        return not self.is_gguf and has_exact_weights(self.path)

    @property
    def weight_bytes(self) -> int:
        files = [self.path] if self.is_gguf else weight_files(self.path)
        return sum(file.stat().st_size for file in files)

    @cached_property
    def fingerprint(self) -> bytes:
        """Model_Fingerprint, read off the files, or known from an earlier time. Raises ModelError."""
        if self.is_gguf:
            self._require_packages()
        if known_one := self.recall().get("fingerprint"):
            return bytes.fromhex(known_one)
        read = gguf_fingerprint if self.is_gguf else folder_fingerprint
        found = explained(f"{self.model_id} cannot be read", lambda: read(self.path))
        self.remember(fingerprint=found.hex(), model_id=self.model_id, revision=self.revision)
        return found

    def recall(self) -> known.Facts:
        """What is known of an outside model."""
        return {} if self.is_builtin else known.recall(self.path)

    def remember(self, **facts: Any) -> None:
        """Know this of an outside model from now on."""
        if not self.is_builtin:
            known.remember(self.path, **facts)

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
    elif (found := _find_local(model)) is not None:
        source = found
    else:
        name = model.removeprefix("hf:")
        if not is_hub_name(name) or (name.lower().endswith(GGUF_SUFFIX) and ":" not in name):
            raise ModelError(f"{model[:MAX_NAME]}: {_nothing_there(model)}")
        if model in _builtin_names():
            raise ModelError(f"{model}: no such folder; the built-in model is called builtin:{model}")
        if revision is not None and not _REVISION.fullmatch(revision):
            raise UsageError(f"--revision: {revision} is no commit, tag or branch")
        return _find_on_hub(name, revision or commit, download)
    if revision is not None:
        raise UsageError("--revision is for models of Hugging Face")
    return source


def _nothing_there(model: str) -> str:
    """Why a name is no model: it looks like that of a file, or like nothing that is known."""
    if model.lower().endswith(GGUF_SUFFIX) and ":" not in model:
        return "no such file"
    if model.startswith(("/", "./", "../", "~")):
        return "no such folder or file"
    built_in = ", ".join(f"builtin:{name}" for name in _builtin_names())
    return f"no such folder or file, and not a Hugging Face id (built-in: {built_in})"


def find_named(model_id: str, revision: str, *, download: bool = False) -> ModelSource:
    """The model that a `.cram` file names. No part of what the file says is ever taken for a path.

    Raises ModelError, and MissingModelError for what a download may bring.
    """
    kind, _, name = model_id.partition(":")
    if kind == "hf" and is_hub_name(name):
        return _find_on_hub(name, as_commit(revision), download)
    if not model_id:
        raise ModelError("the file does not say which model it was made with: say where it is with -m")
    if kind == "local":
        raise ModelError(f"the file was made with a local model, {name!r}: say where it is with -m")
    raise ModelError(f"the file names its model {model_id!r}: say where it is with -m")


def find_digest(digest: bytes) -> ModelSource:
    """The built-in model that a `.cram` file means, the usual one for no digest. Raises WrongModelError."""
    if not digest:
        return find()
    for source in map(_find_builtin, _builtin_names()):
        if source.digest == digest:
            return source
    raise WrongModelError(
        f"the file was made with the built-in model {digest.hex()} of another version of cramzip; "
        "say where it is with -m"
    )


def find_known(fingerprint: bytes) -> ModelSource | None:
    """An outside model that was used on this machine before, by its fingerprint or the first bytes of it."""
    for path, facts in known.models():
        if str(facts.get("fingerprint", "")).startswith(fingerprint.hex()):
            return ModelSource(str(facts.get("model_id", "local:_")), str(facts.get("revision", "")), path)
    return None


def as_commit(revision: str) -> str | None:
    """A Revision out of a file, if it is a commit; names and paths of any other kind are not followed."""
    return revision if _COMMIT.fullmatch(revision) else None


def _find_builtin(name: str) -> ModelSource:
    if name not in (names := _builtin_names()):
        raise ModelError(f"no built-in model is called {name!r}; there is {', '.join(names)}")
    return ModelSource(f"builtin:{name}", "", BUILTIN_MODELS / name)


def _builtin_names() -> list[str]:
    return sorted(path.name for path in BUILTIN_MODELS.iterdir() if (path / "config.json").exists())


def _find_local(model: str) -> ModelSource | None:
    """The model in a folder or GGUF file; None where there is nothing of this name."""
    path = Path(model)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise ModelError(f"{model}: {error.strerror}") from error
    except ValueError:  # a name with a character that none can have
        return None
    if path.is_dir() or (path.is_file() and path.suffix.lower() == GGUF_SUFFIX):
        return ModelSource(f"local:{_storable(path.resolve().name)}", "", path)
    raise ModelError(f"{model}: expected a model folder or a .gguf file")


def _find_on_hub(name: str, revision: str | None, download: bool) -> ModelSource:
    repository, _, file = name.partition(":")
    if file:
        found = find_file(repository, file, revision, download=download)
        return ModelSource(f"hf:{name}", found.commit, found.path)
    folder = find_snapshot(name, revision, download=download)
    return ModelSource(f"hf:{name}", folder.name, folder)


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
        raise ModelError(f"{problem}: {one_line(error)}") from error
