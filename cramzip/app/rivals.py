"""The usual compressors at their strongest, for `bench`. A new one is a line in RIVALS."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import zstandard

from ..container.wire import Cursor, pack_varint

PPMD_ORDER, PPMD_MEMORY = 6, 2**26

Function = Callable[[bytes], bytes]


class Rival(NamedTuple):
    """A compressor and its decompressor; `package`: what it needs of the extra `bench`, None for nothing."""

    compress: Function
    decompress: Function
    package: str | None = None


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(data)


def _brotli(data: bytes) -> bytes:
    import brotli

    packed: bytes = brotli.compress(data, quality=11, lgwin=24)
    return packed


def _unpack_brotli(blob: bytes) -> bytes:
    import brotli

    data: bytes = brotli.decompress(blob)
    return data


def _ppmd(data: bytes) -> bytes:
    """The size as a varint, and PPMd variant H as in 7z; or the data as they are, if that is no larger."""
    import pyppmd

    encoder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    packed: bytes = encoder.encode(data) + encoder.flush()
    return pack_varint(len(data)) + min(packed, data, key=len)


def _unpack_ppmd(blob: bytes) -> bytes:
    import pyppmd

    cursor = Cursor(blob, "ppmd")
    size = cursor.varint()
    packed = cursor.take(cursor.remaining)
    if len(packed) == size:
        return packed
    data: bytes = pyppmd.Ppmd7Decoder(PPMD_ORDER, PPMD_MEMORY).decode(packed, size)
    return data


# Each has the settings, the framing and the checksums that its own command line would write. PPMd comes without
# a frame: it is given what decompression needs.
RIVALS = {
    "gzip -9": Rival(lambda data: gzip.compress(data, 9, mtime=0), gzip.decompress),
    "bzip2 -9": Rival(lambda data: bz2.compress(data, 9), bz2.decompress),
    "zstd -19": Rival(_zstd, lambda blob: zstandard.ZstdDecompressor().decompress(blob)),
    "xz -9e": Rival(lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    "brotli -q 11": Rival(_brotli, _unpack_brotli, "brotli"),
    f"ppmd -o{PPMD_ORDER}": Rival(_ppmd, _unpack_ppmd, "pyppmd"),
}


def installed() -> list[str]:
    """The names of the rivals whose packages are here."""
    return [name for name, rival in RIVALS.items() if rival.package is None or find_spec(rival.package)]


def hint() -> str | None:
    """Which rivals are not installed, and how to install them, in a line; None if all are."""
    here = installed()
    missing = [name for name in RIVALS if name not in here]
    return f"not installed, so not measured: {', '.join(missing)}; pip install 'cramzip[bench]'" if missing else None
