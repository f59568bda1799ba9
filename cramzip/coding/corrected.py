"""Groups with corrections: tokens to vectors, if there are to be any, and to the corrections after these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from ..container import vectors, writing
from ..container.records import Group, Kind
from ..container.stored import stored_group
from ..container.writing import modelled_group
from ..lm.frozen import token_costs
from .candidates import LEAST_TOKENS, Expectations, Foresight, ask, kinds_of, rank_rest
from .corrections import TokenEncoder
from .cram import CramResult, Goal, cram
from .method import Progress
from .quantize import dequantize
from .ranks import is_decidable, rank

GROUP_TOKENS = 2**12  # about: a group is what decodes on its own
CRAMMED_GROUP_TOKENS = 3 * 768  # where there are vectors: more groups are decoded faster, and are a bit larger
CRAMMING_SHARE = 0.9  # of the work on a group with vectors, as progress counts it


def group_tokens(n_vectors: int) -> int:
    """At most so many tokens make a group."""
    return min(GROUP_TOKENS, CRAMMED_GROUP_TOKENS) if n_vectors else GROUP_TOKENS


def corrected_groups(goal: Goal, ids: Sequence[int], progress: Progress) -> tuple[list[Group], float]:
    """Groups for the tokens of a text, stored where that is smaller; and the bits that their vectors saved."""
    n_vectors = goal.config.n_vectors
    n_groups = -(-len(ids) // group_tokens(n_vectors))
    borders = [len(ids) * i // n_groups for i in range(n_groups + 1)]
    rows = [ids[begin:end] for begin, end in pairwise(borders)]
    results = _crammed(goal, rows, progress) if n_vectors else [[] for _ in rows]
    found = [_corrected(goal, row, result, progress) for row, result in zip(rows, results, strict=True)]
    return [group for group, _ in found], sum(gain for _, gain in found)


def _crammed(goal: Goal, rows: Sequence[Sequence[int]], progress: Progress) -> list[list[CramResult]]:
    """Vectors for every chunk of every group."""
    decode = goal.lm.tokenizer.decode
    chunks = [goal.view.chunks(row) for row in rows]
    flat = [chunk for group in chunks for chunk in group]
    sizes = [len(decode(chunk.tokens)) for chunk in flat]
    work = sum(int(CRAMMING_SHARE * len(decode(row))) for row in rows)
    done, told = 0.0, 0

    def tell(bytes_done: int) -> None:
        nonlocal told
        if (new := min(bytes_done, work) - told) > 0:
            progress(new)
            told += new

    def chunk_progress(index: int, share: float) -> None:
        nonlocal done
        done += sizes[index] * share * CRAMMING_SHARE
        tell(int(done))

    results = iter(cram(goal, flat, n_slots=goal.slots, progress=chunk_progress))
    tell(work)
    return [[next(results) for _ in group] for group in chunks]


class _Encoder:
    """The corrections of a group, with learning or without, whichever takes less."""

    def __init__(self, goal: Goal, n_tokens: int):
        self._noise_bound = goal.noise_bound
        size = goal.lm.vocabulary_size
        self._plain = TokenEncoder(size, goal.noise_bound, n_tokens)
        self._learning = self._foresight = None
        if n_tokens >= LEAST_TOKENS:
            kinds = kinds_of(goal.lm)
            self._foresight = Foresight(kinds, size)
            self._learning = TokenEncoder(size, goal.noise_bound, n_tokens, Expectations(kinds, size))

    def chunk(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """The next chunk: logits (T, V) at its tokens (T,)."""
        ranked = rank(logits, tokens, self._noise_bound)
        self._plain.chunk(ranked)
        if self._learning is not None and self._foresight is not None:
            candidates = self._foresight.of(tokens.tolist())
            rest = rank_rest(ranked, logits, tokens, candidates, self._noise_bound)
            self._learning.chunk(rest, ask(logits, candidates))

    def finish(self) -> bytes:
        encoders = [self._plain] if self._learning is None else [self._learning, self._plain]
        return min((encoder.finish() for encoder in encoders), key=len)


def _corrected(
    goal: Goal, row: Sequence[int], results: Sequence[CramResult], progress: Progress
) -> tuple[Group, float]:
    """The group of the tokens `row`, stored where that is smaller, and the bits that vectors took off its corrections.

    `results` are the vectors of its chunks, none if there are to be none.
    """
    lm = goal.lm
    encoder = _Encoder(goal, len(row))
    chunks = goal.view.chunks(row)
    nats = 0.0
    decidable = True
    for index, chunk in enumerate(chunks):
        logits = goal.view.logits(lm, chunk, dequantize(results[index].mem) if results else None)
        decidable = bool(is_decidable(logits).all())
        if not decidable:
            break
        tokens = torch.tensor(chunk.tokens, device=logits.device)
        nats += float(token_costs(logits[None], tokens[None]).sum())
        encoder.chunk(logits, tokens)
    content = lm.tokenizer.decode(row)
    payload = b"".join(vectors.pack(result.mem) for result in results) + encoder.finish()
    kind = Kind.CORRECTED if results else Kind.PREDICTED
    group, stored = modelled_group(kind, content, len(row), goal.config.n_vectors, payload), stored_group(content)
    progress(len(content) - (int(CRAMMING_SHARE * len(content)) if results else 0))
    if not decidable or writing.entries_size([stored.entry]) <= writing.entries_size([group.entry]):
        return stored, 0.0
    if not results:
        return group, 0.0
    free = lm.score([chunk.tokens for chunk in chunks], [chunk.context for chunk in chunks])
    return group, (sum(float(cost.sum()) for cost in free) - nats) / math.log(2)
