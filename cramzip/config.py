"""How a text is crammed: what the options of the command line and the library both say. Imports no torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from .container.records import Coding, coding_of
from .errors import UsageError

# Steps by effort. Where corrections do the rest, a vector is hardly worth its steps. Without them it is.
STEPS = {1: 2, 2: 4, 3: 8, 4: 12, 5: 20, 6: 50, 7: 120, 8: 300, 9: 1000}
EXACT_STEPS = {1: 30, 2: 50, 3: 80, 4: 120, 5: 180, 6: 300, 7: 600, 8: 1500, 9: 5000}
DEFAULT_BITS, EXACT_BITS = "1", "2"  # per dimension
AUTO = "auto"
DTYPES = ("float32", "bfloat16", "float16")
MAX_VECTORS, MAX_CONTEXT = 4096, 2**16
INTEGERS = (  # fields of a CramConfig, each with its least and greatest value
    ("vectors", 0, MAX_VECTORS),
    ("effort", 1, 9),
    ("context", 0, MAX_CONTEXT),
    ("chunk_tokens", 1, 2**16),
    ("seed", 0, 2**63),
    ("batch_size", 1, 2**31),
    ("noise_exponent", 0, 15),
    ("max_steps", 1, 2**20),
)


@dataclass(frozen=True)
class CramConfig:
    """How a text is crammed. None of this is needed to decompress.

    `vectors`: M for each chunk, 0 for none; None for what suits the model: none in exact arithmetic, else 1. `effort`:
    1 to 9. `exact`: no corrections, and so neither `context` nor `chunk_tokens`. `bits` per dimension of a vector, as
    records.BITS names them or as a number.

    `context`: the most tokens before a chunk that it sees. `chunk_tokens`: its length; in exact arithmetic that of a
    lane, which has no context. Both are None for what suits the model. `seed`: another start of the optimiser.
    `batch_size`: chunks optimised at once, None for what suits the device. `dtype`: precision of cramming, never of
    decoding; auto is bfloat16 where that is fast, but float32 if `exact`.

    `noise_exponent` k: the file withstands logits that are off by 2^-k; None for what a probe of the model finds.
    `max_steps` takes the place of the steps of the effort. `learning_rate` per step, in units of the embedding scale;
    None for that of the model's profile if `exact`, else for one that suits most models. `origin`: D numbers in these
    units, around which vectors start; None for that of the profile, or else 0. `ranks`: ranks of tokens by a model in
    floats, also where exact arithmetic can run it.

    `codebook`: where a text gets no vectors of its own, lanes may begin with some that come with the model.
    """

    vectors: int | None = None
    effort: int = 5
    exact: bool = False
    bits: str | float | None = None
    context: int | None = None
    chunk_tokens: int | None = None
    seed: int = 0
    batch_size: int | None = None
    dtype: str = AUTO
    noise_exponent: int | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    origin: Sequence[float] | None = None
    ranks: bool = False
    codebook: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense; numbers of other libraries become Python's own."""
        for field, low, high in INTEGERS:
            self._set(field, _integer(field, getattr(self, field), low, high))
        if self.bits is not None and not isinstance(self.bits, str):
            self._set("bits", f"{_number('bits', self.bits):.3g}")
        if self.learning_rate is not None and (rate := _number("learning_rate", self.learning_rate)) <= 0:
            raise UsageError(f"learning_rate: expected more than 0, found {rate}")
        if self.origin is not None:
            self._set("origin", tuple(_number("origin", value) for value in self.origin))
        if self.dtype not in (AUTO, *DTYPES):
            raise UsageError(f"dtype: expected {AUTO} or one of {', '.join(DTYPES)}, found {self.dtype}")
        if self.exact and self.vectors == 0:
            raise UsageError("exact: without corrections there have to be vectors")
        if self.exact and (self.context or self.chunk_tokens is not None):
            raise UsageError(
                "exact: chunks are as long as vectors can hold, and see nothing else: no context, no chunk_tokens"
            )
        coding_of(str(self.bits or DEFAULT_BITS))

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    @property
    def n_vectors(self) -> int:
        """Vectors of each chunk of a model in floats, where nothing else is said."""
        return 1 if self.vectors is None else self.vectors

    @property
    def is_for_floats(self) -> bool:
        """Whether something is asked for that exact arithmetic does not have: contexts of chunks, or a noise bound."""
        return self.context is not None or self.noise_exponent is not None

    @property
    def steps(self) -> int:
        """Most steps of the optimiser."""
        return self.max_steps or (EXACT_STEPS if self.exact else STEPS)[self.effort]

    @property
    def coding(self) -> Coding:
        """How vectors are stored."""
        return coding_of(str(self.bits or (EXACT_BITS if self.exact else DEFAULT_BITS)))


def _integer(field: str, value: object, low: int, high: int) -> int | None:
    if value is None and field not in ("effort", "seed"):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{field}: expected a whole number, found {value!r}") from None
    if not low <= number <= high:
        raise UsageError(f"{field}: expected {low} to {high}, found {number}")
    return number


def _number(field: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"{field}: expected a number, found {value!r}") from None
    if not math.isfinite(number):
        raise UsageError(f"{field}: expected a finite number, found {number}")
    return number
