"""A range coder of whole tokens, whose probabilities are integers that add up to 2^24 or 2^30.

Section 8 of formats/exact.md. Knows nothing of models. Python's integers hold the state, so it is the same on
every machine.
"""

from __future__ import annotations

from ..errors import DamagedFileError
from ..rangecoder import carry
from .probabilities import TOTAL_BITS

STATE_BYTES = 6
STATE_BITS = 8 * STATE_BYTES
FULL = (1 << STATE_BITS) - 1
LEAST_RANGE = 1 << (STATE_BITS - 8)  # so that a part of 2^30 is at least 2^10 numbers wide


class TokenEncoder:
    """Intervals to bytes. The state is `_low` to `_low + _range`, in units after the bytes of `_out`."""

    def __init__(self, total_bits: int = TOTAL_BITS) -> None:
        self._low, self._range, self._out = 0, FULL, bytearray()
        self.total_bits = total_bits

    def encode(self, first: int, count: int) -> None:
        """Code what has `count` of 2^`total_bits`, after `first` that others have."""
        part = self._range >> self.total_bits
        self._low += part * first
        self._range = part * count
        while self._range < LEAST_RANGE:
            self._shift()

    def _shift(self) -> None:
        if self._low > FULL:
            self._carry()
        self._out.append(self._low >> (STATE_BITS - 8))
        self._low = self._low << 8 & FULL
        self._range <<= 8

    def _carry(self) -> None:
        self._low &= FULL
        carry(self._out)

    def finish(self) -> bytes:
        """The shortest bytes that decode to what was coded; zeros at their end are left out."""
        self._low = _shortest(self._low, self._range)
        if self._low > FULL:
            self._carry()
        self._out += self._low.to_bytes(STATE_BYTES, "big")
        return bytes(self._out).rstrip(b"\0")


class TokenDecoder:
    """The inverse of TokenEncoder."""

    def __init__(self, data: bytes, total_bits: int = TOTAL_BITS):
        self._data, self._position, self.total_bits = data, STATE_BYTES, total_bits
        self._code = int.from_bytes(data[:STATE_BYTES].ljust(STATE_BYTES, b"\0"), "big")
        self._range, self._part = FULL, 0

    def target(self) -> int:
        """Where in 2^`total_bits` the next interval lies: `first` <= target < `first` + `count`."""
        self._part = self._range >> self.total_bits
        target = self._code // self._part
        if target >> self.total_bits:
            raise DamagedFileError("content", "coded tokens: no token has this code")
        return target

    def take(self, first: int, count: int) -> None:
        """Go on after the interval that the target lies in."""
        self._code -= self._part * first
        self._range = self._part * count
        while self._range < LEAST_RANGE:
            byte = self._data[self._position] if self._position < len(self._data) else 0
            self._code = (self._code << 8 | byte) & FULL
            self._range <<= 8
            self._position += 1

    def finish(self) -> None:
        """Raise DamagedFileError unless the data is what an encoder writes for the tokens that came out."""
        window = self._data[self._position - STATE_BYTES : self._position].ljust(STATE_BYTES, b"\0")
        value = int.from_bytes(window, "big")
        if value != _shortest(value - self._code, self._range):
            raise DamagedFileError("content", "coded tokens: the last bytes are not the ones that a writer chooses")
        if len(self._data) > self._position or self._data[-1:] == b"\0":
            raise DamagedFileError("content", f"coded tokens: {len(self._data)} bytes, {self._position} expected")


def _shortest(low: int, size: int) -> int:
    """Of the `size` numbers from `low` on, the lowest of those that end in the most bytes of zeros, up to six."""
    ends = (8 * n for n in range(STATE_BYTES, -1, -1))
    return next(value for n in ends if (value := -(-low >> n) << n) < low + size)
