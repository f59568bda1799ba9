"""The primitives of the wire format (section 1 of formats/cram.md): varints, strings, a strict cursor."""

from __future__ import annotations

import re
from typing import NoReturn

from ..errors import DamagedFileError, UsageError
from ..filters.base import MAX_VARINT_BYTES
from ..filters.base import pack_varint as pack_varint

Bytes = bytes | memoryview

MAX_STRING = 255
MAX_GROUP_SIZE = 2**22
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


def byte_view(data: object) -> memoryview:
    """The bytes of an object that has a buffer, whatever its items are. Raises UsageError for any other object."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"expected bytes, found {type(data).__name__}") from None
    if not view.nbytes:
        return memoryview(b"")
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def pack_string(text: str) -> bytes:
    """The length in bytes as a varint, then UTF-8."""
    encoded = text.encode()
    return pack_varint(len(encoded)) + encoded


class Cursor:
    """Walks through bytes, strictly. Every fault is a DamagedFileError with the `stage` that was set last."""

    def __init__(self, data: Bytes, stage: str, position: int = 0):
        self.data, self.stage, self.position = memoryview(data), stage, position

    def fail(self, message: str) -> NoReturn:
        raise DamagedFileError(self.stage, f"{message} (at byte {self.position})")

    @property
    def remaining(self) -> int:
        return len(self.data) - self.position

    def take(self, size: int) -> bytes:
        if size > self.remaining:
            self.fail(f"{size} bytes expected, {self.remaining} left")
        self.position += size
        return bytes(self.data[self.position - size : self.position])

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def varint(self) -> int:
        value = 0
        for index in range(MAX_VARINT_BYTES):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index:
                    self.fail("varint is not in its shortest form")
                return value
        self.fail("varint is too long")

    def string(self) -> str:
        size = self.varint()
        if size > MAX_STRING:
            self.fail(f"string of {size} bytes, at most {MAX_STRING} allowed")
        try:
            text = self.take(size).decode()
        except UnicodeDecodeError:
            self.fail("string is not valid UTF-8")
        if CONTROL_CHARACTER.search(text):
            self.fail("string has control characters")
        return text
