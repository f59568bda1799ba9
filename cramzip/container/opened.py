"""The payload of a modelled group: the vectors of its chunks, then its corrections (section 6 of formats/cram.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DamagedFileError
from . import reading
from .reading import Container
from .records import Group, Header, Kind, n_chunks
from .vectors import QuantizedMem
from .vectors import pack as pack_codes
from .vectors import unpack as unpack_codes
from .wire import Bytes

TOKENS_PER_BYTE = 2**12  # of corrections, at most: a short file cannot ask for hours of the model's work


def pack(vectors: Sequence[QuantizedMem], corrections: bytes = b"") -> bytes:
    """`vectors` are those of each chunk."""
    return b"".join(map(pack_codes, vectors)) + corrections


def split(group: Group, header: Header) -> tuple[Bytes, Bytes]:
    """The bytes of the vectors, and those of the corrections."""
    size = 0
    if group.entry.kind.has_vectors:
        assert header.vectors is not None
        size = n_chunks(group.entry, header.parameters) * group.entry.n_vectors * header.vectors.size
    return group.payload[:size], group.payload[size:]


def vectors(group: Group, header: Header) -> list[QuantizedMem]:
    """The vectors of each chunk, none at all where the group has none. Raises DamagedFileError (stage `vectors`)."""
    if not group.entry.kind.has_vectors:
        return []
    assert header.vectors is not None
    chunks, each = n_chunks(group.entry, header.parameters), group.entry.n_vectors
    packed, _ = split(group, header)
    coding = header.vectors.coding
    whole = unpack_codes(packed, chunks * each, header.vectors.width, coding)
    parts = zip(np.split(whole.codes, chunks), np.split(whole.scales, chunks), strict=True)
    return [QuantizedMem(coding, codes, scales) for codes, scales in parts]


def corrections(group: Group, header: Header) -> Bytes | None:
    """The bytes of the corrections; None where greedy decoding is left to itself.

    Raises DamagedFileError (stage `content`) where they are too few for the tokens of the group.
    """
    if group.entry.kind is Kind.RECITED:
        return None
    found, n_tokens = split(group, header)[1], group.entry.n_tokens
    if n_tokens > TOKENS_PER_BYTE * len(found):
        raise DamagedFileError("content", f"{n_tokens} tokens are too many for {len(found)} bytes of corrections")
    return found


def check(blob: Bytes) -> Container:
    """A whole file, after every check that needs no model: stages `magic` to `vectors`."""
    file = reading.read(blob)
    for group in file:
        vectors(group, file.header)
    return file
