"""The payload of a crammed chunk: vectors, then corrections (section 6 of formats/cram.md)."""

from __future__ import annotations

from . import container, corrections, quantize
from .container import Chunk, Container, Kind, ModelBlock
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


def check(blob: Bytes) -> Container:
    """A whole file, after every check that needs no model: stages `magic` to `corrections`."""
    file = container.read(blob)
    for chunk in file:
        if chunk.entry.kind is Kind.CRAMMED:
            assert file.header.model is not None  # stage `table`
            unpack(chunk, file.header.model)
    return file
