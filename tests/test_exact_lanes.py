"""Texts in lanes: what is encoded at once is decoded step by step, whatever the number of lanes."""

import math
from contextlib import suppress

import numpy as np
import pytest
from test_exact_llama import GROUPED, PLAIN, random_model, random_tokens

from cramzip.errors import DamagedFileError
from cramzip.exact import lanes, run
from cramzip.exact.cache import WINDOW
from cramzip.exact.probabilities import TOTAL, counts, cumulated
from cramzip.exact.rotations import MAX_POSITIONS
from cramzip.exact.run import Options


@pytest.fixture(scope="module", params=[GROUPED, PLAIN], ids=["grouped", "plain"])
def model(request):
    return random_model(request.param)


def tokens_of(model, n, seed=0):
    return random_tokens(model.shape, n, seed=seed).tolist()


@pytest.mark.parametrize(("n_tokens", "n_lanes"), [(0, 1), (1, 1), (2, 2), (5, 3), (100, 1), (101, 7), (130, 64)])
def test_tokens_come_back(model, n_tokens, n_lanes):
    tokens = tokens_of(model, n_tokens)
    payload = lanes.encode_lanes(model, tokens, n_lanes)
    assert lanes.decode_lanes(model, payload, n_tokens, n_lanes) == tokens


def test_tokens_come_back_from_beyond_the_window():
    model = random_model(PLAIN)
    tokens = tokens_of(model, 2 * (WINDOW + 300) + 1)
    payload = lanes.encode_lanes(model, tokens, 2)
    assert lanes.decode_lanes(model, payload, len(tokens), 2) == tokens


def test_no_tokens_take_no_bytes(model):
    assert lanes.encode_lanes(model, [], 1) == b""


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_threads_change_nothing(model, threads):
    tokens = tokens_of(model, 90)
    payload = lanes.encode_lanes(model, tokens, 8)
    assert lanes.encode_lanes(model, tokens, 8, Options(threads=threads)) == payload
    assert lanes.decode_lanes(model, payload, 90, 8, Options(threads=threads)) == tokens


@pytest.mark.parametrize("at_once", [1, 40, 10**6])
def test_how_much_the_encoder_computes_at_once_changes_nothing(model, at_once, monkeypatch):
    tokens = tokens_of(model, 300)
    payload = lanes.encode_lanes(model, tokens, 4)
    monkeypatch.setattr(lanes, "TOKENS_AT_ONCE", at_once)
    assert lanes.encode_lanes(model, tokens, 4) == payload


@pytest.mark.parametrize("n_lanes", [1, 3])
def test_a_right_guess_saves_steps_and_changes_nothing(model, n_lanes, monkeypatch):
    tokens = tokens_of(model, 200)
    payload = lanes.encode_lanes(model, tokens, n_lanes)
    forward, calls = model.forward, []
    monkeypatch.setattr(model, "forward", lambda *how: calls.append(how) or forward(*how), raising=False)
    assert lanes.decode_lanes(model, payload, 200, n_lanes, guess=tokens) == tokens
    assert len(calls) <= 5


def test_a_wrong_guess_is_found_out_and_damage_is_damage(model):
    tokens = tokens_of(model, 40)
    payload = lanes.encode_lanes(model, tokens, 2)
    for place in (0, 1, 25, 39):
        with pytest.raises(lanes.OtherTokenError):
            lanes.decode_lanes(model, payload, 40, 2, guess=[*tokens[:place], tokens[place] ^ 1, *tokens[place + 1 :]])
    with pytest.raises(DamagedFileError):
        lanes.decode_lanes(model, payload + b"\1", 40, 2, guess=tokens)


def test_lanes_are_stretches_of_about_equal_length():
    assert lanes.lane_lengths(11, 4) == [3, 3, 3, 2]
    assert lanes.lane_lengths(8, 4) == [2, 2, 2, 2]


class Plain:
    """Learns nothing; the base of learners that do."""

    def sums(self, logits):
        return cumulated(counts(logits, np.ones((1, 1), np.float32)))

    def encode(self, lane, sums, token):
        shares = self.changed(lane, sums)
        self.learn(lane, token)
        return int(shares[:token].sum()), int(shares[token])

    def decode(self, lane, sums, target):
        shares = self.changed(lane, sums)
        token = int(shares.cumsum().searchsorted(target, side="right"))
        self.learn(lane, token)
        return token, int(shares[:token].sum()), int(shares[token])

    def changed(self, lane, sums):
        return np.diff(sums)

    def learn(self, lane, token):
        pass

    def end_step(self, sums, tokens):
        pass


def test_the_payload_is_what_the_lanes_cost(model):
    tokens = tokens_of(model, 400)
    bits = 0.0

    class Bill(Plain):
        def encode(self, lane, sums, token):
            nonlocal bits
            first, count = super().encode(lane, sums, token)
            bits -= math.log2(count / TOTAL)
            return first, count

    payload = lanes.encode_lanes(model, tokens, 5, Options(learner=Bill()))
    assert abs(len(payload) - len(lanes.encode_lanes(model, tokens, 5))) <= 1  # logits are rounded in another place
    assert bits / 8 <= len(payload) <= bits / 8 * 1.000001 + 1


@pytest.mark.parametrize("per_lane", [False, True])
def test_lanes_can_begin_with_vectors(model, per_lane):
    random, tokens = np.random.default_rng(0), tokens_of(model, 50)
    size = (4, 3, model.shape.width) if per_lane else (3, model.shape.width)
    vectors = random.standard_normal(size).astype(np.float32)
    payload = lanes.encode_lanes(model, tokens, 4, Options(vectors=vectors, after_start=True))
    assert payload != lanes.encode_lanes(model, tokens, 4)
    assert lanes.decode_lanes(model, payload, 50, 4, Options(vectors=vectors, after_start=True)) == tokens


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9])
def test_vectors_that_no_sum_can_hold_are_refused(model, value):
    with pytest.raises(DamagedFileError, match="vectors"):
        lanes.decode_lanes(model, b"a", 2, 1, Options(vectors=np.full((1, model.shape.width), value, np.float32)))


class Copycat(Plain):
    """Believes that a lane's next token is the one that followed its last token before, in any lane."""

    def __init__(self, n_lanes):
        self.last, self.after, self.seen, self.steps = [None] * n_lanes, {}, [], []

    def changed(self, lane, sums):
        guess, shares = self.after.get(self.last[lane]), np.diff(sums)
        if guess is None:
            return shares
        shares = np.maximum(shares // 2, 1)
        shares[guess] += TOTAL - shares.sum()
        return shares

    def learn(self, lane, token):
        self.after[self.last[lane]] = token
        self.last[lane] = token
        self.seen.append((lane, token))

    def end_step(self, sums, tokens):
        assert tokens == [token for _, token in self.seen[-len(tokens) :]]
        assert [row.shape for row in sums] == [(len(sums[0]),)] * len(tokens)
        self.steps.append(len(tokens))


def test_a_learner_sees_the_tokens_in_the_order_of_the_coder(model):
    tokens = tokens_of(model, 30) * 5 + [3]
    writer, reader = Copycat(4), Copycat(4)
    payload = lanes.encode_lanes(model, tokens, 4, Options(learner=writer))
    assert lanes.decode_lanes(model, payload, len(tokens), 4, Options(learner=reader)) == tokens
    assert reader.seen == writer.seen
    assert reader.steps == writer.steps == [4] * 37 + [3]
    assert writer.seen[:5] == [(0, tokens[0]), (1, tokens[38]), (2, tokens[76]), (3, tokens[114]), (0, tokens[1])]
    assert len(payload) < len(lanes.encode_lanes(model, tokens, 4))


@pytest.mark.parametrize("n_lanes", [0, -1, 6, run.MOST_LANES + 1])
def test_wrong_numbers_of_lanes_are_refused(model, n_lanes):
    with pytest.raises(ValueError, match="lanes"):
        lanes.encode_lanes(model, tokens_of(model, min(5, abs(n_lanes) + 5)), n_lanes)


def test_lanes_longer_than_the_table_of_cosines_are_refused(model):
    with pytest.raises(ValueError, match="positions"):
        lanes.decode_lanes(model, b"", MAX_POSITIONS + 1, 1)


@pytest.mark.parametrize("token", [-1, 300])
def test_tokens_outside_the_vocabulary_are_refused(model, token):
    with pytest.raises(ValueError, match="vocabulary"):
        lanes.encode_lanes(model, [1, token], 1)


def test_progress_counts_the_tokens(model):
    for call in (
        lambda seen: lanes.encode_lanes(model, tokens_of(model, 23), 4, Options(progress=seen.append)),
        lambda seen: lanes.decode_lanes(model, b"", 23, 4, Options(progress=seen.append)),
    ):
        seen = []
        try:
            call(seen)
        except DamagedFileError:
            pytest.fail("zeros are a code")
        assert seen == sorted(set(seen))
        assert seen[-1] == 23


def test_damaged_payloads_give_tokens_or_an_error_of_the_file(model):
    random, tokens = np.random.default_rng(0), tokens_of(model, 24)
    payload = lanes.encode_lanes(model, tokens, 3)
    for trial in range(60):
        damaged = bytearray(payload)
        damaged[int(random.integers(len(payload)))] ^= 1 << int(random.integers(8))
        data = bytes(damaged[: int(random.integers(len(payload) + 1))] if trial % 3 == 0 else damaged)
        with suppress(DamagedFileError):
            assert lanes.decode_lanes(model, data, 24, 3) != tokens or data == payload
