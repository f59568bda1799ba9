"""How the last states of a text differ from those of others: a matrix that changes them before the head.

    state' = state + A state         logits = head(state')

A is learned by gradient descent with steps that shrink for each of its numbers (AdaGrad), from a whole step of all
lanes at a time. All products are of integers, and exact. Section 12.8 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .arithmetic import EXACT_IN_FLOAT32, TINY, WEIGHT_MOST, Floats, levels, to_integers
from .llama import Model
from .probabilities import Counts, total_of
from .wide import ACTIVATION_MOST

RATE = np.float32(0.0025)
WARM_UP = 1024  # tokens, in which the rate grows to its full size: messages have nothing to gain, and something to lose
ONE_SLOPE = 2**16  # what a slope of 1 is as an integer: those of a lane add up to twice as much, times 127 below 2^24


class Adapter:
    """The numbers A (D, D), at first all 0, and the head after them."""

    def __init__(self, model: Model):
        head, self._dtype, self._is_wide = model.weights.head, model.dtype, model.shape.wide
        width = head.integers.shape[1]
        self._most = ACTIVATION_MOST if self._is_wide else levels(width)
        self._head = model.head()
        self._weights: npt.NDArray[Any] = head.integers.astype(self._dtype)  # (V, D)
        largest = np.maximum(np.abs(head.scales).max(), TINY)
        self._parts: Floats = (
            head.scales / largest * np.float32(ONE_SLOPE / total_of(len(head.scales)))
        )  # (V,), of counts
        self._unit = largest * np.float32(1 / ONE_SLOPE)  # of slopes times weights
        self._numbers: Floats = np.zeros((width, width), np.float32)
        self._caution: Floats = np.ones((width, width), np.float32)
        self._integers: npt.NDArray[Any] = np.zeros((width, width), self._dtype)  # of the numbers, transposed
        self._n_seen = 0
        self._scales: Floats = np.zeros(width, np.float32)

    def logits(self, integers: Floats, scale: Floats) -> Floats:
        """Logits (L, V) of states: integers (L, D), and what one of them stands for (L, 1)."""
        change = self._long_times(integers, self._integers)
        change *= self._scales
        change += integers
        change *= scale
        changed, unit = to_integers(change, np.float32(self._most))
        logits = self._head(changed, np.empty((len(changed), self._head.width), np.float32))
        logits *= unit
        return logits

    def learn(self, states: tuple[Floats, Floats], sums: Counts, tokens: Sequence[int]) -> None:
        """Take in a step: the states, what was expected, as cumulated counts (L, V + 1), and what came."""
        integers, scale = states
        whole = np.subtract(sums[:, :-1], sums[:, 1:])  # of the logits (L, V)
        whole[np.arange(len(tokens)), tokens] += sums[:, -1]
        slopes = whole.astype(np.float32)
        slopes *= self._parts
        np.trunc(slopes, out=slopes)
        wanted = self._times(slopes, self._weights)  # of the states (L, D)
        wanted *= scale
        most = ACTIVATION_MOST if self._is_wide else (EXACT_IN_FLOAT32 - 1) // (self._most * len(tokens))
        of_states, unit = to_integers(wanted.reshape(1, -1), np.float32(most))
        slope = self._long_times(of_states.reshape(wanted.shape).T, integers)  # of the numbers (D, D)
        slope *= unit[0, 0] * self._unit
        self._caution += slope * slope
        self._n_seen += len(tokens)
        slope *= RATE * np.float32(min(1.0, self._n_seen / WARM_UP))
        slope /= np.sqrt(self._caution)
        self._numbers += slope
        rows, scales = to_integers(self._numbers, np.float32(WEIGHT_MOST))
        self._integers[...] = rows.T
        self._scales[...] = scales[:, 0]

    def _long_times(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
        """A product of integers, some of which are activations. Those of a wide model need float64."""
        if not self._is_wide:
            return self._times(left, right)
        return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.float32)

    def _times(self, left: Floats, right: npt.NDArray[Any]) -> Floats:
        """An exact product of integers."""
        found: npt.NDArray[Any] = left.astype(self._dtype, copy=False) @ right.astype(self._dtype, copy=False)
        return found.astype(np.float32, copy=False)
