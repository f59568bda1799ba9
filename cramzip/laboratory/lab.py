"""The laboratory: asked what vectors make of texts, it measures what its store does not hold yet."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..coding.chunking import prior_capacity
from ..coding.view import Chunk
from ..errors import UsageError
from ..lm.frozen import FrozenLM
from .measures import Outcome, Reading, decoding_capacity, outcome, read, recited, recited_capacity
from .recipes import PAPER, Setting, Solution, optimise, slots
from .search import Search
from .store import Record, Store
from .texts import Text, by_kind
from .trials import LEAST_LENGTH, Plan, Trial, label

BEYOND = 2.0  # times what vectors hold: the gains are largest above the capacity
LENGTH_RATIO = 2.0  # of the longest and the shortest text of a batch: a shorter one is padded, and takes as long
COST_SAMPLE = 64  # tokens that the cost of a text is estimated from
TOLD_EVERY = 60.0  # seconds
Row = dict[str, Any]
Tell = Callable[[str], None]


class Laboratory:
    """A model, some texts, and the answers that are known. `tell` is told what is being measured, now and then."""

    def __init__(
        self,
        lm: FrozenLM,
        texts: Sequence[Text],
        plan: Plan,
        store: Store,
        *,
        batch_size: int | None = None,
        tell: Tell = lambda _: None,
    ):
        self.lm, self.texts, self.plan, self.store = lm, list(texts), plan, store
        self.batch_size, self.tell = batch_size, tell
        self._without: dict[tuple[str, int, int], Reading] = {}
        self._held: dict[str, float] = {}

    @property
    def main_texts(self) -> list[Text]:
        """The texts of the first kind, for experiments that are about something else than kinds."""
        return next(same for _, same in by_kind(self.texts))

    # -- measuring ---------------------------------------------------------------------------------

    def outcomes(self, trials: Sequence[Trial]) -> list[Outcome]:
        """What every trial comes to. What is missing is measured, batch by batch, and stored after each."""
        return [Outcome(**record["outcome"]) for record in self._records(trials)]

    def solutions(self, trials: Sequence[Trial]) -> list[torch.Tensor]:
        """The vectors (M, D) of trials that keep them."""
        return [_unpacked(record["mem"], self.lm.width) for record in self._records(trials)]

    def _records(self, trials: Sequence[Trial]) -> list[Record]:
        missing = [trial for trial in dict.fromkeys(trials) if self.store.get(self._key(trial)) is None]
        for setting in dict.fromkeys(trial.setting for trial in missing):
            same = sorted((t for t in missing if t.setting == setting), key=lambda t: t.n_tokens + t.n_context)
            while same:
                longest = LENGTH_RATIO * (same[0].n_tokens + same[0].n_context)
                alike = [trial for trial in same if trial.n_tokens + trial.n_context <= longest]
                size = slots(self.lm, alike[-1].n_tokens + alike[-1].n_context, self.batch_size)
                self._measure(alike[:size])
                del same[: len(alike[:size])]
        found = [self.store.get(self._key(trial)) for trial in trials]
        return [record for record in found if record is not None]

    def _key(self, trial: Trial) -> Record:
        """All that decides the outcome of a trial."""
        return {
            "model": self.lm.fingerprint.hex(),
            "cramzip": __version__,
            "torch": torch.__version__,
            "device": self.lm.device,
            "kind": trial.text.kind,
            "text": trial.text.digest,
            "tokens": trial.n_tokens,
            "context": trial.n_context,
            "keeps_vectors": trial.keeps_vectors,
            **asdict(trial.setting),
        }

    def _measure(self, trials: Sequence[Trial]) -> None:
        setting, chunks = trials[0].setting, [trial.chunk for trial in trials]
        name = label(trials)
        self.tell(f"{name} ...")
        solved = optimise(self.lm, chunks, setting, self.batch_size, self._progress(name, chunks))
        without = [self._reading_without(trial) for trial in trials]
        view = setting.view(self.lm)
        readings = [read(self.lm, view, chunk, one.mem) for chunk, one in zip(chunks, solved, strict=True)]
        said = self._recited(trials, solved, readings)
        found = [
            outcome(chunk, free, reading, recited=is_recited, steps=one.steps, seconds=round(one.seconds, 3))
            for chunk, free, reading, is_recited, one in zip(chunks, without, readings, said, solved, strict=True)
        ]
        for trial, one, solution in zip(trials, found, solved, strict=True):
            kept = {"mem": _packed(solution.mem)} if trial.keeps_vectors else {}
            self.store.add({"key": self._key(trial), "name": trial.text.name, "outcome": one.as_record(), **kept})
        n_recited, seconds = sum(said), sum(one.seconds for one in solved)
        self.tell(f"{name}: {n_recited} of {len(trials)} recited, {seconds:.0f} s")

    def _progress(self, name: str, chunks: Sequence[Chunk]) -> Callable[[float], None]:
        total, start = sum(len(chunk.tokens) for chunk in chunks), time.monotonic()
        done, told = 0.0, start

        def progress(tokens: float) -> None:
            nonlocal done, told
            done += tokens
            if (now := time.monotonic()) - told >= TOLD_EVERY and done:
                told = now
                left = (now - start) * max(0.0, total / done - 1)
                self.tell(f"{name}: {done / total:.0%}, {left / 60:.0f} min left at most")

        return progress

    def _recited(self, trials: Sequence[Trial], solved: Sequence[Solution], readings: Sequence[Reading]) -> list[bool]:
        """Which solutions recite their texts. With context in view, tokens that are all right will have to do."""
        right = [bool(reading.right.all()) for reading in readings]
        hopeful = [i for i, trial in enumerate(trials) if right[i] and not trial.n_context]
        rows, mems = [trials[i].chunk.tokens for i in hopeful], [solved[i].mem for i in hopeful]
        said = recited(self.lm, trials[0].setting.view(self.lm), rows, mems)
        for i, is_recited in zip(hopeful, said, strict=True):
            right[i] = is_recited
        return right

    def _reading_without(self, trial: Trial) -> Reading:
        key = trial.text.digest, trial.n_tokens, trial.n_context
        if key not in self._without:
            self._without[key] = read(self.lm, trial.setting.view(self.lm), trial.chunk, None)
        return self._without[key]

    # -- looking for the longest -------------------------------------------------------------------

    def lengths(self, text: Text, setting: Setting, n_context: int = 0) -> list[int]:
        """Those of the plan that a text and the positions of the model allow."""
        room = (self.lm.context or math.inf) - setting.vectors - n_context
        return [length for length in self.plan.lengths if LEAST_LENGTH <= length <= min(len(text.ids), room)]

    def length_near(self, text: Text, tokens: float, setting: Setting, n_context: int = 0) -> int:
        """The allowed length that is nearest to `tokens`, as a ratio."""
        allowed = self.lengths(text, setting, n_context)
        if not allowed:
            raise UsageError(
                f"{text.name}: no length fits into the text and the {self.lm.context} positions of the model"
            )
        return min(allowed, key=lambda length: abs(math.log(length / max(tokens, 0.5))))

    def longest(
        self, texts: Sequence[Text], setting: Setting, passes: Callable[[Outcome], bool], begin: dict[Text, float]
    ) -> dict[Text, int]:
        """The longest length of each text that passes; 0 for none. All texts take each step of their searches together.

        It is taken for granted that whatever is shorter passes too.
        """
        searches = {text: Search(self.lengths(text, setting), begin[text]) for text in texts}
        while asked := {text: length for text, search in searches.items() if (length := search.next())}:
            trials = [Trial(text, length, setting) for text, length in asked.items()]
            for (text, length), one in zip(asked.items(), self.outcomes(trials), strict=True):
                searches[text].answer(length, passed=passes(one))
        return {text: search.found for text, search in searches.items()}

    def expected(self, text: Text, setting: Setting) -> float:
        """How many tokens vectors may be expected to hold before anything is known."""
        sample = Trial(text, min(len(text.ids), COST_SAMPLE, (self.lm.context or COST_SAMPLE) - 1), setting)
        nats = float(self._reading_without(sample).nats.mean())
        bits = prior_capacity(self.lm.width, self.lm.vocabulary_size, self.lm.n_layers)
        return setting.vectors * bits * math.log(2) / max(nats, 1e-3)

    def capacities(
        self,
        texts: Sequence[Text],
        setting: Setting,
        begin: dict[Text, float] | None = None,
        *,
        looks_beyond: bool = True,
    ) -> list[Row]:
        """For each text the longest length with 99% of tokens right, as the paper counts, and the longest recited.

        And the largest gains, of all lengths tried and, with `looks_beyond`, of one that is more than vectors hold.
        For the paper's recipe, the longest recited is taken from the lengths that are tried anyway.
        """
        for text in texts:
            self.length_near(text, 1, setting)  # if there is any
        begin = begin or {text: self.expected(text, setting) for text in texts}
        found = self.longest(texts, setting, lambda one: one.is_decoded_after_first, begin)
        if setting.recipe != PAPER:
            self.longest(texts, setting, lambda one: one.recited, {text: float(found[text]) for text in texts})
        beyond = [self._beyond(text, found[text], setting) for text in texts] if looks_beyond else []
        self.outcomes(beyond)
        return [self._capacity_row(text, setting, beyond[i : i + 1]) for i, text in enumerate(texts)]

    def _beyond(self, text: Text, held: int, setting: Setting) -> Trial:
        """The trial that gains are taken from: more of a text than vectors hold, made as likely as possible."""
        if setting.recipe != PAPER:  # which makes texts as likely as possible in any case
            setting = replace(setting, exact=False)
        return Trial(text, self.length_near(text, BEYOND * max(held, 1), setting), setting)

    def held(self, kind: str) -> float:
        """The mean number of tokens of a kind of text that one vector holds, as the paper counts."""
        if kind not in self._held:
            rows = self.capacities([text for text in self.texts if text.kind == kind], self.plan.setting)
            self._held[kind] = float(np.mean([row["decoding_capacity_after_first"] for row in rows]))
        return self._held[kind]

    def _capacity_row(self, text: Text, setting: Setting, beyond: Sequence[Trial]) -> Row:
        trials = [Trial(text, length, setting) for length in self.lengths(text, setting)]
        known = [trial for trial in trials if self.store.get(self._key(trial))]
        outcomes = self.outcomes([*known, *beyond])
        horizon = recited_capacity(outcomes)
        longest = [one for one in outcomes if one.tokens == horizon]
        return {
            **about(text),
            "recipe": setting.recipe,
            "vectors": setting.vectors,
            "recited_capacity": horizon,
            "recited_nats": longest[0].nats_without if longest else 0.0,
            "decoding_capacity": decoding_capacity(outcomes),
            "decoding_capacity_after_first": decoding_capacity(outcomes, after_first=True),
            "at_least": trials[-1] in known and outcomes[known.index(trials[-1])].is_decoded_after_first,
            "token_gain": max(one.token_gain for one in outcomes),
            "information_gain": max(one.information_gain for one in outcomes),
            "tried": [one.tokens for one in outcomes],
            "steps": longest[0].steps if longest else 0,
            "seconds": round(sum(one.seconds for one in outcomes), 1),
        }


def about(text: Text) -> Row:
    return {"kind": text.kind, "text": text.name, "digest": text.digest}


def _packed(mem: torch.Tensor) -> str:
    return base64.b64encode(mem.half().numpy().tobytes()).decode()


def _unpacked(packed: str, width: int) -> torch.Tensor:
    array = np.frombuffer(base64.b64decode(packed), np.float16).astype(np.float32)
    return torch.from_numpy(array.reshape(-1, width))
