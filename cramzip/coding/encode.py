"""Bytes to groups: what is stored, what is predicted or crammed, and with which corrections.

Works segment by segment. A segment depends on nothing but the bytes from its start on and what the first was found to
hold, so that segments can be worked on side by side, and interrupted work can go on and give the same file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise, takewhile
from typing import NamedTuple

import numpy as np
import torch

from ..container import opened as payload
from ..container.records import Group, Kind, Parameters
from ..container.stored import stored_content, stored_group, stored_groups
from ..container.vectors import QuantizedMem
from ..container.wire import MAX_CHUNK_SIZE, Bytes
from ..container.writing import modelled_group, pack_entry
from ..errors import UsageError
from ..lm import profiles
from ..lm.frozen import FrozenLM, prefix_length, token_costs
from ..lm.tokens import Piece
from ..workers.base import Workers
from .chunking import HOPELESS, cut, next_segment, prior_capacity, probes
from .corrections import TokenEncoder
from .cram import CramConfig, CramResult, Task, cram
from .quantize import dequantize
from .ranks import is_decidable, rank

Progress = Callable[[int], None]

POSITIONS = 1024  # that the model sees at once, if it can
SMALL_MODEL = 2**25  # parameters; what is far away is of little use to it
GROUP_TOKENS = 2**12  # about: a group is what decodes on its own
CRAMMED_GROUP_TOKENS = 3 * 768  # where there are vectors: more groups are decoded faster, and are a bit larger
SEGMENT_BYTES = 2**18
CPU_SEGMENT_BYTES = 2**17  # there, smaller batches are as fast, and there is more to spread over processes
CRAMMING_SHARE = 0.9  # of the work on a group with vectors, as progress counts it
LEAST_NOISE_EXPONENT, MOST_NOISE_EXPONENT = 6, 14

# Without corrections, chunks are cut to what vectors have been found to hold, and somewhat more.
EXACT_SEGMENT_BYTES = (2**10, 2**18)  # least and most
BYTES_PER_BIT = 0.5  # a rough guess at text under a good model, for the size of segments only
CHUNKS_PER_SLOT = 2  # chunks in a segment for each slot, so that slots are refilled
MAX_EXACT_TOKENS = 2**12
EXACT_AMBITION = 1.15
EXACT_CAPACITY_RANGE = (1 / 16, 16.0)  # of what was expected
EXACT_RESTARTS = 2  # with other seeds, for chunks that are nearly exact
NEARLY_EXACT = 1 / 8  # of the tokens wrong
EXACT_VECTORS = 4  # most vectors for one token before it is stored


class Segment(NamedTuple):
    """The groups of one segment, the bits that a vector is given after it, and the bits that its vectors saved."""

    groups: tuple[Group, ...]
    capacity: float
    gain: float

    @property
    def size(self) -> int:
        """Bytes of the original."""
        return sum(group.entry.size for group in self.groups)


class _Part(NamedTuple):
    """The bytes of one segment, and all else that its groups depend on."""

    content: bytes
    is_text: bool
    expected: float
    capacity: float
    config: CramConfig
    parameters: Parameters


class Expectation(NamedTuple):
    """Of vectors that have to be exact: the bits that one may hold, and the best learning rate if it is known.

    Of all vectors: around what they start, if it is known.
    """

    capacity: float
    learning_rate: float | None
    origin: tuple[float, ...] | None


def expected(lm: FrozenLM) -> Expectation:
    """What was measured for this very model; or else what was published or may be guessed."""
    if profile := profiles.find(lm.fingerprint):
        origin = profile.origin if len(profile.origin) == lm.width else None
        return Expectation(profile.bits_per_vector, profile.learning_rate, origin)
    return Expectation(prior_capacity(lm.width, lm.vocabulary_size, lm.n_layers), None, None)


def choose_parameters(lm: FrozenLM, config: CramConfig) -> Parameters:
    """How the groups of a file are to be decoded. Raises UsageError if the model cannot see that far.

    The noise bound is the largest error that was seen in any logit of a probe, or more; two logits that are to change
    places both have to be off by that much, and in opposite directions.
    """
    if config.noise_exponent is None:
        exponent = math.floor(-math.log2(max(lm.noise, 2.0**-MOST_NOISE_EXPONENT)))
        exponent = max(LEAST_NOISE_EXPONENT, exponent)
    else:
        exponent = config.noise_exponent
    before = prefix_length(lm, config.vectors)
    wanted = max(POSITIONS, (config.chunk_tokens or POSITIONS // 2) + (config.context or 0) + before)
    room = min(lm.context or wanted, wanted) - before
    if config.exact:
        chunk, context = min((lm.context or MAX_EXACT_TOKENS + before) - before, MAX_EXACT_TOKENS), 0
    elif config.chunk_tokens is not None:
        chunk = config.chunk_tokens
        context = config.context if config.context is not None else room - chunk
    elif config.context is not None:
        context = config.context
        chunk = room - context
    else:
        context = room // 4 if config.vectors or lm.n_parameters <= SMALL_MODEL else room // 2
        chunk = room - context
    if chunk < 1 or context < 0 or before + chunk + context > (lm.context or math.inf):
        asked = f"{config.vectors} vectors, {config.context or 0} tokens before a chunk of {max(chunk, 1)}"
        raise UsageError(f"{asked} do not fit into the {lm.context} positions of the model")
    return Parameters(exponent, chunk, context, lm.start)


def encode(
    data: Bytes,
    lm: FrozenLM,
    config: CramConfig,
    parameters: Parameters,
    *,
    finished: Iterable[Segment] = (),
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Iterator[Segment]:
    """Groups of `data` in order, a segment at a time, after the segments that are `finished` already.

    `progress` is told the number of original bytes that were done since it was last told. With `workers`, segments are
    theirs, but for those that there is something to learn from, and for data of one segment.
    """
    data = memoryview(data)
    progress = progress or (lambda _: None)
    capacity, learning_rate, origin = expected(lm)
    if config.exact and config.learning_rate is None:
        config = replace(config, learning_rate=learning_rate)
    if config.origin is None:
        config = replace(config, origin=origin)
    elif len(config.origin) != lm.width:
        raise UsageError(f"origin: expected {lm.width} numbers, found {len(config.origin)}")
    encoder = _Encoder(lm, config, parameters, capacity, progress)
    if workers and len(encoder.next_part(data, 0).content) == len(data):
        workers = None
    position = 0
    for segment in finished:
        encoder.capacity = segment.capacity
        position += segment.size
    while position < len(data) and (encoder.learns or not workers):
        segment = encoder.encode_segment(encoder.next_part(data, position))
        position += segment.size
        yield segment
    if workers:
        for segment in workers.map(lm, _encode_part, encoder.parts(data, position)):
            progress(segment.size)
            yield segment


def _encode_part(lm: FrozenLM, part: _Part) -> Segment:
    """What a worker does."""
    encoder = _Encoder(lm, part.config, part.parameters, part.expected, lambda _: None)
    encoder.capacity = part.capacity
    return encoder.encode_segment(part)


class _Encoder:
    """What carries over from one segment to the next: `capacity`, the bits of text to give to a vector.

    It is learned once; after that, segments can go side by side.
    """

    def __init__(self, lm: FrozenLM, config: CramConfig, parameters: Parameters, expected: float, progress: Progress):
        self.lm, self.config, self.parameters, self.progress = lm, config, parameters, progress
        self.expected = self.capacity = expected
        self.gain = 0.0  # bits, in this segment

    @property
    def learns(self) -> bool:
        """Whether nothing is known yet of what vectors hold."""
        return self.config.exact and self.capacity == self.expected

    def parts(self, data: memoryview, start: int) -> Iterator[_Part]:
        """All segments from `start` on."""
        while start < len(data):
            part = self.next_part(data, start)
            yield part
            start += len(part.content)

    def next_part(self, data: memoryview, start: int) -> _Part:
        """The segment that begins at `start`."""
        end, is_text = next_segment(data, start, self._segment_size(len(data) - start))
        return _Part(bytes(data[start:end]), is_text, self.expected, self.capacity, self.config, self.parameters)

    def _segment_size(self, remaining: int) -> int:
        """Bytes of text to take at once, segments being of equal size. One to learn from is small."""
        if not self.config.exact:
            most = min(SEGMENT_BYTES, CPU_SEGMENT_BYTES) if self.lm.device == "cpu" else SEGMENT_BYTES
            return -(-remaining // max(1, -(-remaining // most)))
        n_chunks = self._slots() * (1 if self.learns else CHUNKS_PER_SLOT)
        expected = self.capacity * self.config.vectors * BYTES_PER_BIT * n_chunks
        return int(min(max(expected, EXACT_SEGMENT_BYTES[0]), EXACT_SEGMENT_BYTES[1]))

    def _slots(self) -> int:
        return self.config.slots(self.lm)

    def encode_segment(self, part: _Part) -> Segment:
        """The groups of a segment."""
        self.gain = 0.0
        if not part.is_text:
            return Segment(tuple(self._store(part.content)), self.capacity, 0.0)
        groups: list[Group] = []
        pieces = self.lm.tokenizer.encode(part.content)
        if not self.config.exact and self._is_hopeless(part.content, pieces):
            return Segment(tuple(self._store(part.content)), self.capacity, 0.0)
        for piece in pieces:
            groups += self._store(piece.content) if piece.ids is None else self._encode_text(piece.ids)
        groups = list(_merge_stored(groups))
        stored = [stored_group(part.content)]
        if not self.config.exact and _size(stored) < _size(groups):
            return Segment(tuple(stored), self.capacity, 0.0)
        return Segment(tuple(groups), self.capacity, self.gain)

    def _is_hopeless(self, content: bytes, pieces: Sequence[Piece]) -> bool:
        """Whether the model, without vectors, does worse than zstd wherever it is tried in a long segment.

        zstd may use all of the segment for the bytes of a probe: they are worth what it needs less without them.
        """
        longest = max(pieces, key=lambda piece: len(piece.ids or ()))
        ids = longest.ids or []
        begin = sum(len(piece.content) for piece in takewhile(lambda piece: piece is not longest, pieces))
        if not (tried := probes(len(ids))):
            return False
        whole = _size([stored_group(content)])
        for probe in tried:
            context = ids[max(0, probe.start - self.parameters.context_tokens) : probe.start]
            bits = float(self.lm.score([ids[probe]], [context])[0].sum()) / math.log(2)
            first = begin + len(self.lm.tokenizer.decode(ids[: probe.start]))
            last = first + len(self.lm.tokenizer.decode(ids[probe]))
            without = content[:first] + content[last:]
            if bits <= HOPELESS * 8 * (whole - _size([stored_group(without)])):
                return False
        return True

    def _store(self, content: bytes) -> list[Group]:
        self.progress(len(content))
        return list(stored_groups(content))

    def _encode_text(self, ids: list[int]) -> list[Group]:
        if self.config.exact:
            return self._recite(ids)
        most = min(GROUP_TOKENS, CRAMMED_GROUP_TOKENS) if self.config.vectors else GROUP_TOKENS
        n_groups = -(-len(ids) // most)
        borders = [len(ids) * i // n_groups for i in range(n_groups + 1)]
        rows = [ids[begin:end] for begin, end in pairwise(borders)]
        results = self._cram(rows) if self.config.vectors else [[] for _ in rows]
        return [self._correct(row, result) for row, result in zip(rows, results, strict=True)]

    # -- with corrections --------------------------------------------------------------------------

    def _tasks(self, row: list[int]) -> list[Task]:
        """The chunks of a group, each with what it sees of those before."""
        chunk, context = self.parameters.chunk_tokens, self.parameters.context_tokens
        return [
            Task(row[first : first + chunk], row[max(0, first - context) : first])
            for first in range(0, len(row), chunk)
        ]

    def _cram(self, rows: list[list[int]]) -> list[list[CramResult]]:
        """Vectors for every chunk of every group."""
        tasks = [self._tasks(row) for row in rows]
        flat = [task for group in tasks for task in group]
        sizes = [len(self.lm.tokenizer.decode(list(task.tokens))) for task in flat]
        work = sum(int(CRAMMING_SHARE * len(self.lm.tokenizer.decode(row))) for row in rows)
        done, told = 0.0, 0

        def tell(bytes_done: int) -> None:
            nonlocal told
            if (new := min(bytes_done, work) - told) > 0:
                self.progress(new)
                told += new

        def progress(index: int, share: float) -> None:
            nonlocal done
            done += sizes[index] * share * CRAMMING_SHARE
            tell(int(done))

        results = iter(
            cram(self.lm, flat, self.config, self.parameters.noise_bound, n_slots=self._slots(), progress=progress)
        )
        tell(work)
        return [[next(results) for _ in group] for group in tasks]

    def _correct(self, row: list[int], results: list[CramResult]) -> Group:
        """A group of corrections after the vectors, or stored where that is smaller."""
        encoder = TokenEncoder(self.lm.vocabulary_size, self.parameters.noise_bound)
        tasks = self._tasks(row)
        nats = 0.0
        decidable = True
        for index, task in enumerate(tasks):
            logits = self._logits(task, results[index].mem if results else None)
            decidable = bool(is_decidable(logits).all())
            if not decidable:
                break
            tokens = torch.tensor(task.tokens, device=logits.device)
            nats += float(token_costs(logits[None], tokens[None]).sum())
            encoder.chunk(rank(logits, tokens, self.parameters.noise_bound))
        content = self.lm.tokenizer.decode(row)
        kind = Kind.CORRECTED if results else Kind.PREDICTED
        body = payload.pack([result.mem for result in results], encoder.finish())
        group, stored = modelled_group(kind, content, len(row), self.config.vectors, body), stored_group(content)
        self.progress(len(content) - (int(CRAMMING_SHARE * len(content)) if results else 0))
        if not decidable or _size([stored]) <= _size([group]):
            return stored
        if results:
            free = self.lm.score([task.tokens for task in tasks], [task.context for task in tasks])
            self.gain += (sum(float(cost.sum()) for cost in free) - nats) / math.log(2)
        return group

    @torch.inference_mode()
    def _logits(self, task: Task, mem: QuantizedMem | None) -> torch.Tensor:
        """What the model says at each token of a chunk (T, V), all the tokens before being right."""
        vectors, start = [dequantize(mem)] if mem else [], self.parameters.start_token
        before = self.lm.prefix(vectors, 1, start, after_start=self.lm.vectors_after_start)
        ids = torch.tensor([[*task.context, *task.tokens[:-1]]], dtype=torch.long, device=self.lm.device)
        with self.lm.exact():
            return self.lm.logits(torch.cat([before, self.lm.embed(ids)], dim=1), len(task.tokens))[0].float()

    # -- without -----------------------------------------------------------------------------------

    def _recite(self, ids: list[int]) -> list[Group]:
        """Groups of one chunk each that vectors alone decode to; tokens for which that fails are stored."""
        window = min(POSITIONS // 2, self.lm.context or POSITIONS)
        windows = [ids[i : i + window] for i in range(0, len(ids), window)]
        costs = np.concatenate(self.lm.score(windows)) / math.log(2)
        contents = [self.lm.tokenizer.decode([token]) for token in ids]
        capacity = self.capacity * self.config.vectors
        parts = cut(contents, costs, capacity, self.parameters.chunk_tokens, MAX_CHUNK_SIZE)
        groups = self._cram_exactly([ids[part] for part in parts])
        n_vectors = sum(group.entry.n_vectors for group in groups)
        if self.learns and n_vectors:
            self._learn(float(costs.sum()) / n_vectors)
        return groups

    def _learn(self, held: float) -> None:
        """Give the next vectors what these have held, in bits each, and somewhat more."""
        if math.isfinite(held):
            low, high = EXACT_CAPACITY_RANGE
            self.capacity = min(max(EXACT_AMBITION * held, low * self.expected), high * self.expected)

    def _cram_exactly(self, rows: list[list[int]]) -> list[Group]:
        """What fails is tried again, then split, then given another vector, then stored."""
        finished: dict[tuple[int, int], Group] = {}
        pending = [_Job(index, 0, row, self.config.vectors, 0) for index, row in enumerate(rows)]
        while pending:
            n_vectors, attempt = pending[0].n_vectors, pending[0].attempt
            batch = [job for job in pending if (job.n_vectors, job.attempt) == (n_vectors, attempt)]
            pending = [job for job in pending if (job.n_vectors, job.attempt) != (n_vectors, attempt)]
            results = cram(
                self.lm,
                [Task(job.tokens) for job in batch],
                self.config,
                self.parameters.noise_bound,
                n_slots=self._slots(),
                n_vectors=n_vectors,
                seed=attempt,
            )
            for job, result in zip(batch, results, strict=True):
                text = self.lm.tokenizer.decode(job.tokens)
                faults = self._faults(job.tokens, result.mem)
                if not faults:
                    group = modelled_group(Kind.RECITED, text, len(job.tokens), n_vectors, payload.pack([result.mem]))
                    self.gain += float(self.lm.score([job.tokens])[0].sum()) / math.log(2)
                elif retries := job.after_failure(faults, self.config.vectors):
                    pending += retries
                    continue
                else:
                    group = stored_group(text)
                finished[job.row, job.first] = group
                self.progress(len(text))
        return [finished[place] for place in sorted(finished)]

    def _faults(self, tokens: list[int], mem: QuantizedMem) -> list[int]:
        """Where greedy decoding could go wrong: another token is as good, or nearly."""
        logits = self._logits(Task(tokens), mem)  # (T, V)
        truth = torch.tensor(tokens, device=logits.device)[:, None]
        best_other = logits.scatter(1, truth, -torch.inf).amax(1, keepdim=True)
        clear = (logits.gather(1, truth) - best_other)[:, 0] > 2 * self.parameters.noise_bound
        clear &= is_decidable(logits)
        faults: list[int] = (~clear).nonzero().flatten().tolist()
        return faults


def _size(groups: Iterable[Group]) -> int:
    return sum(len(pack_entry(group.entry)) + len(group.payload) for group in groups)


def _merge_stored(groups: Iterable[Group]) -> Iterator[Group]:
    """The same groups, neighbouring stored ones as one where the format allows it."""
    for is_stored, run in groupby(groups, key=lambda group: group.entry.kind.is_stored):
        same = list(run)
        if not is_stored or len(same) == 1:
            yield from same
        else:
            yield from stored_groups(b"".join(map(stored_content, same)))


class _Job(NamedTuple):
    """Part of a chunk that is to be crammed without corrections: `tokens`, from token `first` of row `row` on."""

    row: int
    first: int
    tokens: list[int]
    n_vectors: int
    attempt: int

    def after_failure(self, faults: Sequence[int], n_vectors: int) -> list[_Job]:
        """What to try when decoding goes wrong at `faults`; nothing when all has been tried."""
        length = len(self.tokens)
        if self.attempt < EXACT_RESTARTS and len(faults) <= NEARLY_EXACT * length:
            return [self._replace(attempt=self.attempt + 1)]
        if length > 1:  # at the first fault, but not so that one part is tiny
            middle = min(max(faults[0], length // 4, 1), length - max(length // 4, 1))
            return [
                _Job(self.row, self.first, self.tokens[:middle], n_vectors, 0),
                _Job(self.row, self.first + middle, self.tokens[middle:], n_vectors, 0),
            ]
        if self.n_vectors < max(EXACT_VECTORS, n_vectors):
            return [self._replace(n_vectors=self.n_vectors + 1, attempt=0)]
        return []
