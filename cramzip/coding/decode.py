"""The decoder: from vectors and corrections to tokens, for making files as for opening them.

The model is asked for one token at a time. Without corrections, its likeliest token is taken; with them, they say
which rank the true token has. Groups do not depend on each other and are decoded side by side. Within a group, a chunk
sees the tokens before it. Knows nothing of how the vectors were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..container.wire import Bytes
from ..errors import DamagedFileError
from ..lm.devices import DEVICES
from ..lm.frozen import FrozenLM
from ..lm.precision import usual_settings
from .candidates import LEAST_TOKENS, kinds_of, left_out, odds
from .corrections import TokenDecoder, bucket, bucket_width
from .ranks import UNDECIDABLE, Step, is_decidable
from .view import View

Progress = Callable[[int], None]  # is told of tokens


@dataclass(frozen=True)
class Recipe:
    """What a group is decoded from: `mem` (M, D) of each chunk, if any, and `corrections`; None is greedy decoding."""

    n_tokens: int
    mem: tuple[torch.Tensor, ...] = ()
    corrections: Bytes | None = None

    @property
    def n_vectors(self) -> int:
        return len(self.mem[0]) if self.mem else 0


def prefill(lm: FrozenLM, inputs: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Logits (B, V) after the input embeddings (B, N, D), and the cache."""
    return lm.step(inputs)


def decode_one_token(lm: FrozenLM, tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Logits (B, V) for the token after `tokens` (B,), and the cache."""
    return lm.step(lm.embed(tokens[:, None]), cache)


def batches(lm: FrozenLM, recipes: Sequence[Recipe], view: View, batch_size: int | None = None) -> Iterator[list[int]]:
    """Batches of indices: recipes of one kind and of similar length are decoded together."""
    device = DEVICES[lm.device]
    most = batch_size or device.groups

    def key(index: int) -> tuple[int, bool, int]:
        recipe = recipes[index]
        return recipe.n_vectors, recipe.corrections is None, recipe.n_tokens

    batch: list[int] = []
    for index in sorted(range(len(recipes)), key=lambda index: (key(index), index)):
        length = view.positions(recipes[index].n_tokens, recipes[index].n_vectors)
        full = len(batch) >= most or (len(batch) + 1) * length > device.cached_positions
        if batch and (full or key(index)[:2] != key(batch[0])[:2]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def decode_all(
    lm: FrozenLM,
    recipes: Sequence[Recipe],
    view: View,
    noise_bound: float,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The tokens of groups of any kind, in batches. Raises DamagedFileError for corrections that no writer makes."""
    tokens: list[list[int]] = [[] for _ in recipes]
    for batch in batches(lm, recipes, view, batch_size):
        decoded = decode(lm, [recipes[index] for index in batch], view, noise_bound, progress)
        for index, row in zip(batch, decoded, strict=True):
            tokens[index] = row
    return tokens


@usual_settings()
@torch.inference_mode()
def decode(
    lm: FrozenLM, recipes: Sequence[Recipe], view: View, noise_bound: float, progress: Progress | None = None
) -> list[list[int]]:
    """The tokens of groups that all have the same number of vectors in a chunk, decoded as one batch.

    A batch that does not fit into memory is decoded in halves. `progress` is told how many more tokens are decoded.
    """
    try:
        return _decode_batch(lm, recipes, view, noise_bound, progress)
    except torch.OutOfMemoryError:
        if len(recipes) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(recipes) // 2
    return [row for part in (recipes[:half], recipes[half:]) for row in decode(lm, part, view, noise_bound, progress)]


def _decode_batch(
    lm: FrozenLM, recipes: Sequence[Recipe], view: View, noise_bound: float, progress: Progress | None
) -> list[list[int]]:
    kinds = kinds_of(lm) if any(recipe.n_tokens >= LEAST_TOKENS for recipe in recipes) else None
    decoders = [
        TokenDecoder(recipe.corrections, lm.vocabulary_size, noise_bound, recipe.n_tokens, kinds)
        for recipe in recipes
        if recipe.corrections is not None
    ]
    assert len(decoders) in (0, len(recipes))
    tokens: list[list[int]] = [[] for _ in recipes]
    with lm.plain_float32():
        for first in range(0, max(recipe.n_tokens for recipe in recipes), view.chunk_tokens):
            rows = [index for index, recipe in enumerate(recipes) if recipe.n_tokens > first]
            lengths = [min(view.chunk_tokens, recipes[index].n_tokens - first) for index in rows]
            mem = [recipes[index].mem[first // view.chunk_tokens] for index in rows if recipes[index].mem]
            context = torch.tensor([view.context(tokens[index]) for index in rows], dtype=torch.long, device=lm.device)
            inputs = torch.cat([view.before(lm, mem, len(rows)), lm.embed(context)], dim=1)
            own = [decoders[index] for index in rows if decoders]
            decoded = _decode_chunk(lm, inputs, lengths, own, noise_bound, progress)
            for index, new in zip(rows, decoded, strict=True):
                tokens[index] += new
    for decoder in decoders:
        decoder.finish()
    return tokens


class _Rows(NamedTuple):
    """The rows of a batch with corrections: a decoder, a length, and a shift (B, 1) for each."""

    decoders: list[TokenDecoder]
    lengths: list[int]
    shifts: np.ndarray
    noise_bound: float

    def tokens(self, t: int, logits: torch.Tensor) -> list[int | None]:
        """The next token of each row, from logits (B, V); None for rows that have ended."""
        width = bucket_width(self.noise_bound)
        going = [t < length for length in self.lengths]
        asked = [decoder.candidates(t) if goes else [] for decoder, goes in zip(self.decoders, going, strict=True)]
        found: list[int | None] = [None] * len(asked)
        if any(asked):
            decidable = is_decidable(logits).tolist()
            if any(row and not known for row, known in zip(asked, decidable, strict=True)):
                raise DamagedFileError("content", UNDECIDABLE)
            buckets = bucket(np.nan_to_num(odds(logits, asked)), self.shifts, width).tolist()
            for row, decoder in enumerate(self.decoders):
                found[row] = decoder.candidate(asked[row], buckets[row]) if asked[row] else None
            logits = left_out(
                logits, [[] if token is not None else row for row, token in zip(asked, found, strict=True)]
            )
        if any(goes and token is None for goes, token in zip(going, found, strict=True)):
            step = Step(logits, self.noise_bound)
            buckets = bucket(step.confidence, self.shifts, width).tolist()
            for row, decoder in enumerate(self.decoders):
                if going[row] and found[row] is None:
                    found[row] = decoder.token(t, step, row, buckets[row])
        for decoder, token in zip(self.decoders, found, strict=True):
            if token is not None:
                decoder.move(token)
        return found


def _decode_chunk(
    lm: FrozenLM,
    inputs: torch.Tensor,
    lengths: list[int],
    decoders: list[TokenDecoder],
    noise_bound: float,
    progress: Progress | None,
) -> list[list[int]]:
    """The next `lengths` tokens of every row after `inputs` (B, N, D)."""
    shifts = np.array([[decoder.begin_chunk(length)] for decoder, length in zip(decoders, lengths, strict=False)])
    rows = _Rows(decoders, lengths, shifts, noise_bound)
    decoded: list[list[int]] = []
    logits, cache = prefill(lm, inputs)
    for t in range(max(lengths)):
        if decoders:
            picked = [lm.start if token is None else token for token in rows.tokens(t, logits)]
            chosen = torch.tensor(picked, device=lm.device)
        else:
            going = torch.tensor([length > t for length in lengths], device=lm.device)
            if not bool((is_decidable(logits) | ~going).all()):
                raise DamagedFileError("content", UNDECIDABLE)
            chosen = logits.argmax(dim=-1)  # the first of equals: the lowest id
            picked = chosen.tolist()
        decoded.append(picked)
        if progress:
            progress(sum(length > t for length in lengths))
        if t + 1 < max(lengths):
            logits, cache = decode_one_token(lm, chosen, cache)
    return [[picked[row] for picked in decoded[:length]] for row, length in enumerate(lengths)]
