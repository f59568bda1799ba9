"""The experiments: which texts are crammed with which settings, and what is found.

Everything is asked of a Laboratory. An experiment that was interrupted asks the same questions again, and most of them
are answered at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch

from ..coding.cram import LEARNING_RATE
from ..coding.view import Chunk
from ..container.records import BITS
from .lab import Laboratory, Row, about
from .measures import Outcome, cosine, read, threshold
from .measures import utilisation as utilised
from .recipes import PAPER, Setting
from .texts import Text
from .trials import Trial

PAPER_VECTORS = (1, 2, 4, 8, 16, 32)
AROUND = (0.5, 1.0, 1.5, 2.0)  # times the capacity: lengths at which cross-entropies are compared
CONTEXTS = (0, 16, 64, 256)  # tokens
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # in units of the embedding scale
RATED_TEXTS, RATED_SHARE = 4, 1.5  # times what vectors are expected to hold: so much that none gets all tokens right
NOTICEABLE = 0.05  # of the tokens: what one learning rate has to be better than another
SURVIVAL = (0.5, 1.0)  # times the capacity
SOLUTIONS, SOLVED_TEXTS, PAIRS, POINTS = 4, 4, 3, 21
SOLVED_SHARE = 0.75  # of what one vector holds of every text: so much that most starts lead to a solution
LESSONS, LESSON_SHARE, LEAST_LESSONS = 32, 0.5, 8  # texts, each half of what one vector holds, and how many are to do


# -- experiments: each gives rows ------------------------------------------------------------------


def capacity(lab: Laboratory) -> list[Row]:
    """What one vector holds, by kind of text (table 1)."""
    return lab.capacities(lab.texts, lab.plan.setting)


def vectors(lab: Laboratory) -> list[Row]:
    """What several vectors hold (figure 4)."""
    rows: list[Row] = []
    held = dict.fromkeys(lab.main_texts, 0.0)
    for n_vectors in sorted(lab.plan.vectors):
        setting = replace(lab.plan.setting, vectors=n_vectors)
        begin = {text: n_vectors * each for text, each in held.items()} if rows else None
        found = lab.capacities(lab.main_texts, setting, begin, looks_beyond=False)
        each = [row["decoding_capacity_after_first"] / n_vectors for row in found]
        held = dict(zip(lab.main_texts, each, strict=True))
        rows += found
    return rows


def cross_entropy(lab: Laboratory) -> list[Row]:
    """What texts of several lengths cost before and after (figures 3 and 6)."""
    setting = replace(lab.plan.setting, exact=False)
    around = [
        Trial(text, length, setting)
        for text in lab.texts
        for length in dict.fromkeys(lab.length_near(text, share * lab.held(text.kind), setting) for share in AROUND)
    ]
    outcomes = lab.outcomes(around)
    rows = [_outcome_row(trial, one) for trial, one in zip(around, outcomes, strict=True)]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        same = [row for row in rows if row["kind"] == kind]
        limit = threshold([row["nats_without"] for row in same], [row["nats"] for row in same])
        for row in same:
            row["threshold"] = limit
    return rows


def utilisation(lab: Laboratory) -> list[Row]:
    """Token gain as a share of what the bits of a vector could name (figure 5)."""
    return [
        {
            **{name: row[name] for name in ("kind", "text", "token_gain")},
            "utilisation": utilised(row["token_gain"], lab.lm.width, lab.lm.vocabulary_size),
        }
        for row in capacity(lab)
    ]


def similarity(lab: Laboratory) -> list[Row]:
    """Cosines between solutions of one text and of different texts (figure 7)."""
    rows = []
    solutions = _solutions(lab)
    for (text, found), (other, others) in combinations([*solutions.items()], 2):
        for mem in found:
            rows += [{"texts": [text.name, other.name], "same": False, "cosine": cosine(mem, one)} for one in others]
    for text, found in solutions.items():
        for mem, one in combinations(found, 2):
            rows.append({"texts": [text.name], "same": True, "cosine": cosine(mem, one)})
    return rows


def interpolation(lab: Laboratory) -> list[Row]:
    """Tokens right on the line between two solutions of one text (figure 8)."""
    rows = []
    points = np.linspace(0, 1, POINTS)
    for text, found in _solutions(lab).items():
        chunk = Chunk(text.ids[: _solved_length(lab, text)])
        for (i, first), (j, second) in list(combinations(enumerate(found), 2))[:PAIRS]:
            mems = [torch.lerp(first, second, float(share)) for share in points]
            view = lab.plan.setting.view(lab.lm)
            right = [float(read(lab.lm, view, chunk, mem).right.mean()) for mem in mems]
            rows.append({**about(text), "pair": [i, j], "tokens": len(chunk.tokens), "right": right})
    return rows


def bits(lab: Laboratory) -> list[Row]:
    """Tokens that survive fewer bits per dimension."""
    trials, shares = [], []
    for share in SURVIVAL:
        for name in BITS:
            setting = replace(lab.plan.setting, bits=name)
            trials += [_trial_near(lab, text, share, setting) for text in lab.main_texts]
            shares += [share] * len(lab.main_texts)
    return [
        {**_outcome_row(trial, one), "bits": BITS[trial.setting.bits].bits, "share": share}
        for trial, one, share in zip(trials, lab.outcomes(trials), shares, strict=True)
    ]


def context(lab: Laboratory) -> list[Row]:
    """What a vector takes off a text when there are tokens before it in view."""
    setting = replace(lab.plan.setting, exact=False)
    room = min(len(text.before) for text in lab.main_texts)
    contexts = [n_context for n_context in CONTEXTS if n_context <= room]
    trials = [
        replace(_trial_near(lab, text, AROUND[2], setting, max(contexts)), n_context=n_context)
        for n_context in contexts
        for text in lab.main_texts
    ]
    outcomes = lab.outcomes(trials)
    return [
        {**_outcome_row(trial, one), "context": trial.n_context} for trial, one in zip(trials, outcomes, strict=True)
    ]


def learning_rate(lab: Laboratory) -> list[Row]:
    """Tokens right at several learning rates, in texts of more than vectors may be expected to hold.

    It asks for no capacity: what a vector recites at a bad learning rate would say nothing.
    """
    trials = []
    for rate in RATES:
        setting = replace(lab.plan.setting, learning_rate=rate)
        for text in lab.main_texts[:RATED_TEXTS]:
            length = lab.length_near(text, RATED_SHARE * lab.expected(text, setting), setting)
            trials.append(Trial(text, length, setting))
    outcomes = lab.outcomes(trials)
    return [
        {**_outcome_row(trial, one), "learning_rate": trial.setting.learning_rate}
        for trial, one in zip(trials, outcomes, strict=True)
    ]


def recipe(lab: Laboratory) -> list[Row]:
    """The same texts by the paper's recipe as published, and by cramzip's."""
    ours = lab.capacities(lab.main_texts, lab.plan.setting)
    published = Setting(PAPER, steps=lab.plan.paper_steps, seed=lab.plan.seed)
    return [*lab.capacities(lab.main_texts, published), *ours]


LEARNING_RATES = "learning-rate"  # comes first: what is found is used by the others
EXPERIMENTS: dict[str, Callable[[Laboratory], list[Row]]] = {
    LEARNING_RATES: learning_rate,
    "capacity": capacity,
    "vectors": vectors,
    "cross-entropy": cross_entropy,
    "utilisation": utilisation,
    "similarity": similarity,
    "interpolation": interpolation,
    "bits": bits,
    "context": context,
    "recipe": recipe,
}


# -- what is found ---------------------------------------------------------------------------------


def best_rate(rows: Iterable[Row]) -> float:
    """The learning rate with most tokens right, if that is noticeably better than the default, or else the default."""
    rows = list(rows)
    shares = {
        rate: float(np.mean([row["right"] / row["tokens"] for row in rows if row["learning_rate"] == rate]))
        for rate in dict.fromkeys(row["learning_rate"] for row in rows)
    }
    best = max(shares, key=lambda rate: shares[rate], default=LEARNING_RATE)
    return best if shares.get(best, 0.0) > shares.get(LEARNING_RATE, 0.0) + NOTICEABLE else LEARNING_RATE


def bits_per_vector(rows: Iterable[Row]) -> float:
    """What a vector recites, as the mean cost of the longest texts in bits, of the first kind in the rows."""
    rows = list(rows)
    same = [row for row in rows if row["kind"] == rows[0]["kind"]]
    return float(np.mean([row["recited_nats"] / row["vectors"] for row in same])) / math.log(2)


def origin(lab: Laboratory, lessons: Sequence[Text]) -> tuple[float, ...]:
    """The mean of vectors that recite their texts, in units of the embedding scale; nothing if few of them do."""
    setting = lab.plan.setting
    trials = [
        Trial(text, lab.length_near(text, LESSON_SHARE * lab.held(text.kind), setting), setting, keeps_vectors=True)
        for text in lessons
    ]
    found = [mem for one, mem in zip(lab.outcomes(trials), lab.solutions(trials), strict=True) if one.recited]
    if len(found) < LEAST_LESSONS:
        return ()
    return tuple((torch.cat(found).mean(0) / lab.lm.embedding_scale).tolist())


# -- small helpers ---------------------------------------------------------------------------------


def _trial_near(lab: Laboratory, text: Text, share: float, setting: Setting, n_context: int = 0) -> Trial:
    """A trial of about `share` times what one vector holds, of a length that would leave room for some context."""
    return Trial(text, lab.length_near(text, share * lab.held(text.kind), setting, n_context), setting)


def _solved_length(lab: Laboratory, text: Text) -> int:
    """A length that can be solved for every text of the main kind."""
    rows = lab.capacities(lab.main_texts, lab.plan.setting)
    least = min(row["decoding_capacity_after_first"] for row in rows)
    return lab.length_near(text, SOLVED_SHARE * least, lab.plan.setting)


def _solutions(lab: Laboratory) -> dict[Text, list[torch.Tensor]]:
    """Vectors that decode to their texts, as the paper counts, from several starts for each of some texts."""
    texts = lab.main_texts[:SOLVED_TEXTS]
    trials = [
        Trial(text, _solved_length(lab, text), replace(lab.plan.setting, seed=lab.plan.seed + i), keeps_vectors=True)
        for text in texts
        for i in range(SOLUTIONS)
    ]
    found: dict[Text, list[torch.Tensor]] = {text: [] for text in texts}
    for trial, one, mem in zip(trials, lab.outcomes(trials), lab.solutions(trials), strict=True):
        if one.is_decoded_after_first:
            found[trial.text].append(mem)
    return found


def _outcome_row(trial: Trial, one: Outcome) -> Row:
    return {**about(trial.text), **one.as_record()}
