"""Stored groups, which need no model: raw, or packed by zstd."""

from __future__ import annotations

import bz2
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import zstandard

from ..errors import DamagedFileError
from .reading import check_content
from .records import Entry, Group, Kind
from .wire import MAX_GROUP_SIZE, Bytes

MAX_ZSTD_WINDOW = 2**23
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
WORSE_THAN_BZIP2 = 125  # percent
ORDER_0_TABLE = 64  # bytes
ZSTD_ZERO_BITS = 0b11011  # of Frame_Header_Descriptor: the number of a dictionary, and what is reserved or unused


def stored_sizes(size: int) -> list[int]:
    """The sizes of as few groups as the format allows for `size` bytes."""
    return [min(MAX_GROUP_SIZE, size - start) for start in range(0, size, MAX_GROUP_SIZE)]


def stored_group(content: Bytes) -> Group:
    """`content` (1 to MAX_GROUP_SIZE bytes) as zstd, or raw where that is no smaller."""
    content = bytes(content)
    crc, packed = zlib.crc32(content), _packed(content)
    if len(packed) < len(content):
        return Group(Entry(Kind.ZSTD, len(content), len(packed), zlib.crc32(packed), crc), packed)
    return Group(Entry(Kind.RAW, len(content), len(content), crc, crc), content)


@lru_cache(maxsize=2)  # the bytes of a small file are packed as a group, as a segment and as a whole
def _packed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(content)


def expected_entry(content: Bytes) -> Entry:
    """An entry of `content` that has about the size of a stored one, and is the same with every version of zstd.

    What zstd makes of a text depends on its version. So the best is taken of three sizes that do not: of the bytes as
    they are, of an ideal code of single bytes, and of bzip2, which packs most texts a little tighter than zstd.
    """
    content = bytes(content)
    size = min(len(content), order_0_size(content), WORSE_THAN_BZIP2 * _bzip2_size(content) // 100)
    return Entry(Kind.RAW if size == len(content) else Kind.ZSTD, len(content), size, 0, 0)


@lru_cache(maxsize=2)  # a text is looked at as a group, as a segment and as a whole
def order_0_size(content: bytes) -> int:
    """Bytes that an ideal code of single bytes needs, and its table; logarithms to 1/256 of a bit, in integers."""
    counts = Counter(content).values()
    bits = sum(count * (_log2_times_256(len(content)) - _log2_times_256(count)) for count in counts)
    return bits // (256 * 8) + ORDER_0_TABLE


@lru_cache(maxsize=2)
def _bzip2_size(content: bytes) -> int:
    return len(bz2.compress(content))


def _log2_times_256(n: int) -> int:
    return (n**256).bit_length() - 1


def stored_groups(content: Bytes) -> Iterator[Group]:
    """All of `content` stored, in as few groups as the format allows."""
    return (stored_group(content[i : i + MAX_GROUP_SIZE]) for i in range(0, len(content), MAX_GROUP_SIZE))


def stored_content(group: Group) -> bytes:
    """The original bytes of a raw or zstd group.

    Raises DamagedFileError (stage `content`) before anything larger than the group is allocated.
    """
    entry = group.entry
    content = bytes(group.payload) if entry.kind is Kind.RAW else _unpack_zstd(group)
    check_content(entry, content)
    return content


def _unpack_zstd(group: Group) -> bytes:
    begin = bytes(group.payload[: len(ZSTD_MAGIC) + 1])
    if not begin.startswith(ZSTD_MAGIC):
        raise DamagedFileError("content", f"zstd frame: expected {ZSTD_MAGIC.hex(' ')}, found {begin[:4].hex(' ')}")
    if begin[4:] and begin[4] & ZSTD_ZERO_BITS:
        raise DamagedFileError(
            "content", f"zstd frame: its descriptor {begin[4]:#04x} is reserved, or names a dictionary"
        )
    try:
        frame = zstandard.get_frame_parameters(group.payload)
        if frame.content_size != group.entry.size:
            raise DamagedFileError(
                "content", f"zstd frame: content size is not the {group.entry.size} bytes of the group"
            )
        if frame.window_size > MAX_ZSTD_WINDOW:
            raise DamagedFileError(
                "content", f"zstd frame: a window of {frame.window_size} bytes, at most {MAX_ZSTD_WINDOW} allowed"
            )
        return zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompress(
            group.payload, max_output_size=group.entry.size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise DamagedFileError("content", f"zstd frame: {error}") from None
