"""What a `.cram` file is made of: header, table entries, groups. Facts alone; their bytes are made in `writing`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from ..errors import UsageError
from .layout import DICTIONARY_TOKENS, LEAST_ADAPTED, MOST_CHOSEN, MOST_LEARNING
from .wire import CONTROL_CHARACTER, MAX_STRING, Bytes

HASH_SIZES = (4, 8, 16, 32)  # bytes that are kept of the SHA-256 of the original
DIGEST_SIZE = 4  # bytes that are kept of the fingerprint of a built-in model, and of the hashes of a nameless one
MOST_DICTIONARY_HASH = 8  # bytes that are kept of the hash of a dictionary


class Kind(IntEnum):
    RAW = 0
    ZSTD = 1
    RECITED = 2  # from vectors alone
    CORRECTED = 3  # from vectors and corrections
    PREDICTED = 4  # from corrections alone
    CODED = 5  # from tokens coded with exact probabilities
    PROMPTED = 6  # from vectors and such tokens
    CHOSEN = 7  # from such tokens, after vectors that each lane chooses from a codebook

    @property
    def is_stored(self) -> bool:
        return self in (Kind.RAW, Kind.ZSTD)

    @property
    def has_vectors(self) -> bool:
        return self in (Kind.RECITED, Kind.CORRECTED, Kind.PROMPTED)

    @property
    def is_laned(self) -> bool:
        """Whether its tokens go through the model in lanes, side by side."""
        return self in (Kind.CODED, Kind.PROMPTED, Kind.CHOSEN)

    def is_allowed(self, *, exact: bool) -> bool:
        """Whether it may be in an exact file, or in another."""
        return self.is_stored or self is Kind.RECITED or self.is_laned == exact


class Coding(IntEnum):
    """How vectors are stored; the numbers are those of the format."""

    SIGNS = 1  # 1 bit per dimension
    TERNARY = 2  # 1.6 bits: five to a byte
    TWO_BITS = 3
    THREE_BITS = 4
    FOUR_BITS = 5
    EIGHT_BITS = 6
    FLOAT16 = 7  # no scale, no rotation

    @property
    def levels(self) -> int:
        """How many values a code can have; 0 for float16, which has no codes."""
        return {1: 2, 2: 3, 3: 4, 4: 8, 5: 16, 6: 256, 7: 0}[self]

    @property
    def bits(self) -> float:
        """Bits per dimension: log2 of the levels, so 1.58 for a ternary code."""
        return math.log2(self.levels) if self.levels else 16.0

    @property
    def name_of_bits(self) -> str:
        """The bits per dimension as users write them, such as `1.58`."""
        return f"{self.bits:.3g}"

    def vector_size(self, width: int) -> int:
        """Bytes of one vector."""
        if self is Coding.FLOAT16:
            return 2 * width
        if self is Coding.TERNARY:
            return 1 + -(-width // 5)
        return 1 + -(-width * int(self.bits) // 8)


BITS = {coding.name_of_bits: coding for coding in Coding}


def coding_of(bits: str) -> Coding:
    """The coding with so many bits per dimension, as users write them. Raises UsageError."""
    if bits not in BITS:
        raise UsageError(f"bits: expected one of {', '.join(BITS)}, found {bits}")
    return BITS[bits]


@dataclass(frozen=True)
class BuiltinModel:
    """A model that comes with cramzip, named by its `digest`: the first 4 bytes of its fingerprint.

    It is empty in a file with a dictionary, whose hash names the model, too.
    """

    digest: bytes


@dataclass(frozen=True)
class OutsideModel:
    """Any other model, and where it was found (section 4); of a model without `model_id`, the hashes are cut."""

    model_id: str
    revision: str
    fingerprint: bytes
    tokenizer_hash: bytes

    @property
    def brief(self) -> OutsideModel:
        """The same model in the fewest bytes."""
        return OutsideModel("", "", self.fingerprint[:DIGEST_SIZE], self.tokenizer_hash[:DIGEST_SIZE])


@dataclass(frozen=True)
class Parameters:
    """How groups are decoded whose model is computed in floats: the noise that they withstand, 2^-`noise_exponent`, and
    the lengths of chunk and context.

    `start_token` stands before a chunk that has no vectors, and before vectors if the file says so.
    """

    noise_exponent: int = 14
    chunk_tokens: int = 768
    context_tokens: int = 255
    start_token: int = 0

    @property
    def noise_bound(self) -> float:
        """Largest error of any logit under which the file still decodes to the same tokens."""
        return 2.0**-self.noise_exponent


STANDARD = Parameters()


@dataclass(frozen=True)
class Lanes:
    """How the tokens of a group are dealt to lanes: about `tokens` to each, but to no more than `most` lanes.

    `learning`: what the text so far says of the next token joins what the model says (1), and in long groups changes
    the states of the model, too (2); or not (0).
    """

    tokens: int = 512
    most: int = 32
    learning: int = 1

    def count(self, n_tokens: int) -> int:
        """How many lanes a group of `n_tokens` has."""
        return min(self.most, -(-n_tokens // self.tokens))

    def adapts(self, n_tokens: int) -> bool:
        """Whether a group of `n_tokens` changes the states of the model."""
        return self.learning == MOST_LEARNING and n_tokens >= LEAST_ADAPTED


STANDARD_LANES = Lanes()


@dataclass(frozen=True)
class Vectors:
    """How the vectors of a file are stored, and where they stand: `after_start`, or else in place of the start token.

    `gain`: the bits that they took off the corrections, None if that is not known.
    """

    coding: Coding
    width: int
    gain: int | None = None
    after_start: bool = False

    AFTER_START: ClassVar = 0x08  # of Vector_Coding

    @classmethod
    def from_code(cls, code: int, width: int, gain: int | None) -> Vectors:
        """What a Vector_Coding stands for. Raises ValueError for one that is reserved."""
        coding = code & ~cls.AFTER_START
        return cls(Coding(coding), width, gain, coding != code)

    @property
    def code(self) -> int:
        """Vector_Coding."""
        return self.coding | (self.AFTER_START if self.after_start else 0)

    @property
    def size(self) -> int:
        """Bytes of one vector."""
        return self.coding.vector_size(self.width)


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `original_hash` is the SHA-256 of the original, or its first 4, 8 or 16 bytes.

    Of the name of the original it has all, or the `ending`, such as `txt`, or nothing.
    `dictionary` is the hash of the dictionary that the lanes go on from, or the first bytes of it. `probe` is, in exact
    files of models that were not made for exact arithmetic, the first bytes of a hash of what the model computes.
    `codebook` is the first bytes of the hash of the codebook, if lanes begin with one that is not the model's own.
    """

    original_size: int
    original_hash: bytes
    name: str | None = None
    model: BuiltinModel | OutsideModel | None = None
    parameters: Parameters = Parameters()
    vectors: Vectors | None = None
    lanes: Lanes | None = None
    ending: str | None = None
    dictionary: bytes | None = None
    probe: bytes | None = None
    codebook: bytes | None = None

    def has_check(self, n_groups: int) -> bool:
        """Whether there is a Check after the table; where there is none, Original_Hash takes its place."""
        return self.dictionary is None or n_groups > 1

    @property
    def is_exact(self) -> bool:
        """Whether the model is computed in exact arithmetic; then `lanes` says how, and `parameters` nothing."""
        return self.lanes is not None


@dataclass(frozen=True, slots=True)
class Entry:
    """One group in the table; sizes in bytes. Checksums are None in a file of one group, which needs none.

    `is_filtered`: the payload begins with filters, and the tokens give the bytes that these made of the original.
    """

    kind: Kind
    size: int
    payload_size: int
    payload_crc: int | None
    content_crc: int | None
    n_tokens: int = 0
    n_vectors: int = 0  # of each chunk
    is_filtered: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A part of the original that is decoded on its own."""

    entry: Entry
    payload: Bytes


def n_chunks(entry: Entry, header: Header) -> int:
    """How many chunks, each with its own vectors, a group consists of; in exact files, how many lanes."""
    if header.lanes is None:
        return -(-entry.n_tokens // header.parameters.chunk_tokens)
    return header.lanes.count(entry.n_tokens) if entry.kind.is_laned else 1


def n_vector_bytes(entry: Entry, header: Header) -> int:
    """Bytes of all vectors of a group."""
    if not entry.kind.has_vectors:
        return 0
    assert header.vectors is not None
    return n_chunks(entry, header) * entry.n_vectors * header.vectors.size


def longest_lane(entry: Entry, header: Header) -> int:
    """Positions that a group of an exact file needs: what stands before the tokens of its longest lane, and these.

    Those of a dictionary, and of an entry of a codebook, count in full, however short it is.
    """
    before = 1 if entry.n_vectors == 0 else entry.n_vectors + bool(header.vectors and header.vectors.after_start)
    if header.dictionary is not None:
        before += DICTIONARY_TOKENS
    if entry.kind is Kind.CHOSEN:
        before += MOST_CHOSEN
    return before + -(-entry.n_tokens // n_chunks(entry, header)) - 1


def name_fault(name: str) -> str | None:
    """Why `name` cannot be a header's Name, or None if it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "must be Unicode text"
    if not 1 <= size <= MAX_STRING:
        return f"must have 1 to {MAX_STRING} bytes"
    if name in (".", "..") or "/" in name or "\\" in name:
        return "must be a base name, not a path"
    if CONTROL_CHARACTER.search(name):
        return "must have no control characters"
    return None
