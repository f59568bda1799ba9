"""Looking at files: what a `.cram` file consists of, and what it could have been at best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from . import container, corrections, payload, quantize
from .codec import check, check_model, recite
from .container import Header, Kind
from .lm import FrozenLM
from .wire import Bytes

RECITED_AT_ONCE = 64  # chunks


@dataclass(frozen=True)
class CramFile:
    """A file taken apart: header, chunk table, and the vectors (M, D) of chunk i as `vectors[i]`, None if stored."""

    header: Header
    entries: tuple[container.Entry, ...]
    vectors: tuple[torch.Tensor | None, ...]
    corrections: tuple[dict[int, int] | None, ...]


def read(blob: Bytes) -> CramFile:
    """Take a file apart without a model. Raises DamagedFileError."""
    file = container.read(blob)
    unpacked = [
        payload.unpack(chunk, file.header.model) if file.header.model and chunk.entry.kind is Kind.CRAMMED else None
        for chunk in file
    ]
    return CramFile(
        file.header,
        file.entries,
        tuple(quantize.dequantize(parts[0]) if parts else None for parts in unpacked),
        tuple(parts[1] if parts else None for parts in unpacked),
    )


@dataclass(frozen=True)
class Description:
    """What a file consists of: sizes in bytes, and counts."""

    original_size: int
    file_size: int
    header_bytes: int  # with the chunk table
    vector_bytes: int
    correction_bytes: int
    stored_bytes: int
    n_chunks: int
    n_crammed: int
    n_stored: int
    n_tokens: int  # of crammed chunks
    n_vectors: int
    n_corrections: int

    @property
    def ratio(self) -> float:
        """Original bytes / file bytes."""
        return self.original_size / self.file_size

    @property
    def bits_per_byte(self) -> float:
        return 8 * self.file_size / self.original_size if self.original_size else math.nan

    @property
    def tokens_per_vector(self) -> float:
        return self.n_tokens / self.n_vectors if self.n_vectors else math.nan


def describe(blob: Bytes) -> Description:
    """Count what a file consists of, without a model. Raises DamagedFileError."""
    file = check(blob)
    crammed = [chunk for chunk in file if chunk.entry.kind is Kind.CRAMMED]
    width = file.header.model.vector_width if file.header.model else 0
    parts = [payload.split(chunk, width) for chunk in crammed]
    vector_bytes = sum(len(vectors) for vectors, _ in parts)
    correction_bytes = sum(len(told) for _, told in parts)
    return Description(
        original_size=file.header.original_size,
        file_size=len(file.blob),
        header_bytes=file.overhead,
        vector_bytes=vector_bytes,
        correction_bytes=correction_bytes,
        stored_bytes=len(file.blob) - file.overhead - vector_bytes - correction_bytes,
        n_chunks=len(file.entries),
        n_crammed=len(crammed),
        n_stored=len(file.entries) - len(crammed),
        n_tokens=sum(chunk.entry.n_tokens for chunk in crammed),
        n_vectors=sum(chunk.entry.n_vectors for chunk in crammed),
        n_corrections=sum(corrections.count(told) for _, told in parts),
    )


def entropy_bound(blob: Bytes, lm: FrozenLM | None) -> float:
    """Bits that an ideal arithmetic coder would need with this model and these chunks; stored ones as they are."""
    file = check(blob)
    check_model(file, lm)
    chunks = list(file)
    stored = sum(8 * chunk.entry.payload_size for chunk in chunks if chunk.entry.kind is not Kind.CRAMMED)
    nats = 0.0
    for i in range(0, len(chunks), RECITED_AT_ONCE):
        rows = [row for row in recite(file, chunks[i : i + RECITED_AT_ONCE], lm) if row is not None]
        if rows:
            assert lm is not None
            nats += sum(float(cost.sum()) for cost in lm.score(rows))
    return stored + nats / math.log(2)
