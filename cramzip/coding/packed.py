"""What is compressed already: formats that are known by their first bytes, and look packed inside."""

from __future__ import annotations

import re
from collections import Counter
from math import log2

from ..container.wire import Bytes

FORMATS = {
    "gzip": rb"\x1f\x8b\x08",
    "zip": rb"PK(\x03\x04|\x05\x06|\x07\x08)",
    "png": rb"\x89PNG\r\n\x1a\n",
    "pdf": rb"%PDF-[12]\.\d",
    "jpeg": rb"\xff\xd8\xff",
    "xz": rb"\xfd7zXZ\0",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "bzip2": rb"BZh[1-9]1AY&SY",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "rar": rb"Rar!\x1a\x07",
    "lz4": rb"\x04\x22\x4d\x18",
    "lzip": rb"LZIP\x01",
    "lzma": rb"\x5d\0\0..(\xff{8}|.{5}\0\0\0)",
    "zlib": rb"\x78[\x01\x5e\x9c\xda]",
    "compress": rb"\x1f\x9d[\x80-\x9f]",
    "cab": rb"MSCF\0{4}",
    "cram": rb"\x9dCZ",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF.{4}WEBP",
    "avi": rb"RIFF.{4}AVI ",
    "jpeg 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "jpeg xl": rb"\0\0\0\x0cJXL |\xff\x0a",
    "mp4": rb"\0\0.{2}ftyp",
    "matroska": rb"\x1aE\xdf\xa3",
    "ogg": rb"OggS\0",
    "flac": rb"fLaC\0",
    "mp3": rb"ID3[\2-\4]\0|\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]",
    "woff": rb"wOF[2F]",
}
FIRST = 16  # bytes that they are known by
WINDOWS, WINDOW = 5, 2**12  # places that are looked at, and the bytes of each
SMALLEST = 64  # bytes; of less nothing can be said
CUT = 6  # bytes of UTF-8 that may be invalid where a window begins and ends
DENSE = 0.8  # of the bits that bytes by chance would have: prose has half of them, Chinese three quarters

_PATTERNS = [(name, re.compile(pattern, re.DOTALL)) for name, pattern in FORMATS.items()]


def packed_format(data: Bytes) -> str | None:
    """The format in which all of `data` is compressed already; None where it only begins like one."""
    first = bytes(data[:FIRST])
    name = next((name for name, pattern in _PATTERNS if pattern.match(first)), None)
    return name if name and len(data) >= SMALLEST and _is_dense(data) else None


def _is_dense(data: Bytes) -> bool:
    """Whether most of a few places look like compressed data."""
    last = max(0, len(data) - WINDOW)
    places = sorted({last * i // (WINDOWS - 1) for i in range(WINDOWS)})
    shares = sorted(_density(bytes(data[place : place + WINDOW])) for place in places)
    return shares[len(shares) // 2] >= DENSE


def _density(window: bytes) -> float:
    """The entropy of single bytes, for each bit that it could be; 0 of UTF-8."""
    n = len(window)
    if n - len(window.decode("utf-8", "ignore").encode()) <= CUT:
        return 0.0
    bits = sum(-count / n * log2(count / n) for count in Counter(window).values())
    return bits / log2(min(256, n))
