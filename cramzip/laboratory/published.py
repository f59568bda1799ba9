"""What the paper published of its models: table 1 and figure 4 of Kuratov et al. 2025, arXiv:2502.13063."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .texts import BOOKS, NEW, RANDOM


class Figures(NamedTuple):
    """Decoding capacity and token gain in tokens, information gain in nats; gains as mean and standard deviation."""

    capacity: int
    token_gain: tuple[float, float | None]
    information_gain: tuple[float, float | None]


@dataclass(frozen=True)
class Published:
    """A model of the paper: its name, width D, vocabulary V, and its figures by kind of text."""

    name: str
    width: int
    vocabulary_size: int
    figures: dict[str, Figures]


def _model(
    name: str,
    width: int,
    vocabulary_size: int,
    books: Figures,
    new: tuple[int, float, float],
    words: tuple[int, float, float],
) -> Published:
    others = {
        kind: Figures(capacity, (gain, None), (nats, None))
        for kind, (capacity, gain, nats) in ((NEW, new), (RANDOM, words))
    }
    return Published(name, width, vocabulary_size, {BOOKS: books} | others)


PUBLISHED = (
    _model("Pythia-160M", 768, 50304, Figures(80, (70.9, 11.0), (396.4, 46.0)), (80, 70.9, 378), (65, 61.3, 501)),
    _model("Pythia-410M", 1024, 50304, Figures(96, (81.3, 12.0), (431.4, 51.6)), (96, 81.2, 430), (72, 76.9, 630)),
    _model(
        "Pythia-1.4B", 2048, 50304, Figures(160, (158.0, 29.1), (792.8, 143.4)), (192, 152.9, 777), (139, 144.4, 1108)
    ),
    _model(
        "Llama-3.2-1B",
        2048,
        128256,
        Figures(512, (426.2, 79.2), (2119.9, 364.8)),
        (512, 449.6, 2214),
        (316, 294.9, 2265),
    ),
    _model(
        "Llama-3.2-3B",
        3072,
        128256,
        Figures(1024, (720.3, 80.2), (3292.2, 320.0)),
        (1024, 734.1, 3355),
        (460, 456.9, 3383),
    ),
    _model(
        "Llama-3.1-8B",
        4096,
        128256,
        Figures(1568, (1094.1, 127.6), (4865.7, 546.6)),
        (1568, 1071.8, 4769),
        (792, 623.2, 4541),
    ),
)

# Decoding capacity by number of vectors, on books.
PUBLISHED_BY_VECTORS = {
    "Pythia-160M": {1: 80, 32: 2016},
    "Llama-3.2-1B": {1: 512, 2: 1024, 4: 2048, 8: 4096, 16: 7168},
}

# The lengths that the paper's texts were cut to.
PAPER_LENGTHS = (
    8, 16, 32, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1280, 1568, 1792, 1920, 1984, 2016, 2048, 3072,
    4096, 5120, 6144, 7168, 7680,
)  # fmt: skip
