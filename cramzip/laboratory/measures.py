"""The measures, as the papers define them (Kuratov et al. 2025, sections 3 and 4; Tarasov et al. 2026).

*Teacher-forced* is a token that is the likeliest after the true tokens before it. *Greedy* decoding has nothing but
what it has said itself. Where every token is right in one of the two, it is right in the other, but for noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..coding.decode import Recipe, decode_all
from ..coding.view import Chunk, View
from ..lm.frozen import FrozenLM, token_costs

NO_NOISE = 0.0  # noise matters to corrections only
FLOAT_BITS = 16  # of a dimension, as the papers count what a vector could hold
NEARLY_ALL = 99  # per cent of the tokens of a text that make it count as decoded


class Reading(NamedTuple):
    """What a model says of a text: which tokens are `right` (T,), teacher-forced, and the `nats` of each (T,)."""

    right: np.ndarray
    nats: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What one solution came to. Counts are of tokens, teacher-forced; costs in nats; `seconds` of optimising.

    The authors' loss and accuracy leave out the first token, which their vectors never predict: `_after_first`.
    `recited`: greedy decoding gives the whole text.
    """

    tokens: int
    right: int
    right_without: int
    right_after_first: int
    right_after_first_without: int
    nats: float
    nats_without: float
    recited: bool
    steps: int
    seconds: float

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def token_gain(self) -> int:
        """Tokens right with vectors minus tokens right without."""
        return self.right - self.right_without

    @property
    def information_gain(self) -> float:
        """Nats by which vectors lower the cost of the text."""
        return self.nats_without - self.nats

    @property
    def is_decoded(self) -> bool:
        """At least 99% of the tokens are right."""
        return 100 * self.right >= NEARLY_ALL * self.tokens

    @property
    def is_decoded_after_first(self) -> bool:
        """The same, of the tokens that the paper counts."""
        return self.tokens > 1 and 100 * self.right_after_first >= NEARLY_ALL * (self.tokens - 1)


# -- of one text -----------------------------------------------------------------------------------


@torch.inference_mode()
def read(lm: FrozenLM, view: View, chunk: Chunk, mem: torch.Tensor | None) -> Reading:
    """What the model says of a chunk after `mem` (M, D), or after its start token alone."""
    logits = view.logits(lm, chunk, None if mem is None else mem.float())[None]  # (1, T, V)
    tokens = torch.tensor([list(chunk.tokens)], device=lm.device)
    right = (logits.argmax(-1) == tokens)[0].cpu().numpy()
    return Reading(right, token_costs(logits, tokens)[0].cpu().double().numpy())


def recited(lm: FrozenLM, view: View, rows: Sequence[Sequence[int]], mems: Sequence[torch.Tensor]) -> list[bool]:
    """Whether greedy decoding from each of `mems` (M, D) gives its row of tokens."""
    recipes = [Recipe(len(row), (mem.float(),)) for row, mem in zip(rows, mems, strict=True)]
    said = decode_all(lm, recipes, view, NO_NOISE)
    return [tokens == list(row) for tokens, row in zip(said, rows, strict=True)]


def outcome(chunk: Chunk, without: Reading, with_mem: Reading, *, recited: bool, steps: int, seconds: float) -> Outcome:
    return Outcome(
        len(chunk.tokens),
        int(with_mem.right.sum()),
        int(without.right.sum()),
        int(with_mem.right[1:].sum()),
        int(without.right[1:].sum()),
        float(with_mem.nats.sum()),
        float(without.nats.sum()),
        recited,
        steps,
        seconds,
    )


# -- of several ------------------------------------------------------------------------------------


def decoding_capacity(outcomes: Iterable[Outcome], *, after_first: bool = False) -> int:
    """Tokens of the longest text of which at least 99% are right, teacher-forced; 0 if there is none.

    With `after_first` the first token of each text does not count, as in the paper.
    """
    decoded = (one for one in outcomes if (one.is_decoded_after_first if after_first else one.is_decoded))
    return max((one.tokens for one in decoded), default=0)


def recited_capacity(outcomes: Iterable[Outcome]) -> int:
    """Tokens of the longest text that greedy decoding recites: the compression horizon of growing spans."""
    return max((one.tokens for one in outcomes if one.recited), default=0)


def utilisation(token_gain: float, width: int, vocabulary_size: int, n_vectors: int = 1) -> float:
    """Token gain as a share of the tokens that the bits of the vectors could name, D * 16 / log2 V each."""
    return token_gain * math.log2(vocabulary_size) / (n_vectors * width * FLOAT_BITS)


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample (n - 1), which is 0 for a single value."""
    array = np.array(list(values), dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def threshold(before: Sequence[float], after: Sequence[float]) -> float:
    """The cross-entropy up to which texts come back whole: the t for which max(0, before - t) is nearest to `after`.

    Least squares; in nats, like the costs of the texts without and with vectors.
    """
    x, y = np.array(before, dtype=float), np.array(after, dtype=float)
    candidates = np.linspace(0, x.max(), 2001)
    errors = [float(((np.maximum(0, x - t) - y) ** 2).sum()) for t in candidates]
    return float(candidates[int(np.argmin(errors))])


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """Cosine similarity of two solutions (M, D), as one vector of M * D numbers each."""
    return float(torch.cosine_similarity(first.flatten().double(), second.flatten().double(), dim=0))
