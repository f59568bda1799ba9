"""A file that was parsed and checked once. All that comes later works on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ..errors import DamagedFileError
from ..filters.chain import Chain, parse
from .records import Entry, Group, Header, Kind, n_chunks, n_vector_bytes
from .vectors import QuantizedMem, unpack
from .wire import Bytes

TOKENS_PER_BYTE = 2**12  # of corrections, at most: a short file cannot ask for hours of the model's work


@dataclass(frozen=True)
class Opened:
    """Header, table and groups of a file; iterating gives the groups, whose payloads are views into the file."""

    header: Header
    entries: tuple[Entry, ...]
    blob: memoryview
    overhead: int  # bytes of header and table

    def __iter__(self) -> Iterator[Group]:
        position = self.overhead
        for entry in self.entries:
            yield Group(entry, self.blob[position : position + entry.payload_size])
            position += entry.payload_size

    @property
    def offsets(self) -> list[int]:
        """Where each group begins in the original; one more for its end."""
        return list(accumulate((entry.size for entry in self.entries), initial=0))

    def windows(self, size: int) -> Iterator[list[Group]]:
        """The groups in order, in windows of about `size` bytes: their part of the original and their payloads."""
        window: list[Group] = []
        filled = 0
        for group in self:
            window.append(group)
            filled += group.entry.size + group.entry.payload_size
            if filled >= size:
                yield window
                window, filled = [], 0
        if window:
            yield window


def split(group: Group, header: Header) -> tuple[Bytes, Bytes]:
    """The payload of a modelled group after its filters: the bytes of its vectors, and those of its corrections.

    Raises DamagedFileError (stage `payload`) for malformed filters.
    """
    first, size = filters(group)[1], n_vector_bytes(group.entry, header)
    return group.payload[first : first + size], group.payload[first + size :]


def filters(group: Group) -> tuple[Chain | None, int]:
    """The filters of a group, None without any, and how many bytes of its payload they take. Raises DamagedFileError.

    The stage is `payload`.
    """
    return parse(group.payload) if group.entry.is_filtered else (None, 0)


def original(group: Group, content: bytes) -> bytes:
    """The original bytes of a group whose tokens give `content`. Raises DamagedFileError."""
    chain, _ = filters(group)
    return content if chain is None else chain.invert(content, group.entry.size)


def vectors(group: Group, header: Header) -> list[QuantizedMem]:
    """The vectors of each chunk of a group; an empty list for a group without vectors."""
    if not group.entry.kind.has_vectors:
        return []
    assert header.vectors is not None
    chunks, each = n_chunks(group.entry, header), group.entry.n_vectors
    packed, _ = split(group, header)
    coding = header.vectors.coding
    whole = unpack(packed, chunks * each, header.vectors.width, coding)
    parts = zip(np.split(whole.codes, chunks), np.split(whole.scales, chunks), strict=True)
    return [QuantizedMem(coding, codes, scales) for codes, scales in parts]


def most_tokens(size: int, *, has_dictionary: bool) -> int:
    """The most tokens in so many bytes of corrections, or of coded tokens, which may be none after a dictionary."""
    return TOKENS_PER_BYTE * (size + has_dictionary)


def corrections(group: Group, header: Header) -> Bytes | None:
    """The bytes of the corrections of a modelled group; None for a recited one, which has none.

    Raises DamagedFileError (stage `content`) if they are too few for the tokens of the group.
    """
    if group.entry.kind is Kind.RECITED:
        return None
    found, n_tokens = split(group, header)[1], group.entry.n_tokens
    if n_tokens > most_tokens(len(found), has_dictionary=header.dictionary is not None):
        raise DamagedFileError("content", f"{n_tokens} tokens are too many for {len(found)} bytes of corrections")
    return found
