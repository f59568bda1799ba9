"""compress, decompress and read: bytes or streams in, bytes out. Knows no paths and no terminals."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

from .coding.original import Original
from .coding.restore import Runner, Window, require_given, restore, restore_part, verify
from .coding.view import View
from .config import CramConfig
from .container import opened, reading
from .container.records import BuiltinModel, Entry, Header, n_chunks
from .container.wire import Bytes, byte_view
from .errors import ModelError, UsageError, WrongModelError
from .exact.codebook import hash_of
from .exact.lanes import costs
from .lm.exact import ExactLM
from .lm.models import as_torch, load, with_codebook, with_dictionary

if TYPE_CHECKING:
    import torch

    from .lm.models import LM
    from .workers.base import Workers

Progress = Callable[[int], None]  # is told of bytes of the original


def compress(
    data: Bytes | BinaryIO,
    lm: LM | None = None,
    config: CramConfig | None = None,
    *,
    name: str | None = None,
    strip: bool = False,
    dictionary: Bytes | None = None,
    codebook: Bytes | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> bytes:
    """The `.cram` file for `data`, bytes or a stream, decoded and compared before it is returned.

    `lm`: the built-in model, unless another is given. `name`: that of the original, which the file keeps; `strip`
    leaves out what is optional. `dictionary`: a sample of such data, which makes small files much smaller, and which
    `decompress` then needs, too; such a file keeps no name. `codebook`: a file of `capacity --save-codebook`, of which
    the same is true where it makes the result smaller. `progress` is told how many more bytes are compressed.
    Raises UsageError, ModelError, and VerificationError if this machine does not get the same bytes back.
    """
    check_given(lm, config)
    config = config or CramConfig()
    content = byte_view(_read_all(data))
    original = Original(content, hashlib.sha256(content).digest(), name, strip)
    lm = _going_on(builtin() if lm is None else lm, dictionary)
    lm = lm if codebook is None else with_codebook(lm, bytes(byte_view(codebook)))
    blob = unverified(original, lm, config, progress=progress, workers=workers)
    verify(reading.read(blob), content, Runner(lm, config.batch_size, workers))
    return blob


def unverified(
    original: Original,
    lm: LM,
    config: CramConfig,
    *,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> bytes:
    """A `.cram` file that nobody has decoded yet."""
    return written(original, lm, config, progress=progress, workers=workers)[0]


def written(
    original: Original,
    lm: LM,
    config: CramConfig,
    *,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> tuple[bytes, float]:
    """The same, and the bits that its vectors took off the text, as far as they were counted."""
    from .coding.encode import Writer

    writer = Writer(lm, config)
    segments = list(writer.segments(original.data, progress=progress, workers=workers))
    groups = [group for segment in segments for group in segment.groups]
    sink = io.BytesIO()
    gain = sum(segment.gain for segment in segments)
    writer.write(sink, original, groups, gain)
    return sink.getvalue(), gain


def decompress(
    blob: Bytes | BinaryIO,
    lm: LM | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    max_size: int | None = None,
    dictionary: Bytes | None = None,
    codebook: Bytes | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> bytes:
    """The original of a `.cram` file, bytes or a stream, or its bytes `start` to `stop` alone.

    `lm`: the model that the file was made with; a file of the built-in model, or of stored groups alone, needs none.
    `dictionary`, `codebook`: those of the file, if it has any. `workers` share a whole, not a part; `progress` is told
    how many more bytes of a whole are there. Raises UsageError if there are more than `max_size` bytes, before anything
    is decoded; DamagedFileError; and WrongModelError if model, dictionary or codebook is another one. A whole is
    checked by its SHA-256, a part by the checksums of its groups.
    """
    check_given(lm)
    file = reading.read(byte_view(_read_all(blob)))
    size = file.header.original_size
    if stop is not None and stop < 0:
        raise UsageError(f"stop: {stop} is not in a file of {size} bytes")
    end = size if stop is None else min(stop, size)
    if max_size is not None and end - start > max_size:
        raise UsageError(f"max_size: {end - start} bytes are to be decoded, at most {max_size} are wanted")
    lm = model_for(file.header, lm, dictionary, codebook)
    if start == 0 and stop is None:
        return b"".join(restore(file, Runner(lm, workers=workers, progress=progress or (lambda _: None))))
    return restore_part(file, lm, start, end)


def check_given(lm: object, config: object = None) -> None:
    """Raise UsageError for what is easily given in place of a model or a configuration."""
    if isinstance(lm, str | CramConfig):
        raise UsageError(f"lm: expected a model, as cramzip.load gives it, found {lm!r}")
    if not isinstance(config, CramConfig | None):
        raise UsageError(f"config: expected a CramConfig, found {config!r}")


def model_for(
    header: Header, lm: LM | None, dictionary: Bytes | None = None, codebook: Bytes | None = None
) -> LM | None:
    """The model for a file: the one that is given, or else the built-in one, if it is what the file needs.

    With the dictionary and the codebook, if the file needs one and the model can have one. In floats, if the file has
    ranks. Raises WrongModelError for another codebook.
    """
    if lm is None and isinstance(header.model, BuiltinModel):
        lm = builtin()
    if isinstance(lm, ExactLM) and lm.is_wide and header.model and not header.is_exact:
        return as_torch(lm)
    if isinstance(lm, ExactLM) and header.codebook is not None and codebook is not None:
        content = bytes(byte_view(codebook))
        require_given(header.codebook, hash_of(content))
        try:
            return lm.with_codebook(content)
        except ModelError as error:
            raise WrongModelError(f"Codebook_Hash: {error}") from error
    return _going_on(lm, dictionary) if isinstance(lm, ExactLM) and header.dictionary is not None else lm


def _going_on(lm: LM, dictionary: Bytes | None) -> LM:
    return lm if dictionary is None else with_dictionary(lm, bytes(byte_view(dictionary)))


@cache
def builtin() -> LM:
    """The built-in model, loaded once."""
    return load()


def _read_all(data: Bytes | BinaryIO) -> Any:
    return data.read() if hasattr(data, "read") else data


@dataclass(frozen=True)
class CramFile:
    """A file taken apart: header, table, and the vectors (C, M, D) of the chunks of group i, None if it has none."""

    header: Header
    entries: tuple[Entry, ...]
    vectors: tuple[torch.Tensor | None, ...]


def read(blob: Bytes | BinaryIO) -> CramFile:
    """Take a file, bytes or a stream, apart without a model. Raises DamagedFileError."""
    import torch

    from .coding.quantize import dequantize

    file = reading.read(byte_view(_read_all(blob)))
    found = [[dequantize(mem) for mem in opened.vectors(group, file.header)] for group in file]
    return CramFile(file.header, file.entries, tuple(torch.stack(mem) if mem else None for mem in found))


def entropy_bound(header: Header, windows: Iterable[Window], lm: LM) -> float:
    """Bits that an ideal arithmetic coder would need with this model and these chunks or lanes, without vectors.

    A stored group counts with the bits of its payload.
    """
    bits = 0.0
    for groups, tokens in windows:
        for group, row in zip(groups, tokens, strict=True):
            if row is None:
                bits += 8 * group.entry.payload_size
                continue
            bits += _ideal_bits(header, group.entry, row, lm)
    return bits


def _ideal_bits(header: Header, entry: Entry, tokens: list[int], lm: LM) -> float:
    if header.is_exact:
        assert isinstance(lm, ExactLM)
        return float(costs(lm.model, tokens, n_chunks(entry, header)).sum())
    chunks = View.of(header).chunks(tokens)
    nats = as_torch(lm).score([chunk.tokens for chunk in chunks], [chunk.context for chunk in chunks])
    return sum(float(cost.sum()) for cost in nats) / math.log(2)
