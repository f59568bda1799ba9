"""The optimiser: from tokens to `[mem]` vectors, many chunks at once.

For each chunk M input vectors are trained, by Adam, so that the frozen model predicts the chunk's tokens
after them (Kuratov et al. 2025, arXiv:2502.13063). What differs from the paper: token 0 is predicted
from the last vector, since a decoder has nothing else; the loss weighs tokens that are still wrong more
than those that are right; the learning rate is relative to the scale of the model's embeddings; the loss is
computed on the vectors as they will be stored; and what is kept is the best that was measured, not what
came out of the last step. The figures behind the constants are in examples/results/NOTES.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..config import AUTO, CramConfig
from ..container.records import Parameters, Vectors
from ..container.vectors import QuantizedMem
from ..lm.devices import DEVICES, has_fast_bfloat16
from ..lm.frozen import FrozenLM, pad
from ..lm.precision import plain_float32, usual_settings
from .quantize import quantize, round_trip
from .view import Chunk, View

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LEARNING_RATE = 4.0  # per step, in units of the embedding scale
BETAS = (0.7, 0.9)
EPSILON = 1e-8
WARM_UP = 10  # steps
FLAT_SHARE = 0.7  # of all steps, before the cosine sets in
FINAL_RATE = 0.02  # of the learning rate, at the last step
MARGIN_SAFETY = 2.0  # times the gap that the decoder needs: cramming may compute in a lower precision


@dataclass(frozen=True)
class CramResult:
    """Vectors for one chunk, and what was measured with them.

    `wrong`: tokens that are not right beyond noise; only `exact` counts them, else all are wrong. `nats_left`: what the
    chunk still costs after the vectors, infinite if that was never finite.
    """

    mem: QuantizedMem
    wrong: int
    nats_left: float
    steps: int


@dataclass(frozen=True)
class Goal:
    """What vectors are optimised for: a model, what its chunks see, and the noise that the decoder withstands."""

    lm: FrozenLM
    config: CramConfig
    view: View
    noise_bound: float

    @classmethod
    def of(cls, lm: FrozenLM, config: CramConfig, parameters: Parameters) -> Goal:
        """What the parameters of a file that is being made come to."""
        view = View.for_model(lm, parameters, vectors=config.n_vectors > 0)
        return cls(lm, config, view, parameters.noise_bound)

    def described(self, gain: float) -> Vectors:
        """What a header says of the vectors. `gain`: bits that they saved; a negative number if nobody is to know."""
        return self.view.described(self.config.coding, self.lm.width, None if gain < 0 else round(gain))

    @property
    def slots(self) -> int:
        """How many chunks are optimised at once."""
        return self.config.batch_size or DEVICES[self.lm.device].chunks


def cram(
    goal: Goal,
    chunks: Sequence[Chunk],
    *,
    n_slots: int | None = None,
    n_vectors: int | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> list[CramResult]:
    """Vectors for every chunk, `n_slots` chunks at a time (all of them unless given).

    With `config.exact` a chunk stops when all its tokens are right by more than the noise allows; any chunk stops after
    `config.steps`. Its slot goes to the next. `progress` is told the index of a chunk and what share of its work was
    done.
    """
    with usual_settings(), plain_float32(goal.lm.device):
        slots = Slots(goal, n_vectors or goal.config.n_vectors, seed)
        return _cram_all(slots, chunks, n_slots or len(chunks), progress)


def _cram_all(
    slots: Slots, chunks: Sequence[Chunk], n_slots: int, progress: Callable[[int, float], None] | None
) -> list[CramResult]:
    queue = sorted(range(len(chunks)), key=lambda index: (chunks[index].length, index))
    results: dict[int, CramResult] = {}
    while queue or slots.chunks:
        free = min(n_slots - len(slots.chunks), len(queue))
        if free:
            slots.add([(index, chunks[index]) for index in queue[:free]])
            del queue[:free]
        slots.step()
        if progress:
            for index, _ in slots.chunks:
                progress(index, 1 / slots.config.steps)
        for index, result in slots.take_finished():
            results[index] = result
            if progress:
                progress(index, 1 - result.steps / slots.config.steps)
    return [results[index] for index in range(len(chunks))]


def seed_of(*numbers: int) -> int:
    """A seed for random numbers out of whole numbers, the same in every version of Python."""
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**63


class Slots:
    """The chunks that are being optimised. Each has one row of every tensor in STATE.

    A subclass can try another start (`initial`), another step (`move`) or another loss (`_judge`).
    """

    RIGHT_WEIGHT = 0.2  # in the loss, of a token that is right: with `exact`, what matters is how many are wrong
    STATE: tuple[str, ...] = ("x", "mean", "square", "best", "steps", "best_wrong", "best_loss")

    def __init__(self, goal: Goal, n_vectors: int, seed: int):
        self.lm, self.config, self.view = goal.lm, goal.config, goal.view
        self.n_vectors, self.seed = n_vectors, seed
        self.gap = 2 * goal.noise_bound * MARGIN_SAFETY
        self.device = DEVICES[self.lm.device]
        self.positions_at_once = self.device.crammed_positions
        self.chunks: list[tuple[int, Chunk]] = []
        empty = torch.zeros(0, n_vectors, self.lm.width, device=self.lm.device)
        self.x, self.mean, self.square, self.best = empty, empty, empty, empty  # (S, M, D), unit: scale
        self.steps = torch.zeros(0, device=self.lm.device)  # (S,)
        self.best_wrong = torch.zeros(0, device=self.lm.device)
        self.best_loss = torch.zeros(0, device=self.lm.device)  # nats
        self._lay_out()

    def add(self, chunks: Sequence[tuple[int, Chunk]]) -> None:
        n = len(chunks)
        start = torch.stack([self.initial(chunk) for _, chunk in chunks]).to(self.x.device)
        zeros = torch.zeros_like(start)
        self.x = torch.cat([self.x, start])
        self.best = torch.cat([self.best, start])
        self.mean = torch.cat([self.mean, zeros])
        self.square = torch.cat([self.square, zeros])
        self.steps = torch.cat([self.steps, self.steps.new_zeros(n)])
        self.best_wrong = torch.cat([self.best_wrong, self.best_wrong.new_full((n,), torch.inf)])
        self.best_loss = torch.cat([self.best_loss, self.best_loss.new_full((n,), torch.inf)])
        self.chunks += chunks
        self._lay_out()

    def initial(self, chunk: Chunk) -> torch.Tensor:
        """Normal around the origin, of the scale of the embeddings; the same for the same text wherever it stands."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.config.seed, *chunk.tokens[:8]))
        return torch.randn(self.n_vectors, self.lm.width, generator=generator) + torch.tensor(self.config.origin or 0.0)

    def _lay_out(self) -> None:
        """Contexts and tokens of all chunks, right-padded to the longest: a causal mask hides the padding."""
        seen = [[*chunk.context, *chunk.tokens] for _, chunk in self.chunks]
        longest = max(map(len, seen), default=1)
        self.tokens = pad(seen, longest).to(self.lm.device)  # (S, T), with the contexts
        begins = torch.tensor([[len(chunk.context)] for _, chunk in self.chunks], device=self.lm.device).reshape(-1, 1)
        ends = torch.tensor([[len(one)] for one in seen], device=self.lm.device).reshape(-1, 1)
        position = torch.arange(longest, device=self.lm.device)
        self.is_text = (position >= begins) & (position < ends)  # (S, T)

    def step(self) -> None:
        """Measure every row, remember the best vectors so far, and only then move them."""
        measured: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        begin = 0
        while begin < len(self.chunks):
            end = begin + self._part_size(begin)
            try:
                measured.append(self._measure(begin, end))
                begin = end
            except torch.OutOfMemoryError:
                if end - begin == 1:
                    raise
                self.positions_at_once = (end - begin) // 2 * self._positions(end)
                torch.cuda.empty_cache()
        gradient, loss, n_wrong = map(torch.cat, zip(*measured, strict=True))
        self._remember(loss, n_wrong)
        self.move(gradient.nan_to_num(0.0, 0.0, 0.0))

    def _positions(self, end: int) -> int:
        """Positions that each of the rows before `end` takes in the model: chunks come in order of length."""
        return self.view.n_before(self.n_vectors) + self.chunks[end - 1][1].length

    def _part_size(self, begin: int) -> int:
        """How many rows from `begin` on go through the model at once."""
        size = 1
        while (
            begin + size < len(self.chunks) and (size + 1) * self._positions(begin + size + 1) <= self.positions_at_once
        ):
            size += 1
        return size

    def _measure(self, begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient (S, M, D), nats (S,) and wrong tokens (S,) of the rows from `begin` to `end`."""
        x = self.x[begin:end].detach().requires_grad_(True)
        longest = self._positions(end) - self.view.n_before(self.n_vectors)
        is_text, tokens = self.is_text[begin:end, :longest], self.tokens[begin:end, :longest]
        mem = round_trip(x * self.lm.embedding_scale, self.config.coding)
        before = self.view.before(self.lm, list(mem), end - begin)
        inputs = torch.cat([before, self.lm.embed(tokens[:, :-1])], dim=1)
        with self._precision():
            hidden = self.lm.hidden(inputs, longest)[is_text]  # (R, H): the last [mem] predicts token 0
        targets, row = tokens[is_text], is_text.nonzero()[:, 0]  # (R,)
        size = max(1, self.device.crammed_logits // self.lm.vocabulary_size)
        pieces = zip(torch.split(hidden.detach(), size), torch.split(targets, size), strict=True)
        parts = [self._judge(states, own) for states, own in pieces]
        upstream, cost, wrong = map(torch.cat, zip(*parts, strict=True))
        (gradient,) = torch.autograd.grad(hidden, x, upstream)
        sums = torch.zeros(2, end - begin, device=x.device).index_add_(1, row, torch.stack([cost, wrong]))
        return gradient, sums[0], sums[1]

    def _judge(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of tokens with hidden states (R, H): gradient (R, H), cost in nats (R,), and 1 where they are wrong (R,)."""
        hidden = hidden.requires_grad_(True)
        with self._precision():
            predictions = self.lm.head(hidden).float()  # (R, V)
        cost = functional.cross_entropy(predictions, targets, reduction="none")
        wrong, weight = torch.ones_like(cost), torch.ones_like(cost)
        if self.config.exact:
            with torch.no_grad():
                target = predictions.gather(1, targets[:, None])  # (R, 1)
                best_other = predictions.scatter(1, targets[:, None], -torch.inf).amax(1, keepdim=True)
                wrong = (~((target - best_other)[:, 0] > self.gap)).float()  # NaN is wrong
                weight = wrong + self.RIGHT_WEIGHT * (1 - wrong)
        (gradient,) = torch.autograd.grad((cost * weight).sum(), hidden)
        return gradient, cost.detach(), wrong

    @torch.no_grad()
    def _remember(self, loss: torch.Tensor, n_wrong: torch.Tensor) -> None:
        """Keep the vectors of each row that are its best so far.

        With `exact` these have the fewest wrong tokens, and of equals the lowest loss; else they have the lowest loss.
        """
        better = (n_wrong < self.best_wrong) | ((n_wrong == self.best_wrong) & (loss < self.best_loss))
        better &= loss.isfinite()
        self.best = torch.where(better[:, None, None], self.x, self.best)
        self.best_wrong = torch.where(better, n_wrong, self.best_wrong)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def move(self, gradient: torch.Tensor) -> None:
        """One step of Adam, each row at its own place in the schedule."""
        self.steps = self.steps + 1
        self.mean = BETAS[0] * self.mean + (1 - BETAS[0]) * gradient
        self.square = BETAS[1] * self.square + (1 - BETAS[1]) * gradient.square()
        k = self.steps[:, None, None]
        mean = self.mean / (1 - BETAS[0] ** k)
        square = self.square / (1 - BETAS[1] ** k)
        self.x = self.x - self.rate()[:, None, None] * mean / (square.sqrt() + EPSILON)

    def rate(self) -> torch.Tensor:
        """Learning rates of the rows (S,), in units of the embedding scale."""
        total = self.config.steps
        warm = (self.steps / WARM_UP).clamp(max=1)
        decay = ((self.steps - FLAT_SHARE * total) / ((1 - FLAT_SHARE) * total)).clamp(0, 1)
        cosine = FINAL_RATE + (1 - FINAL_RATE) * (1 + torch.cos(math.pi * decay)) / 2
        return (self.config.learning_rate or LEARNING_RATE) * warm * cosine

    def _precision(self) -> AbstractContextManager[object]:
        dtype = self.config.dtype
        if dtype == AUTO:
            dtype = "bfloat16" if has_fast_bfloat16(self.lm.device) and not self.config.exact else "float32"
        return nullcontext() if dtype == "float32" else torch.autocast(self.lm.device, dtype=DTYPES[dtype])

    def take_finished(self) -> list[tuple[int, CramResult]]:
        """Remove the chunks that are all right or out of steps, and return their results."""
        wrong, loss = self.best_wrong.tolist(), self.best_loss.tolist()
        steps = self.steps.tolist()
        finished, going_on = [], []
        for s, (index, chunk) in enumerate(self.chunks):
            if wrong[s] > 0 and steps[s] < self.config.steps:
                going_on.append(s)
                continue
            mem = quantize(self.best[s] * self.lm.embedding_scale, self.config.coding)
            finished.append((index, CramResult(mem, int(min(wrong[s], len(chunk.tokens))), loss[s], int(steps[s]))))
        if finished:
            keep = torch.tensor(going_on, dtype=torch.long, device=self.x.device)
            for name in self.STATE:
                setattr(self, name, getattr(self, name)[keep])
            self.chunks = [self.chunks[s] for s in going_on]
            self._lay_out()
        return finished
