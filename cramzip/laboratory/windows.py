"""Windows of texts, of each kind some, for a codebook to be learned from or measured with."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ..errors import UsageError
from ..lm.frozen import FrozenLM
from .codebook import Windows

LENGTH = 48  # tokens of a window
BYTES = 8 * LENGTH  # that hold them, but for texts of the densest kind
BEGINNINGS = 0.4  # of the windows: those of texts; the others begin anywhere, as lanes do
MOST_TRIES = 20  # for each window that is wanted of a kind
HELD_OUT = 10  # of so many texts, one is held out

Kinds = Mapping[str, Sequence[Path]]


def by_kind(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their kind: their folder; below a folder that is given, what comes first in the path."""
    kinds: dict[str, list[Path]] = {}
    for given in paths:
        below = given.rglob("[!.]*") if given.is_dir() else [given]
        for path in sorted(path for path in below if path.is_file() and path.stat().st_size):
            kind = path.relative_to(given).parts[0] if given.is_dir() else str(path.parent)
            kinds.setdefault(kind, []).append(path)
    return kinds


def parted(kinds: Kinds) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Texts to learn from, and every tenth of each kind, to measure with."""
    learned = {kind: [path for i, path in enumerate(paths, 1) if i % HELD_OUT] for kind, paths in kinds.items()}
    held_out = {kind: list(paths[HELD_OUT - 1 :: HELD_OUT]) for kind, paths in kinds.items()}
    return learned, {kind: paths for kind, paths in held_out.items() if paths}


def windows(
    lm: FrozenLM, kinds: Kinds, n: int, weights: Mapping[str, float] | None = None, seed: int = 0
) -> tuple[Windows, tuple[str, ...]]:
    """About `n` windows, and their kinds: of each by its weight, and by the fourth root of its size.

    Raises UsageError for texts that are too short, and OSError.
    """
    rng, found, weights = random.Random(seed), [], weights or {}
    sizes = {kind: sum(path.stat().st_size for path in paths) for kind, paths in kinds.items()}
    shares = {kind: weights.get(kind, 1.0) * size**0.25 for kind, size in sizes.items()}
    for kind, paths in kinds.items():
        wanted, roots = round(n * shares[kind] / sum(shares.values())), [p.stat().st_size ** 0.5 for p in paths]
        own: list[tuple[list[int], bool, str]] = []
        for _ in range(MOST_TRIES * wanted):
            begins = rng.random() < BEGINNINGS
            path = rng.choice(paths) if begins else rng.choices(paths, roots)[0]
            if (ids := _window(lm, path, rng, begins=begins)) is not None:
                own.append((ids, begins, kind))
            if len(own) == wanted:
                break
        found += own
    if not found:
        raise UsageError(f"no text has {LENGTH} tokens")
    rng.shuffle(found)
    tokens, begin, names = zip(*found, strict=True)
    return Windows(torch.tensor(tokens), torch.tensor(begin)), names


def _window(lm: FrozenLM, path: Path, rng: random.Random, *, begins: bool) -> list[int] | None:
    """The first tokens of a text, or tokens from somewhere in it; None if there are too few."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(0 if begins else rng.randrange(max(1, size - BYTES)))
        content = file.read(BYTES).decode(errors="ignore").encode()
    ids = [token for piece in lm.tokenizer.encode(content) for token in piece.ids or []]
    first = 0 if begins else rng.randrange(2, 5)  # the first tokens may be of half a word
    ids = ids[first : first + LENGTH]
    return ids if len(ids) == LENGTH else None
