"""Measuring: cramzip beside the usual compressors at their strongest. Prints nothing."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import brotli
import zstandard

from . import codec, payload
from .cram import CramConfig
from .describe import Description, describe
from .lm import FrozenLM
from .records import Kind
from .wire import Bytes

CRAMZIP = "cramzip"
TOTAL = "total"
RECITED_AT_ONCE = 512  # chunks
LEAST_SECONDS = 0.1  # runs of a fast codec are repeated until they have taken this long together

Function = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Measurement:
    """What one codec made of one text: sizes in bytes, times in seconds of one run.

    `exact`: decompressing gave the very bytes of the original. For cramzip alone: `entropy_bound` is the
    size in bits that an ideal arithmetic coder would reach with the same model and the same chunks,
    `parts` says what the file consists of.
    """

    file: str
    codec: str
    original_bytes: int
    compressed_bytes: int
    compress_seconds: float
    decompress_seconds: float
    exact: bool
    entropy_bound: float | None = None
    parts: Description | None = None

    @property
    def ratio(self) -> float:
        """Compression ratio: original over compressed, higher is better."""
        return self.original_bytes / self.compressed_bytes

    @property
    def bits_per_byte(self) -> float:
        """Bits in the compressed file for each byte of the original, lower is better."""
        return 8 * self.compressed_bytes / max(self.original_bytes, 1)

    @property
    def bound_share(self) -> float | None:
        """The entropy bound as a share of the file; 1 would be an ideal arithmetic coder."""
        return None if self.entropy_bound is None else self.entropy_bound / (8 * self.compressed_bytes)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=22, write_checksum=True).compress(data)


def _brotli(data: bytes) -> bytes:
    packed: bytes = brotli.compress(data, quality=11, lgwin=24)
    return packed


# Each with the settings, the framing and the checksums that its own command line would write.
RIVALS: dict[str, tuple[Function, Function]] = {
    "gzip -9": (lambda data: gzip.compress(data, 9, mtime=0), gzip.decompress),
    "bzip2 -9": (lambda data: bz2.compress(data, 9), bz2.decompress),
    "zstd --ultra -22": (_zstd, lambda blob: zstandard.ZstdDecompressor().decompress(blob)),
    "brotli -q 11": (_brotli, brotli.decompress),
    "xz -9e": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
}


def bench(
    texts: Iterable[tuple[str, bytes]],
    lm: FrozenLM,
    config: CramConfig,
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Measurement]:
    """Compress, decompress, compare and time every text (name, content) with every codec.

    `progress` is told of the bytes that cramzip has done, once when compressing and once when decompressing.
    """
    measurements = []
    for file, data in texts:
        measurements.append(measure_cramzip(file, data, lm, config, progress=progress))
        for codec_name, (compress, decompress) in RIVALS.items():
            packed, compress_seconds = _timed(compress, data)
            unpacked, decompress_seconds = _timed(decompress, packed)
            measurements.append(
                Measurement(
                    file, codec_name, len(data), len(packed), compress_seconds, decompress_seconds, unpacked == data
                )
            )
    return measurements


def measure_cramzip(
    file: str,
    data: bytes,
    lm: FrozenLM,
    config: CramConfig,
    *,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """One run of cramzip; the time to compress includes the decoding that verifies every file."""
    start = time.perf_counter()
    blob = codec.compress(data, lm, config, progress=progress)
    compressed = time.perf_counter()
    unpacked = b"".join(codec.decode(blob, lm, progress=progress))
    decompressed = time.perf_counter()
    return Measurement(
        file,
        CRAMZIP,
        len(data),
        len(blob),
        compressed - start,
        decompressed - compressed,
        unpacked == data,
        entropy_bound(blob, lm),
        describe(blob),
    )


def entropy_bound(blob: Bytes, lm: FrozenLM | None) -> float:
    """Bits that an ideal arithmetic coder would need with this model and these chunks; stored ones as they are."""
    file = payload.check(blob)
    codec.check_model(file, lm)
    bits = 0.0
    chunks = iter(file)
    while window := list(islice(chunks, RECITED_AT_ONCE)):
        bits += sum(8 * chunk.entry.payload_size for chunk in window if chunk.entry.kind is not Kind.CRAMMED)
        rows = [row for row in codec.recite(file, window, lm) if row is not None]
        if rows:
            assert lm is not None
            bits += sum(float(cost.sum()) for cost in lm.score(rows)) / math.log(2)
    return bits


def totals(measurements: Sequence[Measurement]) -> list[Measurement]:
    """All files taken together, codec by codec."""
    found = []
    for name in dict.fromkeys(measurement.codec for measurement in measurements):
        same = [measurement for measurement in measurements if measurement.codec == name]
        bounds = [measurement.entropy_bound for measurement in same if measurement.entropy_bound is not None]
        found.append(
            Measurement(
                TOTAL,
                name,
                sum(measurement.original_bytes for measurement in same),
                sum(measurement.compressed_bytes for measurement in same),
                sum(measurement.compress_seconds for measurement in same),
                sum(measurement.decompress_seconds for measurement in same),
                all(measurement.exact for measurement in same),
                sum(bounds) if bounds else None,
            )
        )
    return found


def _timed(function: Function, argument: bytes) -> tuple[bytes, float]:
    """The result, and the mean time of one run."""
    runs = 0
    start = time.perf_counter()
    while True:
        result = function(argument)
        runs += 1
        elapsed = time.perf_counter() - start
        if elapsed >= LEAST_SECONDS:
            return result, elapsed / runs
