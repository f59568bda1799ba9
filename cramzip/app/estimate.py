"""How long a job takes, about: what is said before it begins. `jobs` says how much is done at once, if it has to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..coding.chunking import next_segment
from ..lm.exact import ExactLM
from .console import Console, count, human

if TYPE_CHECKING:
    from ..container.description import Description
    from ..container.wire import Bytes
    from ..lm.models import LM

LONG = 60  # seconds; what takes less is not told
MOST_OF_TOKEN = 4  # bytes that a token stands for, about: the other ones are copies
LOOKED_AT = 2**16  # bytes of a text, to see whether it is one
# Bytes a second times parameters of the model, on two cores (an AMD EPYC with AVX-512): what `c`, which also decodes,
# and `d` get through with a model in exact arithmetic, and with one in floats, of which they hardly differ.
EXACT_COMPRESS, EXACT_DECOMPRESS, FLOATS = 3.2e10, 5e10, 2e10


def tell_compress(console: Console, subject: str, data: Bytes, lm: LM, jobs: Callable[[], int]) -> None:
    """Say how long `c` takes, if that is long, and if `data` begins like a text, which is not just stored."""
    if len(data) and next_segment(memoryview(data), 0, min(len(data), LOOKED_AT))[1]:
        _tell(console, subject, len(data), seconds(lm, len(data), decodes_only=False), jobs)


def tell_decompress(
    console: Console, subject: str, described: Description, lm: LM | None, jobs: Callable[[], int]
) -> None:
    """Say how long `d` takes, if that is long."""
    if lm is not None:
        size = sum(min(entry.size, MOST_OF_TOKEN * entry.n_tokens) for entry in described.modelled)
        _tell(console, subject, described.original_size, seconds(lm, size, decodes_only=True), jobs)


def seconds(lm: LM, size: int, *, decodes_only: bool) -> float:
    """About how long `size` bytes take on a CPU; 0 on other devices, of which nothing is known here."""
    if lm.device != "cpu":
        return 0.0
    exact = EXACT_DECOMPRESS if decodes_only else EXACT_COMPRESS
    return size * lm.n_parameters / (exact if isinstance(lm, ExactLM) else FLOATS)


def _tell(console: Console, subject: str, size: int, expected: float, jobs: Callable[[], int]) -> None:
    if expected > LONG and (expected := expected / jobs()) > LONG:
        hours, minutes = divmod(round(expected / 60), 60)
        long = count(hours, "hour") if hours else count(minutes, "minute")
        console.say(f"{subject}: about {long} for {human(size)}")
