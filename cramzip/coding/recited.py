"""Groups without corrections: chunks are cut to what vectors hold, and crammed until greedy decoding recites them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..container import vectors
from ..container.records import Group, Kind
from ..container.stored import stored_group
from ..container.vectors import QuantizedMem
from ..container.wire import MAX_GROUP_SIZE
from ..container.writing import modelled_group
from .chunking import cut
from .cram import Goal, cram
from .method import Coded, Progress
from .parameters import POSITIONS
from .ranks import is_decidable
from .view import Chunk

RESTARTS = 2  # with other seeds, for chunks that are nearly exact
NEARLY_EXACT = 1 / 8  # of the tokens wrong
MOST_VECTORS = 4  # for one token before it is stored

CHUNKS_PER_SLOT = 2  # chunks in a segment for each slot, so that slots are refilled
BYTES_PER_BIT = 0.5  # a rough guess at text under a good model, for the size of segments only
SEGMENT_BYTES = (2**10, 2**18)  # least and most

Check = Callable[[Chunk, QuantizedMem], list[int]]


def recited_segment_size(goal: Goal, capacity: float, *, learns: bool) -> int:
    """Bytes of a segment whose vectors recite `capacity` bits each; one that is learned from is small."""
    n_chunks = goal.slots * (1 if learns else CHUNKS_PER_SLOT)
    size = capacity * goal.config.n_vectors * BYTES_PER_BIT * n_chunks
    return int(min(max(size, SEGMENT_BYTES[0]), SEGMENT_BYTES[1]))


def recited_groups(goal: Goal, ids: Sequence[int], capacity: float, check: Check, progress: Progress) -> Coded:
    """Groups of one chunk each, cut so that a vector has `capacity` bits to hold; what fails is stored.

    `check` says where decoding would go wrong. The gain is what the recited tokens would cost without vectors.
    """
    lm = goal.lm
    n_scored = min(POSITIONS // 2, lm.context or POSITIONS)  # tokens at once
    costs = np.concatenate(lm.score([ids[i : i + n_scored] for i in range(0, len(ids), n_scored)])) / math.log(2)
    contents = [lm.tokenizer.decode([token]) for token in ids]
    parts = cut(contents, costs, capacity * goal.config.n_vectors, goal.view.chunk_tokens, MAX_GROUP_SIZE)
    groups, gain = _crammed(goal, [ids[part] for part in parts], check, progress)
    n_vectors = sum(group.entry.n_vectors for group in groups)
    return Coded(groups, gain, float(costs.sum()) / n_vectors if n_vectors else None)


def _crammed(goal: Goal, rows: Sequence[Sequence[int]], check: Check, progress: Progress) -> tuple[list[Group], float]:
    """What fails is tried again, then split, then given another vector, then stored."""
    lm, n_vectors = goal.lm, goal.config.n_vectors
    finished: dict[tuple[int, int], Group] = {}
    gain = 0.0
    pending = [_Job(index, 0, row, n_vectors, 0) for index, row in enumerate(rows)]
    while pending:
        first = pending[0]
        batch = [job for job in pending if job.is_like(first)]
        pending = [job for job in pending if not job.is_like(first)]
        chunks = [Chunk(job.tokens) for job in batch]
        results = cram(goal, chunks, n_slots=goal.slots, n_vectors=first.n_vectors, seed=first.attempt)
        for job, chunk, result in zip(batch, chunks, results, strict=True):
            text = lm.tokenizer.decode(job.tokens)
            found = check(chunk, result.mem)
            if not found:
                payload = vectors.pack(result.mem)
                group = modelled_group(Kind.RECITED, text, len(job.tokens), job.n_vectors, payload)
                gain += float(lm.score([job.tokens])[0].sum()) / math.log(2)
            elif retries := job.after_failure(found, n_vectors):
                pending += retries
                continue
            else:
                group = stored_group(text)
            finished[job.row, job.first] = group
            progress(len(text))
    return [finished[place] for place in sorted(finished)], gain


def faults(goal: Goal, chunk: Chunk, mem: torch.Tensor) -> list[int]:
    """Where greedy decoding of a chunk after `mem` (M, D) could go wrong: another token is as likely, but for noise."""
    logits = goal.view.logits(goal.lm, chunk, mem)  # (T, V)
    truth = torch.tensor(chunk.tokens, device=logits.device)[:, None]
    best_other = logits.scatter(1, truth, -torch.inf).amax(1, keepdim=True)
    clear = (logits.gather(1, truth) - best_other)[:, 0] > 2 * goal.noise_bound
    clear &= is_decidable(logits)
    found: list[int] = (~clear).nonzero().flatten().tolist()
    return found


class _Job(NamedTuple):
    """Part of a chunk that is to be crammed: `tokens`, from token `first` of row `row` on."""

    row: int
    first: int
    tokens: Sequence[int]
    n_vectors: int
    attempt: int

    def is_like(self, other: _Job) -> bool:
        """Whether both can be crammed together."""
        return (self.n_vectors, self.attempt) == (other.n_vectors, other.attempt)

    def after_failure(self, faults: Sequence[int], n_vectors: int) -> list[_Job]:
        """What to try when decoding goes wrong at `faults`; an empty list when all has been tried."""
        length = len(self.tokens)
        if self.attempt < RESTARTS and len(faults) <= NEARLY_EXACT * length:
            return [self._replace(attempt=self.attempt + 1)]
        if length > 1:  # at the first fault, but not so that one part is tiny
            middle = min(max(faults[0], length // 4, 1), length - max(length // 4, 1))
            return [
                _Job(self.row, self.first, self.tokens[:middle], n_vectors, 0),
                _Job(self.row, self.first + middle, self.tokens[middle:], n_vectors, 0),
            ]
        if self.n_vectors < max(MOST_VECTORS, n_vectors):
            return [self._replace(n_vectors=self.n_vectors + 1, attempt=0)]
        return []
