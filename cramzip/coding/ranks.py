"""Logits to what the corrections are made of: ranks, how sure the model is of each, and near ties.

Everything here is chosen to survive noise. If no logit is off by more than epsilon, then neither is the r-th largest
logit, nor the logarithm of a sum of exponentials of logits. So the confidence in a rank class moves by 2 epsilon at
most, however ties are broken. Only the *token* at a rank is fragile: where another token is near, the writer says so
and adds bits of the token's id. Section 6.2 of formats/cram.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..errors import DamagedFileError
from ..lm.devices import summable

SINGLE_RANKS = 8  # so many ranks are classes of their own; wider classes follow, two of each width
TOP, DEEP = 132, 1028  # ranks looked up for all rows, then for a row that needs more, then all; where classes end
LOGITS_AT_ONCE = 2**22
SLACK = 1.05  # for the rounding of what is computed from logits
LEAST_TAIL = 1e-30
LEAST_LOGIT = -1e9  # of a token that its model rules out
UNDECIDABLE = "a logit is infinite or not a number"


@lru_cache
def class_starts(vocabulary_size: int) -> tuple[int, ...]:
    """The first rank of each rank class, and the end of the last: 0, 1, ..., 8, 10, 12, 16, 20, 28, 36, 52, ..."""
    starts, width = list(range(SINGLE_RANKS + 1)), 2
    while starts[-1] < vocabulary_size:
        starts += [starts[-1] + width, starts[-1] + 2 * width]
        width *= 2
    return (*[start for start in starts if start < vocabulary_size], vocabulary_size)


def index_bits(rank_class: int) -> int:
    """Bits that tell the ranks of a rank class apart."""
    return max(0, (rank_class - SINGLE_RANKS) // 2 + 1)


def confidences(ordered: np.ndarray, rest: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """How sure the model is of each rank class, given that the rank is in none before: log odds (B, G).

    `ordered` (B, K) holds the exponentials of the largest logits, falling; `rest` (B,) the sum of all others. G classes
    end within the first K ranks. After the last class of all, nothing is left and the odds are without meaning. What is
    left is added up from its parts: as a difference of larger sums it would be lost in their rounding.
    """
    ends = [end for end in starts[1:] if end <= ordered.shape[1]]
    masses = np.add.reduceat(ordered[:, : ends[-1]], starts[: len(ends)], axis=1, dtype=np.float64)  # (B, G)
    beyond = rest + ordered[:, ends[-1] :].sum(axis=1, dtype=np.float64)  # (B,)
    later = np.concatenate([masses[:, 1:], beyond[:, None]], axis=1)
    left = np.cumsum(later[:, ::-1], axis=1)[:, ::-1]
    odds: np.ndarray = np.log(np.maximum(masses, LEAST_TAIL)) - np.log(np.maximum(left, LEAST_TAIL))
    return odds


def is_decidable(logits: torch.Tensor) -> torch.Tensor:
    """Whether rows of logits (B, V) say which token is next: (B,). A logit that is +infinity or NaN spoils its row."""
    return logits.amax(-1) < torch.inf


class Ranked(NamedTuple):
    """Tokens (T,) as ranks among the logits at their places.

    `confidence` (T, G) has all rank classes at least up to the token's own. `id_bits` is 0 where no other token is
    near; else it is how many low bits of the token's id set it apart from those that are near.
    """

    tokens: np.ndarray
    ranks: np.ndarray
    confidence: np.ndarray
    id_bits: np.ndarray


def rank(logits: torch.Tensor, tokens: torch.Tensor, noise_bound: float) -> Ranked:
    """The ranks of `tokens` (T,) among `logits` (T, V), some rows at a time: what is sorted takes several times their
    memory.
    """
    n_rows = max(1, LOGITS_AT_ONCE // logits.shape[1])
    blocks = zip(torch.split(logits, n_rows), torch.split(tokens, n_rows), strict=True)
    parts = [_rank_block(*block, noise_bound) for block in blocks]
    return parts[0] if len(parts) == 1 else Ranked(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _rank_block(logits: torch.Tensor, tokens: torch.Tensor, noise_bound: float) -> Ranked:
    logits = logits.clamp(min=LEAST_LOGIT)
    own = logits.gather(1, tokens[:, None])  # (T, 1)
    ranks = (logits > own).sum(1)
    near = ((logits - own).abs() <= 2 * noise_bound * SLACK).sum(1) > 1
    ordered = logits.sort(dim=1, descending=True).values
    exponentials = (ordered - ordered[:, :1]).exp().cpu().numpy()
    id_bits = np.zeros(len(tokens), dtype=np.int64)
    for t in near.nonzero().flatten().tolist():
        similar = ((logits[t] - own[t]).abs() <= 4 * noise_bound * SLACK).nonzero().flatten().tolist()
        id_bits[t] = _telling_bits(int(tokens[t]), similar)
    return Ranked(
        tokens.cpu().numpy(),
        ranks.cpu().numpy(),
        confidences(exponentials, np.zeros(len(tokens)), class_starts(logits.shape[1])),
        id_bits,
    )


def _telling_bits(token: int, similar: list[int]) -> int:
    """How many low bits of `token` no other of the `similar` tokens has."""
    differences = (token ^ other for other in similar if other != token)
    return max((difference & -difference).bit_length() for difference in differences)


class Step:
    """The logits (B, V) of one step of decoding, and the tokens that ranks among them stand for."""

    def __init__(self, logits: torch.Tensor, noise_bound: float):
        self._logits = logits.clamp(min=LEAST_LOGIT)
        self._reach = 2 * noise_bound * SLACK
        self._starts = class_starts(logits.shape[1])
        tokens, self.confidence = self._look(self._logits, TOP)  # (B, G)
        self._tokens: list[list[int]] = tokens.tolist()
        self._decidable: list[bool] = is_decidable(self._logits).tolist()
        if not all(self._decidable):
            self.confidence = np.nan_to_num(self.confidence)  # nobody will ask for those of such a row

    def _look(self, logits: torch.Tensor, depth: int) -> tuple[torch.Tensor, np.ndarray]:
        """The tokens of the first `depth` ranks, and the confidences of the rank classes that end there."""
        top = logits.topk(min(depth, logits.shape[1]), dim=1)
        largest = top.values[:, :1]
        others = (logits - largest).exp().scatter(1, top.indices, 0.0)  # (B, V)
        rest = summable(others).sum(1, dtype=torch.float64).cpu().numpy()  # (B,)
        return top.indices, confidences((top.values - largest).exp().cpu().numpy(), rest, self._starts)

    def deeper(self, row: int, n_classes: int) -> np.ndarray:
        """The confidences of a row for more than `n_classes` rank classes (G,), or for all if there are no more."""
        for depth in (DEEP, self._logits.shape[1]):
            tokens, confidence = self._look(self._logits[row : row + 1], depth)
            self._tokens[row] = tokens[0].tolist()
            if confidence.shape[1] > n_classes:
                break
        found: np.ndarray = confidence[0]
        return found

    def require_decidable(self, row: int) -> None:
        """Raise DamagedFileError where a logit of the row is +infinity or NaN."""
        if not self._decidable[row]:
            raise DamagedFileError("content", UNDECIDABLE)

    def token(self, row: int, rank: int) -> int:
        """The token at a rank, for a token that has no other near it."""
        if rank >= len(self._tokens[row]):
            self.deeper(row, len(self._starts))
        return self._tokens[row][rank]

    def token_near(self, row: int, rank: int, low_bits: int, n_bits: int) -> int:
        """The one token near that at `rank` whose id ends in the `n_bits` bits `low_bits`."""
        logits = self._logits[row]
        near: list[int] = ((logits - logits[self.token(row, rank)]).abs() <= self._reach).nonzero().flatten().tolist()
        found = [token for token in near if token & ((1 << n_bits) - 1) == low_bits]
        if len(found) != 1:
            raise DamagedFileError("content", f"corrections: {len(found)} tokens fit where there must be one")
        return found[0]
