"""Streams that wait and errors that say where: a pipe or terminal with O_NONBLOCK is read to its end, and takes all
that is written; what cannot be written is told with the name of its place.

Whoever starts cramzip can hand on such streams, and can set the flag while cramzip runs. They answer "nothing yet"
and "no room yet", which Python's own streams take for an empty read and raise as BlockingIOError.
"""

from __future__ import annotations

import io
import os
import re
import select
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

STDOUT_LABEL = "(stdout)"

_DESCRIPTOR = re.compile(r"/?/dev/(stdin|stdout|stderr)|(?:/?/dev|/?/proc/self)/fd/([0-9]{1,9})")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


class PatientFile(io.FileIO):
    """A file that returns from reading with data or at the end, and from writing when some of it is written.

    Errors of writing are those of the place that it is `called`.
    """

    def __init__(self, file: str | Path | int, mode: str, called: str | None = None, *, closefd: bool = True):
        super().__init__(file, mode, closefd)
        self.called = called or str(file)

    def readinto(self, buffer: WriteableBuffer) -> int:
        while (size := super().readinto(buffer)) is None:
            select.select([self], [], [])
        return size

    def read(self, size: int | None = -1) -> bytes:
        return cast(bytes, io.RawIOBase.read(self, -1 if size is None else size))  # which goes through `readinto`

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self)  # which goes through `read`

    def write(self, data: ReadableBuffer) -> int:
        try:
            while (size := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            error.filename = self.called
            raise
        return size


class MessageFile(PatientFile):
    """A file for messages: where they cannot be written, there is nobody to tell, and the work goes on."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def patient(stream: BinaryIO, kind: type[PatientFile] = PatientFile) -> BinaryIO:
    """A stream that waits, in place of a standard stream from which nothing was read yet; others stay as they are."""
    raw = getattr(stream, "raw", stream)  # with `python -u` there is no buffer around it
    if type(raw) is not io.FileIO:
        return stream
    if raw.readable():
        return io.BufferedReader(kind(raw.fileno(), "r", closefd=False))
    stream.flush()
    return cast(BinaryIO, io.BufferedWriter(kind(raw.fileno(), "w", STDOUT_LABEL, closefd=False)))


def patient_text(
    stream: TextIO | None, errors: str | None = None, kind: type[PatientFile] = PatientFile
) -> TextIO | None:
    """The same for text, with another treatment of `errors` if that is given."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    errors = errors or stream.errors
    buffer = patient(cast(BinaryIO, stream.buffer), kind)
    if buffer is stream.buffer:
        stream.reconfigure(errors=errors)
        return stream
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def descriptor_of(path: Path) -> int | None:
    """The open file that a path such as /dev/fd/3 or /dev/stderr stands for; None for every other path."""
    spelled_out = os.path.abspath(path)  # noqa: PTH100 (`resolve` would follow the link)
    if not (match := _DESCRIPTOR.fullmatch(spelled_out)):
        return None
    return _STANDARD[match[1]] if match[1] else int(match[2])


def discard_unwritten(stream: TextIO | None) -> None:
    """Let go of what could not be written to a standard stream; when Python ends, it would try again, and complain."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def temporary_file() -> BinaryIO:
    """A file without a name."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return open_descriptor(os.dup(file.fileno()), tempfile.gettempdir())


def open_descriptor(descriptor: int, called: str) -> BinaryIO:
    """A buffered file to read and write."""
    return cast(BinaryIO, io.BufferedRandom(PatientFile(descriptor, "r+", called)))


def open_reader(path: Path) -> BinaryIO:
    return io.BufferedReader(PatientFile(path, "r"))


def open_writer(path: Path) -> BinaryIO:
    """An open file is written into where it stands, as a shell would; opening it by its path would cut it off."""
    descriptor = descriptor_of(path)
    file = path if descriptor is None else os.dup(descriptor)
    return cast(BinaryIO, io.BufferedWriter(PatientFile(file, "w", str(path))))
