"""True tokens to corrections and back."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cramzip.coding import corrections
from cramzip.coding.corrections import SHIFT_BITS, TokenDecoder, TokenEncoder, bucket, shift_of
from cramzip.coding.ranks import Step, rank
from cramzip.errors import DamagedFileError
from cramzip.rangecoder import LEAST_PROBABILITY, PROBABILITY_BITS, Encoder

FINE, COARSE = 2.0**-14, 2.0**-6
NEARLY_ALL = 0.98  # of a noise bound, so that the rounding of a logit does not go beyond it

patiently = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([1, 2, 3, 9, 40, 300])
bounds = st.sampled_from([1.0, COARSE, 2.0**-12, 2.0**-13, FINE, 2.0**-15])


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_logits(seed, n_tokens, size, spread=3.0):
    return torch.randn(n_tokens, size, generator=generator(seed)) * spread


def likely_tokens(seed, logits):
    """Tokens (T,) drawn as the model says."""
    return torch.multinomial(logits.softmax(1), 1, generator=generator(seed))[:, 0]


def any_tokens(seed, logits):
    return torch.randint(logits.shape[1], (len(logits),), generator=generator(seed))


def noisy(seed, logits, noise_bound):
    """Every logit off by as much as allowed, up or down."""
    signs = 2 * torch.randint(2, logits.shape, generator=generator(seed)) - 1
    return logits + NEARLY_ALL * noise_bound * signs


def encode(logits, tokens, noise_bound, chunk=1000):
    encoder = TokenEncoder(logits.shape[1], noise_bound)
    for part, true in zip(logits.split(chunk), tokens.split(chunk), strict=True):
        encoder.chunk(rank(part, true, noise_bound))
    return encoder.finish()


def decode(data, logits, noise_bound, chunk=1000):
    decoder = TokenDecoder(data, logits.shape[1], noise_bound)
    tokens = []
    for part in logits.split(chunk):
        decoder.begin_chunk(len(part))
        for t in range(len(part)):
            tokens.append(decoder.token(t, Step(part[t : t + 1], noise_bound), 0))
    decoder.finish()
    return tokens


def written(*what):
    """Bytes of numbers: (value, bits), or one without a bound."""
    coder = Encoder()
    for one in what:
        if isinstance(one, tuple):
            coder.number(*one)
        else:
            coder.any_number(one)
    return coder.finish()


@patiently
@given(seeds, sizes, st.integers(1, 30), st.integers(1, 12), bounds)
def test_tokens_come_back(seed, size, n_tokens, chunk, noise_bound):
    logits = random_logits(seed, n_tokens, size)
    tokens = any_tokens(seed, logits)
    assert decode(encode(logits, tokens, noise_bound, chunk), logits, noise_bound, chunk) == tokens.tolist()


@patiently
@given(seeds, sizes, bounds, st.sampled_from([1.0, 3.0, 6.0]))
def test_tokens_come_back_under_the_strongest_noise(seed, size, noise_bound, spread):
    logits = random_logits(seed, 20, size, spread)
    tokens = any_tokens(seed, logits)
    data = encode(logits, tokens, noise_bound, 7)
    assert decode(data, noisy(seed + 1, logits, noise_bound), noise_bound, 7) == tokens.tolist()


@patiently
@given(seeds, sizes, st.sampled_from([COARSE, FINE]), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_tokens_come_back_where_logits_are_equal_or_nearly(seed, size, noise_bound, gap):
    logits = random_logits(seed, 10, size).round() * gap * noise_bound
    tokens = any_tokens(seed, logits)
    data = encode(logits, tokens, noise_bound)
    assert decode(data, logits, noise_bound) == tokens.tolist()
    assert decode(data, noisy(seed + 1, logits, noise_bound), noise_bound) == tokens.tolist()


@patiently
@given(seeds, st.sampled_from([COARSE, FINE]), st.integers(-2, 2), st.integers(-1, 1))
def test_tokens_come_back_from_confidences_on_a_border(seed, noise_bound, border, side):
    """Of two tokens, at all places, one is as likely as the border of a bucket says, or off by the noise."""
    width = corrections.FINE_BUCKET if noise_bound == FINE else corrections.COARSE_BUCKET
    shift = shift_of(seed % 4, width)
    confidence = border * width + shift + 2 * side * noise_bound
    logits = torch.tensor([[confidence, 0.0]]).expand(40, 2)
    tokens = any_tokens(seed, logits)
    data = encode(logits, tokens, noise_bound)
    for direction in (1, -1):
        moved = logits + NEARLY_ALL * noise_bound * direction * torch.tensor([1, -1])
        assert decode(data, moved, noise_bound) == tokens.tolist()


@pytest.mark.parametrize(("noise_bound", "some"), [(COARSE, True), (FINE, False)])
def test_only_strong_noise_takes_tokens_that_are_spelled_out(noise_bound, some, monkeypatch):
    counts = []
    choose = TokenEncoder._choose_shift

    def observed(*arguments):
        index, exceptions = choose(*arguments)
        counts.append(len(exceptions))
        return index, exceptions

    monkeypatch.setattr(TokenEncoder, "_choose_shift", observed)
    logits = random_logits(0, 500, 50)
    tokens = likely_tokens(0, logits)
    assert decode(encode(logits, tokens, noise_bound), logits, noise_bound) == tokens.tolist()
    assert (counts[0] > 0) == some
    assert counts[0] < 250


@pytest.mark.parametrize("spread", [3.0, 5.0])
def test_the_cost_is_near_the_ideal(spread):
    logits = random_logits(0, 1024, 2000, spread)
    tokens = likely_tokens(0, logits)
    ideal = -logits.log_softmax(1).gather(1, tokens[:, None]).sum().item() / math.log(2)
    assert 8 * len(encode(logits, tokens, FINE, 512)) < 1.03 * ideal


def test_what_a_confident_model_says_takes_next_to_nothing():
    logits = torch.zeros(1000, 500)
    logits[:, 7] = 20
    assert len(encode(logits, torch.full((1000,), 7), FINE)) < 10


def test_a_bucket_learns_where_the_model_is_wrong():
    logits = torch.zeros(1000, 500)
    logits[:, 7] = 6  # says 45 %, is always right
    assert len(encode(logits, torch.full((1000,), 7), FINE)) < 1000 * -math.log2(0.45) / 8 / 3


def test_a_damaged_stream_gives_other_tokens_or_is_refused():
    logits = random_logits(0, 12, 300)
    tokens = likely_tokens(0, logits)
    data = encode(logits, tokens, FINE)
    n_refused = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert len(decode(bytes(damaged), logits, FINE)) == len(tokens)
        except DamagedFileError:
            n_refused += 1
    assert n_refused


@patiently
@given(st.binary(max_size=30), sizes, bounds)
def test_any_bytes_give_tokens_or_are_refused(data, size, noise_bound):
    try:
        tokens = decode(data, random_logits(0, 6, size), noise_bound, 4)
    except DamagedFileError:
        return
    assert all(0 <= token < size for token in tokens)


def test_the_end_of_the_data_is_the_end_of_the_tokens():
    logits = random_logits(0, 12, 300)
    data = encode(logits, any_tokens(0, logits), FINE)
    with pytest.raises(DamagedFileError):
        decode(data + b"\0\0\0\0\1", logits, FINE)
    with pytest.raises(DamagedFileError):
        decode(data + b"\0", logits, FINE)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (written(2**SHIFT_BITS, 0), "shift 1024"),
        (written(0, 3), "3 exceptions"),
        (written(0, 1, (0, 1), (5, 3)), "token 5 of 5"),
        (written(0, 2, (1, 1), (0, 1)), "out of order"),
        (written(0, 2, (1, 1), (1, 1)), "out of order"),
    ],
)
def test_numbers_beyond_their_limits_are_refused(data, fault):
    with pytest.raises(DamagedFileError, match=fault):
        decode(data, torch.zeros(2, 5), FINE)


def last_of_nine(logits, index):
    """Corrections, so far, of a token in the last rank class of 9: it has one rank, but an index of one bit."""
    model, coder = corrections._Probabilities(9, FINE), Encoder()
    model.shift = shift_of(0, model.width)
    coder.any_number(0)
    coder.any_number(0)
    for rank_class, at in enumerate(bucket(Step(logits, FINE).confidence[0], model.shift, model.width)[:-1]):
        coder.bit(model.in_class(rank_class, int(at)), False)
    coder.number(index, 1)
    return model, coder


def test_a_rank_beyond_the_vocabulary_is_refused():
    logits = random_logits(0, 1, 9)
    _, coder = last_of_nine(logits, 1)
    with pytest.raises(DamagedFileError, match="rank 9 of 9"):
        decode(coder.finish(), logits, FINE)


@pytest.mark.parametrize("n_bits", [5, 2**32])
def test_more_bits_of_an_id_than_there_are_are_refused(n_bits):
    logits = random_logits(0, 1, 9)
    model, coder = last_of_nine(logits, 0)
    coder.bit(model.near(8), True)
    coder.any_number(n_bits - 1)
    with pytest.raises(DamagedFileError, match="at most 4"):
        decode(coder.finish(), logits, FINE)


@pytest.mark.parametrize("width", [corrections.FINE_BUCKET, corrections.COARSE_BUCKET])
def test_shifts_fill_half_a_bucket_ever_finer(width):
    shifts = [shift_of(index, width) / width for index in range(2**SHIFT_BITS)]
    assert shifts[:4] == [-1 / 4, 0, -1 / 8, 1 / 8]
    assert len(set(shifts)) == 2**SHIFT_BITS
    assert -1 / 4 == min(shifts) < max(shifts) < 1 / 4
    for n in (16, 256, 2**SHIFT_BITS):
        assert max(b - a for a, b in pairwise(sorted(shifts[:n]))) <= 1 / (2 * n)


@pytest.mark.parametrize("noise_bound", [COARSE, FINE])
def test_no_first_probability_depends_on_the_last_digits_of_an_exponential(noise_bound):
    model = corrections._Probabilities(300, noise_bound)
    shifts = np.array([shift_of(index, model.width) for index in range(2**SHIFT_BITS)])
    half = int(corrections.LIMIT / model.width)
    middles = (np.arange(-half, half) + 0.5) * model.width + shifts[:, None]
    probabilities = 2**PROBABILITY_BITS / (1 + np.exp(-middles))
    from_a_tie = np.abs(probabilities - np.floor(probabilities) - 0.5)
    assert from_a_tie.min() > 1e-6


@pytest.mark.parametrize("bucket", [-24, -1, 0, 5, 23])
def test_a_first_probability_is_that_of_the_middle_of_its_bucket(bucket):
    model = corrections._Probabilities(300, FINE)
    model.shift = shift_of(2, model.width)
    expected = round(2**PROBABILITY_BITS / (1 + math.exp(-((bucket + 0.5) / 2 - 1 / 16))))
    clamped = min(max(expected, LEAST_PROBABILITY), 2**PROBABILITY_BITS - LEAST_PROBABILITY)
    assert model.in_class(0, bucket).probability == clamped


def test_probabilities_stay_when_the_shift_changes():
    model = corrections._Probabilities(300, FINE)
    bit = model.in_class(5, 3)
    model.shift = shift_of(1, model.width)
    assert model.in_class(2, 3) is bit
    assert model.in_class(1, 3) is not bit


def test_the_example_of_the_specification():
    logits = torch.tensor([[2.0, 1, 0, -1], [2, 1, 0, -1], [0, 2, 2, -1]])
    data = encode(logits, torch.tensor([0, 2, 1]), FINE)
    assert data == bytes.fromhex("e4a8d9")
    assert decode(data, logits, FINE) == [0, 2, 1]
