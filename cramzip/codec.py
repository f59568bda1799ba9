"""compress and decompress: bytes in, bytes out. Knows no paths and no terminals."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from . import container, payload, quantize
from .container import Chunk, Container, Header, Kind, ModelBlock, stored_content
from .cram import CramConfig
from .decode import FREE, batches, greedy_decode
from .encode import Progress, encode
from .errors import DamagedFileError, UsageError, VerificationError, WrongModelError
from .lm import FrozenLM, pad
from .payload import check
from .wire import Bytes

WINDOW_BYTES = 2**22  # of the original and of the payloads: what is decoded together


def compress(
    data: bytes,
    lm: FrozenLM,
    config: CramConfig | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> bytes:
    """The `.cram` file for `data`, decoded and compared before it is returned.

    Raises VerificationError if this machine does not get the same bytes back twice.
    """
    config = config or CramConfig()
    chunks = [chunk for group in encode(data, lm, config, progress=progress) for chunk in group.chunks]
    sink = io.BytesIO()
    crammed = any(chunk.entry.kind is Kind.CRAMMED for chunk in chunks)
    header = make_header(len(data), hashlib.sha256(data).digest(), crammed, lm, config, name)
    container.write(sink, header, chunks)
    blob = sink.getvalue()
    verify(blob, data, lm, batch_size=config.batch_size)
    return blob


def verify(
    blob: Bytes,
    original: Bytes,
    lm: FrozenLM | None,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decode a file that was just made and compare. Raises VerificationError if it does not give `original`."""
    position = 0
    try:
        for content in decode(blob, lm, batch_size=batch_size, progress=progress):
            if content != original[position : position + len(content)]:
                raise VerificationError(f"the finished file decodes to other bytes from byte {position} on")
            position += len(content)
    except DamagedFileError as error:
        raise VerificationError(f"the finished file does not decode: {error}") from error
    if position != len(original):
        raise VerificationError(f"the finished file decodes to {position} bytes of {len(original)}")


def make_header(
    original_size: int,
    original_sha256: bytes,
    chunks_are_crammed: bool,
    lm: FrozenLM | None,
    config: CramConfig,
    name: str | None = None,
) -> Header:
    """The header of a file; the model block only where a chunk needs the model."""
    model = None
    if chunks_are_crammed:
        assert lm is not None
        model = ModelBlock(
            model_id=lm.model_id,
            revision=lm.revision,
            fingerprint=lm.fingerprint,
            tokenizer_hash=lm.tokenizer_hash,
            vocabulary_size=lm.vocabulary_size,
            vector_width=lm.width,
            noise_exponent=config.noise_exponent,
        )
    return Header(original_size, original_sha256, name, model)


def decompress(blob: Bytes, lm: FrozenLM | None = None, *, start: int = 0, stop: int | None = None) -> bytes:
    """The original of a `.cram` file, or of its bytes `start` to `stop` only.

    Raises DamagedFileError, and WrongModelError if `lm` is not the model that the file was made with (a file of stored
    chunks alone needs none). Bytes of a part are vouched for by the checksums of their chunks, a whole by its SHA-256.
    """
    if start == 0 and stop is None:
        return b"".join(decode(blob, lm))
    file = check(blob)
    check_model(file, lm)
    stop = file.header.original_size if stop is None else min(stop, file.header.original_size)
    if not 0 <= start <= file.header.original_size:
        raise UsageError(f"start: {start} is not in a file of {file.header.original_size} bytes")
    offsets = file.offsets
    touched = [
        (offset, chunk)
        for offset, chunk in zip(offsets, file, strict=False)
        if offset < stop and offset + chunk.entry.size > start
    ]
    content = b"".join(_decode_chunks(file, [chunk for _, chunk in touched], lm))
    first = touched[0][0] if touched else 0
    return content[start - first : stop - first] if touched else b""


def decode(
    blob: Bytes, lm: FrozenLM | None, *, batch_size: int | None = None, progress: Progress | None = None
) -> Iterator[bytes]:
    """The contents of the chunks in order. Nothing is certain before the last one has come without an error."""
    file = check(blob)
    check_model(file, lm)
    digest = hashlib.sha256()
    for window in _windows(file):
        for content in _decode_chunks(file, window, lm, batch_size):
            digest.update(content)
            if progress:
                progress(len(content))
            yield content
    if digest.digest() != file.header.original_sha256:
        raise DamagedFileError(
            "content",
            f"Original_SHA256: expected {file.header.original_sha256.hex()}, found {digest.hexdigest()}",
        )


def _windows(file: Container) -> Iterator[list[Chunk]]:
    """The chunks in order, in runs of about WINDOW_BYTES."""
    window: list[Chunk] = []
    size = 0
    for chunk in file:
        window.append(chunk)
        size += chunk.entry.size + chunk.entry.payload_size
        if size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def check_model(file: Container, lm: FrozenLM | None) -> None:
    """Raise WrongModelError unless `lm` is the model of the file and its chunks fit into the model's context."""
    needed = file.header.model
    if needed is None:
        return
    if lm is None:
        raise WrongModelError(f"the file needs the model {needed.model_id}")
    lm.require(needed.fingerprint, needed.tokenizer_hash)
    for field, expected, found in (
        ("Vocabulary_Size", needed.vocabulary_size, lm.vocabulary_size),
        ("Vector_Width", needed.vector_width, lm.width),
    ):
        if expected != found:
            raise WrongModelError(f"{field}: the file needs {expected}, {lm.model_id} here has {found}")
    longest = max(entry.n_vectors + entry.n_tokens for entry in file.entries)
    if lm.context is not None and longest > lm.context:
        raise WrongModelError(f"a chunk needs {longest} positions, {lm.model_id} has {lm.context}")


def _decode_chunks(
    file: Container, chunks: Sequence[Chunk], lm: FrozenLM | None, batch_size: int | None = None
) -> Iterator[bytes]:
    """The contents of some chunks."""
    for chunk, tokens in zip(chunks, recite(file, chunks, lm, batch_size), strict=True):
        if tokens is None:
            yield stored_content(chunk)
            continue
        assert lm is not None
        try:
            content = lm.tokenizer.decode(tokens)
        except ValueError as error:
            raise DamagedFileError("content", str(error)) from None
        container.check_content(chunk.entry, content)
        yield content


def recite(
    file: Container, chunks: Sequence[Chunk], lm: FrozenLM | None, batch_size: int | None = None
) -> list[list[int] | None]:
    """The tokens of crammed chunks, None for stored ones. Chunks of as many vectors are decoded together."""
    tokens: list[list[int] | None] = [None] * len(chunks)
    by_vectors: dict[int, list[int]] = {}
    for index, chunk in enumerate(chunks):
        if chunk.entry.kind is Kind.CRAMMED:
            by_vectors.setdefault(chunk.entry.n_vectors, []).append(index)
    for n_vectors, indices in by_vectors.items():
        assert lm is not None
        assert file.header.model is not None
        lengths = [n_vectors + chunks[index].entry.n_tokens for index in indices]
        for batch in batches(lm, lengths, batch_size):
            same = [chunks[indices[i]] for i in batch]
            for i, row in zip(batch, _recite_batch(same, file.header.model, lm), strict=True):
                tokens[indices[i]] = row
    return tokens


def _recite_batch(chunks: Sequence[Chunk], model: ModelBlock, lm: FrozenLM) -> list[list[int]]:
    unpacked = [payload.unpack(chunk, model) for chunk in chunks]
    mem = torch.stack([quantize.dequantize(vectors) for vectors, _ in unpacked])
    longest = max(chunk.entry.n_tokens for chunk in chunks)
    forced = pad([[fixes.get(t, FREE) for t in range(longest)] for _, fixes in unpacked], longest)
    decoded = greedy_decode(lm, mem, longest, forced).tokens.tolist()
    return [row[: chunk.entry.n_tokens] for chunk, row in zip(chunks, decoded, strict=True)]


@dataclass(frozen=True)
class CramFile:
    """A file taken apart: header, chunk table, and the vectors (M, D) of chunk i as `vectors[i]`, None if stored."""

    header: Header
    entries: tuple[container.Entry, ...]
    vectors: tuple[torch.Tensor | None, ...]
    corrections: tuple[dict[int, int] | None, ...]


def read(blob: Bytes) -> CramFile:
    """Take a file apart without a model. Raises DamagedFileError."""
    file = container.read(blob)
    unpacked = [
        payload.unpack(chunk, file.header.model) if file.header.model and chunk.entry.kind is Kind.CRAMMED else None
        for chunk in file
    ]
    return CramFile(
        file.header,
        file.entries,
        tuple(quantize.dequantize(parts[0]) if parts else None for parts in unpacked),
        tuple(parts[1] if parts else None for parts in unpacked),
    )
