"""compress and decompress: bytes in, bytes out. Knows no paths and no terminals."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from .coding import quantize
from .coding.cram import CramConfig
from .coding.decode import Recipe, decode_all
from .coding.encode import Progress, choose_parameters, encode
from .container import opened as payload
from .container import reading, writing
from .container.opened import check
from .container.reading import Container
from .container.records import HASH_SIZES, BuiltinModel, Entry, Group, Header, OutsideModel, Parameters, Vectors
from .container.stored import stored_content, stored_groups
from .container.wire import Bytes
from .errors import DamagedFileError, UsageError, VerificationError, WrongModelError
from .lm.frozen import FrozenLM
from .workers.base import Workers

WINDOW_BYTES = 2**22  # of the original and of the payloads: what is decoded together
SMALL_ORIGINAL = 2**20  # bytes; the hash of what is smaller is kept in part


def compress(
    data: bytes,
    lm: FrozenLM,
    config: CramConfig | None = None,
    *,
    name: str | None = None,
    strip: bool = False,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> bytes:
    """The `.cram` file for `data`, decoded and compared before it is returned; `strip` leaves out what is optional.

    Raises VerificationError if this machine does not get the same bytes back twice.
    """
    config = config or CramConfig()
    parameters = choose_parameters(lm, config)
    segments = list(encode(data, lm, config, parameters, progress=progress, workers=workers))
    groups = [group for segment in segments for group in segment.groups]
    gain = sum(segment.gain for segment in segments)
    sink = io.BytesIO()
    write(sink, data, groups, hashlib.sha256(data).digest(), lm, config, parameters, gain, name=name, strip=strip)
    blob = sink.getvalue()
    verify(blob, data, lm, batch_size=config.batch_size, workers=workers)
    return blob


def write(
    sink: BinaryIO,
    data: Bytes,
    groups: Iterable[Group],
    sha256: bytes,
    lm: FrozenLM,
    config: CramConfig,
    parameters: Parameters,
    gain: float,
    *,
    name: str | None = None,
    strip: bool = False,
) -> None:
    """Write the file of `groups`, which is walked several times; or that of the stored `data`, if it is smaller."""

    hash_size = HASH_SIZES[1] if len(data) < SMALL_ORIGINAL else HASH_SIZES[-1]
    if strip:
        hash_size, name = HASH_SIZES[0], None

    def header_of(entries: Sequence[Entry]) -> Header:
        """With the model block only where a group needs the model."""
        header = Header(len(data), sha256[:hash_size], name)
        if all(entry.kind.is_stored for entry in entries):
            return header
        vectors = None
        if any(entry.kind.has_vectors for entry in entries):
            shown_gain = None if strip else max(0, round(gain))
            vectors = Vectors(config.coding, lm.width, shown_gain, lm.vectors_after_start)
        return replace(header, model=reference(lm), parameters=parameters, vectors=vectors)

    entries = [group.entry for group in groups]
    if not config.exact:
        size = writing.file_size(header_of(entries), entries)
        stored = _stored(data, size)
        stored_entries = [group.entry for group in stored]
        if writing.file_size(header_of(stored_entries), stored_entries) < size:
            groups, entries = stored, stored_entries
    writing.write(sink, header_of(entries), groups)


def _stored(data: Bytes, limit: int) -> list[Group]:
    """The whole of `data` stored; or as much of it as takes `limit` bytes."""
    groups: list[Group] = []
    for group in stored_groups(data):
        groups.append(group)
        limit -= len(group.payload)
        if limit < 0:
            break
    return groups


def reference(lm: FrozenLM) -> BuiltinModel | OutsideModel:
    """How a file names a model."""
    if lm.source.is_builtin:
        return BuiltinModel(lm.source.digest)
    return OutsideModel(lm.model_id, lm.revision, lm.fingerprint, lm.tokenizer_hash)


def verify(
    blob: Bytes,
    original: Bytes,
    lm: FrozenLM | None,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> None:
    """Decode a file that was just made and compare. Raises VerificationError if it does not give `original`."""
    position = 0
    try:
        for content in decode(blob, lm, batch_size=batch_size, progress=progress, workers=workers):
            if content != original[position : position + len(content)]:
                raise VerificationError(f"the finished file decodes to other bytes from byte {position} on")
            position += len(content)
    except DamagedFileError as error:
        raise VerificationError(f"the finished file does not decode: {error}") from error
    if position != len(original):
        raise VerificationError(f"the finished file decodes to {position} bytes of {len(original)}")


def decompress(
    blob: Bytes,
    lm: FrozenLM | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    workers: Workers | None = None,
) -> bytes:
    """The original of a `.cram` file, or of its bytes `start` to `stop` only; `workers` share a whole, not a part.

    Raises DamagedFileError, and WrongModelError if `lm` is not the model that the file was made with (a file of stored
    groups alone needs none). Bytes of a part are vouched for by the checksums of their groups, a whole by its SHA-256.
    """
    if start == 0 and stop is None:
        return b"".join(decode(blob, lm, workers=workers))
    file = check(blob)
    check_model(file, lm)
    stop = file.header.original_size if stop is None else min(stop, file.header.original_size)
    if not 0 <= start <= file.header.original_size:
        raise UsageError(f"start: {start} is not in a file of {file.header.original_size} bytes")
    if len(file.entries) == 1:  # its only checksum is the hash of the whole
        return b"".join(decode(blob, lm))[start:stop]
    offsets = file.offsets
    touched = [
        (offset, group)
        for offset, group in zip(offsets, file, strict=False)
        if offset < stop and offset + group.entry.size > start
    ]
    groups = [group for _, group in touched]
    content = b"".join(_contents(groups, recite(file.header, groups, lm), lm))
    first = touched[0][0] if touched else 0
    return content[start - first : stop - first] if touched else b""


def decode(
    blob: Bytes,
    lm: FrozenLM | None,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Iterator[bytes]:
    """The contents of the groups in order. Nothing is certain before the last one has come without an error."""
    file = check(blob)
    check_model(file, lm)
    digest = hashlib.sha256()
    for window, tokens in _recite_windows(file, lm, batch_size, workers, progress or (lambda _: None)):
        for content in _contents(window, tokens, lm):
            digest.update(content)
            yield content
    expected = file.header.original_hash
    if (found := digest.digest()[: len(expected)]) != expected:
        raise DamagedFileError("content", f"Original_Hash: expected {expected.hex()}, found {found.hex()}")


def _windows(file: Container) -> Iterator[list[Group]]:
    """The groups in order, in runs of about WINDOW_BYTES."""
    window: list[Group] = []
    size = 0
    for group in file:
        window.append(group)
        size += group.entry.size + group.entry.payload_size
        if size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def check_model(file: Container, lm: FrozenLM | None) -> None:
    """Raise WrongModelError unless `lm` is the model of the file and its chunks fit into the model's context."""
    header = file.header
    if header.model is None:
        return
    if lm is None:
        raise WrongModelError(f"the file needs {name_of(header.model)}")
    if isinstance(header.model, BuiltinModel):
        lm.source.require(header.model.digest)
    else:
        lm.require(header.model.fingerprint, header.model.tokenizer_hash)
    if header.vectors and header.vectors.width != lm.width:
        raise WrongModelError(f"Vector_Width: the file needs {header.vectors.width}, {lm.model_id} has {lm.width}")
    if header.parameters.start_token >= lm.vocabulary_size:
        raise WrongModelError(f"Start_Token: {header.parameters.start_token}, {lm.model_id} has {lm.vocabulary_size}")
    if lm.context is not None:
        for entry in file.entries:
            chunk = min(entry.n_tokens, header.parameters.chunk_tokens)
            context = min(entry.n_tokens - chunk, header.parameters.context_tokens)
            before = entry.n_vectors + header.vectors.after_start if entry.n_vectors and header.vectors else 1
            needed = before + context + chunk
            if not entry.kind.is_stored and needed > lm.context:
                raise WrongModelError(f"a chunk needs {needed} positions, {lm.model_id} has {lm.context}")


def name_of(model: BuiltinModel | OutsideModel) -> str:
    """What people call the model that a file names."""
    if isinstance(model, BuiltinModel):
        return f"the built-in model {model.digest.hex()}"
    return f"the model {model.model_id}"


def _contents(groups: Sequence[Group], recited: Sequence[list[int] | None], lm: FrozenLM | None) -> Iterator[bytes]:
    """The contents of some groups, by their tokens."""
    for group, tokens in zip(groups, recited, strict=True):
        if tokens is None:
            yield stored_content(group)
            continue
        assert lm is not None
        try:
            content = lm.tokenizer.decode(tokens)
        except ValueError as error:
            raise DamagedFileError("content", str(error)) from None
        reading.check_content(group.entry, content)
        yield content


def _recite_windows(
    file: Container, lm: FrozenLM | None, batch_size: int | None, workers: Workers | None, progress: Progress
) -> Iterator[tuple[list[Group], list[list[int] | None]]]:
    """Each window, and the tokens of its groups; `workers` share it where more than one group needs the model."""
    if lm is None or workers is None or sum(not entry.kind.is_stored for entry in file.entries) < 2:
        for window in _windows(file):
            meter = _Meter(window, progress)
            yield window, recite(file.header, window, lm, batch_size, meter.decoded)
            meter.finish()
        return
    windows, again = tee(_windows(file))
    shares = (
        _Share(file.header, tuple(replace(window[i], payload=bytes(window[i].payload)) for i in indices), batch_size)
        for window in again
        for indices in _deal(window, workers.n)
    )
    results = workers.map(lm, _recite_share, shares)
    for window in windows:
        tokens: list[list[int] | None] = [None] * len(window)
        for indices in _deal(window, workers.n):
            for i, row in zip(indices, next(results), strict=True):
                tokens[i] = row
        yield window, tokens
        _Meter(window, progress).finish()


class _Meter:
    """Tells progress in bytes of a window, while its tokens are decoded."""

    def __init__(self, window: Sequence[Group], progress: Progress):
        self.progress = progress
        self.size = sum(group.entry.size for group in window)
        modelled = [group.entry for group in window if not group.entry.kind.is_stored]
        self.modelled_size = sum(entry.size for entry in modelled)
        self.n_tokens = sum(entry.n_tokens for entry in modelled)
        self.n_decoded = self.told = 0

    def decoded(self, n: int) -> None:
        """`n` more tokens; those of a batch that did not fit into memory come twice."""
        self.n_decoded = min(self.n_decoded + n, self.n_tokens)
        self._tell(self.modelled_size * self.n_decoded // max(1, self.n_tokens))

    def finish(self) -> None:
        self._tell(self.size)

    def _tell(self, n_bytes: int) -> None:
        self.progress(n_bytes - self.told)
        self.told = n_bytes


def _deal(groups: Sequence[Group], n: int) -> list[list[int]]:
    """Indices of modelled groups, dealt to at most `n` workers: about as much for each, and groups that are alike."""

    def key(index: int) -> tuple[int, int]:
        return groups[index].entry.n_vectors, groups[index].entry.n_tokens

    modelled = [index for index, group in enumerate(groups) if not group.entry.kind.is_stored]
    order = sorted(modelled, key=key, reverse=True)
    return [order[first::n] for first in range(min(n, len(order)))]


class _Share(NamedTuple):
    """What one worker recites of a window."""

    header: Header
    groups: tuple[Group, ...]
    batch_size: int | None


def _recite_share(lm: FrozenLM, share: _Share) -> list[list[int] | None]:
    return recite(share.header, share.groups, lm, share.batch_size)


def recite(
    header: Header,
    groups: Sequence[Group],
    lm: FrozenLM | None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> list[list[int] | None]:
    """The tokens of modelled groups, None for stored ones; `progress` is told of tokens."""
    tokens: list[list[int] | None] = [None] * len(groups)
    modelled = [index for index, group in enumerate(groups) if not group.entry.kind.is_stored]
    if not modelled:
        return tokens
    assert lm is not None
    recipes = [
        Recipe(
            groups[index].entry.n_tokens,
            tuple(map(quantize.dequantize, payload.vectors(groups[index], header))),
            payload.corrections(groups[index], header),
            header.vectors is not None and header.vectors.after_start,
        )
        for index in modelled
    ]
    decoded = decode_all(lm, recipes, header.parameters, batch_size, progress)
    for index, row in zip(modelled, decoded, strict=True):
        tokens[index] = row
    return tokens


def entropy_bound(blob: Bytes, lm: FrozenLM | None) -> float:
    """Bits that an ideal arithmetic coder would need with this model, without vectors, and with these chunks.

    What is stored counts as it is.
    """
    file = check(blob)
    check_model(file, lm)
    chunk, context = file.header.parameters.chunk_tokens, file.header.parameters.context_tokens
    bits = 0.0
    for window in _windows(file):
        for group, row in zip(window, recite(file.header, window, lm), strict=True):
            if row is None:
                bits += 8 * group.entry.payload_size
                continue
            assert lm is not None
            firsts = range(0, len(row), chunk)
            seen = [row[max(0, first - context) : first] for first in firsts]
            costs = lm.score([row[first : first + chunk] for first in firsts], seen)
            bits += float(np.concatenate(costs).sum()) / math.log(2)
    return bits


@dataclass(frozen=True)
class CramFile:
    """A file taken apart: header, table, and the vectors (C, M, D) of the chunks of group i, None if it has none."""

    header: Header
    entries: tuple[Entry, ...]
    vectors: tuple[torch.Tensor | None, ...]


def read(blob: Bytes) -> CramFile:
    """Take a file apart without a model. Raises DamagedFileError."""
    file = check(blob)
    found = [[quantize.dequantize(mem) for mem in payload.vectors(group, file.header)] for group in file]
    return CramFile(file.header, file.entries, tuple(torch.stack(mem) if mem else None for mem in found))
