"""Whole tokens through the range coder, and logits as integer probabilities."""

import math

import numpy as np
import pytest

from cramzip.errors import DamagedFileError
from cramzip.exact.probabilities import TOTAL, counts, cumulated
from cramzip.exact.tokencoder import TokenDecoder, TokenEncoder


def random_counts(random, n_rows, vocabulary, spread):
    units = random.standard_normal((n_rows, vocabulary)).astype(np.float32) * np.float32(spread)
    return counts(units, np.ones((n_rows, 1), np.float32))


def encode(tokens, shares):
    encoder = TokenEncoder()
    for token, sums in zip(tokens, cumulated(shares), strict=True):
        encoder.encode(int(sums[token]), int(sums[token + 1] - sums[token]))
    return encoder.finish()


def decode(data, shares):
    decoder, tokens = TokenDecoder(data), []
    for sums in cumulated(shares):
        token = int(sums.searchsorted(decoder.target(), side="right")) - 1
        decoder.take(int(sums[token]), int(sums[token + 1] - sums[token]))
        tokens.append(token)
    decoder.finish()
    return tokens


@pytest.mark.parametrize("spread", [0, 1e-6, 3, 100, 1e9])
@pytest.mark.parametrize("vocabulary", [1, 2, 300, 4096])
def test_counts_add_up_and_leave_no_token_out(vocabulary, spread):
    shares = random_counts(np.random.default_rng(0), 20, vocabulary, spread)
    assert (shares.sum(axis=1) == TOTAL).all()
    assert shares.min() >= 1


def test_counts_are_the_softmax():
    units = np.random.default_rng(0).standard_normal((50, 4096)).astype(np.float32) * 3
    p = np.exp(units.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    q = counts(units, np.ones((50, 1), np.float32)) / TOTAL
    assert (p * np.log2(p / q)).sum(axis=1).max() < 1e-4 * (-p * np.log2(p)).sum(axis=1).min()


def test_what_is_left_over_goes_to_the_first_of_the_likeliest():
    ((few, first, second, fewer),) = counts(np.array([[2, 5, 5, 1]], np.float32), np.ones((1, 1), np.float32)).tolist()
    assert first == second + 2 > few > fewer


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread", [0, 2, 60])
def test_tokens_come_back(seed, spread):
    random = np.random.default_rng(seed)
    n = int(random.integers(0, 400))
    shares, tokens = random_counts(random, n, 500, spread), random.integers(0, 500, n).tolist()
    assert decode(encode(tokens, shares), shares) == tokens


@pytest.mark.parametrize("n", [1, 5, 100, 5000])
def test_the_payload_is_no_longer_than_the_information_and_a_byte(n):
    random = np.random.default_rng(n)
    shares = random_counts(random, n, 200, 3)
    tokens = [int(random.choice(200, p=row / TOTAL)) for row in shares]
    bits = -sum(math.log2(row[token] / TOTAL) for row, token in zip(shares, tokens, strict=True))
    assert len(encode(tokens, shares)) <= bits / 8 * (1 + 1e-6) + 1


def test_no_tokens_take_no_bytes():
    assert TokenEncoder().finish() == b""
    TokenDecoder(b"").finish()


def test_a_certain_token_takes_no_bytes():
    encoder = TokenEncoder()
    for _ in range(1000):
        encoder.encode(0, TOTAL)
    assert encoder.finish() == b""


@pytest.mark.parametrize("token", [0, 1])
def test_carries_run_through_long_rows_of_ones(token):
    """The interval lies across a border of bytes until the last token puts it on one side."""
    encoder, expected = TokenEncoder(), []
    for first, count in [(TOTAL // 2 - 1, 2)] * 400 + [(token, 1)]:
        encoder.encode(first, count)
        expected.append((first, count))
    decoder = TokenDecoder(encoder.finish())
    for first, count in expected:
        assert first <= decoder.target() < first + count
        decoder.take(first, count)
    decoder.finish()


@pytest.mark.parametrize("extra", [b"\0", b"\1", b"abc", bytes(9), b"abcdefghi"])
def test_bytes_left_over_are_damage(extra):
    random = np.random.default_rng(0)
    shares, tokens = random_counts(random, 40, 100, 2), random.integers(0, 100, 40).tolist()
    with pytest.raises(DamagedFileError):
        decode(encode(tokens, shares) + extra, shares)


def test_a_code_of_no_token_is_damage():
    decoder = TokenDecoder(b"\xff" * 8)
    with pytest.raises(DamagedFileError, match="no token"):
        decoder.target()


def test_damaged_bytes_give_tokens_or_an_error_of_the_file():
    random = np.random.default_rng(0)
    shares, tokens = random_counts(random, 60, 300, 3), random.integers(0, 300, 60).tolist()
    data = encode(tokens, shares)
    for trial in range(300):
        damaged = bytearray(data)
        for _ in range(1 + trial % 3):
            damaged[int(random.integers(len(data)))] = int(random.integers(256))
        damaged = damaged[: int(random.integers(len(data) + 1))] if trial % 2 else damaged
        try:
            found = decode(bytes(damaged), shares)
        except DamagedFileError:
            continue
        assert len(found) == 60
        assert (found == tokens) == (bytes(damaged) == data)
