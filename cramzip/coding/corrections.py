"""The true tokens of a group, entropy-coded by what the model thinks of them; to bytes and back.

A token is coded as a row of decisions, "is its rank in this rank class?". The model's confidence falls into a bucket;
the bucket picks the adaptive probability of the decision, and sets its first value. Nothing but the bucket depends on
floating point.
The writer shifts the borders of the buckets, chunk by chunk, to where no confidence is within reach of noise; the few
tokens for which that fails are spelled out. Section 6.2 of formats/cram.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ..container.wire import Bytes
from ..errors import DamagedFileError
from ..exact.contexts import Kinds
from ..rangecoder import PROBABILITY_BITS, Bit, Decoder, Encoder
from .candidates import LEAST_TOKENS, Asked, Candidates, Expectations
from .ranks import SLACK, Ranked, Step, class_starts, index_bits

LIMIT = 12.0  # of confidences, in nats
FINE_BUCKET, COARSE_BUCKET = 0.5, 1.0  # nats; coarse where noise is so strong that fine borders cannot be kept clear
FINE_UP_TO = 2.0**-13  # noise bound
SHIFT_BITS = 10
SHIFT_SHARE = 0.5  # of a bucket: the span that shifts cover
SEPARATE_CLASSES = 2  # rank classes with probabilities of their own; all later ones share theirs
CONFIDENCE_COUNT, NEAR_COUNT = 128, 8  # how many decisions a first probability counts for
EXCEPTION_BITS = 22  # about what an exception costs


def shift_of(index: int, width: float) -> float:
    """Shift `index` of bucket borders, in nats, in van der Corput order: the first few already lie far apart."""
    reverse = int(f"{index:0{SHIFT_BITS}b}"[::-1], 2)
    return (reverse / (1 << SHIFT_BITS) - 0.5) * SHIFT_SHARE * width


@lru_cache
def _shifts(width: float) -> np.ndarray:
    """All shifts, by index."""
    return np.array([shift_of(index, width) for index in range(2**SHIFT_BITS)])


def bucket_width(noise_bound: float) -> float:
    """Width of a bucket in nats."""
    return FINE_BUCKET if noise_bound <= FINE_UP_TO else COARSE_BUCKET


def bucket(confidence: np.ndarray, shift: float | np.ndarray, width: float) -> np.ndarray:
    """Buckets of confidences: 0 begins at even odds, negative ones lie below; `shift` is a number or broadcasts."""
    half = int(LIMIT / width)
    found: np.ndarray = np.floor((confidence - shift) / width).clip(-half, half - 1).astype(np.int64)
    return found


class _Probabilities:
    """What encoder and decoder share: buckets of confidences, and the adaptive probabilities of a group."""

    def __init__(self, vocabulary_size: int, noise_bound: float):
        self.starts = class_starts(vocabulary_size)
        self.last_class = len(self.starts) - 2
        self.token_bits = (vocabulary_size - 1).bit_length()
        self.width = bucket_width(noise_bound)
        self.noise_bound = noise_bound
        self.shift = 0.0
        self._in_class: dict[tuple[int, int], Bit] = {}
        self._near: dict[int, Bit] = {}

    def middle(self, bucket: int) -> float:
        """The middle of a bucket, in nats."""
        return (bucket + 0.5) * self.width + self.shift

    def in_class(self, rank_class: int, bucket: int) -> Bit:
        """The probability that a rank is in `rank_class`, given that it is in none before."""
        key = (min(rank_class, SEPARATE_CLASSES), bucket)
        bit = self._in_class.get(key)
        if bit is None:
            probability = round(2**PROBABILITY_BITS / (1 + math.exp(-self.middle(bucket))))
            bit = self._in_class[key] = Bit(probability, CONFIDENCE_COUNT)
        return bit

    def near(self, rank_class: int) -> Bit:
        """The probability that a token of `rank_class` has others near it."""
        if rank_class not in self._near:
            exponent = max(1, round(-math.log2(self.noise_bound)) - rank_class // 2)
            self._near[rank_class] = Bit(2**PROBABILITY_BITS >> exponent, NEAR_COUNT)
        return self._near[rank_class]


class TokenEncoder:
    """The corrections of one group, chunk by chunk."""

    def __init__(
        self, vocabulary_size: int, noise_bound: float, n_tokens: int = 0, expectations: Expectations | None = None
    ):
        """`n_tokens` of the whole group; with `expectations`, it learns."""
        self._known = _Probabilities(vocabulary_size, noise_bound)
        self._coder = Encoder()
        self._expectations = expectations
        if n_tokens >= LEAST_TOKENS:
            self._coder.number(expectations is not None, 1)

    def chunk(self, ranked: Ranked, asked: Asked | None = None) -> None:
        """The next chunk. With expectations, `asked` are its candidates; ranks are those without the ones that fail."""
        known, coder = self._known, self._coder
        classes = [bisect_right(known.starts, rank) - 1 for rank in ranked.ranks.tolist()]
        index, exceptions = self._choose_shift(*self._relied_on(ranked, classes, asked))
        known.shift = shift_of(index, known.width)
        coder.any_number(index)
        coder.any_number(len(exceptions))
        position_bits = (len(classes) - 1).bit_length()
        for position in exceptions:
            coder.number(position, position_bits)
        spelled_out = set(exceptions)
        buckets = bucket(ranked.confidence, known.shift, known.width).tolist()
        asked_buckets = None if asked is None else bucket(asked.odds, known.shift, known.width).tolist()
        tokens, ranks, id_bits = ranked.tokens.tolist(), ranked.ranks.tolist(), ranked.id_bits.tolist()
        for t, rank_class in enumerate(classes):
            is_exception = t in spelled_out
            if is_exception:
                coder.number(tokens[t], known.token_bits)
            if asked_buckets is not None and self._candidate(tokens[t], asked_buckets[t], is_exception=is_exception):
                continue
            if is_exception:
                continue
            for g in range(min(rank_class + 1, known.last_class)):
                coder.bit(known.in_class(g, buckets[t][g]), g == rank_class)
            coder.number(ranks[t] - known.starts[rank_class], index_bits(rank_class))
            if coder.bit(known.near(rank_class), id_bits[t] > 0):
                coder.any_number(id_bits[t] - 1)
                coder.number(tokens[t] & ((1 << id_bits[t]) - 1), id_bits[t])

    def _candidate(self, token: int, buckets: list[int], *, is_exception: bool) -> bool:
        """Code whether one of its candidates is the token, unless it is spelled out, and go on after it."""
        assert self._expectations is not None
        candidates, found = self._expectations.candidates(), False
        for candidate, one in zip(candidates, buckets, strict=False):
            if is_exception or found:
                break
            found = self._coder.bit(self._expectations.next_bit(self._known.middle(one)), candidate == token)
            self._expectations.learn(hit=found)
        self._expectations.move(token)
        return found

    def _relied_on(self, ranked: Ranked, classes: list[int], asked: Asked | None) -> tuple[np.ndarray, np.ndarray]:
        """The positions and the confidences of all decisions, and the odds of candidates among these."""
        counts = np.minimum(np.array(classes) + 1, self._known.last_class)  # decisions of each token on its rank
        confidence = ranked.confidence
        if asked is not None:
            tokens = ranked.tokens.tolist()
            counts[[token in row for token, row in zip(tokens, asked.candidates, strict=True)]] = 0
        position, which = np.nonzero(np.arange(confidence.shape[1]) < counts[:, None])  # (T, G)
        found = confidence[position, which]
        if asked is None:
            return position, found
        lengths = np.array([len(row) for row in asked.candidates])
        asked_at, which = np.nonzero(np.arange(asked.odds.shape[1]) < lengths[:, None])  # (T, MOST_CANDIDATES)
        return np.concatenate([position, asked_at]), np.concatenate([found, asked.odds[asked_at, which]])

    def _choose_shift(self, position: np.ndarray, confidence: np.ndarray) -> tuple[int, list[int]]:
        """The index of the cheapest shift, and the positions whose confidences come too near to a border under it."""
        known = self._known
        reach = 2 * known.noise_bound * SLACK
        within = np.abs(confidence) < LIMIT + known.width
        position, residue = position[within], confidence[within] % known.width
        ordered = np.sort(np.concatenate([residue - known.width, residue, residue + known.width]))
        border = _shifts(known.width) % known.width
        hits = np.searchsorted(ordered, border + reach, "right") - np.searchsorted(ordered, border - reach, "left")
        bits = 2 * np.floor(np.log2(np.arange(2**SHIFT_BITS) + 1)) + EXCEPTION_BITS * hits
        index = int(bits.argmin())
        distance = np.abs((residue - border[index] + known.width / 2) % known.width - known.width / 2)
        return index, sorted(set(position[distance <= reach].tolist()))

    def finish(self) -> bytes:
        return self._coder.finish()


class TokenDecoder:
    """The inverse of TokenEncoder, token by token: the logits of a token need the tokens before it."""

    def __init__(
        self, data: Bytes, vocabulary_size: int, noise_bound: float, n_tokens: int = 0, kinds: Kinds | None = None
    ):
        """`n_tokens` of the whole group; so many that it may learn need the `kinds` of tokens."""
        self._known = _Probabilities(vocabulary_size, noise_bound)
        self._vocabulary_size = vocabulary_size
        self._coder = Decoder(data)
        self._exceptions: set[int] = set()
        self._expectations: Expectations | None = None
        if n_tokens >= LEAST_TOKENS and self._coder.number(1):
            assert kinds is not None
            self._expectations = Expectations(kinds, vocabulary_size)

    def begin_chunk(self, n_tokens: int) -> float:
        """Read what comes before the tokens of a chunk. Returns the shift of its buckets."""
        index = self._coder.any_number()
        n_exceptions = self._coder.any_number()
        if index >= 2**SHIFT_BITS or n_exceptions > n_tokens:
            raise DamagedFileError("content", f"corrections: shift {index}, {n_exceptions} exceptions")
        self._known.shift = shift_of(index, self._known.width)
        position_bits = (n_tokens - 1).bit_length()
        positions = [self._coder.number(position_bits) for _ in range(n_exceptions)]
        if any(after <= before for before, after in pairwise([-1, *positions, n_tokens])):
            raise DamagedFileError("content", "corrections: positions of exceptions are out of order")
        self._exceptions = set(positions)
        return self._known.shift

    def candidates(self, t: int) -> Candidates:
        """The tokens that come into question for token `t` of the chunk before its rank does."""
        found = [] if self._expectations is None else self._expectations.candidates()
        return [] if t in self._exceptions else found

    def candidate(self, candidates: Candidates, buckets: list[int]) -> int | None:
        """The one of these candidates that is the token, by the buckets of their odds; None if they all fail."""
        assert self._expectations is not None
        for candidate, one in zip(candidates, buckets, strict=False):
            hit = self._coder.bit(self._expectations.next_bit(self._known.middle(one)))
            self._expectations.learn(hit=hit)
            if hit:
                return candidate
        return None

    def move(self, token: int) -> None:
        """Go on after a token whose candidates were asked for."""
        if self._expectations is not None:
            self._expectations.move(token)

    def token(self, t: int, step: Step, row: int, buckets: list[int] | None = None) -> int:
        """Token `t` of the chunk, from the logits in `row` of `step`.

        `buckets` are those of the row's confidences; they are quicker to find for all rows at once.
        """
        known, coder = self._known, self._coder
        step.require_decidable(row)
        if t in self._exceptions:
            token = coder.number(known.token_bits)
            if token >= self._vocabulary_size:
                raise DamagedFileError("content", f"corrections: token {token} of {self._vocabulary_size}")
            return token
        if buckets is None:
            buckets = bucket(step.confidence[row], known.shift, known.width).tolist()
        rank_class = 0
        while rank_class < known.last_class:
            if rank_class == len(buckets):
                buckets = bucket(step.deeper(row, rank_class), known.shift, known.width).tolist()
            if coder.bit(known.in_class(rank_class, buckets[rank_class])):
                break
            rank_class += 1
        rank = known.starts[rank_class] + coder.number(index_bits(rank_class))
        if rank >= self._vocabulary_size:
            raise DamagedFileError("content", f"corrections: rank {rank} of {self._vocabulary_size}")
        if not coder.bit(known.near(rank_class)):
            return step.token(row, rank)
        n_bits = coder.any_number() + 1
        if n_bits > known.token_bits:
            raise DamagedFileError("content", f"corrections: {n_bits} bits of an id, at most {known.token_bits}")
        return step.token_near(row, rank, coder.number(n_bits), n_bits)

    def finish(self) -> None:
        self._coder.finish()
