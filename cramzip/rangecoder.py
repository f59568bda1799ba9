"""A binary range coder with adaptive probabilities, in integers alone: the same bytes on every machine.

Section 7 of formats/cram.md. Knows nothing of what the decisions mean.
"""

from __future__ import annotations

from .errors import DamagedFileError

PROBABILITY_BITS = 22  # in a Bit
CODER_BITS = 16  # the highest of these, which the coder works with
LEAST_PROBABILITY = 1 << (PROBABILITY_BITS - 13)
MOST_PROBABILITY = (1 << PROBABILITY_BITS) - LEAST_PROBABILITY
MAX_COUNT = 1023
FULL_RANGE, LEAST_RANGE = 2**32 - 1, 2**24
CODE_BYTES = 4
MAX_EXPONENT = 32  # of unbounded numbers, so that damaged bytes end soon


class Bit:
    """An adaptive probability of a yes. The larger `count` is, the less a decision moves it."""

    __slots__ = ("count", "probability")

    def __init__(self, probability: int, count: int):
        self.probability, self.count = _clamped(probability), count

    def learn(self, yes: bool) -> None:
        goal = 2**PROBABILITY_BITS if yes else 0
        self.probability = _clamped(self.probability + 2 * (goal - self.probability) // (2 * self.count + 3))
        if self.count < MAX_COUNT:
            self.count += 1


def _clamped(probability: int) -> int:
    return max(LEAST_PROBABILITY, min(probability, MOST_PROBABILITY))


def carry(out: bytearray) -> None:
    """Add one to the number whose bytes are `out`, the highest first."""
    index = len(out) - 1
    while out[index] == 0xFF:
        out[index] = 0
        index -= 1
    out[index] += 1


class Encoder:
    """Decisions and numbers to bytes. The interval begins at `_out` followed by `_low`, and is `_range` wide."""

    def __init__(self) -> None:
        self._low, self._range, self._out = 0, FULL_RANGE, bytearray()

    def bit(self, chance: Bit, yes: bool) -> bool:
        """Code a decision with an adaptive probability."""
        bound = self._range * (chance.probability >> (PROBABILITY_BITS - CODER_BITS)) >> CODER_BITS
        self._take(bound, upper=not yes)
        chance.learn(yes)
        return yes

    def number(self, value: int, n_bits: int) -> int:
        """Code `value` below 2^n_bits, highest bit first; all values are equally likely."""
        for shift in reversed(range(n_bits)):
            self._take(self._range >> 1, upper=bool(value >> shift & 1))
        return value

    def any_number(self, value: int) -> int:
        """Code an unbounded number, small ones in fewer bits (Elias gamma code of value + 1)."""
        exponent = (value + 1).bit_length() - 1
        self.number(1, exponent + 1)
        self.number(value + 1 - (1 << exponent), exponent)
        return value

    def _take(self, bound: int, *, upper: bool) -> None:
        if upper:
            self._low += bound
            self._range -= bound
            if self._low > FULL_RANGE:
                self._carry()
        else:
            self._range = bound
        while self._range < LEAST_RANGE:
            self._out.append(self._low >> 24)
            self._low = self._low << 8 & FULL_RANGE
            self._range <<= 8

    def _carry(self) -> None:
        self._low &= FULL_RANGE
        carry(self._out)

    def finish(self) -> bytes:
        """The shortest bytes that decode to what was coded. Zero bytes at the end are left out."""
        n_zeros = next(n for n in (32, 24, 16, 8, 0) if -(-self._low >> n) << n < self._low + self._range)
        value = -(-self._low >> n_zeros) << n_zeros
        if value > FULL_RANGE:
            self._carry()
        self._out += (value & FULL_RANGE).to_bytes(CODE_BYTES, "big")
        return bytes(self._out).rstrip(b"\0")


class Decoder:
    """The inverse of Encoder, call by call. Any bytes decode to some decisions."""

    def __init__(self, data: bytes | memoryview):
        self._data = bytes(data)
        self._code = int.from_bytes(self._data[:CODE_BYTES].ljust(CODE_BYTES, b"\0"), "big")
        self._range, self._position = FULL_RANGE, CODE_BYTES

    def bit(self, chance: Bit) -> bool:
        bound = self._range * (chance.probability >> (PROBABILITY_BITS - CODER_BITS)) >> CODER_BITS
        yes = self._code < bound
        if yes:
            self._range = bound
        else:
            self._code -= bound
            self._range -= bound
        self._normalise()
        chance.learn(yes)
        return yes

    def number(self, n_bits: int) -> int:
        value = 0
        for _ in range(n_bits):
            half = self._range >> 1
            upper = self._code >= half
            if upper:
                self._code -= half
                self._range -= half
            else:
                self._range = half
            self._normalise()
            value = value << 1 | upper
        return value

    def any_number(self) -> int:
        exponent = 0
        while not self.number(1):
            exponent += 1
            if exponent > MAX_EXPONENT:
                raise DamagedFileError("content", "a number in the corrections has no end")
        return (1 << exponent) + self.number(exponent) - 1

    def _normalise(self) -> None:
        while self._range < LEAST_RANGE:
            byte = self._data[self._position] if self._position < len(self._data) else 0
            self._code = (self._code << 8 | byte) & 0xFFFFFFFF
            self._range <<= 8
            self._position += 1

    def finish(self) -> None:
        """Raise DamagedFileError if bytes are left over, or if the last one is zero."""
        if len(self._data) > self._position or self._data[-1:] == b"\0":
            raise DamagedFileError("content", f"coded numbers: {len(self._data)} bytes, {self._position} expected")
