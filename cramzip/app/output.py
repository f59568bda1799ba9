"""A result of a command: written beside its place, and put there in one moment, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import InputOutputError
from ..locks import lock
from ..whole import sync_folder, umask
from .files import BLOCK, beside, is_stream
from .streams import open_descriptor, open_writer, patient, temporary_file

PART = ".part"
LEFTOVER = re.compile(r"(\..*\.)[a-z0-9_]{8}\.part", re.DOTALL)  # with what mkstemp puts into names


class Output:
    """A result that appears whole, in one moment, when `commit` is called; otherwise nothing remains.

    Until then it is `.NAME.XXXXXXXX.part` beside `path`, for its owner's eyes only. Without a path,
    or where the path is a device, it goes to a stream in the end. What a killed process left of an
    earlier attempt is removed; outputs of one command share their `leftovers`.
    """

    def __init__(self, path: Path | None, *, overwrite: bool = False, leftovers: Leftovers | None = None):
        self.path = None if path is None or is_stream(path) else path
        self._stream_path = path if self.path is None else None
        self._overwrite = overwrite
        self._part: Path | None = None
        self.file: BinaryIO
        if self.path is None:
            self.file = temporary_file()
        else:
            (leftovers or Leftovers()).remove(self.path)
            self._part, self.file = _create_part(self.path)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # it tries again to write what there was no room for
            self.file.close()
        if self._part is not None:
            with suppress(OSError):  # whatever went wrong before this is told
                self._part.unlink()

    def commit(self, like: os.stat_result | None = None) -> None:
        """Put the result in its place, with owner, mode and times of the file with status `like`."""
        self.file.flush()
        if self.path is None or self._part is None:
            self._copy_to_stream()
            return
        try:
            _dress(self.file.fileno(), like)
            os.fsync(self.file.fileno())
            if not self._overwrite and os.path.lexists(self.path):
                raise InputOutputError(f"{self.path} has appeared in the meantime; -f overwrites it")
            self._part.replace(self.path)
        except OSError as error:
            error.filename, error.filename2 = str(self.path), None
            raise
        self._part = None
        sync_folder(self.path.parent)

    def _copy_to_stream(self) -> None:
        self.file.seek(0)
        if self._stream_path is not None:
            with open_writer(self._stream_path) as stream:
                shutil.copyfileobj(self.file, stream, BLOCK)
        else:
            stdout = patient(sys.stdout.buffer)
            shutil.copyfileobj(self.file, stdout, BLOCK)
            stdout.flush()


def try_writing(path: Path) -> None:
    """Raise InputOutputError where no file can be made at `path`, before hours of work go into one."""
    # Of names that are too long, pathlib raises.
    if is_stream(path) or os.path.isdir(path) or not os.path.isdir(path.parent):  # noqa: PTH112
        return  # `check_target` sees to these
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except UnicodeEncodeError:
        raise InputOutputError(f"{path} cannot be written: the locale cannot spell this name") from None
    except OSError as error:
        raise InputOutputError(f"{path} cannot be written: {error.strerror}") from None
    try:
        part, file = _create_part(path)
        file.close()
        part.unlink()
    except OSError as error:
        raise InputOutputError(f"nothing can be written into {path.parent}: {error.strerror}") from None


def _create_part(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, locked for as long as it is open, so that it is not taken for a leftover."""
    prefix = beside(path, ".").name
    while True:
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=PART, dir=path.parent)
        lock(descriptor, wait=True)
        part = Path(name)
        if part.exists():  # else another process has just taken it for a leftover
            return part, open_descriptor(descriptor, str(path))
        os.close(descriptor)


class Leftovers:
    """What killed processes left of their outputs. Each folder is listed once, however many outputs go into it."""

    def __init__(self) -> None:
        self._found: dict[Path, dict[str, list[Path]]] = {}  # by folder, and by what their names begin with

    def remove(self, path: Path) -> None:
        """Remove what is left of earlier attempts to write `path`."""
        folder = path.parent
        if folder not in self._found:
            self._found[folder] = _leftovers_in(folder)
        for part in self._found[folder].pop(beside(path, ".").name, ()):
            with suppress(OSError), part.open("rb") as file:  # BlockingIOError while its process lives
                if lock(file):
                    part.unlink()


def _leftovers_in(folder: Path) -> dict[str, list[Path]]:
    """Nothing where the folder may not be listed: one can write into it all the same."""
    found: dict[str, list[Path]] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := LEFTOVER.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                found.setdefault(match[1], []).append(folder / entry.name)
    return found


def _dress(descriptor: int, like: os.stat_result | None) -> None:
    if like is None:
        os.fchmod(descriptor, 0o666 & ~umask())
        return
    mode = stat.S_IMODE(like.st_mode) & 0o777
    with suppress(OSError):
        os.fchown(descriptor, like.st_uid, -1)
    try:
        os.fchown(descriptor, -1, like.st_gid)
    except OSError:
        mode &= 0o707  # rights of one group are not given to another
    os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=(like.st_atime_ns, like.st_mtime_ns))
