"""`cramzip.open`: a `.cram` file read and written like any other, as `gzip.open` does it."""

from __future__ import annotations

import errno
import io
import os
import shutil
from bisect import bisect_right
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import codec
from ..coding.restore import restore_part
from ..config import CramConfig
from ..container import reading
from ..container.wire import Bytes
from ..errors import InputOutputError, UsageError
from ..whole import write_whole
from .files import BLOCK, is_stream, map_file
from .streams import temporary_file

if TYPE_CHECKING:
    from ..lm.models import LM

MODES = ("r", "rb", "rt", "w", "wb", "wt", "x", "xb", "xt")


def open(
    path: str | os.PathLike[str],
    mode: str = "rb",
    lm: LM | None = None,
    config: CramConfig | None = None,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    dictionary: Bytes | None = None,
    codebook: Bytes | None = None,
) -> IO[Any]:
    """Open a `.cram` file: `rb` reads bytes and seeks, `rt` reads text, `wb` and `wt` write, `xb` and `xt` a new file.

    What is read is decoded group by group, when it is needed, and checked by the checksums of its groups. What is
    written is compressed at `close`, and appears whole or not at all: an exception in a `with` block leaves what was
    there. `lm` is the built-in model unless another is given; `encoding`, `errors` and `newline` are those of `open`,
    `dictionary` and `codebook` are those of `compress`.
    Raises UsageError, DamagedFileError, WrongModelError, OSError.
    """
    if mode not in MODES:
        raise UsageError(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
    is_text = mode.endswith("t")
    if not is_text and (encoding, errors, newline) != (None, None, None):
        raise UsageError(f"mode {mode}: encoding, errors and newline are for texts")
    codec.check_given(lm, config)
    if is_text:  # what makes no sense is refused before there is anything whose end could be written
        io.TextIOWrapper(io.BytesIO(), encoding=encoding or "utf-8", errors=errors, newline=newline)
    needed = {"dictionary": dictionary, "codebook": codebook}
    stream: IO[bytes]
    if mode.startswith("r"):
        stream = io.BufferedReader(_Reader(Path(path), lm, needed))
    else:
        stream = _Written(Path(path), lm, config, needed, is_new=mode.startswith("x"))
    return _Text(stream, encoding=encoding or "utf-8", errors=errors, newline=newline) if is_text else stream


Needed = dict[str, Any]  # what a file may need beside the model: the dictionary and the codebook, by these words


class _Reader(io.RawIOBase):
    """The original of a file. The group that was read last is kept."""

    def __init__(self, path: Path, lm: LM | None, needed: Needed):
        self.name = str(path)
        self._file = reading.read(_contents(path))
        self._lm, self._needed = lm, needed
        self._offsets = self._file.offsets
        self._position, self._group, self._content = 0, -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._offsets[-1]}[whence]
        if begin + offset < 0:
            raise ValueError(f"cannot seek to {begin + offset}")
        self._position = begin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._check_open()
        if self._position >= self._offsets[-1]:
            return 0
        group = bisect_right(self._offsets, self._position) - 1
        begin, end = self._offsets[group : group + 2]
        if group != self._group:
            self._lm = codec.model_for(self._file.header, self._lm, **self._needed)
            self._content, self._group = restore_part(self._file, self._lm, begin, end), group
        found = self._content[self._position - begin : self._position - begin + len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class _Text(io.TextIOWrapper):
    """Text in front of either of the others."""

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is not None and isinstance(self.buffer, _Written):
            self.buffer.is_wanted = False
        self.close()


class _Written(io.BytesIO):
    """What is written, until it is compressed at `close`, if it is still wanted then."""

    is_wanted = False

    def __init__(self, path: Path, lm: LM | None, config: CramConfig | None, needed: Needed, *, is_new: bool):
        super().__init__()
        _check_place(path, is_new=is_new)
        self.name = str(path)
        self._path, self._lm, self._config, self._needed, self._is_new = path, lm, config, needed, is_new
        self.is_wanted = True

    def __exit__(self, kind: object, *rest: object) -> None:
        self.is_wanted = kind is None  # else what was there stays
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self.is_wanted:
                content = self.getvalue()
                blob = codec.compress(content, self._lm, self._config, **self._needed)
                _check_place(self._path, is_new=self._is_new)
                write_whole(self._path, blob)
        finally:
            super().close()


def _check_place(path: Path, *, is_new: bool) -> None:
    """Raise OSError, as `open` would, where no file can be put, and InputOutputError for what is never replaced."""
    if is_new and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if is_stream(path):
        raise InputOutputError(f"{path} is no file: a file is put in its place at the end, and it would be gone")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _contents(path: Path) -> Bytes:
    """A copy that no other process can change or cut off while it is read."""
    with path.open("rb") as file, temporary_file() as copy:
        shutil.copyfileobj(file, copy, BLOCK)
        return map_file(copy)
