"""The journal: finished segments on disk, so that a long job goes on where a killed one stopped.

A hidden file beside the output, `.book.cram.journal`:

    journal = "CRAMZIPJ" || record(identity) || record(segment) || record(segment) || ...
    record  = u32 length || crc || that many bytes
    segment = f64 capacity || f64 gain || varint number of groups || their table entries || their payloads

`identity` is a digest of everything that the groups depend on. A record that is cut off or does not match its
CRC ends the journal. A damaged magic before a good record is mended. While a process works with it, the file is locked.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..coding.original import Segment
from ..container.reading import read_entry
from ..container.records import Group
from ..container.wire import Cursor, pack_varint
from ..container.writing import pack_entry
from ..errors import DamagedFileError, InputOutputError
from ..locks import lock

MAGIC = b"CRAMZIPJ"


class Journal:
    """The finished segments. Its groups (or `segments`) can be walked as often as needed; none is kept in memory.

    `resumed_bytes` of the original were in it when it was opened. `discarded`: it was there, but of another job, and
    was begun anew. Without a path the journal is a temporary file that nobody can resume.
    Raises InputOutputError while another process has it.
    """

    def __init__(self, path: Path | None, identity: bytes):
        self.path = path
        self._file = _open_locked(path)
        self._records: list[tuple[int, int]] = []  # offset and length of each segment
        found: bool | None = True
        try:
            found = self._load(identity)
            if not found:
                self._begin(identity)
            self.resumed_bytes = sum(group.entry.size for group in self)
        except BaseException:
            self.close(remove=not found)  # there is nothing in it
            raise
        self.discarded = found is False

    def _begin(self, identity: bytes) -> None:
        self._records.clear()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._write(MAGIC)
        self._append(identity)

    def _load(self, identity: bytes) -> bool | None:
        """Find the records of this job. Returns False if they are of another job, None if there are none."""
        size = os.fstat(self._file).st_size
        if not size:
            return None
        begin = os.pread(self._file, len(MAGIC), 0)
        if begin != MAGIC[:size]:
            if any(begin) and self._read_record(len(MAGIC), size) is None:
                raise InputOutputError(f"{self.path} is in the way and is not a journal of cramzip; move it elsewhere")
            os.pwrite(self._file, MAGIC, 0)  # damaged, or never written before the power failed
        position = len(MAGIC)
        while record := self._read_record(position, size):
            self._records.append((position + 8, len(record)))
            position += 8 + len(record)
        if not self._records:
            return None
        if os.pread(self._file, self._records[0][1], self._records[0][0]) != identity:
            return False
        del self._records[0]
        os.ftruncate(self._file, position)
        os.lseek(self._file, position, os.SEEK_SET)
        return True

    def _read_record(self, position: int, size: int) -> bytes | None:
        frame = os.pread(self._file, 8, position)
        length = int.from_bytes(frame[:4], "little")
        if len(frame) < 8 or length == 0 or position + 8 + length > size:
            return None
        record = os.pread(self._file, length, position + 8)
        return record if zlib.crc32(record) == int.from_bytes(frame[4:], "little") else None

    def append(self, segment: Segment) -> None:
        """Put a segment on disk; when this returns, it is safe."""
        body = struct.pack("<dd", segment.capacity, segment.gain) + pack_varint(len(segment.groups))
        body += b"".join(pack_entry(group.entry) for group in segment.groups)
        body += b"".join(group.payload for group in segment.groups)
        offset = os.lseek(self._file, 0, os.SEEK_CUR) + 8
        self._append(body)
        self._records.append((offset, len(body)))

    def _append(self, body: bytes) -> None:
        frame = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")
        self._write(frame + body)

    def _write(self, data: bytes) -> None:
        """Put `data` at the end, whole or not at all. Raises OSError, which names the journal."""
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        remaining = memoryview(data)
        try:
            while remaining:
                remaining = remaining[os.write(self._file, remaining) :]
            if self.path is not None:
                os.fsync(self._file)
        except OSError as error:
            error.filename = str(self.path or tempfile.gettempdir())
            with suppress(OSError):
                os.ftruncate(self._file, end)
                os.lseek(self._file, end, os.SEEK_SET)
            raise

    def __len__(self) -> int:
        return len(self._records)

    @property
    def segments(self) -> Iterator[Segment]:
        for offset, length in self._records:
            yield _unpack(os.pread(self._file, length, offset))

    def __iter__(self) -> Iterator[Group]:
        for segment in self.segments:
            yield from segment.groups

    @property
    def gain(self) -> float:
        """Bits that vectors have saved."""
        return sum(segment.gain for segment in self.segments)

    def close(self, *, remove: bool) -> None:
        """Close the journal, and with `remove` delete its file."""
        try:
            if remove and self.path is not None:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._file)


def _unpack(body: bytes) -> Segment:
    cursor = Cursor(body, "journal")
    try:
        capacity, gain = struct.unpack("<dd", cursor.take(16))
        entries = [read_entry(cursor) for _ in range(cursor.varint())]
        groups = tuple(Group(entry, cursor.take(entry.payload_size)) for entry in entries)
        return Segment(groups, capacity, gain)
    except DamagedFileError as error:
        raise InputOutputError(f"the journal cannot be read ({error}); delete it") from error


def _open_locked(path: Path | None) -> int:
    """A descriptor of the journal at `path` that no other process has."""
    if path is None:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, path)
            mine = os.fstat(descriptor)
            if mine.st_uid != os.geteuid():
                raise InputOutputError(f"{path} belongs to another user")
            if path.exists() and path.stat().st_ino == mine.st_ino:  # else its owner has just removed it
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        lock(descriptor)
    except BlockingIOError:
        raise InputOutputError(f"another cramzip is working on the same output ({path} is locked)") from None
