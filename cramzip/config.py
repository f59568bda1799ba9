"""How a text is crammed: what the options of the command line and the library both say. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from .container.records import Coding, coding_of
from .errors import UsageError

# Steps by effort. Where corrections do the rest a vector is hardly worth its steps; where it has to be exact it is.
STEPS = {1: 2, 2: 4, 3: 8, 4: 12, 5: 20, 6: 50, 7: 120, 8: 300, 9: 1000}
EXACT_STEPS = {1: 30, 2: 50, 3: 80, 4: 120, 5: 180, 6: 300, 7: 600, 8: 1500, 9: 5000}
DEFAULT_BITS, EXACT_BITS = "1", "2"  # per dimension
AUTO = "auto"
DTYPES = ("float32", "bfloat16", "float16")
MAX_VECTORS, MAX_CONTEXT, MAX_CHUNK = 4096, 2**16, 2**16


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
            ("vectors", self.vectors, 0, MAX_VECTORS),
            ("effort", self.effort, 1, 9),
            ("context", self.context, 0, MAX_CONTEXT),
            ("chunk_tokens", self.chunk_tokens, 1, MAX_CHUNK),
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
        """Most steps of the optimiser."""
        return self.max_steps or (EXACT_STEPS if self.exact else STEPS)[self.effort]

    @property
    def coding(self) -> Coding:
        """How vectors are stored."""
        return coding_of(self.bits or (EXACT_BITS if self.exact else DEFAULT_BITS))
