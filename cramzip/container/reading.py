"""The bytes of a file to header, table and payloads.

Knows nothing of models and imports no torch. Every limit and the order of checks are those of
formats/cram.md; parsing allocates nothing that the input has not paid for in bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from ..errors import DamagedFileError
from ..filters.chain import MOST_GROWTH
from . import vectors
from .endings import read_ending
from .layout import (
    BUILTIN,
    CHECK_SIZE,
    CODEBOOK_HASH_SIZE,
    ENDING_SHIFT,
    GENOMICS_MAGIC,
    HAS_CODEBOOK,
    HAS_MODEL,
    HAS_NAME,
    HAS_VECTORS,
    HASH_SHIFT,
    IS_EXACT,
    IS_FILTERED,
    IS_STANDARD,
    IS_WIDE,
    MAGIC,
    MAX_CODED_TOKENS,
    MAX_GAIN,
    MAX_LANES,
    MAX_POSITIONS,
    MAX_TOKENS,
    MAX_VECTORS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    MIN_ENTRY_SIZE,
    MOST_LEARNING,
    NOISE_EXPONENTS,
    PROBE_SIZE,
    VERSION,
)
from .opened import Opened, filters, split
from .records import (
    DIGEST_SIZE,
    HASH_SIZES,
    MOST_DICTIONARY_HASH,
    STANDARD,
    STANDARD_LANES,
    BuiltinModel,
    Entry,
    Header,
    Kind,
    Lanes,
    OutsideModel,
    Parameters,
    Vectors,
    longest_lane,
    n_vector_bytes,
    name_fault,
)
from .wire import MAX_GROUP_SIZE, Bytes, Cursor

_MODEL_ID = re.compile(r"(hf|local):.+", re.DOTALL)
_BEGIN = re.compile(re.escape(MAGIC) + bytes([*b"[", *range(VERSION, 256, 1 << ENDING_SHIFT), *b"]"]), re.DOTALL)


def check_content(entry: Entry, content: bytes) -> None:
    """Refuse `content` unless its size and CRC are those of the table."""
    if len(content) != entry.size:
        _damaged("content", f"Size: the group has {entry.size} bytes, decoding gives {len(content)}")
    if entry.content_crc is not None and (found := zlib.crc32(content)) != entry.content_crc:
        _damaged("content", f"Content_CRC: expected {entry.content_crc:08x}, found {found:08x}")


def read(blob: Bytes) -> Opened:
    """Parse a file, and check it as far as that needs no model: stages `magic` to `vectors`."""
    file = read_table(blob)
    _check_payloads(file)
    _check_filters(file)
    for group in file:
        if group.entry.kind.has_vectors:
            assert file.header.vectors is not None
            vectors.check(split(group, file.header)[0], file.header.vectors.width, file.header.vectors.coding)
    return file


def _check_payloads(file: Opened) -> None:
    for index, group in enumerate(file):
        expected = group.entry.payload_crc
        if expected is not None and (found := zlib.crc32(group.payload)) != expected:
            _damaged("payload", f"Payload_CRC of group {index}: expected {expected:08x}, found {found:08x}")


def _check_filters(file: Opened) -> None:
    for index, group in enumerate(file):
        if group.entry.is_filtered:
            packed = n_vector_bytes(group.entry, file.header)
            left = len(group.payload) - filters(group)[1]
            if left < packed or (group.entry.kind is Kind.RECITED and left != packed):
                _damaged("payload", f"Filters of group {index}: {left} bytes are left with {packed} bytes of vectors")


def read_table(blob: Bytes) -> Opened:
    """Like `read`, but the payloads of several groups are not looked at: stages `magic` to `length`."""
    blob = memoryview(blob)
    _check_magic(blob)
    try:
        return _read_after_magic(blob)
    except DamagedFileError as error:
        if (follows := _next_file(blob)) is None:
            raise
        _damaged(error.stage, f"{error.message}; another cramzip file seems to begin at byte {follows}")


def _read_after_magic(blob: memoryview) -> Opened:
    cursor = Cursor(blob, "header", len(MAGIC))
    header, n_groups = _parse_header(cursor)
    cursor.stage = "table"
    if n_groups > 1 and n_groups * MIN_ENTRY_SIZE > cursor.remaining:
        cursor.fail(f"Group_Count: {n_groups} do not fit into {cursor.remaining} bytes")
    entries: tuple[Entry, ...]
    if n_groups == 1:
        entries = (_read_only_entry(cursor, header),)
    else:
        entries = tuple(read_entry(cursor) for _ in range(n_groups))
    if header.has_check(n_groups):
        _check_sum(cursor, is_alone=n_groups == 1)
    _check_header(header)
    _check_entries(entries, header)
    end = cursor.position + sum(entry.payload_size for entry in entries)
    if end != len(blob):
        problem = "truncated" if len(blob) < end else "trailing bytes"
        _damaged("length", f"{problem}: expected {end} bytes, found {len(blob)}")
    return Opened(header, entries, blob, overhead=cursor.position)


def _check_sum(cursor: Cursor, *, is_alone: bool) -> None:
    """Check, which covers all before it, and the payload of a group that `is_alone`."""
    found = zlib.crc32(cursor.data[: cursor.position])
    expected = cursor.u32()
    if is_alone:
        found = zlib.crc32(cursor.data[cursor.position :], found)
    if found != expected:
        cursor.fail(f"Check: expected {expected:08x}, found {found:08x}")


def _next_file(blob: memoryview) -> int | None:
    """Where another file seems to be joined to this one, which explains sizes and checksums that do not agree."""
    block = 2**20
    for at in range(1, len(blob), block):
        if found := _BEGIN.search(bytes(blob[at : at + block + len(MAGIC)])):
            return at + found.start()
    return None


def _check_magic(blob: memoryview) -> None:
    if bytes(blob[:4]) == GENOMICS_MAGIC:
        _damaged("magic", "this is a genomics CRAM file (samtools opens it), not a cramzip file")
    if (found := bytes(blob[: len(MAGIC)])) != MAGIC:
        _damaged("magic", f"not a cramzip file: expected {MAGIC.hex(' ')}, found {found.hex(' ')}")
    version = blob[len(MAGIC)] & ~(~0 << ENDING_SHIFT) if len(blob) > len(MAGIC) else "the end"
    if version != VERSION:
        _damaged("version", f"this cramzip reads version {VERSION}, found {version}")


def _parse_header(cursor: Cursor) -> tuple[Header, int]:
    """The header and the number of groups; their values are checked once the checksum is known to be right."""
    ending_code, flags = cursor.u8() >> ENDING_SHIFT, cursor.u8()
    original_size = cursor.varint()
    original_hash = cursor.take(HASH_SIZES[flags >> HASH_SHIFT & 3])
    has_dictionary = not flags & HAS_MODEL and bool(flags & IS_EXACT)
    has_model = has_dictionary or bool(flags & HAS_MODEL)
    reserved = HAS_NAME | HAS_VECTORS if has_dictionary else 0 if has_model else BUILTIN | IS_STANDARD | HAS_VECTORS
    if flags & reserved:
        cursor.fail(f"Flags: {flags:#04x} is reserved")
    if flags & HAS_NAME and ending_code:
        cursor.fail("Flags: there is a name, and an ending beside it")
    name = cursor.string() if flags & HAS_NAME else None
    ending = read_ending(ending_code, cursor)
    model: BuiltinModel | OutsideModel | None = None
    if flags & BUILTIN:
        model = BuiltinModel(b"" if has_dictionary else cursor.take(DIGEST_SIZE))
    elif has_model:
        model = _outside_model(cursor)
    dictionary = cursor.take(min(len(original_hash), MOST_DICTIONARY_HASH)) if has_dictionary else None
    parameters, lanes, probe, codebook = STANDARD, STANDARD_LANES if flags & IS_EXACT else None, None, None
    if has_model and not flags & IS_STANDARD:
        if lanes:
            lanes, probe, codebook = _lanes(cursor, is_builtin=bool(flags & BUILTIN))
        else:
            parameters = Parameters(cursor.u8(), cursor.varint(), cursor.varint(), cursor.varint())
        if not (probe or codebook) and (lanes or parameters) in (STANDARD_LANES, STANDARD):
            cursor.fail("Flags: bit 3 is not set, but the parameters are the standard ones")
    block = None
    if flags & HAS_VECTORS:
        code, width, gain = cursor.u8(), cursor.varint(), cursor.varint()
        try:
            block = Vectors.from_code(code, width, gain - 1 if gain else None)
        except ValueError:
            cursor.fail(f"Vector_Coding: {code} is reserved")
    header = Header(original_size, original_hash, name, model, parameters, block, lanes, ending, dictionary, probe)
    return replace(header, codebook=codebook), cursor.varint()


def _outside_model(cursor: Cursor) -> OutsideModel:
    if model_id := cursor.string():
        return OutsideModel(model_id, cursor.string(), cursor.take(32), cursor.take(32))
    return OutsideModel("", "", cursor.take(DIGEST_SIZE), cursor.take(DIGEST_SIZE))


def _lanes(cursor: Cursor, *, is_builtin: bool) -> tuple[Lanes, bytes | None, bytes | None]:
    """The lanes, Probe and Codebook_Hash, as far as these are there."""
    tokens, most, value = cursor.varint(), cursor.varint(), cursor.u8()
    is_wide = bool(value & IS_WIDE) and not is_builtin
    learning = value & ~(HAS_CODEBOOK | IS_WIDE if is_wide else HAS_CODEBOOK)
    if learning > MOST_LEARNING:
        cursor.fail(f"Learning: {value} is reserved")
    probe = cursor.take(PROBE_SIZE) if is_wide else None
    return Lanes(tokens, most, learning), probe, cursor.take(CODEBOOK_HASH_SIZE) if value & HAS_CODEBOOK else None


def _check_header(header: Header) -> None:
    parameters, block = header.parameters, header.vectors
    if header.dictionary is not None and header.lanes and (header.lanes.learning != 1 or header.codebook):
        _damaged("header", f"Learning: {header.lanes.learning}, or a codebook, in a file with a dictionary")
    limits = [
        ("Noise_Exponent", parameters.noise_exponent, *NOISE_EXPONENTS),
        ("Chunk_Tokens", parameters.chunk_tokens, 1, MAX_TOKENS),
        ("Context_Tokens", parameters.context_tokens, 0, MAX_TOKENS),
        ("Start_Token", parameters.start_token, 0, MAX_VOCABULARY - 1),
    ]
    if header.lanes:
        limits += [("Lane_Tokens", header.lanes.tokens, 1, MAX_TOKENS), ("Lane_Limit", header.lanes.most, 1, MAX_LANES)]
    if block:
        limits += [("Vector_Width", block.width, 1, MAX_WIDTH), ("Vector_Gain", block.gain or 0, 0, MAX_GAIN)]
    for field, value, low, high in limits:
        if not low <= value <= high:
            _damaged("header", f"{field}: {value} is not in {low} to {high}")
    if header.name is not None and (fault := name_fault(header.name)):
        _damaged("header", f"Name: {fault}")
    model_id = header.model.model_id if isinstance(header.model, OutsideModel) else ""
    if model_id and not _MODEL_ID.fullmatch(model_id):
        _damaged("header", "Model_ID: expected hf: or local: and a name")


def _check_entries(entries: Sequence[Entry], header: Header) -> None:
    total = sum(entry.size for entry in entries)
    if total != header.original_size:
        _damaged("table", f"Size: groups have {total} bytes, the original {header.original_size}")
    if any(not entry.kind.is_stored for entry in entries) != (header.model is not None):
        _damaged("table", "the model block is there without groups that need it, or missing with them")
    if any(entry.kind.has_vectors for entry in entries) != (header.vectors is not None):
        _damaged("table", "the vector block is there without vectors, or missing with them")
    if header.codebook and all(entry.kind is not Kind.CHOSEN for entry in entries):
        _damaged("table", "Codebook_Hash is there without groups that need it")
    for entry in entries:
        if not entry.kind.is_allowed(exact=header.is_exact):
            _damaged("table", f"Kind: {entry.kind} is not for a file {'with' if header.is_exact else 'without'} lanes")
        if entry.kind is Kind.CHOSEN and header.dictionary is not None:
            _damaged("table", f"Kind: {entry.kind} in a file with a dictionary")
        if entry.kind.has_vectors:
            vector_bytes = n_vector_bytes(entry, header)
            is_whole = entry.kind is Kind.RECITED and not entry.is_filtered
            if entry.payload_size < vector_bytes or (is_whole and entry.payload_size != vector_bytes):
                _damaged("table", f"Payload_Size: {entry.payload_size} with {vector_bytes} bytes of vectors")
        if header.is_exact and not entry.kind.is_stored and (needed := longest_lane(entry, header)) > MAX_POSITIONS:
            _damaged("table", f"Token_Count: a lane needs {needed} positions, at most {MAX_POSITIONS} are allowed")


def _read_only_entry(cursor: Cursor, header: Header) -> Entry:
    """The entry of a file's only group. What it leaves out follows from the sizes of the file and the original."""
    start = cursor.position
    kind, is_filtered = _kind(cursor)
    n_tokens = 0 if kind.is_stored else cursor.varint()
    n_vectors = cursor.varint() if kind.has_vectors else 0
    payload_size = cursor.remaining - (CHECK_SIZE if header.has_check(1) else 0)
    if payload_size < 0:
        cursor.fail(f"truncated: {cursor.remaining} bytes left (entry at byte {start})")
    size = header.original_size
    return _checked(cursor, Entry(kind, size, payload_size, None, None, n_tokens, n_vectors, is_filtered))


def read_entry(cursor: Cursor) -> Entry:
    """One entry of the table of several groups, with its limits checked."""
    kind, is_filtered = _kind(cursor)
    size, payload_size, payload_crc = cursor.varint(), cursor.varint(), cursor.u32()
    content_crc = payload_crc if kind is Kind.RAW else cursor.u32()
    n_tokens = 0 if kind.is_stored else cursor.varint()
    n_vectors = cursor.varint() if kind.has_vectors else 0
    return _checked(cursor, Entry(kind, size, payload_size, payload_crc, content_crc, n_tokens, n_vectors, is_filtered))


def _kind(cursor: Cursor) -> tuple[Kind, bool]:
    """Kind, and whether the group is filtered."""
    code = cursor.u8()
    kind, is_filtered = code & ~IS_FILTERED, bool(code & IS_FILTERED)
    if kind not in tuple(Kind) or (is_filtered and Kind(kind).is_stored):
        cursor.fail(f"Kind: {code} is reserved")
    return Kind(kind), is_filtered


def _checked(cursor: Cursor, entry: Entry) -> Entry:
    """The entry itself, if all of it is within the limits."""
    if not 1 <= entry.size <= MAX_GROUP_SIZE:
        cursor.fail(f"Size: {entry.size} is not in 1 to {MAX_GROUP_SIZE}")
    if entry.kind is Kind.RAW and entry.payload_size != entry.size:
        cursor.fail(f"Payload_Size: raw group of {entry.size} bytes has {entry.payload_size}")
    if entry.kind is Kind.ZSTD and not 1 <= entry.payload_size < entry.size:
        cursor.fail(f"Payload_Size: zstd group of {entry.size} bytes has {entry.payload_size}")
    longest = MOST_GROWTH * entry.size if entry.is_filtered else entry.size
    most = min(longest, MAX_CODED_TOKENS if entry.kind.is_laned else MAX_TOKENS)
    if not entry.kind.is_stored and not 1 <= entry.n_tokens <= most:
        cursor.fail(f"Token_Count: {entry.n_tokens} is not in 1 to {most}")
    if entry.kind.has_vectors and not 1 <= entry.n_vectors <= MAX_VECTORS:
        cursor.fail(f"Vector_Count: {entry.n_vectors} is not in 1 to {MAX_VECTORS}")
    return entry


def _damaged(stage: str, message: str) -> NoReturn:
    raise DamagedFileError(stage, message)
