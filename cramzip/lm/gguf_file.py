"""What a GGUF file says: its metadata, and where its tensors are. Knows nothing of what they mean.

Strict: a count that the bytes after it could not hold is refused before anything is read by it.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..errors import ModelError

if TYPE_CHECKING:
    import numpy as np

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY = 8, 9  # types of values; all others are numbers, with these names in NumPy
NUMBERS = dict(enumerate(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"])) | {10: "<u8", 11: "<i8", 12: "<f8"}
LEAST_FIELD, LEAST_TENSOR = 13, 24  # bytes: an empty name, a type and a value; an empty name, no dimensions
MAX_DIMENSIONS = 8
ALIGNMENT = 32  # of the tensors, where the file does not say another


class GgufTensor(NamedTuple):
    """A tensor as it is stored: `dtype` is the name of its GGML type, the shape in the order of the file."""

    name: str
    dtype: str
    shape: list[int]
    data: memoryview


@dataclass(frozen=True)
class GgufFile:
    """The metadata of a GGUF file, arrays of numbers as NumPy arrays and others as lists, and its tensors."""

    fields: dict[str, Any]
    tensors: list[GgufTensor]
    kinds: dict[str, tuple[int, ...]]  # the type of each field, and of what is in an array

    def plain(self, key: str) -> Any:
        """A value as JSON can hold it. Raises ModelError if it is missing."""
        if key not in self.fields:
            raise ModelError(f"{key}: missing in the GGUF file")
        value = self.fields[key]
        return value.tolist() if hasattr(value, "tolist") else value


def read_gguf(path: Path) -> GgufFile:
    """What a file says. Raises ModelError."""
    with path.open("rb") as source:
        if not source.read(1):
            raise ModelError(f"{path}: empty, expected a GGUF file")
        data = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
    return _Reader(path, data).read()


class _Description(NamedTuple):
    name: str
    shape: list[int]
    kind: int
    offset: int


class _Reader:
    """Walks through a GGUF file; every fault is a ModelError that names the file and the place."""

    def __init__(self, path: Path, data: memoryview):
        self.path, self.data, self.position = path, data, 0

    def read(self) -> GgufFile:
        if self._take(4) != MAGIC:
            raise ModelError(f"{self.path}: not a GGUF file")
        if (version := self._integer("<I")) not in VERSIONS:
            self._fail(f"GGUF version: expected {VERSIONS[0]} or {VERSIONS[1]}, found {version}")
        n_tensors, n_fields = self._count(LEAST_TENSOR), self._count(LEAST_FIELD)
        fields: dict[str, Any] = {}
        kinds: dict[str, tuple[int, ...]] = {}
        for _ in range(n_fields):
            key = self._string()
            if key in fields:
                self._fail(f"{key}: there twice")
            kinds[key] = self._kind()
            fields[key] = self._value(kinds[key])
        described = [self._describe() for _ in range(n_tensors)]
        alignment = fields.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self._fail(f"general.alignment: expected a power of two, found {alignment}")
        begin = -(-self.position // alignment) * alignment
        tensors = [self._tensor(about, begin) for about in described]
        if len({tensor.name for tensor in tensors}) < len(tensors):
            self._fail("two tensors have one name")
        return GgufFile(fields, tensors, kinds)

    def _fail(self, message: str) -> NoReturn:
        raise ModelError(f"{self.path}: {message} (at byte {self.position})")

    def _take(self, size: int) -> bytes:
        if size > len(self.data) - self.position:
            self._fail(f"{size} bytes expected, {len(self.data) - self.position} left")
        self.position += size
        return bytes(self.data[self.position - size : self.position])

    def _integer(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _count(self, least_size: int) -> int:
        """How many items come next, each of at least `least_size` bytes."""
        count, left = self._integer("<Q"), len(self.data) - self.position
        if count * least_size > left:
            self._fail(f"cut off: {count} items of {least_size} bytes or more expected, {left} bytes left")
        return count

    def _string(self) -> str:
        try:
            return self._take(self._integer("<Q")).decode()
        except UnicodeDecodeError:
            self._fail("a string is not UTF-8")

    def _strings(self) -> list[str]:
        """As many strings as the count that comes next says: a vocabulary has tens of thousands."""
        count, size_at, found = self._count(8), struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            try:
                begin = self.position + 8
                end = begin + size_at(self.data, self.position)[0]
                if end > len(self.data):
                    self._fail(f"{end - begin} bytes expected, {len(self.data) - begin} left")
                found.append(str(self.data[begin:end], "utf-8"))
            except struct.error:
                self._fail(f"8 bytes expected, {len(self.data) - self.position} left")
            except UnicodeDecodeError:
                self._fail("a string is not UTF-8")
            self.position = end
        return found

    def _kind(self) -> tuple[int, ...]:
        kind = self._integer("<I")
        return (kind, self._integer("<I")) if kind == ARRAY else (kind,)

    def _value(self, kind: tuple[int, ...]) -> Any:
        if kind[0] == STRING:
            return self._string()
        if kind[0] == ARRAY:
            return self._array(kind[1])
        return self._numbers(kind[0], 1).tolist()[0]

    def _array(self, kind: int) -> Any:
        if kind == ARRAY:
            self._fail("arrays of arrays are not supported")
        if kind == STRING:
            return self._strings()
        return self._numbers(kind)

    def _numbers(self, kind: int, count: int | None = None) -> np.ndarray:
        """`count` numbers, or without it as many as the count that comes next says."""
        import numpy as np

        if kind not in NUMBERS:
            self._fail(f"{kind}: not a type of values")
        dtype = np.dtype(NUMBERS[kind])
        count = self._count(dtype.itemsize) if count is None else count
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _describe(self) -> _Description:
        name, n_dimensions = self._string(), self._integer("<I")
        if n_dimensions > MAX_DIMENSIONS:
            self._fail(f"{name}: {n_dimensions} dimensions, expected {MAX_DIMENSIONS} or fewer")
        shape, kind = [self._integer("<Q") for _ in range(n_dimensions)], self._integer("<I")
        return _Description(name, shape, kind, self._integer("<Q"))

    def _tensor(self, about: _Description, begin: int) -> GgufTensor:
        """A tensor, the data of all of them beginning at `begin`."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name, shape, kind, offset = about
        try:
            dtype = GGMLQuantizationType(kind)
        except ValueError:
            self._fail(f"{name}: {kind} is not a GGML type that is known here")
        block, size = GGML_QUANT_SIZES[dtype]
        if shape and shape[0] % block:
            self._fail(f"{name}: rows of {shape[0]} numbers, expected a multiple of {block}")
        begin += offset
        end = begin + math.prod(shape) // block * size
        if end > len(self.data):
            raise ModelError(f"{self.path}: cut off: tensor {name} ends at byte {end} of {len(self.data)}")
        return GgufTensor(name, dtype.name, shape, self.data[begin:end])
