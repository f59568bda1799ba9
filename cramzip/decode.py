"""Greedy decoding from `[mem]`: the one and only decoder, for making files as for opening them.

Knows nothing of how the vectors were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .lm import FrozenLM, pad

FREE = -1  # in `forced`: the model decides

# By device: the most rows in one batch, and the most positions of all its rows together (their cache takes memory).
BATCH_LIMITS = {"cpu": (64, 2**15), "cuda": (512, 2**17), "mps": (128, 2**15)}


def batches(lm: FrozenLM, lengths: Sequence[int], batch_size: int | None = None) -> Iterator[list[int]]:
    """Indices of rows of `lengths` positions (vectors and tokens), in batches; rows of similar length together."""
    rows, positions = BATCH_LIMITS[lm.device]
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batch and (len(batch) >= (batch_size or rows) or (len(batch) + 1) * lengths[index] > positions):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True)
class Decoded:
    """What greedy decoding predicts, all (B, T).

    `gaps` is by how much the largest logit exceeds the second largest, None unless asked for.
    """

    predictions: torch.Tensor
    tokens: torch.Tensor
    gaps: torch.Tensor | None


def prefill(lm: FrozenLM, mem: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Logits (B, V) for token 0, after the vectors `mem` (B, M, D), and the cache."""
    return lm.step(mem)


def decode_one_token(lm: FrozenLM, tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Logits (B, V) for the token after `tokens` (B,), and the cache."""
    return lm.step(lm.embed(tokens[:, None]), cache)


@torch.inference_mode()
def greedy_decode(
    lm: FrozenLM, mem: torch.Tensor, n_tokens: int, forced: torch.Tensor, *, with_gaps: bool = False
) -> Decoded:
    """Decode `n_tokens` T from each of B rows of vectors `mem` (B, M, D), in one batch.

    `forced` (B, T) holds the tokens that are given, FREE elsewhere. With every token given this is what a
    writer needs to know: what the decoder would have said at each place, and how clearly.
    """
    mem, forced = mem.to(lm.device), forced.to(lm.device)
    predictions, gaps, tokens = [], [], []
    with lm.exact():
        logits, cache = prefill(lm, mem)
        for t in range(n_tokens):
            predicted = logits.argmax(dim=-1)  # the first of equals: the lowest id
            chosen = torch.where(forced[:, t] == FREE, predicted, forced[:, t])
            predictions.append(predicted)
            tokens.append(chosen)
            if with_gaps:
                largest = logits.topk(2, dim=-1).values
                gaps.append(largest[:, 0] - largest[:, 1])
            if t + 1 < n_tokens:
                logits, cache = decode_one_token(lm, chosen, cache)
    return Decoded(
        torch.stack(predictions, dim=1),
        torch.stack(tokens, dim=1),
        torch.stack(gaps, dim=1) if with_gaps else None,
    )


def find_corrections(
    lm: FrozenLM, mem: torch.Tensor, rows: Sequence[Sequence[int]], noise_bound: float
) -> list[dict[int, int]]:
    """For B rows of token ids and their vectors `mem` (B, M, D): the tokens that decoding needs to be told.

    These are the wrong ones, and those whose logit exceeds the next by no more than 2 * `noise_bound`.
    """
    longest = max(map(len, rows))
    truth = pad(rows, longest)
    decoded = greedy_decode(lm, mem, longest, truth, with_gaps=True)
    assert decoded.gaps is not None
    unsafe = (decoded.predictions != truth.to(lm.device)) | ~(decoded.gaps > 2 * noise_bound)
    return [
        {t: row[t] for t in unsafe[index, : len(row)].nonzero().flatten().tolist()} for index, row in enumerate(rows)
    ]
