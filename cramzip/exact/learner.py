"""Learning while decoding: what the text so far says of the next token, beside the model.

Three parts, one upon the other, shared by all lanes; section 12 of formats/exact.md says how:

    bias      tokens that this text likes, whatever stands before them
    blend     tokens that followed the same contexts before, each as often as it did, and the model for all others
    choices   for up to three candidates in turn, whether it is the one: by all contexts, whose reliability is learned

Everything is a single operation on Python's floats or on integers, so it is the same on every machine.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import accumulate
from math import sqrt
from operator import add
from typing import Any

from .arithmetic import Floats, sigmoids, stretches
from .bias import Bias
from .contexts import (
    ALL,
    COUNT_BITS,
    GENERATION,
    MOST_COUNT,
    N_CONTEXTS,
    N_ORDERS,
    Entry,
    Followers,
    Kinds,
    Known,
    Place,
)
from .probabilities import Counts, total_of

MOST_CANDIDATES = 3
ESCAPE = 8.0  # how much less an order tells than the next longer one
LEAST_ESCAPE = 0.001  # the model's share in a blend from which shorter orders are not asked
OTHER_WEIGHT = 0.2  # of followers in contexts that are no orders, when candidates are chosen
FIRST_WEIGHT, WEIGHT_RATE, WEIGHT_AGE = 0.3, 0.01, 20  # of the blend beside the model
MODEL_INPUT, BLEND_INPUT, CONTEXT_INPUT = 0.1, 0.8, 0.05  # weights of the inputs of a choice, at first
CONSTANT = 0.3  # an input that is always the same
RATE, LEAST_RATE = 0.03, 0.002  # of the weights of inputs
MOST_AGE = 48  # of a cell: then it forgets as fast as it learns
LEAST_SCORE, MOST_SCORE = -11.5, 13.5

# How often a candidate followed a context, and how often others did, in classes; what a class stands for.
FOR = (0, 1, 2, 3, 4, 5, 5, *[6] * 4, *[7] * 10, *[8] * (MOST_COUNT - 20))
AGAINST = (0, 1, 2, 3, 3, 4, 4, 4, *[5] * 8, *[6] * 16, *[7] * (MOST_COUNT - 31))
FOR_MEANS, AGAINST_MEANS = (0, 1, 2, 3, 4, 5.5, 8, 15, 40), (0, 1, 2, 3.5, 6, 12, 24, 60)
N_AGAINST = len(AGAINST_MEANS)
N_CELLS = len(FOR_MEANS) * N_AGAINST


class Learner:
    """Shares of the whole range for tokens, by the model and by what it has seen; it learns each token it codes."""

    def __init__(self, table: Sequence[bytes | None], vocabulary: int, n_lanes: int, generation: int = GENERATION):
        """`table`: the bytes of each token, None where it has none; tokens beyond its end have none."""
        kinds = Kinds([*table[:vocabulary], *[None] * (vocabulary - len(table))])
        self._bias = Bias(vocabulary)
        self._places = [Place(kinds) for _ in range(n_lanes)]
        self._followers = Followers(generation)
        self._vocabulary, self._total = vocabulary, total_of(vocabulary)
        self._unit = 1 / self._total
        self._n_candidates = min(MOST_CANDIDATES, vocabulary - 1)
        self._weights = [FIRST_WEIGHT] * (N_ORDERS + 1)  # of the blend, for each longest order
        self._ages = [WEIGHT_AGE] * (N_ORDERS + 1)
        self._choices = [Choice() for _ in range(self._n_candidates)]

    def read(self, tokens: Iterable[int]) -> None:
        """Count tokens of the first lane, without the model."""
        place, followers = self._places[0], self._followers
        for token in tokens:
            keys = place.keys()
            followers.count(keys, followers.of(keys), token)
            place.move(token)

    @property
    def seen(self) -> tuple[Known, Place]:
        """What is known of keys, and the place of the first lane."""
        return self._followers.known, self._places[0]

    def start_from(self, known: Known, place: Place) -> None:
        """Let all lanes begin at a place, with what is known there, which is not changed."""
        self._followers = self._followers.following(known)
        self._places = [place.fork() for _ in self._places]

    def forked(self, n_lanes: int) -> Learner:
        """Another learner for so many lanes, which go on where the first lane of this one stands."""
        known, place = self.seen
        shared: list[Any] = [self._followers, self._places, *(table for one in self._choices for table in one.tables)]
        other = deepcopy(self, {id(one): one for one in shared})
        other._places = [place] * n_lanes
        other.start_from(known, place)
        return other

    def sums(self, logits: Floats) -> Counts:
        """Cumulated counts (L, V + 1) of logits (L, V) with the bias; `logits` is used as memory to work in."""
        return self._bias.sums(logits)

    def end_step(self, sums: Sequence[Counts], tokens: Sequence[int]) -> None:
        """Learn the bias, when all lanes of a step are coded: from their cumulated counts and tokens."""
        self._bias.learn(sums, tokens)

    def encode(self, lane: int, sums: Counts, token: int) -> tuple[int, int]:
        """Where the interval of this token begins, and its width, by the model's `sums` (V + 1,) for this lane."""
        _, first, count = self._code(lane, sums, token, -1)
        return first, count

    def decode(self, lane: int, sums: Counts, target: int) -> tuple[int, int, int]:
        """The token whose interval this number lies in, where the interval begins, and its width."""
        return self._code(lane, sums, -1, target)

    def _code(self, lane: int, sums: Counts, token: int, target: int) -> tuple[int, int, int]:
        place = self._places[lane]
        keys = place.keys()
        entries = self._followers.of(keys)
        blend = Blend(entries, self._weights)
        choices, unit, left, first = self._choices, self._unit, self._total - self._vocabulary, 0
        chosen: list[int] = []
        model_left = blend_left = 1.0
        found = -1
        for candidate, choice in zip(blend.candidates(entries, self._n_candidates), choices, strict=False):
            by_model = (sums.item(candidate + 1) - sums.item(candidate)) * unit
            by_blend = blend.model_share * by_model + blend.weight * blend.shares.get(candidate, 0.0)
            choice.look(by_model / model_left, by_blend / blend_left, candidate, entries, blend.longest)
            count = int(left * choice.probability) + 1
            hit = candidate == token if target < 0 else target < first + count
            choice.learn(hit)
            if hit:
                found = candidate
                break
            first += count
            left -= count - 1
            chosen.append(candidate)
            model_left = max(model_left - by_model, unit)
            blend_left = max(blend_left - by_blend, unit)
        if found < 0:
            rest = _Rest(sums, blend, chosen, left, self._total)
            if target >= 0:
                token = rest.find(target - first)
            begin = rest.before(token)
            found, first, count = token, first + begin, rest.before(token + 1) - begin
        if blend.longest:
            self._weigh(blend, found, (sums.item(found + 1) - sums.item(found)) * unit)
        self._followers.count(keys, entries, found)
        place.move(found)
        return found, first, count

    def _weigh(self, blend: Blend, token: int, by_model: float) -> None:
        """Move the weight of the blend towards its share in what was expected of this token."""
        longest, weight = blend.longest, blend.weight
        part = weight * (blend.shares.get(token, 0.0) + blend.escape * by_model)
        self._ages[longest] += 1
        rate = max(WEIGHT_RATE, 1 / self._ages[longest])
        self._weights[longest] += rate * (part / ((1 - weight) * by_model + part) - weight)


class Blend:
    """What the orders say together: shares of the tokens that they know, and `escape`, which they leave to the model.

    With the `weight` of all this beside the model, the model has `model_share` in all.
    """

    __slots__ = ("escape", "longest", "model_share", "shares", "weight")

    def __init__(self, entries: Sequence[Entry], weights: Sequence[float]):
        shares: dict[int, float] = {}
        escape, longest = 1.0, 0
        for order in range(N_ORDERS, 0, -1):
            entry = entries[order - 1]
            if entry is None:
                continue
            longest = longest or order
            if isinstance(entry, int):
                token, count = entry >> COUNT_BITS, entry & MOST_COUNT
                novelty = ESCAPE / order
                total = count + novelty
                shares[token] = shares.get(token, 0.0) + escape / total * count
            else:
                novelty = ESCAPE / order * (len(entry) - 1)
                total = entry[ALL] + novelty
                unit = escape / total
                for token, count in entry.items():
                    shares[token] = shares.get(token, 0.0) + unit * count
                del shares[ALL]
            escape *= novelty / total
            if escape < LEAST_ESCAPE:
                break
        self.shares, self.escape, self.longest = shares, escape, longest
        self.weight = weights[longest] if longest else 0.0
        self.model_share = 1 - self.weight + self.weight * escape

    def candidates(self, entries: Sequence[Entry], most: int) -> list[int]:
        """The tokens with the largest shares, also by the contexts that are no orders; of equals the first."""
        likely = self.shares.copy()
        for entry in entries[N_ORDERS:]:
            if entry is None:
                continue
            if isinstance(entry, int):
                token, count = entry >> COUNT_BITS, entry & MOST_COUNT
                likely[token] = likely.get(token, 0.0) + OTHER_WEIGHT / (count + 1) * count
            else:
                unit = OTHER_WEIGHT / (entry[ALL] + 1)
                for token, count in entry.items():
                    likely[token] = likely.get(token, 0.0) + unit * count
                del likely[ALL]
        found: list[int] = []
        while likely and len(found) < most:
            best = max(likely, key=likely.__getitem__)
            found.append(best)
            del likely[best]
        return found


class Choice:
    """Whether the candidate of this rank is the token: a logistic mixture of what model, blend and contexts say."""

    def __init__(self) -> None:
        means = [(n + 0.3) / (n + others + 1.0) for n in FOR_MEANS for others in AGAINST_MEANS]
        self._cells = means * N_CONTEXTS
        self._cell_ages = [0] * len(self._cells)
        weights = [MODEL_INPUT, BLEND_INPUT, 0.0, *[CONTEXT_INPUT] * N_CONTEXTS]
        self._by_order = [weights] * (N_ORDERS + 1)  # weights for each longest order
        self._by_cell: list[list[float] | None] = [None] * (N_CELLS + 1)  # and for what it says of the candidate
        self._ages = [0] * (N_ORDERS + 1)
        self._stretches, self._sigmoids = stretches().tolist(), sigmoids().tolist()
        self._rates = [1 / (age + 2.5) for age in range(MOST_AGE + 1)]
        self.probability = 0.0

    @property
    def tables(self) -> tuple[list[float], ...]:
        """What is always the same."""
        return self._stretches, self._sigmoids, self._rates

    def look(self, by_model: float, by_blend: float, candidate: int, entries: Sequence[Entry], longest: int) -> None:
        """Find the probability: by what model and blend say if it is none of the candidates before, and by contexts."""
        stretch, cells = self._stretches, self._cells
        inputs = [stretch[min(int(by_model * 4096), 4095)], stretch[min(int(by_blend * 4096), 4095)], CONSTANT]
        used = []
        base, decisive = 0, N_CELLS
        for entry in entries:
            if entry is None:
                inputs.append(0.0)
            else:
                if isinstance(entry, int):
                    count = entry & MOST_COUNT
                    cell = base + (FOR[count] * N_AGAINST if entry >> COUNT_BITS == candidate else AGAINST[count])
                else:
                    count = entry.get(candidate, 0)
                    cell = base + FOR[count] * N_AGAINST + AGAINST[entry[ALL] - count]
                if base == (longest - 1) * N_CELLS:
                    decisive = cell - base
                used.append(cell)
                inputs.append(stretch[int(cells[cell] * 4096)])
            base += N_CELLS
        by_order = self._by_order[longest]
        by_cell = self._by_cell[decisive] or by_order
        score = 0.0
        for weight, other, value in zip(by_order, by_cell, inputs, strict=True):
            score += (weight + other) * value
        score = min(max(score * 0.5, LEAST_SCORE), MOST_SCORE)
        self.probability = self._sigmoids[int(score * 128 + 2048.5)]
        self._inputs, self._used, self._longest, self._decisive = inputs, used, longest, decisive

    def learn(self, hit: bool) -> None:
        """Learn whether it was."""
        truth = 1.0 if hit else 0.0
        longest = self._longest
        self._ages[longest] += 1
        step = (truth - self.probability) * max(LEAST_RATE, RATE / sqrt(self._ages[longest]))
        changes = [step * value for value in self._inputs]
        by_order = self._by_order[longest]
        self._by_cell[self._decisive] = list(map(add, self._by_cell[self._decisive] or by_order, changes))
        self._by_order[longest] = list(map(add, by_order, changes))
        cells, ages, rates = self._cells, self._cell_ages, self._rates
        for cell in self._used:
            age = ages[cell]
            cells[cell] += (truth - cells[cell]) * rates[age]
            if age < MOST_AGE:
                ages[cell] = age + 1


class _Rest:
    """The range of all tokens but the `chosen`, token by token: by the model, and more for those of a blend."""

    def __init__(self, sums: Counts, blend: Blend, chosen: Sequence[int], left: int, whole: int):
        self._sums, self._chosen = sums, sorted(chosen)
        self._of_chosen: list[int] = [sums.item(token + 1) - sums.item(token) for token in self._chosen]
        self._model_total: int = whole - sum(self._of_chosen)
        shares = {token: blend.weight * share for token, share in blend.shares.items() if token not in chosen}
        total = blend.model_share * (self._model_total * (1 / whole))
        for share in shares.values():
            total += share
        self._known = sorted(shares)
        self._more = [0, *accumulate(int(left * (shares[token] / total)) for token in self._known)]
        self._model_left = left - self._more[-1]

    def before(self, token: int) -> int:
        """The widths of the tokens below this one."""
        n_below: int = self._sums.item(token)
        n = token
        for chosen, count in zip(self._chosen, self._of_chosen, strict=True):
            if chosen < token:
                n_below -= count
                n -= 1
        more: int = self._more[bisect(self._known, token - 1)]
        return n + n_below * self._model_left // self._model_total + more

    def find(self, target: int) -> int:
        """The token whose interval holds this number."""
        low, high = 0, len(self._sums) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.before(middle) <= target:
                low = middle
            else:
                high = middle
        return low
