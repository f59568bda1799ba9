"""How long experiments will take and how much memory: said before they begin.

The longest trial that is expected is tried for a few steps; searches are played through with lengths that vectors are
expected to hold. What a model really holds may be half or twice as much, and so is the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .lab import BEYOND, Laboratory
from .recipes import Setting, optimise, slots
from .search import Search
from .texts import Text
from .trials import Trial

PROBE_STEPS = 3
RECITED_TRIALS = 2  # of a search that begins where another ended
EARLY = 0.1  # of all steps: when a text that vectors can hold is recited, about
COUNTED = "capacity", "vectors"  # the experiments of which the work is known before


@dataclass(frozen=True)
class Forecast:
    """Seconds of all trials, and the most bytes of memory."""

    seconds: float
    memory: int


def forecast(lab: Laboratory, experiments: Sequence[str]) -> Forecast | None:
    """Of the experiments whose work can be counted; None if there is none among them."""
    plan, setting = lab.plan, lab.plan.setting
    asked: list[tuple[Setting, list[Text]]] = []
    if COUNTED[0] in experiments:
        asked.append((setting, lab.texts))
    if COUNTED[1] in experiments:
        asked += [(replace(setting, vectors=n), lab.main_texts) for n in sorted(plan.vectors)]
    trials = [weighed for one, texts in asked for text in texts for weighed in _trials(lab, text, one)]
    if not trials:
        return None
    per_token = _probe(lab, max((trial for trial, _ in trials), key=_n_positions))
    tokens = sum(_n_positions(trial) * share for trial, share in trials)
    return Forecast(per_token * tokens * plan.steps, _most_memory(lab.lm.device))


def _n_positions(trial: Trial) -> int:
    return trial.n_tokens + trial.setting.vectors


def _trials(lab: Laboratory, text: Text, setting: Setting) -> list[tuple[Trial, float]]:
    """Those that a search would need, if vectors held what is expected, and the share of all steps that each takes."""
    lengths, expected = lab.lengths(text, setting), lab.expected(text, setting)
    if not lengths:
        return []
    search = Search(lengths, expected)
    tried: list[tuple[int, float]] = []
    while (length := search.next()) is not None:
        tried.append((length, EARLY if length <= expected else 1.0))
        search.answer(length, passed=length <= expected)
    tried += [(lab.length_near(text, expected, setting), 1.0)] * RECITED_TRIALS
    if setting.vectors == 1:
        tried.append((lab.length_near(text, BEYOND * expected, setting), 1.0))
    return [(Trial(text, length, setting), share) for length, share in tried]


def _probe(lab: Laboratory, trial: Trial) -> float:
    """Seconds of a step for each token of a trial, in a batch of as many as fit."""
    n = min(slots(lab.lm, trial.n_tokens, lab.batch_size), lab.plan.samples)

    def seconds(steps: int) -> float:
        begin = time.perf_counter()
        optimise(lab.lm, [trial.chunk] * n, replace(trial.setting, steps=steps, exact=False), lab.batch_size)
        return time.perf_counter() - begin

    seconds(1)
    begin = seconds(1)
    return max(seconds(1 + PROBE_STEPS) - begin, 1e-6) / (PROBE_STEPS * n * _n_positions(trial))


def _most_memory(device: str) -> int:
    """The most bytes that this process has had: on a GPU there, elsewhere in memory. 0 where that is not known."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
