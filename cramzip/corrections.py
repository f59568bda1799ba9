"""The tokens that greedy decoding gets wrong: places and right tokens, to bytes and back.

Coding 1 of section 6.2 of formats/cram.md: gaps and token ids as varints.
"""

from __future__ import annotations

from collections.abc import Mapping

from .wire import Bytes, Cursor, pack_varint

Corrections = Mapping[int, int]  # position -> token id


def pack(corrections: Corrections) -> bytes:
    """Bytes for `corrections`, in the order of their positions."""
    out = pack_varint(len(corrections))
    previous = -1
    for position in sorted(corrections):
        out += pack_varint(position - previous - 1) + pack_varint(corrections[position])
        previous = position
    return out


def count(data: Bytes) -> int:
    """How many corrections packed `data` begins to list."""
    return Cursor(data, "corrections").varint()


def unpack(data: Bytes, n_tokens: int, vocabulary_size: int) -> dict[int, int]:
    """The inverse of `pack`, for a chunk of `n_tokens`.

    Raises DamagedFileError (stage `corrections`) unless `data` is exactly what `pack` would write.
    """
    cursor = Cursor(data, "corrections")
    count = cursor.varint()
    if count > n_tokens:
        cursor.fail(f"Count: {count} corrections for {n_tokens} tokens")
    corrections: dict[int, int] = {}
    position = -1
    for _ in range(count):
        position += cursor.varint() + 1
        token = cursor.varint()
        if position >= n_tokens:
            cursor.fail(f"Gap: position {position} of {n_tokens} tokens")
        if token >= vocabulary_size:
            cursor.fail(f"Token: {token} of a vocabulary of {vocabulary_size}")
        corrections[position] = token
    if cursor.remaining:
        cursor.fail(f"{cursor.remaining} bytes left over")
    return corrections
