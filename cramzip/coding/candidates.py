"""What the text of a group so far says of its next token, before the ranks: candidates, each taken or left.

The candidates, and how far contexts are trusted, are those of exact files (section 12 of formats/exact.md). All that
the model adds is the bucket of the odds that it gives a candidate, which survives noise. Section 6.2 of
formats/cram.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..exact.arithmetic import SIGMOID_STEPS, sigmoids
from ..exact.contexts import N_ORDERS, Followers, Kinds, Place
from ..exact.learner import MOST_CANDIDATES, Blend, Choice
from ..lm.devices import summable
from ..lm.frozen import FrozenLM
from ..lm.tokens import TokenTable
from ..rangecoder import PROBABILITY_BITS, Bit
from .ranks import LEAST_LOGIT, LOGITS_AT_ONCE, Ranked, rank

LEAST_TOKENS = 256  # of a group that learns
UNIT = 2.0**-24  # the least that is left for the next candidate
WEIGHTS = [0.5] * (N_ORDERS + 1)  # of the blend beside the model: to learn them takes the model's own numbers
_MIDDLE = len(sigmoids()) // 2
Candidates = list[int]


def kinds_of(lm: FrozenLM) -> Kinds:
    """What the bytes of a model's tokens say about lines and fields."""
    return _kinds(lm.tokenizer.table, lm.vocabulary_size)


@lru_cache(maxsize=1)
def _kinds(table: TokenTable, size: int) -> Kinds:
    return Kinds([*table[:size], *[None] * (size - len(table))])


class Expectations:
    """The candidates of a group's next token, and how probable each of them is."""

    def __init__(self, kinds: Kinds, vocabulary_size: int):
        self._place, self._followers = Place(kinds), Followers()
        self._choices = [Choice() for _ in range(min(MOST_CANDIDATES, vocabulary_size - 1))]
        self._sigmoids: list[float] = sigmoids().tolist()

    def candidates(self) -> Candidates:
        """Those of the next token, the likeliest first."""
        self._keys = self._place.keys()
        self._entries = self._followers.of(self._keys)
        self._blend = Blend(self._entries, WEIGHTS)
        self._left = self._blend.candidates(self._entries, len(self._choices))
        self._rank, self._by_model_left, self._by_blend_left = 0, 1.0, 1.0
        return self._left

    def next_bit(self, odds: float) -> Bit:
        """How probable the next candidate is, if those before it failed; `odds`: middle of its bucket, in nats."""
        blend, candidate = self._blend, self._left[self._rank]
        share = self._sigmoids[int(odds * SIGMOID_STEPS + (_MIDDLE + 0.5))]
        self._by_model = share * self._by_model_left
        self._by_blend = blend.model_share * self._by_model + blend.weight * blend.shares.get(candidate, 0.0)
        choice = self._choices[self._rank]
        choice.look(share, self._by_blend / self._by_blend_left, candidate, self._entries, blend.longest)
        return Bit(int(choice.probability * 2**PROBABILITY_BITS), 0)

    def learn(self, *, hit: bool) -> None:
        """Learn whether this candidate was the token; if it failed, the next one's turn has come."""
        self._choices[self._rank].learn(hit)
        self._rank += 1
        self._by_model_left = max(self._by_model_left - self._by_model, UNIT)
        self._by_blend_left = max(self._by_blend_left - self._by_blend, UNIT)

    def move(self, token: int) -> None:
        """Go on after the next token, however it was coded; its candidates must have been asked for."""
        self._followers.count(self._keys, self._entries, token)
        self._place.move(token)


class Asked(NamedTuple):
    """The candidates that are asked for, token by token, and their log odds (T, MOST_CANDIDATES).

    Nothing comes after a candidate that is the token.
    """

    candidates: list[Candidates]
    odds: np.ndarray


class Foresight:
    """The candidates of a text that is known: what its writer needs before it asks the model."""

    def __init__(self, kinds: Kinds, vocabulary_size: int):
        self._expectations = Expectations(kinds, vocabulary_size)

    def of(self, tokens: Sequence[int]) -> list[Candidates]:
        """For the next tokens of the group, those candidates that will be asked for: the last one may be the token."""
        asked = []
        for token in tokens:
            candidates = self._expectations.candidates()
            asked.append(candidates[: candidates.index(token) + 1] if token in candidates else candidates)
            self._expectations.move(token)
        return asked


def ask(logits: torch.Tensor, candidates: list[Candidates]) -> Asked:
    """What `logits` (T, V) say of the candidates, some rows at a time."""
    blocks = _blocks(range(len(candidates)), logits)
    return Asked(candidates, np.concatenate([odds(logits[rows], [candidates[t] for t in rows]) for rows in blocks]))


def rank_rest(
    plain: Ranked, logits: torch.Tensor, tokens: torch.Tensor, candidates: Sequence[Candidates], noise_bound: float
) -> Ranked:
    """Tokens (T,) ranked among all but the candidates that failed, where `plain` is how they are ranked among all."""
    known = plain.tokens.tolist()
    failed = [t for t, row in enumerate(candidates) if row and row[-1] != known[t]]
    columns = [column.copy() for column in plain]
    for rows in _blocks(failed, logits):
        rest = left_out(logits[rows], [candidates[t] for t in rows])
        for column, found in zip(columns, rank(rest, tokens[rows], noise_bound), strict=True):
            column[rows] = found
    return Ranked(*columns)


def _blocks(rows: Sequence[int], logits: torch.Tensor) -> Iterator[list[int]]:
    """Rows of logits, not too many at a time."""
    n_rows = max(1, LOGITS_AT_ONCE // logits.shape[1])
    for first in range(0, len(rows), n_rows):
        yield list(rows[first : first + n_rows])


def left_out(logits: torch.Tensor, candidates: Sequence[Candidates]) -> torch.Tensor:
    """The logits (B, V) where some tokens of each row are none of those that are left."""
    return logits.masked_fill(_among(logits, _padded(logits, candidates)), LEAST_LOGIT)


def odds(logits: torch.Tensor, candidates: Sequence[Candidates]) -> np.ndarray:
    """The log odds (B, MOST_CANDIDATES) of candidates, each if those before it failed; of none, they mean nothing."""
    logits = logits.clamp(min=LEAST_LOGIT)
    places = _padded(logits, candidates)
    there = logits.gather(1, places.clamp(max=logits.shape[1] - 1))
    own = there.masked_fill(places == logits.shape[1], LEAST_LOGIT).cpu().numpy().astype(np.float64)
    others = logits.masked_fill(_among(logits, places), LEAST_LOGIT)
    largest = others.amax(1, keepdim=True)
    sums = summable((others - largest).exp()).sum(1, dtype=torch.float64).cpu().numpy()
    rest = np.log(sums) + largest[:, 0].cpu().numpy().astype(np.float64)
    found = np.empty_like(own)
    for i in reversed(range(own.shape[1])):
        found[:, i] = own[:, i] - rest
        rest = np.logaddexp(rest, own[:, i])
    return found


def _padded(logits: torch.Tensor, candidates: Sequence[Candidates]) -> torch.Tensor:
    """Candidates as indices (B, MOST_CANDIDATES); V where there are fewer."""
    none = logits.shape[1]
    rows = [[*row, *[none] * (MOST_CANDIDATES - len(row))] for row in candidates]
    return torch.tensor(rows, dtype=torch.long, device=logits.device)


def _among(logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Where (B, V) the tokens with these indices are."""
    n_rows, size = logits.shape
    return torch.zeros(n_rows, size + 1, dtype=torch.bool, device=logits.device).scatter(1, places, True)[:, :-1]
