"""Decisions to bytes and back."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cramzip.errors import DamagedFileError
from cramzip.rangecoder import LEAST_PROBABILITY, PROBABILITY_BITS, Bit, Decoder, Encoder

patiently = settings(max_examples=60, deadline=None)
HALF = 2 ** (PROBABILITY_BITS - 1)

# What is coded: ("bit", which of three Bits, decision), ("number", value, bits), ("any", value).
BITS = st.tuples(st.just("bit"), st.integers(0, 2), st.booleans())
NUMBERS = st.integers(0, 24).flatmap(lambda n: st.tuples(st.just("number"), st.integers(0, 2**n - 1), st.just(n)))
ANY_NUMBERS = st.tuples(st.just("any"), st.integers(0, 2**33 - 2))
SEQUENCES = st.lists(st.one_of(BITS, NUMBERS, ANY_NUMBERS), max_size=200)


def fresh_bits():
    return [Bit(HALF, 8), Bit(1, 1), Bit(2**PROBABILITY_BITS, 100)]


def run(coder, sequence):
    """All of `sequence` through an encoder."""
    bits = fresh_bits()
    for kind, *what in sequence:
        if kind == "bit":
            coder.bit(bits[what[0]], what[1])
        elif kind == "number":
            coder.number(*what)
        else:
            coder.any_number(*what)


def encoded(sequence):
    coder = Encoder()
    run(coder, sequence)
    return coder.finish()


def decoded(data, sequence):
    """What a decoder finds where `sequence` is expected."""
    decoder, bits, found = Decoder(data), fresh_bits(), []
    for kind, *what in sequence:
        if kind == "bit":
            found.append((kind, what[0], decoder.bit(bits[what[0]])))
        elif kind == "number":
            found.append((kind, decoder.number(what[1]), what[1]))
        else:
            found.append((kind, decoder.any_number()))
    decoder.finish()
    return found


class Interval:
    """The encoder of the specification: `low` is a number of any length, and nothing is ever carried."""

    def __init__(self):
        self.low, self.range, self.shifts = 0, 2**32 - 1, 0

    def take(self, bound, upper):
        if upper:
            self.low, self.range = self.low + bound, self.range - bound
        else:
            self.range = bound
        while self.range < 2**24:
            self.low, self.range, self.shifts = self.low * 256, self.range * 256, self.shifts + 1

    def bit(self, bit, yes):
        self.take(self.range * (bit.probability // 64) // 65536, not yes)
        bit.learn(yes)

    def number(self, value, n_bits):
        for shift in reversed(range(n_bits)):
            self.take(self.range // 2, value >> shift & 1)

    def any_number(self, value):
        self.number(value + 1, 2 * (value + 1).bit_length() - 1)

    def shortest(self):
        """The shortest bytes whose number is in the interval, the lowest of them."""
        size = self.shifts + 4
        for n_bytes in range(size + 1):
            unit = 256 ** (size - n_bytes)
            value = -(-self.low // unit)
            if value * unit < self.low + self.range:
                return value.to_bytes(n_bytes, "big")
        raise AssertionError("the interval is empty")


def skewed(length, probability, seed=0):
    draw = random.Random(seed)
    return [draw.random() < probability for _ in range(length)]


@patiently
@given(SEQUENCES)
def test_what_is_coded_comes_back(sequence):
    assert decoded(encoded(sequence), sequence) == sequence


@patiently
@given(SEQUENCES)
def test_the_bytes_are_the_shortest_of_the_interval(sequence):
    interval = Interval()
    run(interval, sequence)
    assert encoded(sequence) == interval.shortest()


def test_carries_reach_all_the_bytes_that_they_change(monkeypatch):
    carries = []
    carry = Encoder._carry

    def observed(coder):
        carries.append(coder._out[-1:] == b"\xff")
        carry(coder)

    monkeypatch.setattr(Encoder, "_carry", observed)
    sequence = [("bit", 1, yes) for yes in skewed(60_000, 0.3)]
    data = encoded(sequence)
    assert carries.count(False) > 100
    assert carries.count(True) > 0
    assert decoded(data, sequence) == sequence


@pytest.mark.parametrize("probability", [0.001, 0.02, 0.3])
def test_a_long_skewed_sequence_costs_its_entropy(probability):
    yeses = skewed(60_000, probability)
    share = sum(yeses) / len(yeses)
    entropy = -len(yeses) * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    coder, bit = Encoder(), Bit(round(probability * 2**PROBABILITY_BITS), 128)
    for yes in yeses:
        coder.bit(bit, yes)
    assert 8 * len(coder.finish()) < 1.01 * entropy + 32


def test_a_number_costs_its_bits():
    draw = random.Random(0)
    data = encoded([("number", draw.randrange(2**10), 10) for _ in range(1000)])
    assert 1250 - 4 <= len(data) <= 1250 + 1


def test_nothing_at_all_takes_no_bytes():
    assert encoded([]) == b""
    assert decoded(b"", []) == []


def test_what_was_likely_takes_no_bytes():
    sequence = [("bit", 2, True)] * 50
    assert encoded(sequence) == b""
    assert decoded(b"", sequence) == sequence


@pytest.mark.parametrize("yes", [True, False])
def test_no_decision_ever_becomes_certain(yes):
    bit = Bit(HALF, 0)
    for _ in range(5000):
        bit.learn(yes)
    assert LEAST_PROBABILITY <= bit.probability <= 2**PROBABILITY_BITS - LEAST_PROBABILITY


@patiently
@given(SEQUENCES, st.binary(min_size=1, max_size=8))
def test_bytes_that_nobody_asks_for_are_refused(sequence, more):
    interval = Interval()
    run(interval, sequence)
    with pytest.raises(DamagedFileError):
        decoded(encoded(sequence).ljust(interval.shifts + 4, b"\0") + more, sequence)


@patiently
@given(SEQUENCES)
def test_a_zero_at_the_end_is_refused(sequence):
    with pytest.raises(DamagedFileError):
        decoded(encoded(sequence) + b"\0", sequence)


@patiently
@given(SEQUENCES, st.binary(max_size=100))
def test_any_bytes_give_decisions_or_are_refused(sequence, data):
    try:
        found = decoded(data, sequence)
    except DamagedFileError:
        return
    assert decoded(encoded(found), found) == found


def test_a_number_without_an_end_is_refused():
    with pytest.raises(DamagedFileError, match="no end"):
        Decoder(b"").any_number()


def test_the_example_of_the_specification():
    coder, bit, probabilities = Encoder(), Bit(2**21, 8), []
    for yes in (True, True, False, True):
        coder.bit(bit, yes)
        probabilities.append(bit.probability)
    coder.number(5, 3)
    coder.any_number(6)
    assert probabilities == [2317904, 2496608, 2279511, 2432694]
    assert coder.finish() == bytes.fromhex("3442")
