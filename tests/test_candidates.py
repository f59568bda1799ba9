"""Candidates before ranks: what a group so far says of its next token, with a model in floats."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode import NoisyLM, broken_by, restored

from cramzip import compress, read
from cramzip.coding import corrected
from cramzip.coding.candidates import (
    LEAST_TOKENS,
    MOST_CANDIDATES,
    Expectations,
    Foresight,
    ask,
    left_out,
    odds,
    rank_rest,
)
from cramzip.coding.corrections import TokenDecoder, TokenEncoder
from cramzip.coding.decode import _Rows
from cramzip.coding.ranks import LEAST_LOGIT, rank
from cramzip.config import CramConfig
from cramzip.errors import DamagedFileError
from cramzip.exact.contexts import Kinds
from cramzip.lm.source import find

sys.path.insert(0, str(Path(__file__).parent.parent / "formats"))

import candidates as reference
from corrections import Corrections, Impossible
from models import TINY_MODEL, recital

COARSE, FINE = 2.0**-6, 2.0**-14
NEARLY_ALL = 0.98  # of a noise bound, so that the rounding of a logit does not go beyond it
MANY = LEAST_TOKENS  # tokens of a group that may learn

patiently = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([1, 2, 3, 4, 9, 300])
bounds = st.sampled_from([1.0, COARSE, 2.0**-10, FINE])


def table_of(size):
    """What the tokens of a vocabulary stand for: bytes, and nothing for those beyond."""
    return [bytes([value]) for value in range(min(size, 256))]


def kinds_of_size(size):
    return Kinds([*table_of(size), *[None] * (size - min(size, 256))])


def repetitive(random, n_tokens, size):
    """Tokens that often say again what was said before."""
    tokens = random.randint(size, size=8).tolist()
    while len(tokens) < n_tokens:
        begin = random.randint(len(tokens))
        tokens += [*tokens[begin : begin + random.randint(1, 12)], int(random.randint(size))]
    return tokens[:n_tokens]


def text_of(seed, n_tokens, size, spread=3.0):
    random = np.random.RandomState(seed)
    logits = torch.from_numpy((random.randn(n_tokens, size) * spread).astype(np.float32))
    if seed % 3 == 0:
        logits[::4] = logits[::4].round()  # ties
    return logits, torch.tensor(repetitive(random, n_tokens, size))


def noisy(seed, logits, noise_bound):
    signs = 2 * torch.randint(2, logits.shape, generator=torch.Generator().manual_seed(seed)) - 1
    return logits + NEARLY_ALL * noise_bound * signs


def encode(logits, tokens, noise_bound, chunk=100):
    size = logits.shape[1]
    kinds = kinds_of_size(size)
    encoder = TokenEncoder(size, noise_bound, MANY, Expectations(kinds, size))
    foresight = Foresight(kinds, size)
    for part, true in zip(logits.split(chunk), tokens.split(chunk), strict=True):
        candidates = foresight.of(true.tolist())
        ranked = rank_rest(rank(part, true, noise_bound), part, true, candidates, noise_bound)
        encoder.chunk(ranked, ask(part, candidates))
    return encoder.finish()


def decode(data, logits, noise_bound, chunk=100):
    size = logits.shape[1]
    decoder = TokenDecoder(data, size, noise_bound, MANY, kinds_of_size(size))
    tokens = []
    for part in logits.split(chunk):
        shift = decoder.begin_chunk(len(part))
        rows = _Rows([decoder], [len(part)], np.array([[shift]]), noise_bound)
        for t in range(len(part)):
            tokens += rows.tokens(t, part[t : t + 1])
    decoder.finish()
    return tokens


@patiently
@given(seeds, sizes, st.integers(1, 80), st.integers(1, 30), bounds)
def test_tokens_come_back(seed, size, n_tokens, chunk, noise_bound):
    logits, tokens = text_of(seed, n_tokens, size)
    assert decode(encode(logits, tokens, noise_bound, chunk), logits, noise_bound, chunk) == tokens.tolist()


@patiently
@given(seeds, sizes, bounds, st.sampled_from([0.01, 1.0, 3.0, 8.0]))
def test_tokens_come_back_under_the_strongest_noise(seed, size, noise_bound, spread):
    logits, tokens = text_of(seed, 60, size, spread)
    data = encode(logits, tokens, noise_bound, 25)
    assert decode(data, noisy(seed + 1, logits, noise_bound), noise_bound, 25) == tokens.tolist()


@patiently
@given(seeds, sizes)
def test_tokens_come_back_where_the_model_rules_tokens_out(seed, size):
    logits, tokens = text_of(seed, 60, size)
    ruled_out = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    ruled_out[:, 0] = False
    logits = logits.masked_fill(ruled_out, -torch.inf)
    assert decode(encode(logits, tokens, FINE), logits, FINE) == tokens.tolist()


@patiently
@given(seeds, st.sampled_from([2, 3, 9]), st.sampled_from([COARSE, FINE]))
def test_odds_move_by_no_more_than_the_ranks_withstand(seed, size, noise_bound):
    logits, tokens = text_of(seed, 40, size)
    candidates = Foresight(kinds_of_size(size), size).of(tokens.tolist())
    before, after = odds(logits, candidates), odds(noisy(seed, logits, noise_bound), candidates)
    for row, old, new in zip(candidates, before, after, strict=True):
        assert (np.abs(old - new)[: len(row)] < 2.1 * noise_bound).all()


def test_odds_are_those_of_the_model_without_what_failed():
    logits = torch.tensor([[1.0, 2.0, 0.5, -1.0, 0.0]])
    found = odds(logits, [[1, 3, 0]])[0]
    for i, (candidate, failed) in enumerate([(1, []), (3, [1]), (0, [1, 3])]):
        share = logits[0].index_fill(0, torch.tensor(failed, dtype=torch.long), -torch.inf).softmax(0)[candidate].item()
        assert found[i] == pytest.approx(math.log(share / (1 - share)), abs=1e-5)


def test_what_is_left_out_is_out_of_the_way_and_nothing_else():
    logits = torch.randn(3, 5)
    found = left_out(logits, [[], [4], [0, 2, 3]])
    assert (found == LEAST_LOGIT).nonzero().tolist() == [[1, 4], [2, 0], [2, 2], [2, 3]]
    assert torch.equal(found[0], logits[0])


def test_candidates_are_what_followed_before():
    expectations = Expectations(kinds_of_size(9), 9)
    for token in [1, 2, 3, 1, 2, 3, 1, 2]:
        expectations.candidates()
        expectations.move(token)
    assert expectations.candidates()[0] == 3
    assert len(Expectations(kinds_of_size(2), 2).candidates()) <= 1


def test_nothing_is_asked_after_the_token():
    asked = Foresight(kinds_of_size(9), 9).of([1, 2, 1, 2, 1, 2])
    assert asked[0] == []
    assert [row[-1] for row in asked[3:]] == [2, 1, 2]
    assert all(len(row) <= MOST_CANDIDATES for row in asked)


def test_what_repeats_itself_takes_far_less():
    logits = torch.zeros(600, 300)
    tokens = torch.tensor(np.random.RandomState(0).randint(300, size=30).tolist() * 20)
    plain = TokenEncoder(300, FINE)
    plain.chunk(rank(logits, tokens, FINE))
    assert len(encode(logits, tokens, FINE)) < len(plain.finish()) / 5


@patiently
@given(st.binary(max_size=30), sizes, bounds)
def test_any_bytes_give_tokens_or_are_refused(data, size, noise_bound):
    try:
        tokens = decode(b"\xe0" + data, torch.randn(6, size, generator=torch.Generator().manual_seed(0)), noise_bound)
    except DamagedFileError:
        return
    assert all(0 <= token < size for token in tokens)


@pytest.mark.parametrize("spoilt", [torch.inf, torch.nan])
def test_a_spoilt_logit_is_refused_also_if_it_is_that_of_a_candidate(spoilt):
    tokens = torch.tensor([3, 5] * 10)
    logits = torch.zeros(20, 9)
    data = encode(logits, tokens, FINE)
    logits[-1, 5] = spoilt
    with pytest.raises(DamagedFileError):
        decode(data, logits, FINE)


# ---------------------------------------------------------------- whole groups and files


TABLE = "".join(f"row {n:03}, the value is {n * n % 7}; next\n" for n in range(40)).encode()


@pytest.fixture
def groups(monkeypatch, never_stored):
    """Groups of some more than 256 tokens; of all that are made, how many learn."""
    monkeypatch.setattr(corrected, "GROUP_TOKENS", 400)
    monkeypatch.setattr(corrected, "CRAMMED_GROUP_TOKENS", 400)
    found, finish = [], corrected._Encoder.finish

    def observed(encoder):
        data = finish(encoder)
        found.append(encoder._learning is not None and data[0] >= 0x80)  # the first bit coded: a range of two halves
        return data

    monkeypatch.setattr(corrected._Encoder, "finish", observed)
    return found


@pytest.fixture(scope="module")
def inexact():
    return NoisyLM(find(str(TINY_MODEL)))


@pytest.mark.parametrize("n_vectors", [0, 1])
@pytest.mark.parametrize("exponent", [14, 8])
def test_files_that_learn_withstand_noise(inexact, groups, n_vectors, exponent):
    config = CramConfig(vectors=n_vectors, noise_exponent=exponent, chunk_tokens=90, context=20, max_steps=2)
    blob = compress(TABLE, inexact, config)
    assert sum(groups) > 1
    assert broken_by(inexact, blob, TABLE, 2.0**-exponent) == []


def test_no_noise_is_withstood_where_odds_of_candidates_may_be_near_borders(inexact, groups, monkeypatch):
    relied_on = TokenEncoder._relied_on
    monkeypatch.setattr(
        TokenEncoder, "_relied_on", lambda self, ranked, classes, _: relied_on(self, ranked, classes, None)
    )
    config = CramConfig(vectors=0, noise_exponent=8, chunk_tokens=90, context=20)
    blob = compress(TABLE, inexact, config)
    assert sum(groups) > 1
    assert broken_by(inexact, blob, TABLE, 2.0**-8)


@pytest.mark.usefixtures("groups")
def test_a_group_has_candidates_only_where_that_takes_less(inexact, monkeypatch):
    finish, sizes = TokenEncoder.finish, []

    def observed(encoder):
        data = finish(encoder)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(TokenEncoder, "finish", observed)
    noise = bytes(np.random.RandomState(0).randint(32, 127, size=700).tolist())
    blob = compress(noise, inexact, CramConfig(vectors=0, noise_exponent=14, chunk_tokens=90, context=20))
    learning, plain = sizes[::2], sizes[1::2]
    assert {one < other for one, other in zip(learning, plain, strict=True)} == {False, True}
    assert [entry.payload_size for entry in read(blob).entries] == list(map(min, learning, plain))


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.usefixtures("groups")
def test_groups_with_and_without_candidates_are_decoded_side_by_side(inexact, batch_size, monkeypatch):
    turns = []

    def by_turns(encoder):
        turns.append(encoder._learning if len(turns) % 3 else encoder._plain)
        return turns[-1].finish()

    monkeypatch.setattr(corrected._Encoder, "finish", by_turns)
    text = TABLE + recital(inexact, 500)
    blob = compress(text, inexact, CramConfig(vectors=0, noise_exponent=8, chunk_tokens=90, context=20))
    assert len(turns) > 3
    assert b"".join(restored(blob, inexact, batch_size=batch_size)) == text


# ---------------------------------------------------------------- the reference reader


def until_refused(tokens, found):
    try:
        for token in tokens:
            found.append(token)
    except (DamagedFileError, Impossible):
        found.append(None)
    return found


def by_reference(data, logits, exponent, chunk=100):
    size = logits.shape[1]
    decoder = Corrections(data, size, exponent, MANY, lambda: reference.Expectations(table_of(size), size))
    for first in range(0, len(logits), chunk):
        part = logits[first : first + chunk]
        decoder.begin_chunk(len(part))
        for row in part.numpy():
            yield decoder.token(row)
    decoder.coder.check_end()


@pytest.mark.parametrize("exponent", [0, 6, 12, 14])
@pytest.mark.parametrize("size", [1, 2, 3, 9, 300])
@pytest.mark.parametrize("spread", [0.01, 3.0, 30.0])
def test_reference_reader_decodes_candidates_of_any_logits(size, spread, exponent):
    logits, tokens = text_of(size, 120, size, spread)
    data = encode(logits, tokens, 2.0**-exponent, 70)
    assert list(by_reference(data, logits, exponent, 70)) == tokens.tolist()


def test_reference_reader_learns_as_long_as_a_group_goes():
    logits, tokens = text_of(5, 3000, 40)
    data = encode(logits, tokens, FINE, 768)
    assert list(by_reference(data, logits, 14, 768)) == tokens.tolist()


def by_library(data, logits, noise_bound):
    size = logits.shape[1]
    decoder = TokenDecoder(data, size, noise_bound, MANY, kinds_of_size(size))
    rows = _Rows([decoder], [len(logits)], np.array([[decoder.begin_chunk(len(logits))]]), noise_bound)
    for t in range(len(logits)):
        yield rows.tokens(t, logits[t : t + 1])[0]
    decoder.finish()


@pytest.mark.parametrize("seed", range(60))
def test_both_readers_make_the_same_of_any_bytes(seed):
    random = np.random.RandomState(seed)
    size, exponent = (2, 3, 9, 40)[seed % 4], int(random.randint(16))
    logits = torch.from_numpy((random.randn(40, size) * 3).astype(np.float32))
    data = bytes([random.randint(0xE0, 0x100)]) + random.bytes(random.randint(1, 40))  # learns; Shift 0, no exceptions
    found = until_refused(by_library(data, logits, 2.0**-exponent), [])
    assert until_refused(by_reference(data, logits, exponent), []) == found
