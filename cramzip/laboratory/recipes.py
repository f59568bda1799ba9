"""Solutions: vectors for texts, by the optimiser of cramzip or by the paper's recipe as published."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..coding.cram import LEARNING_RATE, Goal, cram, seed_of
from ..coding.parameters import choose_parameters
from ..coding.quantize import dequantize
from ..coding.view import Chunk, View
from ..config import CramConfig
from ..container.records import Parameters
from ..lm.devices import DEVICES
from ..lm.frozen import FrozenLM, pad

OURS, PAPER = "cramzip", "paper"

# The recipe of Kuratov et al. 2025 as their code has it, but for the half precision of the larger models.
PAPER_RATE, PAPER_BETAS, PAPER_DECAY = 1e-2, (0.9, 0.9), 0.01
PAPER_STEPS, PAPER_PATIENCE = 5000, 2000

Progress = Callable[[float], None]  # is told of tokens of text, each with a share of its steps


@dataclass(frozen=True)
class Setting:
    """How vectors are found. `exact`: every token is to be right; otherwise the text is to be as likely as possible.

    `learning_rate` is in units of the embedding scale. The paper's recipe uses neither it nor `bits` nor `exact`.
    """

    recipe: str = OURS
    vectors: int = 1
    bits: str = "16"
    steps: int = 300
    seed: int = 0
    exact: bool = True
    learning_rate: float = LEARNING_RATE

    def view(self, lm: FrozenLM, chunk_tokens: int = 2**16) -> View:
        """What a text sees. In the paper vectors always stand in the place of the start token."""
        parameters = Parameters(chunk_tokens=chunk_tokens, context_tokens=0, start_token=lm.start)
        return View.for_model(lm, parameters, vectors=self.recipe == OURS)


@dataclass(frozen=True)
class Solution:
    """Vectors (M, D), float32, on the CPU; their steps, and their share of the seconds of their batch."""

    mem: torch.Tensor
    steps: int
    seconds: float


def optimise(
    lm: FrozenLM,
    chunks: Sequence[Chunk],
    setting: Setting,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> list[Solution]:
    """A solution for every chunk, all of them in as few batches as `batch_size` allows."""
    start = time.perf_counter()
    solve = _as_published if setting.recipe == PAPER else _as_cramzip
    solved = solve(lm, chunks, setting, batch_size, progress or (lambda _: None))
    elapsed = time.perf_counter() - start
    work = [steps * len(chunk.tokens) for chunk, (_, steps) in zip(chunks, solved, strict=True)]
    shares = [one / max(1, sum(work)) for one in work]
    return [Solution(mem, steps, share * elapsed) for (mem, steps), share in zip(solved, shares, strict=True)]


def slots(lm: FrozenLM, n_tokens: int, batch_size: int | None) -> int:
    """How many chunks of `n_tokens` tokens are optimised at once."""
    device = DEVICES[lm.device]
    by_memory = device.text_logits // (max(1, n_tokens) * lm.vocabulary_size)
    return batch_size or max(1, min(device.texts, by_memory))


Solved = list[tuple[torch.Tensor, int]]


def _as_cramzip(
    lm: FrozenLM, chunks: Sequence[Chunk], setting: Setting, batch_size: int | None, progress: Progress
) -> Solved:
    config = CramConfig(
        vectors=setting.vectors,
        exact=setting.exact,
        bits=setting.bits,
        seed=setting.seed,
        dtype="float32",
        max_steps=setting.steps,
        learning_rate=setting.learning_rate,
    )
    goal = Goal(lm, config, setting.view(lm), choose_parameters(lm, config).noise_bound)

    def tell(index: int, share: float) -> None:
        progress(share * len(chunks[index].tokens))

    n_slots = slots(lm, max(chunk.length for chunk in chunks), batch_size)
    results = cram(goal, chunks, n_slots=n_slots, seed=setting.seed, progress=tell)
    return [(dequantize(result.mem), result.steps) for result in results]


def _as_published(
    lm: FrozenLM, chunks: Sequence[Chunk], setting: Setting, batch_size: int | None, progress: Progress
) -> Solved:
    """The paper's recipe, text by text, in batches that change nothing: every text has an optimiser of its own.

    It differs from the published code in one thing, to its advantage: what is kept are the vectors that were
    measured, and not those after the step that followed.
    """
    n_slots = slots(lm, max(chunk.length for chunk in chunks), batch_size)
    order = sorted(range(len(chunks)), key=lambda index: len(chunks[index].tokens))
    solved: dict[int, tuple[torch.Tensor, int]] = {}
    for first in range(0, len(order), n_slots):
        batch = order[first : first + n_slots]
        found = _Published(lm, [chunks[index] for index in batch], setting).run(progress)
        solved |= dict(zip(batch, found, strict=True))
    return [solved[index] for index in range(len(chunks))]


class _Published:
    """One batch of the paper's recipe. Rows that are finished are left out of the next step."""

    def __init__(self, lm: FrozenLM, chunks: Sequence[Chunk], setting: Setting):
        self.lm, self.chunks, self.setting = lm, chunks, setting
        self.mems = [self._initial(index).to(lm.device).requires_grad_(True) for index in range(len(chunks))]
        self.optimiser = torch.optim.AdamW(self.mems, PAPER_RATE, PAPER_BETAS, weight_decay=PAPER_DECAY)
        self.best = [mem.detach().clone() for mem in self.mems]
        self.best_right = [-1] * len(chunks)
        self.best_step = [0] * len(chunks)

    def _initial(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed_of(self.setting.seed, *self.chunks[index].tokens[:8]))
        return torch.randn(self.setting.vectors, self.lm.width, generator=generator) * self.lm.embedding_scale

    def run(self, progress: Progress) -> Solved:
        active = list(range(len(self.chunks)))
        taken = [0] * len(self.chunks)
        for step in range(1, self.setting.steps + 1):
            self._step(active, step)
            for index in active:
                taken[index] = step
                progress(len(self.chunks[index].tokens) / self.setting.steps)
            active = [index for index in active if self._goes_on(index, step)]
            if not active:
                break
        for index, chunk in enumerate(self.chunks):
            progress(len(chunk.tokens) * (1 - taken[index] / self.setting.steps))
        return [(best.cpu(), steps) for best, steps in zip(self.best, taken, strict=True)]

    def _goes_on(self, index: int, step: int) -> bool:
        all_right = self.best_right[index] >= len(self.chunks[index].tokens) - 1
        return not all_right and step - self.best_step[index] < PAPER_PATIENCE

    def _step(self, active: list[int], step: int) -> None:
        """Measure and move the active rows. The loss is the mean cost of all tokens of a text but the first."""
        chunks = [self.chunks[index] for index in active]
        seen = [[*chunk.context, *chunk.tokens] for chunk in chunks]
        ids = pad(seen, max(map(len, seen))).to(self.lm.device)  # (B, T)
        begins = torch.tensor([[len(chunk.context)] for chunk in chunks], device=self.lm.device)
        ends = torch.tensor([[len(one)] for one in seen], device=self.lm.device)
        place = torch.arange(ids.shape[1], device=self.lm.device)
        counted = ((place > begins) & (place < ends))[:, 1:]  # (B, T - 1): not the first token
        mem = torch.stack([self.mems[index] for index in active])
        n_last = ids.shape[1] - 1
        if not n_last:  # first tokens alone: nothing to learn
            self.best_right = [0] * len(self.chunks)
            return
        inputs = torch.cat([mem, self.lm.embed(ids[:, :-1])], dim=1)
        logits = self.lm.logits(inputs, n_last).float()  # (B, T - 1, V)
        cost = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (cost.view_as(counted) * counted).sum(1) / counted.sum(1).clamp(min=1)  # (B,)
        right = ((logits.detach().argmax(-1) == ids[:, 1:]) & counted).sum(1).tolist()
        for row, index in enumerate(active):
            if right[row] > self.best_right[index]:
                self.best_right[index], self.best_step[index] = right[row], step
                self.best[index] = self.mems[index].detach().clone()
        self.optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
