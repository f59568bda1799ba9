"""What tokens are likelier in this text than the model thinks: a number for each, added to its logit.

It is learned by gradient descent with steps that shrink (AdaGrad), from a whole step of all lanes at a time.
Section 12 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arithmetic import Doubles, Floats
from .probabilities import Counts, counts, cumulated, total_of

RATE = 0.25
ONE = np.ones((1, 1), np.float32)


class Bias:
    """Numbers (V,) for V tokens, at first all 0."""

    def __init__(self, vocabulary: int):
        self._numbers: Doubles = np.zeros(vocabulary)
        self._caution: Doubles = np.ones(vocabulary)  # how often tokens were expected, 1 more
        self._added: Floats = np.zeros(vocabulary, np.float32)
        self._unit = 1 / total_of(vocabulary)

    def sums(self, logits: Floats) -> Counts:
        """Counts of these logits (L, V) with the bias, cumulated: (L, V + 1). `logits` is used as memory to work in."""
        logits += self._added
        return cumulated(counts(logits, ONE))

    def learn(self, sums: Sequence[Counts], tokens: Sequence[int]) -> None:
        """Take in what was expected in a step, as cumulated counts (V + 1,) for each lane, and what came."""
        total = np.add.reduce(sums, axis=0, dtype=np.int64)
        expected: Doubles = np.diff(total) * self._unit
        slope = np.bincount(tokens, minlength=len(expected)) - expected
        self._numbers += RATE * slope / np.sqrt(self._caution)
        self._caution += expected
        np.copyto(self._added, self._numbers, casting="same_kind")
