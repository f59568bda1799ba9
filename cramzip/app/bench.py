"""Measuring: cramzip in several settings beside the usual compressors at their strongest. Prints nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from .. import codec
from ..coding.exact_decode import chosen_by
from ..coding.original import Original
from ..coding.restore import Runner, Window, restore
from ..config import CramConfig
from ..container import reading
from ..container.description import Description, describe
from ..lm.exact import ExactLM
from ..lm.models import LM
from .rivals import RIVALS, installed

CRAMZIP = "cramzip"
TOTAL = "total"
DEFAULT, SMALLEST, EXACT = "default", "smallest", "exact"
SETTINGS = (DEFAULT, SMALLEST, EXACT)
SMALL_TEXT = 2**12  # bytes; vectors alone take so long that larger texts are measured with them on request only
LEAST_SECONDS = 0.1  # runs of a fast codec are repeated until they have taken this long together

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measurement:
    """What one codec made of one text: sizes in bytes, times in seconds of one run.

    `intact`: decompressing gave the very bytes of the original. For cramzip alone: its `setting`; `entropy_bound`, the
    size in bits that an ideal arithmetic coder would reach with the same model and the same chunks; the bits `spent` on
    vectors, and those that these `saved`, as far as that is known; `parts` says what the file consists of.
    """

    file: str
    codec: str
    original_bytes: int
    compressed_bytes: int
    compress_seconds: float
    decompress_seconds: float
    intact: bool
    setting: str | None = None
    entropy_bound: float | None = None
    spent: float | None = None
    saved: float | None = None
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


# -- measuring -------------------------------------------------------------------------------------


def settings_for(size: int, wanted: Sequence[str] = ()) -> Sequence[str]:
    """The settings that a text of `size` bytes is measured with: those `wanted`, or else those that are quick."""
    return wanted or (SETTINGS if size <= SMALL_TEXT else (DEFAULT, SMALLEST))


def config_of(setting: str, config: CramConfig) -> CramConfig:
    """`config` in one of SETTINGS, as the option of that name changes it."""
    if setting == SMALLEST:
        return replace(config, vectors=0)
    if setting == EXACT:
        return replace(config, exact=True, vectors=config.vectors or 1, context=None)
    return config


def label_of(setting: str) -> str:
    return CRAMZIP if setting == DEFAULT else f"{CRAMZIP} --{setting}"


def bench(
    texts: Iterable[tuple[str, bytes]],
    lm: LM,
    config: CramConfig,
    settings: Sequence[str] = (),
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Measurement]:
    """Compress, decompress, compare and time every text (name, content) with every setting and installed rival.

    `progress` is told of the bytes that cramzip has done, once when compressing and once when decompressing, in each
    setting.
    """
    measurements = []
    for file, data in texts:
        for setting in settings_for(len(data), settings):
            measurements.append(measure_cramzip(file, data, lm, config, setting, progress=progress))
        measurements += [measure_rival(file, data, rival) for rival in installed()]
    return measurements


def measure_cramzip(
    file: str,
    data: bytes,
    lm: LM,
    config: CramConfig,
    setting: str = DEFAULT,
    *,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """One run of cramzip. The file is decoded once. `c` verifies it so, so this counts as compressing, too."""
    start = time.perf_counter()
    original = Original(data, hashlib.sha256(data).digest(), strip=setting == SMALLEST)
    blob, gain = codec.written(original, lm, config_of(setting, config), progress=progress)
    written = time.perf_counter()
    opened = reading.read(blob)
    windows: list[Window] = []
    unpacked = b"".join(restore(opened, Runner(lm, config.batch_size, progress=progress or (lambda _: None)), windows))
    end = time.perf_counter()
    parts = describe(opened)
    if isinstance(lm, ExactLM):
        parts = replace(parts, chosen=chosen_by(opened, lm, gain))
    return Measurement(
        file,
        label_of(setting),
        len(data),
        len(blob),
        end - start,
        end - written,
        unpacked == data,
        setting,
        codec.entropy_bound(opened.header, windows, lm),
        parts.spent,
        parts.saved,
        parts,
    )


def measure_rival(file: str, data: bytes, rival: str) -> Measurement:
    """Runs of one of RIVALS that is installed. One that fails on what it has made itself is not intact."""
    compress, decompress, _ = RIVALS[rival]

    def attempt(packed: bytes) -> bytes | None:
        try:
            return decompress(packed)
        except Exception:
            return None

    packed, compress_seconds = _timed(compress, data)
    unpacked, decompress_seconds = _timed(attempt, packed)
    return Measurement(file, rival, len(data), len(packed), compress_seconds, decompress_seconds, unpacked == data)


def totals(measurements: Sequence[Measurement]) -> list[Measurement]:
    """All files taken together, for each codec that was measured with all of them."""
    files = {measurement.file for measurement in measurements}
    found = []
    for name in dict.fromkeys(measurement.codec for measurement in measurements):
        same = [measurement for measurement in measurements if measurement.codec == name]
        if {measurement.file for measurement in same} != files:
            continue
        found.append(
            Measurement(
                TOTAL,
                name,
                sum(measurement.original_bytes for measurement in same),
                sum(measurement.compressed_bytes for measurement in same),
                sum(measurement.compress_seconds for measurement in same),
                sum(measurement.decompress_seconds for measurement in same),
                all(measurement.intact for measurement in same),
                same[0].setting,
                _sum(measurement.entropy_bound for measurement in same),
                _sum(measurement.spent for measurement in same),
                _sum(measurement.saved for measurement in same),
            )
        )
    return found


def _sum(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _timed(function: Callable[[bytes], Result], argument: bytes) -> tuple[Result, float]:
    """The result, and the mean time of one run."""
    runs = 0
    start = time.perf_counter()
    while True:
        result = function(argument)
        runs += 1
        elapsed = time.perf_counter() - start
        if elapsed >= LEAST_SECONDS:
            return result, elapsed / runs
