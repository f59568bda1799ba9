"""The `.cram` container: header, chunk table and payloads to bytes and back.

Knows nothing of models and imports no torch. Every limit and the order of checks are those of
formats/cram.md; parsing allocates nothing that the input has not paid for in bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import BinaryIO, NoReturn

import zstandard

from .errors import DamagedFileError
from .wire import CONTROL_CHARACTER, MAX_CHUNK_SIZE, MAX_STRING, Bytes, Cursor, pack_string, pack_varint

MAGIC = b"\x9dCZ\n"
VERSION = 1
GENOMICS_MAGIC = b"CRAM"

HAS_NAME, HAS_MODEL, RESERVED_FLAGS = 0x01, 0x02, 0xF0
COMPUTE_FLOAT32 = 0
VECTORS_FLOAT16 = 1
CORRECTIONS_LISTED = 1

MAX_TOKENS = 2**16
MAX_VECTORS = 2**12
MAX_VOCABULARY = 2**24
MAX_WIDTH = 2**16
MAX_NOISE_EXPONENT = 63
MAX_ZSTD_WINDOW = 2**23
MIN_ENTRY_SIZE = 7

_MODEL_ID = re.compile(r"(builtin|hf|local):.+", re.DOTALL)


class Kind(IntEnum):
    RAW = 0
    ZSTD = 1
    CRAMMED = 2


@dataclass(frozen=True)
class ModelBlock:
    """What a file says of the model that it was made with (section 4)."""

    model_id: str
    revision: str
    fingerprint: bytes
    tokenizer_hash: bytes
    vocabulary_size: int
    vector_width: int
    noise_exponent: int
    compute_type: int = COMPUTE_FLOAT32
    vector_coding: int = VECTORS_FLOAT16
    correction_coding: int = CORRECTIONS_LISTED

    @property
    def noise_bound(self) -> float:
        """Largest error of any logit under which the file still decodes to the same tokens."""
        return 2.0**-self.noise_exponent


@dataclass(frozen=True)
class Header:
    original_size: int
    original_sha256: bytes
    name: str | None = None
    model: ModelBlock | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One chunk in the chunk table; sizes in bytes."""

    kind: Kind
    size: int
    payload_size: int
    payload_crc: int
    content_crc: int
    n_tokens: int = 0
    n_vectors: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    entry: Entry
    payload: Bytes


def stored_chunk(content: Bytes) -> Chunk:
    """`content` (1 to MAX_CHUNK_SIZE bytes) as zstd, or raw where that is no smaller."""
    crc = zlib.crc32(content)
    packed = zstandard.ZstdCompressor(level=19).compress(content)
    if len(packed) < len(content):
        return Chunk(Entry(Kind.ZSTD, len(content), len(packed), zlib.crc32(packed), crc), packed)
    return Chunk(Entry(Kind.RAW, len(content), len(content), crc, crc), bytes(content))


def crammed_chunk(content: Bytes, n_tokens: int, n_vectors: int, payload: bytes) -> Chunk:
    """A chunk whose `payload` (vectors, then corrections) recites `content`."""
    crc = zlib.crc32(content)
    entry = Entry(Kind.CRAMMED, len(content), len(payload), zlib.crc32(payload), crc, n_tokens, n_vectors)
    return Chunk(entry, payload)


def stored_content(chunk: Chunk) -> bytes:
    """The original bytes of a raw or zstd chunk.

    Raises DamagedFileError (stage `content`) before anything larger than the chunk is allocated.
    """
    entry = chunk.entry
    content = bytes(chunk.payload) if entry.kind is Kind.RAW else _unpack_zstd(chunk)
    check_content(entry, content)
    return content


def check_content(entry: Entry, content: bytes) -> None:
    """Refuse `content` unless its size and CRC are those of the table."""
    if len(content) != entry.size:
        _damaged("content", f"Size: chunk has {entry.size} bytes, decoding gives {len(content)}")
    if (found := zlib.crc32(content)) != entry.content_crc:
        _damaged("content", f"Content_CRC: expected {entry.content_crc:08x}, found {found:08x}")


def _unpack_zstd(chunk: Chunk) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(chunk.payload)
        if frame.content_size != chunk.entry.size:
            _damaged("content", f"zstd frame: content size is not the {chunk.entry.size} bytes of the chunk")
        if frame.window_size > MAX_ZSTD_WINDOW or frame.dict_id:
            _damaged("content", "zstd frame: window too large, or a dictionary is needed")
        return zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompress(
            chunk.payload, max_output_size=chunk.entry.size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise DamagedFileError("content", f"zstd frame: {error}") from None


# -- writing ---------------------------------------------------------------------------------------


def pack_entry(entry: Entry) -> bytes:
    """One entry of the chunk table (section 5)."""
    out = bytes([entry.kind]) + pack_varint(entry.size) + pack_varint(entry.payload_size)
    out += entry.payload_crc.to_bytes(4, "little")
    if entry.kind is not Kind.RAW:
        out += entry.content_crc.to_bytes(4, "little")
    if entry.kind is Kind.CRAMMED:
        out += pack_varint(entry.n_tokens) + pack_varint(entry.n_vectors)
    return out


def pack_header(header: Header, n_chunks: int, table_size: int) -> bytes:
    """The header with its CRC (sections 3 and 4)."""
    flags = (HAS_NAME if header.name is not None else 0) | (HAS_MODEL if header.model else 0)
    out = MAGIC + bytes([VERSION, flags]) + pack_varint(header.original_size)
    out += header.original_sha256 + pack_varint(n_chunks) + pack_varint(table_size)
    if header.name is not None:
        out += pack_string(header.name)
    if model := header.model:
        out += pack_string(model.model_id) + pack_string(model.revision)
        out += model.fingerprint + model.tokenizer_hash
        out += pack_varint(model.vocabulary_size) + pack_varint(model.vector_width)
        out += bytes([model.compute_type, model.noise_exponent])
        out += bytes([model.vector_coding, model.correction_coding])
    return _with_crc(out)


def write(sink: BinaryIO, header: Header, chunks: Iterable[Chunk]) -> int:
    """Write a whole file and return its size in bytes; `chunks` is walked twice."""
    entries = [pack_entry(chunk.entry) for chunk in chunks]
    table = b"".join(entries)
    size = sink.write(pack_header(header, len(entries), len(table)))
    size += sink.write(_with_crc(table))
    for chunk in chunks:
        size += sink.write(chunk.payload)
    return size


def _with_crc(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def name_fault(name: str) -> str | None:
    """Why `name` cannot be a header's Name, or None if it can."""
    if not 1 <= len(name.encode("utf-8", "surrogateescape")) <= MAX_STRING:
        return f"must have 1 to {MAX_STRING} bytes"
    if name in (".", "..") or "/" in name or "\\" in name:
        return "must be a base name, not a path"
    if CONTROL_CHARACTER.search(name):
        return "must have no control characters"
    return None


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Container:
    """A parsed file. Iterating gives its chunks; their payloads are views into the file."""

    header: Header
    entries: tuple[Entry, ...]
    blob: memoryview
    overhead: int  # bytes of header and table

    def __iter__(self) -> Iterator[Chunk]:
        position = self.overhead
        for entry in self.entries:
            yield Chunk(entry, self.blob[position : position + entry.payload_size])
            position += entry.payload_size

    @property
    def offsets(self) -> list[int]:
        """Where each chunk begins in the original; one more for its end."""
        return list(accumulate((entry.size for entry in self.entries), initial=0))


def read(blob: Bytes) -> Container:
    """Parse and check a file as far as its bytes alone allow: stages `magic` to `payload`."""
    blob = memoryview(blob)
    container = read_table(blob)
    for index, chunk in enumerate(container):
        if (found := zlib.crc32(chunk.payload)) != chunk.entry.payload_crc:
            _damaged(
                "payload",
                f"Payload_CRC of chunk {index}: expected {chunk.entry.payload_crc:08x}, found {found:08x}",
            )
    return container


def read_table(blob: Bytes) -> Container:
    """Like `read`, without looking at the payloads: stages `magic` to `length`."""
    blob = memoryview(blob)
    header, n_chunks, table_size, position = _read_header(blob)
    entries, position = _read_entries(blob, position, n_chunks, table_size, header)
    expected = position + sum(entry.payload_size for entry in entries)
    if expected != len(blob):
        problem = "truncated" if len(blob) < expected else "trailing bytes"
        _damaged("length", f"{problem}: expected {expected} bytes, found {len(blob)}")
    return Container(header, entries, blob, overhead=position)


def _read_header(blob: memoryview) -> tuple[Header, int, int, int]:
    magic = bytes(blob[:4])
    if magic == GENOMICS_MAGIC:
        _damaged("magic", "this is a genomics CRAM file (samtools opens it), not a cramzip file")
    if magic != MAGIC:
        _damaged("magic", f"not a cramzip file: expected {MAGIC.hex(' ')}, found {magic.hex(' ')}")
    if len(blob) < 5 or blob[4] != VERSION:
        found = blob[4] if len(blob) > 4 else "the end of the file"
        _damaged("version", f"this cramzip reads version {VERSION}, found {found}")

    cursor = Cursor(blob, "header", 5)
    flags = cursor.u8()
    original_size = cursor.varint()
    original_sha256 = cursor.take(32)
    n_chunks = cursor.varint()
    table_size = cursor.varint()
    name = cursor.string() if flags & HAS_NAME else None
    model = None
    if flags & HAS_MODEL:
        model = ModelBlock(
            model_id=cursor.string(),
            revision=cursor.string(),
            fingerprint=cursor.take(32),
            tokenizer_hash=cursor.take(32),
            vocabulary_size=cursor.varint(),
            vector_width=cursor.varint(),
            compute_type=cursor.u8(),
            noise_exponent=cursor.u8(),
            vector_coding=cursor.u8(),
            correction_coding=cursor.u8(),
        )
    _check_crc(cursor, "Header_CRC", 0)

    if flags & RESERVED_FLAGS:
        _damaged("header", f"Flags: reserved bits are set in {flags:#04x}")
    if (original_size == 0) != (n_chunks == 0):
        _damaged("header", f"Original_Size {original_size} does not go with {n_chunks} chunks")
    if name is not None and (fault := name_fault(name)):
        _damaged("header", f"Name: {fault}")
    if model:
        _check_model_block(model)
    return Header(original_size, original_sha256, name, model), n_chunks, table_size, cursor.position


def _check_model_block(model: ModelBlock) -> None:
    for field, value, low, high in (
        ("Vocabulary_Size", model.vocabulary_size, 1, MAX_VOCABULARY),
        ("Vector_Width", model.vector_width, 1, MAX_WIDTH),
        ("Compute_Type", model.compute_type, COMPUTE_FLOAT32, COMPUTE_FLOAT32),
        ("Noise_Exponent", model.noise_exponent, 0, MAX_NOISE_EXPONENT),
        ("Vector_Coding", model.vector_coding, VECTORS_FLOAT16, VECTORS_FLOAT16),
        ("Correction_Coding", model.correction_coding, CORRECTIONS_LISTED, CORRECTIONS_LISTED),
    ):
        if not low <= value <= high:
            _damaged("header", f"{field}: {value} is not in {low} to {high}")
    if not _MODEL_ID.fullmatch(model.model_id):
        _damaged("header", "Model_ID: expected builtin:, hf: or local: and a name")


def _read_entries(
    blob: memoryview, start: int, n_chunks: int, table_size: int, header: Header
) -> tuple[tuple[Entry, ...], int]:
    end = start + table_size
    if end + 4 > len(blob):
        _damaged("table", f"truncated: table of {table_size} bytes, {len(blob) - start} left")
    if n_chunks * MIN_ENTRY_SIZE > table_size:
        _damaged("table", f"Chunk_Count: {n_chunks} do not fit into {table_size} bytes")
    _check_crc(Cursor(blob, "table", end), "Table_CRC", start)

    cursor = Cursor(blob[:end], "table", start)
    entries = tuple(read_entry(cursor) for _ in range(n_chunks))
    if cursor.remaining:
        cursor.fail(f"{cursor.remaining} bytes left over in the table")
    total = sum(entry.size for entry in entries)
    if total != header.original_size:
        cursor.fail(f"Size: chunks have {total} bytes, the original {header.original_size}")
    crammed = [entry for entry in entries if entry.kind is Kind.CRAMMED]
    if bool(crammed) != (header.model is not None):
        cursor.fail("the model block is there without crammed chunks, or missing with them")
    for entry in crammed:
        vector_bytes = 2 * entry.n_vectors * header.model.vector_width  # type: ignore[union-attr]
        if entry.payload_size <= vector_bytes:
            cursor.fail(f"Payload_Size: {entry.payload_size} is too small for {vector_bytes} bytes of vectors")
    return entries, end + 4


def read_entry(cursor: Cursor) -> Entry:
    """One entry of the chunk table, with its limits checked."""
    code = cursor.u8()
    if code not in tuple(Kind):
        cursor.fail(f"Kind: {code} is reserved")
    kind = Kind(code)
    size, payload_size, payload_crc = cursor.varint(), cursor.varint(), cursor.u32()
    content_crc = payload_crc if kind is Kind.RAW else cursor.u32()
    n_tokens, n_vectors = (cursor.varint(), cursor.varint()) if kind is Kind.CRAMMED else (0, 0)

    if not 1 <= size <= MAX_CHUNK_SIZE:
        cursor.fail(f"Size: {size} is not in 1 to {MAX_CHUNK_SIZE}")
    if payload_size < 1:
        cursor.fail("Payload_Size: 0")
    if kind is Kind.RAW and payload_size != size:
        cursor.fail(f"Payload_Size: raw chunk of {size} bytes has {payload_size}")
    if kind is Kind.ZSTD and payload_size >= size:
        cursor.fail(f"Payload_Size: zstd chunk of {size} bytes has {payload_size}")
    if kind is Kind.CRAMMED:
        if not 1 <= n_tokens <= min(size, MAX_TOKENS):
            cursor.fail(f"Token_Count: {n_tokens} is not in 1 to {min(size, MAX_TOKENS)}")
        if not 1 <= n_vectors <= MAX_VECTORS:
            cursor.fail(f"Vector_Count: {n_vectors} is not in 1 to {MAX_VECTORS}")
    return Entry(kind, size, payload_size, payload_crc, content_crc, n_tokens, n_vectors)


def _check_crc(cursor: Cursor, field: str, start: int) -> None:
    covered = cursor.data[start : cursor.position]
    expected = cursor.u32()
    if (found := zlib.crc32(covered)) != expected:
        cursor.fail(f"{field}: expected {expected:08x}, found {found:08x}")


def _damaged(stage: str, message: str) -> NoReturn:
    raise DamagedFileError(stage, message)
