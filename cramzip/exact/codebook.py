"""A codebook of `[mem]`: vectors that lanes may have after the start token, and how the choice is coded.

It stands beside the weights of a model, or in a file of its own. A choice costs what the codebook's priors say, and
less for what the lanes before have chosen. Section 15 of formats/exact.md.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from . import CODEBOOK_NAME
from .arithmetic import Floats, levels, to_integers
from .cache import LAST_SEEN
from .probabilities import TOTAL, TOTAL_BITS
from .tokencoder import TokenDecoder, TokenEncoder
from .weights import BLOCKS_SEEN, MOST_SCALE, Matrix, Shape, Tensors, parse, serialise

MOST_ENTRIES, MOST_EACH = 1024, 16  # entries, and vectors of each (the `MOST_CHOSEN` of a file)
MOST_BYTES = 2**26  # of a file
DOMAIN = b"cramzip-codebook-1"
MODEL_NOTE = "model"  # the note with the fingerprint of the model that a codebook was learned for
PRIOR_TOTAL = 2**16  # what the priors of all entries add up to
EARLIER = 2**17  # what an entry has more for each lane before that has chosen it
STATE_STEPS = 64.0  # a state is rounded to multiples of 1 / 64 before states are added up


@dataclass(frozen=True, eq=False)
class Codebook:
    """K entries of M vectors, as integers (K, M, D) and what one of them stands for (K, M).

    `priors` (2, K): integers of at least 1, how likely each entry is in the first lane of a group, and in all others;
    each row adds up to PRIOR_TOTAL. `selector` (K, D) and `bias` (K,) guess from the states after a lane's first tokens
    how well each entry suits it; a writer uses them, a reader does not.
    """

    integers: npt.NDArray[np.int8]
    scales: Floats
    priors: npt.NDArray[np.int64]
    selector: Matrix
    bias: Floats

    @property
    def n_entries(self) -> int:
        return len(self.integers)

    @property
    def n_each(self) -> int:
        """Vectors of each entry."""
        return int(self.integers.shape[1])

    def vectors(self, choices: Sequence[int]) -> Floats:
        """The input embeddings (L, M, D) that lanes with these choices have after the start token."""
        chosen = list(choices)
        found: Floats = self.integers[chosen] * self.scales[chosen][..., None]
        return found

    def guesses(self, integers: Floats, scale: Floats) -> Floats:
        """How well each entry may suit each lane (L, K), by states (L, n, D), of which one unit is (L, n, 1)."""
        rounded = np.rint(integers * scale * np.float32(STATE_STEPS)).sum(axis=1, dtype=np.float64)
        mean = (rounded / (STATE_STEPS * integers.shape[1])).astype(np.float32)
        return self.guessed(mean)

    def guessed(self, mean: Floats) -> Floats:
        """The same by mean states (L, D)."""
        whole, unit = to_integers(mean, np.float32(levels(mean.shape[1])))
        products = (whole.astype(np.float64) @ self.selector.integers.T.astype(np.float64)).astype(np.float32)
        return products * self.selector.scales * unit + self.bias


class Prior:
    """How likely each entry is in the next lane: by the codebook, and by the choices of the lanes before."""

    def __init__(self, codebook: Codebook):
        self._first, self._others = (row.tolist() for row in codebook.priors)
        self._chosen = [0] * codebook.n_entries
        self._n_lanes = 0

    def bounds(self) -> list[int]:
        """Where in 2^24 the interval of each entry begins, and the end: K + 1 rising numbers."""
        own = self._others if self._n_lanes else self._first
        sums = list(accumulate((p + EARLIER * n for p, n in zip(own, self._chosen, strict=True)), initial=0))
        left, total = TOTAL - len(own), sums[-1]
        return [entry + left * part // total for entry, part in enumerate(sums)]

    def add(self, choice: int) -> None:
        """Go on to the next lane."""
        self._chosen[choice] += 1
        self._n_lanes += 1


def encode_choices(encoder: TokenEncoder, choices: Sequence[int], codebook: Codebook) -> None:
    """Code the choice of each lane."""
    prior, shift = Prior(codebook), encoder.total_bits - TOTAL_BITS
    for choice in choices:
        bounds = prior.bounds()
        encoder.encode(bounds[choice] << shift, bounds[choice + 1] - bounds[choice] << shift)
        prior.add(choice)


def decode_choices(decoder: TokenDecoder, n_lanes: int, codebook: Codebook) -> list[int]:
    """The inverse of `encode_choices`."""
    prior, shift, choices = Prior(codebook), decoder.total_bits - TOTAL_BITS, []
    for _ in range(n_lanes):
        bounds = prior.bounds()
        choice = bisect_right(bounds, decoder.target() >> shift) - 1
        decoder.take(bounds[choice] << shift, bounds[choice + 1] - bounds[choice] << shift)
        prior.add(choice)
        choices.append(choice)
    return choices


def read_codebook(path: Path, width: int | None = None) -> Codebook:
    """The codebook in a file, for a model of this width, or of any. Raises ModelError."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    return unpack(data, width)


def unpack(data: bytes, width: int | None = None, fingerprint: bytes | None = None) -> Codebook:
    """The inverse of `pack`, for a model of this width and fingerprint, or of any. Raises ModelError."""
    if len(data) > MOST_BYTES:
        raise ModelError(f"codebook: a file of more than {MOST_BYTES:,} bytes")
    tensors, notes = parse(data)
    learned_for = notes.get(MODEL_NOTE) if isinstance(notes, dict) else None
    if fingerprint is not None and learned_for not in (None, fingerprint.hex()):
        raise ModelError(f"codebook: it was learned for the model {learned_for!s:.64}; this one is {fingerprint.hex()}")
    return assemble(tensors, width)


def hash_of(data: bytes) -> bytes:
    """What identifies a file: Codebook_Hash, all of it."""
    return hashlib.sha256(DOMAIN + data).digest()


def require_room(codebook: Codebook, shape: Shape) -> None:
    """Raise ModelError for a model that would forget its first block while it still sees an entry."""
    if (n_seen := BLOCKS_SEEN * shape.block) < codebook.n_each + LAST_SEEN:
        raise ModelError(
            f"codebook: {codebook.n_each} vectors are seen for {LAST_SEEN} tokens; the model sees {n_seen} positions"
        )


def beside(folder: Path) -> Path | None:
    """Where the codebook of a model folder is, if it has one."""
    path = folder / CODEBOOK_NAME
    return path if path.is_file() else None


def assemble(tensors: Tensors, width: int | None = None) -> Codebook:
    """A codebook of named tensors. Raises ModelError for what can be none."""
    left = dict(tensors)

    def taken(name: str, dtype: type, *shape: int) -> npt.NDArray[Any]:
        tensor = left.pop(name, None)
        if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
            raise ModelError(f"codebook: {name} should be {np.dtype(dtype)} {shape}; found {_said(tensor)}")
        if dtype is np.int8 and (tensor == -128).any():
            raise ModelError(f"codebook: {name} has a number of -128; at most 127 is exact")
        if dtype is np.float32 and not (np.abs(tensor) <= MOST_SCALE).all():
            raise ModelError(f"codebook: {name} has numbers that are not finite or beyond {MOST_SCALE:.0f}")
        return tensor

    n, each, own_width = (*tensors["mem.weight"].shape, 0, 0, 0)[:3] if "mem.weight" in tensors else (0, 0, 0)
    width = width or own_width
    if not (1 <= n <= MOST_ENTRIES and 1 <= each <= MOST_EACH):
        raise ModelError(
            f"codebook: mem.weight has {n} entries of {each} vectors; at most {MOST_ENTRIES} of {MOST_EACH} are allowed"
        )
    integers, scales = taken("mem.weight", np.int8, n, each, width), taken("mem.scale", np.float32, n, each)
    if not np.abs(scales).max() * 127 <= MOST_SCALE:
        raise ModelError(f"codebook: a vector has numbers beyond {MOST_SCALE:.0f}")
    priors = taken("mem.prior", np.float32, 2, n)
    whole = np.rint(priors).astype(np.int64)
    if (whole != priors).any() or whole.min() < 1 or (whole.sum(axis=1) != PRIOR_TOTAL).any():
        raise ModelError(f"codebook: mem.prior should hold integers of at least 1 that add up to {PRIOR_TOTAL}")
    selector = Matrix(taken("selector.weight", np.int8, n, width), taken("selector.scale", np.float32, n))
    bias = taken("selector.bias", np.float32, n)
    if left:
        raise ModelError(f"codebook: {next(iter(left))} has no place in it")
    return Codebook(integers, scales, whole, selector, bias)


def pack(codebook: Codebook, notes: Mapping[str, str] | None = None) -> bytes:
    """The file of a codebook, with notes about it."""
    return serialise(
        {
            "mem.weight": codebook.integers,
            "mem.scale": codebook.scales,
            "mem.prior": codebook.priors.astype(np.float32),
            "selector.weight": codebook.selector.integers,
            "selector.scale": codebook.selector.scales,
            "selector.bias": codebook.bias,
        },
        notes or {},
    )


def _said(tensor: npt.NDArray[Any] | None) -> str:
    return "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
