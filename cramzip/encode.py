"""Bytes to chunks: what is stored, what is crammed, and with which corrections.

Works group by group. A group is one segment of the input and depends on nothing but the bytes from its start on
and the groups before it, so that work that was interrupted can go on and give the same file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

from . import corrections, payload, quantize
from .chunking import cut, next_segment, prior_capacity
from .container import Chunk, Kind, crammed_chunk, stored_chunk, stored_content
from .cram import CramConfig, CramResult, cram
from .decode import batches, find_corrections
from .errors import UsageError
from .lm import FrozenLM
from .wire import MAX_CHUNK_SIZE, Bytes

Progress = Callable[[int], None]

SCORING_WINDOW = 512  # tokens that see each other while costs are estimated
CHUNKS_PER_SLOT = 2  # chunks in a group for each slot, so that slots are refilled
SEGMENT_BYTES = (2**10, 2**20)  # least and most in one text segment
BYTES_PER_BIT = 0.5  # a rough guess at text under a good model, for the size of segments only
MAX_CHUNK_TOKENS = 2**12

EXACT_RESTARTS = 2  # with other seeds, for chunks that are nearly exact
NEARLY_EXACT = 1 / 8  # of the tokens wrong
EXACT_VECTORS = 4  # most vectors for one token before it is stored

# Chunks cost this much more than vectors have been found to hold. Where corrections do the rest, a longer chunk makes
# a smaller file: a few corrections take less space than another float16 vector.
AMBITION, EXACT_AMBITION = 2.0, 1.15
CAPACITY_RANGE, EXACT_CAPACITY_RANGE = (1 / 2, 16.0), (1 / 16, 16.0)  # of what was expected


class Group(NamedTuple):
    """The chunks of one segment, and the bits of text that a vector is given after what they have taught."""

    chunks: tuple[Chunk, ...]
    capacity: float


def encode(
    data: Bytes,
    lm: FrozenLM,
    config: CramConfig,
    *,
    finished: Iterable[Group] = (),
    progress: Progress | None = None,
) -> Iterator[Group]:
    """Chunks of `data` in order, a group at a time, after the groups that are `finished` already.

    `progress` is told the number of original bytes that were done since it was last told.
    """
    data = memoryview(data)
    encoder = _Encoder(lm, config, progress or (lambda _: None))
    position = 0
    for group in finished:
        encoder.capacity = group.capacity
        position += sum(chunk.entry.size for chunk in group.chunks)
    while position < len(data):
        chunks, position = encoder.encode_segment(data, position)
        yield Group(tuple(chunks), encoder.capacity)


class _Encoder:
    """What carries over from one segment to the next: `capacity`, the bits of text to give to a vector."""

    def __init__(self, lm: FrozenLM, config: CramConfig, progress: Progress):
        room = (lm.context or MAX_CHUNK_TOKENS + config.vectors) - config.vectors
        if room < 1:
            raise UsageError(f"vectors: {config.vectors} do not fit into the {lm.context} positions of the model")
        self.lm, self.config, self.progress = lm, config, progress
        self.max_tokens = min(room, MAX_CHUNK_TOKENS)
        self.expected = self.capacity = prior_capacity(lm.width, lm.vocabulary_size, lm.n_layers)
        self.n_slots = config.slots(lm, self.expected * config.vectors)

    def learn(self, held: float) -> None:
        """Give the next vectors what these have held, in bits each, and somewhat more."""
        if not math.isfinite(held):
            return
        ambition = EXACT_AMBITION if self.config.exact else AMBITION
        low, high = EXACT_CAPACITY_RANGE if self.config.exact else CAPACITY_RANGE
        self.capacity = min(max(ambition * held, low * self.expected), high * self.expected)

    def segment_size(self, start: int) -> int:
        """Bytes of text to take at once. The first segment is small, to learn from."""
        n_chunks = self.n_slots * (CHUNKS_PER_SLOT if start else 1)
        expected = self.capacity * self.config.vectors * BYTES_PER_BIT * n_chunks
        return int(min(max(expected, SEGMENT_BYTES[0]), SEGMENT_BYTES[1]))

    def encode_segment(self, data: memoryview, start: int) -> tuple[Iterable[Chunk], int]:
        """The chunks of the segment that begins at `start`, and where it ends."""
        end, is_text = next_segment(data, start, self.segment_size(start))
        content = bytes(data[start:end])
        if not is_text:
            return self._store(content), end
        chunks = []
        for piece in self.lm.tokenizer.encode(content):
            chunks += self._store(piece.content) if piece.ids is None else self._encode_text(piece.ids)
        return _merge_stored(chunks), end

    def _store(self, content: bytes) -> list[Chunk]:
        self.progress(len(content))
        return [stored_chunk(content[i : i + MAX_CHUNK_SIZE]) for i in range(0, len(content), MAX_CHUNK_SIZE)]

    def _encode_text(self, ids: list[int]) -> list[Chunk]:
        window = min(SCORING_WINDOW, self.lm.context or SCORING_WINDOW)
        windows = [ids[i : i + window] for i in range(0, len(ids), window)]
        costs = np.concatenate(self.lm.score(windows)) / math.log(2)
        contents = [self.lm.tokenizer.decode([token]) for token in ids]
        capacity = self.capacity * self.config.vectors
        rows = [ids[part] for part in cut(contents, costs, capacity, self.max_tokens, MAX_CHUNK_SIZE)]
        if self.config.exact:
            chunks = self._cram_exactly(rows)
            n_vectors = sum(chunk.entry.n_vectors for chunk in chunks)
            if n_vectors:
                self.learn(float(costs.sum()) / n_vectors)
            return chunks
        results = self._cram(rows)
        bits_left = sum(result.nats_left for result in results) / math.log(2)
        self.learn((float(costs.sum()) - bits_left) / (len(rows) * self.config.vectors))
        return self._correct(rows, results)

    def _cram(self, rows: list[list[int]]) -> list[CramResult]:
        sizes = [len(self.lm.tokenizer.decode(row)) for row in rows]
        done, told = 0.0, 0

        def progress(index: int, share: float) -> None:
            nonlocal done, told
            done += sizes[index] * share
            if (new := int(done + 0.5) - told) > 0:
                self.progress(new)
                told += new

        return cram(self.lm, rows, self.config, n_slots=self.n_slots, progress=progress)

    def _correct(self, rows: list[list[int]], results: list[CramResult]) -> list[Chunk]:
        chunks = []
        for row, result, fixes in zip(rows, results, self._find_corrections(rows, results), strict=True):
            text = self.lm.tokenizer.decode(row)
            stored = stored_chunk(text)
            hopeless = len(corrections.pack(fixes)) >= stored.entry.payload_size  # the vectors bought nothing
            chunks.append(stored if hopeless else _crammed(row, text, result, fixes))
        return chunks

    def _cram_exactly(self, rows: list[list[int]]) -> list[Chunk]:
        """Cram without corrections: what fails is tried again, then split, then given another vector, then stored."""
        finished: dict[tuple[int, int], Chunk] = {}
        pending = [_Job(index, 0, row, self.config.vectors, 0) for index, row in enumerate(rows)]
        while pending:
            n_vectors, attempt = pending[0].n_vectors, pending[0].attempt
            batch = [job for job in pending if (job.n_vectors, job.attempt) == (n_vectors, attempt)]
            pending = [job for job in pending if (job.n_vectors, job.attempt) != (n_vectors, attempt)]
            tokens = [job.tokens for job in batch]
            results = cram(self.lm, tokens, self.config, n_slots=self.n_slots, n_vectors=n_vectors, seed=attempt)
            needed = self._find_corrections(tokens, results)
            for job, result, fixes in zip(batch, results, needed, strict=True):
                text = self.lm.tokenizer.decode(job.tokens)
                if not fixes:
                    chunk = _crammed(job.tokens, text, result, fixes)
                elif retries := job.after_failure(fixes, self.config.vectors):
                    pending += retries
                    continue
                else:
                    chunk = stored_chunk(text)
                finished[job.row, job.first] = chunk
                self.progress(len(text))
        return [finished[place] for place in sorted(finished)]

    def _find_corrections(self, rows: Sequence[list[int]], results: Sequence[CramResult]) -> list[dict[int, int]]:
        lengths = [len(row) + len(result.mem.codes) for row, result in zip(rows, results, strict=True)]
        found: dict[int, dict[int, int]] = {}
        for batch in batches(self.lm, lengths, self.config.batch_size):
            mem = torch.stack([quantize.dequantize(results[index].mem) for index in batch])
            fixes = find_corrections(self.lm, mem, [rows[index] for index in batch], self.config.noise_bound)
            found.update(zip(batch, fixes, strict=True))
        return [found[index] for index in range(len(rows))]


def _crammed(row: list[int], text: bytes, result: CramResult, fixes: corrections.Corrections) -> Chunk:
    return crammed_chunk(text, len(row), len(result.mem.codes), payload.pack(result.mem, fixes))


def _merge_stored(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same chunks, neighbouring stored ones as one where the format allows it."""
    for crammed, run in groupby(chunks, key=lambda chunk: chunk.entry.kind is Kind.CRAMMED):
        same = list(run)
        if crammed or len(same) == 1:
            yield from same
        else:
            contents = b"".join(map(stored_content, same))
            yield from (stored_chunk(contents[i : i + MAX_CHUNK_SIZE]) for i in range(0, len(contents), MAX_CHUNK_SIZE))


class _Job(NamedTuple):
    """Part of a chunk that is to be crammed without corrections: `tokens`, from token `first` of row `row` on."""

    row: int
    first: int
    tokens: list[int]
    n_vectors: int
    attempt: int

    def after_failure(self, fixes: corrections.Corrections, n_vectors: int) -> list[_Job]:
        """What to try when decoding needed `fixes`; nothing when all has been tried."""
        length = len(self.tokens)
        if self.attempt < EXACT_RESTARTS and len(fixes) <= NEARLY_EXACT * length:
            return [self._replace(attempt=self.attempt + 1)]
        if length > 1:  # at the first fault, but not so that one part is tiny
            middle = min(max(min(fixes), length // 4, 1), length - max(length // 4, 1))
            return [
                _Job(self.row, self.first, self.tokens[:middle], n_vectors, 0),
                _Job(self.row, self.first + middle, self.tokens[middle:], n_vectors, 0),
            ]
        if self.n_vectors < max(EXACT_VECTORS, n_vectors):
            return [self._replace(n_vectors=self.n_vectors + 1, attempt=0)]
        return []
