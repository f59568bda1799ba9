"""Paths and streams: what is read, what results are called, and how they appear whole or not at all.

Knows names and bytes, nothing of models or of what the bytes mean.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..container.endings import ending_of
from ..container.records import Header
from ..container.wire import Bytes
from ..errors import InputOutputError, UsageError
from .streams import descriptor_of, open_reader, patient, temporary_file

SUFFIX = ".cram"
STDIN, STDIN_LABEL = "-", "(stdin)"
BLOCK = 2**20
MAX_NAME_BYTES = 200  # leaves room for what a hidden file beside it needs


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One input as it was at one moment: `data` is a private copy that no other process can change.

    The copy is an unnamed temporary file, mapped into memory: a large input takes room on the disk, not memory,
    a pipe is read like a file, and a file that is truncated meanwhile does no harm.
    """

    path: Path | None  # None: standard input
    data: Bytes
    sha256: bytes
    status: os.stat_result | None  # of a regular file with a name of its own

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def name(self) -> str | None:
        """Base name of a regular file that can be written as UTF-8, as every name in a header must."""
        if self.path is None or self.status is None:
            return None
        try:
            self.path.name.encode()
        except UnicodeEncodeError:
            return None
        return self.path.name

    def is_at(self, path: Path) -> bool:
        """Whether `path` is a name of this very file."""
        return self.path is not None and path.exists() and path.samefile(self.path)

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is still what was read."""
        if self.path is None or self.status is None:
            return True
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False
        fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
        return all(getattr(now, field) == getattr(self.status, field) for field in fields)

    def check_unchanged(self, consequence: str) -> None:
        """Raises InputOutputError, with the `consequence`, if the file is no longer what was read."""
        if not self.is_unchanged:
            raise InputOutputError(f"the file was changed in the meantime; {consequence}")


def label(argument: str) -> str:
    """How messages call the input `argument`."""
    return STDIN_LABEL if argument == STDIN else argument


def read(argument: str) -> Source:
    """The input that a user calls `argument`; `-` is standard input.

    Raises InputOutputError for folders, devices and a closed standard input, and OSError as the system does.
    """
    if argument == STDIN:
        if sys.stdin is None:
            raise InputOutputError("is closed")
        if sys.stdin.isatty():
            raise UsageError("no input: name a file, or pipe data in")
        return _copy(patient(sys.stdin.buffer), None, None)
    path = Path(argument)
    _check_kind(path.stat())  # before opening, which can block or act on a device
    with open_reader(path) as stream:
        status = os.fstat(stream.fileno())
        _check_kind(status)
        is_named = stat.S_ISREG(status.st_mode) and descriptor_of(path) is None
        source = _copy(stream, path, status if is_named else None)
    source.check_unchanged("try again")
    return source


def read_file(path: str) -> bytes:
    """A regular file or a pipe, at once. Raises InputOutputError for anything else, and OSError as the system does."""
    _check_kind(Path(path).stat())
    with open_reader(Path(path)) as stream:
        return stream.read()


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise InputOutputError("is a directory")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise InputOutputError("is neither a file nor a pipe")


def _copy(stream: BinaryIO, path: Path | None, status: os.stat_result | None) -> Source:
    digest = hashlib.sha256()
    with temporary_file() as copy:
        while block := stream.read(BLOCK):
            digest.update(block)
            copy.write(block)
        return Source(path, map_file(copy), digest.digest(), status)


def map_file(file: BinaryIO) -> Bytes:
    """A view of all that was written to `file`; it outlives the closing of the file."""
    file.flush()
    if os.fstat(file.fileno()).st_size == 0:  # cannot be mapped
        return b""
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def inside(folder: str, wanted: Callable[[Path], bool]) -> list[str]:
    """Folders and `wanted` regular files in `folder`, by name; nothing that is hidden or a link. Raises OSError."""
    return [
        os.path.join(folder, path.name)  # noqa: PTH118 (never `-`, which would be standard input)
        for path in sorted(Path(folder).iterdir())
        if not path.name.startswith(".")
        and not path.is_symlink()
        and (path.is_dir() or (path.is_file() and wanted(path)))
    ]


def is_compressed(path: Path) -> bool:
    return path.suffix == SUFFIX


# -- names -----------------------------------------------------------------------------------------


def compressed_path(path: Path, *, whole_name: bool = False) -> Path:
    """Where `path` is compressed to: `book.txt` to `book.cram`, or with its `whole_name` to `book.txt.cram`.

    The whole name is for files whose header does not keep the ending.
    """
    ending = None if whole_name else ending_of(path.name)
    return path.with_name((path.name if ending is None else path.stem) + SUFFIX)


def original_path(path: Path, header: Header) -> Path:
    """Where the file at `path` is decompressed to, always in its own folder.

    That is the name in its header, or else its own name without `.cram`, with the ending in the header. Raises
    UsageError when neither is to be had, and for a hidden file that hides behind an ordinary name.
    """
    if header.name is not None:
        if header.name.startswith(".") and not path.name.startswith("."):
            raise UsageError(f"its original name is the hidden {header.name!r}; say where to write with -o")
        return path.with_name(header.name)
    ending = f".{header.ending}" if header.ending else ""
    name = path.stem if path.stem.endswith(ending) else path.stem + ending
    if path.suffix != SUFFIX or name in (".", ".."):
        raise UsageError("it does not say what the original was called; say where to write with -o")
    return path.with_name(name)


def beside(path: Path, ending: str) -> Path:
    """A hidden companion of `path`: `.book.cram` and `ending`; of very long names, the digest."""
    name = path.name
    encoded = os.fsencode(name)
    if len(encoded) > MAX_NAME_BYTES:
        name = hashlib.sha256(encoded).hexdigest()
    return path.with_name(f".{name}{ending}")


def example_texts() -> list[str]:
    """The texts that come with a checkout of cramzip. Raises UsageError if there are none."""
    for root in (Path(__file__).parents[2], Path()):
        texts = sorted(path for path in (root / "examples" / "texts").glob("*") if path.is_file())
        if texts:
            return [str(path) for path in texts]
    raise UsageError("examples/texts is not here: name the files to measure")


# -- writing ---------------------------------------------------------------------------------------


def is_stream(path: Path) -> bool:
    """Whether `path` is something that is written into and never replaced, such as /dev/null or /dev/fd/3."""
    if descriptor_of(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # of names that are too long, or that the locale cannot spell
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_target(path: Path, source: Source, *, force: bool, ask: Callable[[str], bool]) -> bool:
    """Whether something may be overwritten at `path`. Raises InputOutputError if it may not be written.

    `ask` puts a question to the user. Nothing is touched.
    """
    if (descriptor := descriptor_of(path)) is not None:
        try:
            os.write(descriptor, b"")
        except OSError:
            raise InputOutputError(f"{path} is not open for writing") from None
        return True
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise InputOutputError(f"{path.parent} is not a directory")
    if not os.path.lexists(path):
        return force
    if path.is_dir():
        raise InputOutputError(f"{path} is a directory")
    if source.is_at(path):
        raise InputOutputError("input and output are the same file")
    if is_stream(path):
        if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise InputOutputError(f"{path} may not be written to")
        return True
    if force or ask(f"{path} exists already; overwrite it?"):
        return True
    raise InputOutputError(f"{path} exists already; -f overwrites it")
