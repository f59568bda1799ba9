"""What is asked of the laboratory: plans, and the trials that they consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..coding.cram import LEARNING_RATE
from ..coding.view import Chunk
from .published import PAPER_LENGTHS
from .recipes import OURS, PAPER_STEPS, Setting
from .texts import Text

# The paper's lengths, and between them and below what smaller models need.
LENGTHS = tuple(sorted({*PAPER_LENGTHS, 2, 4, 6, 10, 12, 14, 20, 24, 28, 40, 48, 56, 72, 112, 224, 320, 448, 640, 896}))
LEAST_LENGTH = 2  # of a single token the paper counts nothing
VECTORS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Plan:
    """How much is measured. `steps` and `learning_rate` are of cramzip's optimiser, `paper_steps` of the paper's."""

    samples: int = 4
    lengths: tuple[int, ...] = LENGTHS
    vectors: tuple[int, ...] = VECTORS
    steps: int = 300
    paper_steps: int = PAPER_STEPS
    seed: int = 0
    bits: str = Setting.bits
    learning_rate: float = LEARNING_RATE

    @property
    def setting(self) -> Setting:
        return Setting(steps=self.steps, seed=self.seed, bits=self.bits, learning_rate=self.learning_rate)


@dataclass(frozen=True)
class Trial:
    """One question: the first `n_tokens` of a text, with `n_context` tokens before them in view, in one setting."""

    text: Text
    n_tokens: int
    setting: Setting
    n_context: int = 0
    keeps_vectors: bool = False

    @property
    def chunk(self) -> Chunk:
        before = self.text.before[len(self.text.before) - self.n_context :]
        return Chunk(self.text.ids[: self.n_tokens], before)


def label(trials: Sequence[Trial]) -> str:
    """What is being measured, for people."""
    setting = trials[0].setting
    lengths = sorted({trial.n_tokens for trial in trials})
    span = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    parts = [f"{len(trials)} x {span} tokens", f"{setting.vectors} vectors" if setting.vectors > 1 else "1 vector"]
    base = Setting()
    if setting.recipe != OURS:
        parts.append("the paper's recipe")
    if setting.bits != base.bits:
        parts.append(f"{setting.bits} bits")
    if setting.learning_rate != base.learning_rate:
        parts.append(f"learning rate {setting.learning_rate:g}")
    if trials[-1].n_context:
        parts.append(f"up to {max(trial.n_context for trial in trials)} before")
    return ", ".join(parts)
