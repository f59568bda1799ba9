"""The payload of a crammed chunk: vectors, then corrections (section 6 of formats/cram.md)."""

from __future__ import annotations

from . import corrections, quantize
from .container import Chunk, Entry, ModelBlock
from .corrections import Corrections
from .quantize import QuantizedMem
from .wire import Bytes


def pack(mem: QuantizedMem, fixes: Corrections) -> bytes:
    return quantize.pack(mem) + corrections.pack(fixes)


def unpack(chunk: Chunk, model: ModelBlock) -> tuple[QuantizedMem, dict[int, int]]:
    """Raises DamagedFileError (stages `vectors`, `corrections`)."""
    entry = chunk.entry
    vectors, told = split(chunk, model.vector_width)
    return (
        quantize.unpack(vectors, entry.n_vectors, model.vector_width),
        corrections.unpack(told, entry.n_tokens, model.vocabulary_size),
    )


def split(chunk: Chunk, width: int) -> tuple[Bytes, Bytes]:
    """The bytes of the vectors, and those of the corrections."""
    size = quantize.packed_size(chunk.entry.n_vectors, width)
    return chunk.payload[:size], chunk.payload[size:]


def smallest_size(entry: Entry, width: int) -> int:
    """Bytes of a payload without corrections."""
    return quantize.packed_size(entry.n_vectors, width) + 1
