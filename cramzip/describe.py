"""What a `.cram` file consists of. Needs no model, and no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import corrections, payload
from .records import Kind
from .wire import Bytes


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
    """Count what a file consists of. Raises DamagedFileError."""
    file = payload.check(blob)
    width = file.header.model.vector_width if file.header.model else 0
    vector_bytes = correction_bytes = stored_bytes = n_corrections = 0
    for chunk in file:
        if chunk.entry.kind is Kind.CRAMMED:
            vectors, told = payload.split(chunk, width)
            vector_bytes += len(vectors)
            correction_bytes += len(told)
            n_corrections += corrections.count(told)
        else:
            stored_bytes += len(chunk.payload)
    n_crammed = sum(entry.kind is Kind.CRAMMED for entry in file.entries)
    return Description(
        original_size=file.header.original_size,
        file_size=len(file.blob),
        header_bytes=file.overhead,
        vector_bytes=vector_bytes,
        correction_bytes=correction_bytes,
        stored_bytes=stored_bytes,
        n_chunks=len(file.entries),
        n_crammed=n_crammed,
        n_stored=len(file.entries) - n_crammed,
        n_tokens=sum(entry.n_tokens for entry in file.entries),
        n_vectors=sum(entry.n_vectors for entry in file.entries),
        n_corrections=n_corrections,
    )
