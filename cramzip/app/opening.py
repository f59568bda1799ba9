"""`cramzip.open`: a `.cram` file read and written like any other, as `gzip.open` does it."""

from __future__ import annotations

import io
import mmap
import os
from bisect import bisect_right
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import codec
from ..coding.restore import restore_part
from ..config import CramConfig
from ..container import reading
from ..container.wire import Bytes
from ..errors import UsageError
from ..whole import write_whole

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

    is_wanted = True

    def __init__(self, path: Path, lm: LM | None, config: CramConfig | None, needed: Needed, *, is_new: bool):
        super().__init__()
        if is_new and path.exists():
            raise FileExistsError(17, os.strerror(17), str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(2, os.strerror(2), str(path))
        self.name = str(path)
        self._path, self._lm, self._config, self._needed = path, lm, config, needed

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
                write_whole(self._path, blob)
        finally:
            super().close()


def _contents(path: Path) -> Bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
