"""Records on disk, one JSON object a line, so that what was measured once is never measured again.

A record is looked up by its `key`, an object of all that decides what comes out. Every line is on the disk before
`add` returns. A line that was cut off, as a killed process may leave it, is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputOutputError
from ..locks import lock

Record = dict[str, Any]


class Store:
    """The records of one file, which is made where it is missing. Raises InputOutputError while another process adds.

    With `read_only` the file has to be there, and is not locked.
    """

    def __init__(self, path: Path, *, read_only: bool = False):
        self.path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, which would keep what there is no room for.
        self._file = path.open("rb" if read_only else "ab+", buffering=0)
        if not read_only:
            self._lock()
        self._records: dict[str, Record] = {}
        whole = 0
        self._file.seek(0)
        for line in self._file.read().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self._load(line)
            whole += len(line)
        if not read_only and whole < self._file.seek(0, os.SEEK_END):
            self._file.truncate(whole)

    def _lock(self) -> None:
        try:
            lock(self._file)
        except BlockingIOError:
            self._file.close()
            raise InputOutputError(
                f"another cramzip is measuring into the same folder ({self.path} is locked)"
            ) from None

    def _load(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self._records[_name(record["key"])] = record
        except (ValueError, KeyError, TypeError):
            raise InputOutputError(f"{self.path} is in the way and has lines that are no records") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Record]:
        """The records, the last one of each key, in the order in which they were first added."""
        return iter(self._records.values())

    def get(self, key: Record) -> Record | None:
        return self._records.get(_name(key))

    def add(self, record: Record) -> None:
        """Append a record. It takes the place of an older one with the same key."""
        record = json.loads(json.dumps(record))  # as it will be read again
        if self.get(record["key"]) == record:
            return
        self._append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._records[_name(record["key"])] = record

    def _append(self, line: bytes) -> None:
        """Put a line at the end, whole or not at all. Raises OSError, which names the file."""
        end = self._file.seek(0, os.SEEK_END)
        remaining = memoryview(line)
        try:
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            with suppress(OSError):
                self._file.truncate(end)
            raise


def _name(key: Record) -> str:
    return json.dumps(key, sort_keys=True)
