"""`capacity --save-codebook`: learn a codebook for a model in exact arithmetic, and say what it is worth."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputOutputError, UsageError
from ..exact.codebook import MODEL_NOTE, Codebook, pack, require_room
from ..laboratory.codebook import BATCH, Learning, Windows
from ..laboratory.windows import LENGTH, Kinds, by_kind, parted, windows
from ..lm.exact import ExactLM
from ..whole import write_whole
from .console import Console, count

if TYPE_CHECKING:
    from ..lm.frozen import FrozenLM
    from .models import LoadModel

EACH = 2  # vectors of an entry
READING_SHARE = 0.05  # of the time, in which all windows are read once
FEWEST, MOST = 12, 20_000  # windows: for each entry, and in all
TRIAL = 200  # windows of texts that are held out
RESERVE = 0.05  # of the time, for these


@dataclass(frozen=True)
class Wanted:
    """How many entries are to be learned, from which files and folders, in how many minutes, and where they go."""

    paths: Sequence[str]
    place: Path
    n_entries: int
    minutes: float


def learn(load_model: LoadModel, wanted: Wanted, console: Console) -> None:
    """Learn a codebook, and write it after each round. Raises UsageError, InputOutputError, ModelError."""
    kinds = _kinds(wanted)
    exact = load_model()
    if not isinstance(exact, ExactLM):
        raise UsageError(f"--save-codebook: {exact.model_id} is computed in floats; a codebook needs exact arithmetic")
    begin, lm = time.monotonic(), exact.frozen
    learned, held_out = parted(kinds)
    found = _windows(lm, learned, wanted)
    console.say(
        f"{exact.model_id}: {wanted.n_entries} entries of {EACH} vectors, from {count(len(found.tokens), 'window')} of "
        f"{LENGTH} tokens, about {wanted.minutes:g} minutes"
    )
    learning = Learning(lm, found, (wanted.n_entries, EACH))
    left = 60 * wanted.minutes * (1 - RESERVE) - (time.monotonic() - begin)
    codebook: Codebook | None = None
    for codebook in learning.run(left, tell=console.say):
        require_room(codebook, exact.shape)
        write_whole(wanted.place, pack(codebook, {MODEL_NOTE: exact.fingerprint.hex()}))
    assert codebook is not None
    console.say(f"{wanted.place}: {count(wanted.place.stat().st_size, 'byte')}; {_worth(learning, codebook, held_out)}")


def _kinds(wanted: Wanted) -> dict[str, list[Path]]:
    if wanted.place.exists():
        raise InputOutputError(f"{wanted.place} is there already; name another file, or remove it")
    if not wanted.place.parent.is_dir():
        raise InputOutputError(f"{wanted.place.parent} is no folder")
    for path in wanted.paths:
        if not Path(path).exists():
            raise InputOutputError(f"{path}: there is no such file or folder")
    kinds = by_kind(map(Path, wanted.paths))
    if not kinds:
        raise UsageError("--save-codebook learns from texts: name files, or folders of them")
    return kinds


def _windows(lm: FrozenLM, kinds: Kinds, wanted: Wanted) -> Windows:
    """As many as this machine reads in a small share of the time."""
    few, _ = windows(lm, kinds, BATCH)
    start = time.monotonic()
    Learning(lm, few, (1, 1))
    seconds = (time.monotonic() - start) / len(few.tokens)
    n = int(min(60 * wanted.minutes * READING_SHARE / seconds, MOST))
    return windows(lm, kinds, max(n, FEWEST * wanted.n_entries), seed=1)[0]


def _worth(learning: Learning, codebook: Codebook, held_out: Kinds) -> str:
    """What a choice saves on texts that nothing was learned from."""
    if not held_out:
        return "too few texts to hold some out"
    found, _ = windows(learning.lm, held_out, TRIAL, seed=2)
    saved, spent = learning.trial(codebook, found)
    gains = saved - spent
    error = float(gains.std()) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
    return (
        f"on {count(len(gains), 'window')} of texts held out, a choice costs {float(spent.mean()):.1f} bits and saves "
        f"{float(saved.mean()):.1f}: {float(gains.mean()):+.1f} ± {error:.1f} a lane"
    )
