"""A filter for long repeats: what stood in the text before is left out, so that no model has to say it again.

Its parameters are a row of copies, entropy-coded. Each has three numbers: how many filtered bytes come before it since
the copy before, how far back the bytes to copy begin, and how many they are. Section 13 of formats/cram.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..rangecoder import PROBABILITY_BITS, Bit, Decoder, Encoder
from .base import Change, Filter, check_size, fail, pack_varint, take_varint

BLOCK = 16  # bytes that are looked for, and of which only those that begin at a multiple of it
SHORTEST = 2 * BLOCK  # bytes of a copy
N_RECENT = 8  # numbers of a kind that are cheap to say again
MAX_BITS = 32  # of a number
EVEN, FIRST_COUNT = 2 ** (PROBABILITY_BITS - 1), 2  # probability at first, and for how many decisions it counts


class Copy(NamedTuple):
    """`length` bytes that begin `distance` bytes before, to be put after `run` filtered bytes more."""

    run: int
    distance: int
    length: int


class Repeats(Filter):
    """Repeats of at least `least` bytes become copies; none of these is shorter than SHORTEST."""

    id, name = 14, "repeats"

    def __init__(self, least: int = SHORTEST):
        self.least = max(least, SHORTEST)

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        copies, parts, at = [], [], 0
        for begin, distance, length in _repeats(data, self.least):
            parts.append(data[at:begin])
            copies.append(Copy(begin - at, distance, length))
            at = begin + length
        if not copies:
            return None
        return Change(b"".join([*parts, data[at:]]), pack_varint(len(copies)) + _pack(copies))

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        n_copies, begin = take_varint(parameters, 0)
        if not n_copies:
            fail("no copies")
        out, at = bytearray(), 0
        for copy in _unpack(parameters[begin:], n_copies):
            if copy.run > len(changed) - at:
                fail("a copy after the end of the filtered bytes")
            out += changed[at : at + copy.run]
            at += copy.run
            if not 0 < copy.distance <= len(out):
                fail(f"a copy of what stands {copy.distance} bytes before, after {len(out)} bytes")
            if copy.length < SHORTEST:
                fail(f"a copy of {copy.length} bytes, at least {SHORTEST} are expected")
            check_size(len(out) + copy.length, limit)
            begin = len(out) - copy.distance
            source = out[begin : begin + copy.length]
            out += (source * (copy.length // len(source) + 1))[: copy.length]
        check_size(len(out) + len(changed) - at, limit)
        return bytes(out + changed[at:])


def _repeats(data: bytes, least: int) -> Iterator[tuple[int, int, int]]:
    """Begin, distance and length of repeats in `data` that do not overlap, each of the latest that begins alike."""
    blocks: dict[bytes, int] = {}
    at = free = known = 0
    while at + BLOCK <= len(data):
        for block in range(known, at - BLOCK + 1, BLOCK):
            blocks[data[block : block + BLOCK]] = block
            known = block + BLOCK
        found = blocks.get(data[at : at + BLOCK])
        if found is not None:
            before = _common_end(data, found, at, min(at - free, found))
            length = before + _common_begin(data, found, at)
            if length >= least:
                yield at - before, at - found, length
                at = free = at - before + length
                continue
        at += 1


def _common_begin(data: bytes, one: int, other: int) -> int:
    """How many bytes from `one` on are those from `other` on, which is larger."""
    length, step = 0, BLOCK
    while step:
        if other + length + step <= len(data) and (
            data[one + length : one + length + step] == data[other + length : other + length + step]
        ):
            length += step
            step *= 2
        else:
            step //= 2
    return length


def _common_end(data: bytes, one: int, other: int, most: int) -> int:
    """How many bytes before `one` are those before `other`."""
    length = 0
    while length < most and data[one - length - 1] == data[other - length - 1]:
        length += 1
    return length


class _Numbers:
    """One of the three numbers of copies: it may be one of the last ones, or is spelled out."""

    def __init__(self) -> None:
        self.recent: list[int] = []
        self.last = 0
        self.places: dict[tuple[int, int], Bit] = {}
        self.sizes: dict[int, Bit] = {}

    def place_bit(self, place: int) -> Bit:
        return self.places.setdefault((self.last, place), Bit(EVEN, FIRST_COUNT))

    def size_bit(self, size: int) -> Bit:
        return self.sizes.setdefault(size, Bit(EVEN, FIRST_COUNT))

    def take(self, value: int, place: int) -> None:
        """Take in that `value` came, which stood at `place` in `recent`, or N_RECENT."""
        if place < len(self.recent):
            del self.recent[place]
        self.recent.insert(0, value)
        del self.recent[N_RECENT:]
        self.last = place


def _pack(copies: Iterable[Copy]) -> bytes:
    encoder, kinds = Encoder(), [_Numbers() for _ in Copy._fields]
    for copy in copies:
        for value, numbers in zip(copy, kinds, strict=True):
            recent = numbers.recent
            place = recent.index(value) if value in recent else N_RECENT
            for other in range(min(place + 1, len(recent))):
                encoder.bit(numbers.place_bit(other), other == place)
            if place == N_RECENT:
                size = value.bit_length()
                for other in range(size + 1):
                    encoder.bit(numbers.size_bit(other), other == size)
                if size > 1:
                    encoder.number(value - (1 << size - 1), size - 1)
            numbers.take(value, place)
    return encoder.finish()


def _unpack(data: bytes, n_copies: int) -> Iterator[Copy]:
    decoder, kinds = Decoder(data), [_Numbers() for _ in Copy._fields]
    for _ in range(n_copies):
        yield Copy(*[_number(decoder, numbers) for numbers in kinds])
    decoder.finish()


def _number(decoder: Decoder, numbers: _Numbers) -> int:
    recent = numbers.recent
    for place, value in enumerate(recent):
        if decoder.bit(numbers.place_bit(place)):
            numbers.take(value, place)
            return value
    size = 0
    while not decoder.bit(numbers.size_bit(size)):
        size += 1
        if size > MAX_BITS:
            fail("a number of a copy has no end")
    value = size if size < 2 else (1 << size - 1) + decoder.number(size - 1)
    numbers.take(value, N_RECENT)
    return value
