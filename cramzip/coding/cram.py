"""The optimiser: from tokens to `[mem]` vectors, many chunks at once.

For each chunk M input vectors are trained, by Adam, so that the frozen model predicts the chunk's tokens
after them (Kuratov et al. 2025, arXiv:2502.13063). What differs from the paper: token 0 is predicted
from the last vector, since a decoder has nothing else; the loss weighs tokens that are still wrong more
than those that are right; the learning rate is relative to the scale of the model's embeddings; the loss is
computed on the vectors as they will be stored; and what is kept is the best that was measured, not what
came out of the last step. The figures behind the constants are in examples/results/NOTES.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..container.records import Coding, coding_of
from ..container.vectors import QuantizedMem
from ..errors import UsageError
from ..lm.frozen import FrozenLM, pad, prefix_length
from .quantize import quantize, round_trip

# Steps by effort. Where corrections do the rest a vector is hardly worth its steps; where it has to be exact it is.
STEPS = {1: 2, 2: 4, 3: 8, 4: 12, 5: 20, 6: 50, 7: 120, 8: 300, 9: 1000}
EXACT_STEPS = {1: 30, 2: 50, 3: 80, 4: 120, 5: 180, 6: 300, 7: 600, 8: 1500, 9: 5000}
AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LEARNING_RATE = 4.0  # per step, in units of the embedding scale
BETAS = (0.7, 0.9)
EPSILON = 1e-8
WARM_UP = 10  # steps
FLAT_SHARE = 0.7  # of all steps, before the cosine sets in
FINAL_RATE = 0.02  # of the learning rate, at the last step
MARGIN_SAFETY = 2.0  # times the gap that the decoder needs: cramming may compute in a lower precision

# By device: the most slots; the positions that go through the model at once, no more than fit its caches, and the
# logits that there are at once.
SLOT_LIMITS = {"cpu": 64, "cuda": 512, "mps": 64}
POSITIONS_AT_ONCE = {"cpu": 2**12, "cuda": 2**17, "mps": 2**14}
LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**28, "mps": 2**25}
DEFAULT_BITS, EXACT_BITS = "1", "2"  # per dimension


@dataclass(frozen=True)
class CramConfig:
    """How a text is crammed. None of this is needed to decompress.

    `vectors` M per chunk, 0 for none; `effort` 1 to 9; `exact`: no corrections; `bits` per dimension of a vector, as in
    records.BITS; `context`: most tokens before a chunk that it sees, and `chunk_tokens` its length (None: by
    model); `batch_size`: chunks optimised at once (None: by device); `dtype`: precision of cramming, never of
    decoding (auto: bfloat16 where that is fast, but float32 if `exact`); `noise_exponent` k: files withstand
    logits that are off by 2^-k (None: by what is measured); `max_steps` instead of those that go with the effort;
    `learning_rate` per step, in units of the embedding scale, and `origin`, D numbers in these units, around which
    vectors start (None: what the profile of the model says, or else what suits most models, and 0).
    """

    vectors: int = 1
    effort: int = 5
    exact: bool = False
    bits: str | None = None
    context: int | None = None
    chunk_tokens: int | None = None
    seed: int = 0
    batch_size: int | None = None
    dtype: str = AUTO
    noise_exponent: int | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    origin: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        limits = (
            ("vectors", self.vectors, 0, 4096),
            ("effort", self.effort, 1, 9),
            ("context", self.context, 0, 2**16),
            ("chunk_tokens", self.chunk_tokens, 1, 2**16),
            ("noise_exponent", self.noise_exponent, 0, 15),
            ("max_steps", self.max_steps, 1, 2**20),
        )
        for field, value, low, high in limits:
            if value is not None and not low <= value <= high:
                raise UsageError(f"{field}: expected {low} to {high}, found {value}")
        if self.exact and not self.vectors:
            raise UsageError("exact: without corrections there have to be vectors")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size: expected 1 or more, found {self.batch_size}")
        if self.dtype not in (AUTO, *DTYPES):
            raise UsageError(f"dtype: expected {AUTO} or one of {', '.join(DTYPES)}, found {self.dtype}")
        coding_of(self.bits or DEFAULT_BITS)

    @property
    def steps(self) -> int:
        return self.max_steps or (EXACT_STEPS if self.exact else STEPS)[self.effort]

    @property
    def coding(self) -> Coding:
        return coding_of(self.bits or (EXACT_BITS if self.exact else DEFAULT_BITS))

    def slots(self, lm: FrozenLM) -> int:
        """How many chunks are optimised at once."""
        return self.batch_size or SLOT_LIMITS[lm.device]


@dataclass(frozen=True)
class Task:
    """A chunk to cram: its tokens, and those before it that it will see."""

    tokens: Sequence[int]
    context: Sequence[int] = ()

    @property
    def length(self) -> int:
        return len(self.context) + len(self.tokens)


@dataclass(frozen=True)
class CramResult:
    """Vectors for one chunk, and what was measured with them.

    `wrong` tokens; `nats_left` is what the chunk still costs after the vectors, infinite if it was never finite.
    """

    mem: QuantizedMem
    wrong: int
    nats_left: float
    steps: int


def has_fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are quicker than in float32; on many CPUs they are much slower."""
    if device == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device == "cuda" and torch.cuda.is_bf16_supported()


def cram(
    lm: FrozenLM,
    tasks: Sequence[Task],
    config: CramConfig,
    noise_bound: float,
    *,
    n_slots: int | None = None,
    n_vectors: int | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> list[CramResult]:
    """Vectors for every task, `n_slots` tasks at a time (all of them unless given).

    With `config.exact` a task stops when all its tokens are right by more than the noise allows; any task stops after
    `config.steps`. Its slot goes to the next. `progress` is told the index of a task and what share of its work was
    done.
    """
    queue = sorted(range(len(tasks)), key=lambda index: (tasks[index].length, index))
    slots = Slots(lm, config, noise_bound, n_vectors or config.vectors, seed)
    results: dict[int, CramResult] = {}
    while queue or slots.tasks:
        free = min((n_slots or len(tasks)) - len(slots.tasks), len(queue))
        if free:
            slots.add([(index, tasks[index]) for index in queue[:free]])
            del queue[:free]
        slots.step()
        if progress:
            for index, _ in slots.tasks:
                progress(index, 1 / config.steps)
        for index, result in slots.take_finished():
            results[index] = result
            if progress:
                progress(index, 1 - result.steps / config.steps)
    return [results[index] for index in range(len(tasks))]


class Slots:
    """The chunks that are being optimised; one row of every tensor in STATE each.

    Where a row starts, how it moves and what weighs how much can be overridden, to try something else.
    """

    RIGHT_WEIGHT = 0.2  # in the loss, of tokens that are right already: what matters is how many are wrong
    STATE: tuple[str, ...] = ("x", "mean", "square", "best", "steps", "best_wrong", "best_loss")

    def __init__(self, lm: FrozenLM, config: CramConfig, noise_bound: float, n_vectors: int, seed: int):
        self.lm, self.config, self.n_vectors, self.seed = lm, config, n_vectors, seed
        self.gap = 2 * noise_bound * MARGIN_SAFETY
        self.positions_at_once = POSITIONS_AT_ONCE[lm.device]
        self.n_before = prefix_length(lm, n_vectors)  # positions before a context
        self.tasks: list[tuple[int, Task]] = []
        empty = torch.zeros(0, n_vectors, lm.width, device=lm.device)
        self.x, self.mean, self.square, self.best = empty, empty, empty, empty  # (S, M, D), unit: scale
        self.steps = torch.zeros(0, device=lm.device)  # (S,)
        self.best_wrong = torch.zeros(0, device=lm.device)
        self.best_loss = torch.zeros(0, device=lm.device)  # nats
        self._lay_out()

    def add(self, tasks: Sequence[tuple[int, Task]]) -> None:
        n = len(tasks)
        start = torch.stack([self.initial(task) for _, task in tasks]).to(self.x.device)
        zeros = torch.zeros_like(start)
        self.x = torch.cat([self.x, start])
        self.best = torch.cat([self.best, start])
        self.mean = torch.cat([self.mean, zeros])
        self.square = torch.cat([self.square, zeros])
        self.steps = torch.cat([self.steps, self.steps.new_zeros(n)])
        self.best_wrong = torch.cat([self.best_wrong, self.best_wrong.new_full((n,), torch.inf)])
        self.best_loss = torch.cat([self.best_loss, self.best_loss.new_full((n,), torch.inf)])
        self.tasks += tasks
        self._lay_out()

    def initial(self, task: Task) -> torch.Tensor:
        """Normal around the origin, of the scale of the embeddings; the same for the same text wherever it stands."""
        generator = torch.Generator().manual_seed(hash((self.seed, self.config.seed, *task.tokens[:8])) % 2**63)
        return torch.randn(self.n_vectors, self.lm.width, generator=generator) + torch.tensor(self.config.origin or 0.0)

    def _lay_out(self) -> None:
        """Contexts and tokens of all tasks, right-padded to the longest: a causal mask hides the padding."""
        seen = [[*task.context, *task.tokens] for _, task in self.tasks]
        longest = max(map(len, seen), default=1)
        self.tokens = pad(seen, longest).to(self.lm.device)  # (S, T), with the contexts
        begins = torch.tensor([[len(task.context)] for _, task in self.tasks], device=self.lm.device).reshape(-1, 1)
        ends = torch.tensor([[len(one)] for one in seen], device=self.lm.device).reshape(-1, 1)
        position = torch.arange(longest, device=self.lm.device)
        self.is_text = (position >= begins) & (position < ends)  # (S, T)

    def step(self) -> None:
        """Measure every row, remember the best vectors so far, and only then move them."""
        measured: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        begin = 0
        while begin < len(self.tasks):
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
        """Positions that each of the rows before `end` takes in the model: tasks come in order of length."""
        return self.n_before + self.tasks[end - 1][1].length

    def _part_size(self, begin: int) -> int:
        """How many rows from `begin` on go through the model at once."""
        size = 1
        while (
            begin + size < len(self.tasks) and (size + 1) * self._positions(begin + size + 1) <= self.positions_at_once
        ):
            size += 1
        return size

    def _measure(self, begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient (S, M, D), nats (S,) and wrong tokens (S,) of the rows from `begin` to `end`."""
        x = self.x[begin:end].detach().requires_grad_(True)
        longest = self._positions(end) - self.n_before
        is_text, tokens = self.is_text[begin:end, :longest], self.tokens[begin:end, :longest]
        mem = round_trip(x * self.lm.embedding_scale, self.config.coding)
        before = self.lm.prefix(list(mem), end - begin, self.lm.start, after_start=self.lm.vectors_after_start)
        inputs = torch.cat([before, self.lm.embed(tokens[:, :-1])], dim=1)
        with self._precision():
            hidden = self.lm.hidden(inputs, longest)[is_text]  # (R, H): the last [mem] predicts token 0
        targets, row = tokens[is_text], is_text.nonzero()[:, 0]  # (R,)
        size = max(1, LOGITS_AT_ONCE[self.lm.device] // self.lm.vocabulary_size)
        pieces = zip(torch.split(hidden.detach(), size), torch.split(targets, size), strict=True)
        parts = [self._judge(states, own) for states, own in pieces]
        upstream, cost, wrong = map(torch.cat, zip(*parts, strict=True))
        (gradient,) = torch.autograd.grad(hidden, x, upstream)
        sums = torch.zeros(2, end - begin, device=x.device).index_add_(1, row, torch.stack([cost, wrong]))
        return gradient, sums[0], sums[1]

    def _judge(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient (R, H), nats (R,) and whether they are wrong (R,) of tokens with hidden states (R, H)."""
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
        """Keep each row's vectors where they are its best so far.

        The best have the fewest wrong tokens if nothing will correct these, else they leave the fewest nats.
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
        """Remove the tasks that are exact or out of steps, and return what they came to."""
        wrong, loss = self.best_wrong.tolist(), self.best_loss.tolist()
        steps = self.steps.tolist()
        finished, going_on = [], []
        for s, (index, task) in enumerate(self.tasks):
            if wrong[s] > 0 and steps[s] < self.config.steps:
                going_on.append(s)
                continue
            mem = quantize(self.best[s] * self.lm.embedding_scale, self.config.coding)
            finished.append((index, CramResult(mem, int(min(wrong[s], len(task.tokens))), loss[s], int(steps[s]))))
        if finished:
            keep = torch.tensor(going_on, dtype=torch.long, device=self.x.device)
            for name in self.STATE:
                setattr(self, name, getattr(self, name)[keep])
            self.tasks = [self.tasks[s] for s in going_on]
            self._lay_out()
        return finished
