"""Header, table and payloads to the bytes of a file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import BinaryIO

from ..filters.chain import Chain
from .endings import pack_ending
from .layout import (
    BUILTIN,
    CHECK_SIZE,
    ENDING_SHIFT,
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
    VERSION,
)
from .records import HASH_SIZES, STANDARD, STANDARD_LANES, BuiltinModel, Entry, Group, Header, Kind
from .wire import Bytes, pack_string, pack_varint


def modelled_group(kind: Kind, content: Bytes, n_tokens: int, n_vectors: int, payload: bytes) -> Group:
    """A group whose `payload` (vectors, then corrections) gives `content`."""
    crc = zlib.crc32(content)
    return Group(Entry(kind, len(content), len(payload), zlib.crc32(payload), crc, n_tokens, n_vectors), payload)


def filtered_group(group: Group, chain: Chain, original: Bytes) -> Group:
    """A modelled group of what `chain` has made of `original`, as the group of `original`."""
    entry, payload = group.entry, chain.pack() + bytes(group.payload)
    made = modelled_group(entry.kind, original, entry.n_tokens, entry.n_vectors, payload)
    return replace(made, entry=replace(made.entry, is_filtered=True))


def pack_entry(entry: Entry, *, alone: bool = False) -> bytes:
    """One entry of the table (section 5); `alone`: the short entry of a file's only group."""
    out = bytes([entry.kind | (IS_FILTERED if entry.is_filtered else 0)])
    if not alone:
        assert entry.payload_crc is not None
        assert entry.content_crc is not None
        out += pack_varint(entry.size) + pack_varint(entry.payload_size)
        out += entry.payload_crc.to_bytes(4, "little")
        if entry.kind is not Kind.RAW:
            out += entry.content_crc.to_bytes(4, "little")
    if not entry.kind.is_stored:
        out += pack_varint(entry.n_tokens)
    if entry.kind.has_vectors:
        out += pack_varint(entry.n_vectors)
    return out


def pack_header(header: Header, n_groups: int) -> bytes:
    """The header (sections 3 and 4), up to the table."""
    model, parameters, vectors, lanes = header.model, header.parameters, header.vectors, header.lanes
    is_standard = lanes == STANDARD_LANES and not (header.probe or header.codebook) if lanes else parameters == STANDARD
    flags = HASH_SIZES.index(len(header.original_hash)) << HASH_SHIFT
    flags |= (HAS_NAME if header.name is not None else 0) | (HAS_VECTORS if vectors else 0)
    flags |= HAS_MODEL if model and header.dictionary is None else 0
    flags |= BUILTIN if isinstance(model, BuiltinModel) else 0
    flags |= (IS_STANDARD if model and is_standard else 0) | (IS_EXACT if lanes else 0)
    ending = pack_ending(header.ending if header.name is None else None)
    out = MAGIC + bytes([VERSION | ending.code << ENDING_SHIFT, flags]) + pack_varint(header.original_size)
    out += header.original_hash + (ending.field if header.name is None else pack_string(header.name))
    if isinstance(model, BuiltinModel):
        out += model.digest
    elif model:
        out += pack_string(model.model_id) + (pack_string(model.revision) if model.model_id else b"")
        out += model.fingerprint + model.tokenizer_hash
    out += header.dictionary or b""
    if lanes and not is_standard:
        learning = lanes.learning | (IS_WIDE if header.probe else 0) | (HAS_CODEBOOK if header.codebook else 0)
        out += pack_varint(lanes.tokens) + pack_varint(lanes.most) + bytes([learning])
        out += (header.probe or b"") + (header.codebook or b"")
    elif model and not is_standard:
        out += bytes([parameters.noise_exponent])
        out += pack_varint(parameters.chunk_tokens) + pack_varint(parameters.context_tokens)
        out += pack_varint(parameters.start_token)
    if vectors:
        out += bytes([vectors.code]) + pack_varint(vectors.width)
        out += pack_varint(0 if vectors.gain is None else vectors.gain + 1)
    return out + pack_varint(n_groups)


def file_size(header: Header, entries: Sequence[Entry]) -> int:
    """Bytes of a whole file."""
    table = sum(len(pack_entry(entry, alone=len(entries) == 1)) + entry.payload_size for entry in entries)
    check = CHECK_SIZE if header.has_check(len(entries)) else 0
    return len(pack_header(header, len(entries))) + table + check


def entries_size(entries: Iterable[Entry]) -> int:
    """Bytes that groups and their entries take in a file of several groups."""
    return sum(len(pack_entry(entry)) + entry.payload_size for entry in entries)


def write(sink: BinaryIO, header: Header, groups: Iterable[Group]) -> int:
    """Write a whole file and return its size in bytes; `groups` is walked twice."""
    entries = [group.entry for group in groups]
    front = pack_header(header, len(entries))
    front += b"".join(pack_entry(entry, alone=len(entries) == 1) for entry in entries)
    checked = zlib.crc32(front)
    if len(entries) == 1:
        (only,) = groups
        checked = zlib.crc32(only.payload, checked)
    size = sink.write(front)
    if header.has_check(len(entries)):
        size += sink.write(checked.to_bytes(CHECK_SIZE, "little"))
    for group in groups:
        size += sink.write(group.payload)
    return size
