"""The adapter: the same bits from the library and from the reference, in float64, and in torch; and its bounds."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from test_exact_llama import GROUPED, PLAIN, random_model, random_tensors, random_tokens
from test_exact_reference import FORMATS, reference

from cramzip.errors import ModelError
from cramzip.exact import lanes, probe
from cramzip.exact.adapter import RATE, WARM_UP, Adapter
from cramzip.exact.arithmetic import EXACT_IN_FLOAT32, WEIGHT_MOST
from cramzip.exact.learner import Learner
from cramzip.exact.llama import Llama
from cramzip.exact.probabilities import TOTAL, cumulated
from cramzip.exact.run import MOST_LANES, Options
from cramzip.exact.weights import assemble
from cramzip.lm.exact_torch import TorchLlama

sys.path.insert(0, str(FORMATS))

import exact
import learner as specified


def some_states(chance, shape, n_lanes):
    """Integers and scales of states."""
    integers = np.rint(chance.standard_normal((n_lanes, shape.width)) * 99).astype(np.float32)
    return integers, (chance.random((n_lanes, 1)) + 0.01).astype(np.float32) / 50


def some_counts(chance, shape, n_lanes, spread):
    parts = chance.standard_exponential((n_lanes, shape.vocabulary)) ** spread
    shares = (parts / parts.sum(axis=1, keepdims=True) * (TOTAL - shape.vocabulary)).astype(np.int32) + 1
    shares[:, 0] += TOTAL - shares.sum(axis=1)
    return shares


@pytest.mark.parametrize("shape", [GROUPED, PLAIN], ids=["head", "tied"])
@pytest.mark.parametrize(("n_lanes", "n_steps"), [(1, 9), (300, 5), (1024, 2)])
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_the_adapter_is_that_of_the_specification(shape, n_lanes, n_steps, wide):
    chance = np.random.default_rng(n_lanes)
    ours, twin = Adapter(Llama(random_model(shape).weights, wide=wide)), specified.Adapter(reference(shape))
    for step in range(n_steps):
        n = max(1, n_lanes - step)
        states, shares = some_states(chance, shape, n), some_counts(chance, shape, n, step)
        logits = ours.logits(*states)
        tokens = chance.integers(0, 9, n).tolist()
        for lane in range(n):
            y, t = twin.said(states[0][lane].astype(np.int64), states[1][lane, 0])
            np.testing.assert_array_equal(logits[lane], y * t)
            twin.after(tokens[lane], shares[lane])
        ours.learn(states, cumulated(shares), tokens)
        twin.end_step()
    np.testing.assert_array_equal(ours._numbers, twin.A)
    assert np.abs(twin.A).max() > 0
    assert n_lanes == 1 or twin.n > WARM_UP


@pytest.mark.parametrize("width", [1, 8, 9])
def test_the_adapter_of_a_narrow_model_learns_from_the_most_lanes(width):
    shape = replace(PLAIN, width=width)
    ours, twin = Adapter(random_model(shape)), specified.Adapter(reference(shape))
    chance = np.random.default_rng(width)
    states, shares = some_states(chance, shape, MOST_LANES), some_counts(chance, shape, MOST_LANES, 1)
    tokens = chance.integers(0, 9, MOST_LANES).tolist()
    for lane, token in enumerate(tokens):
        twin.said(states[0][lane].astype(np.int64), states[1][lane, 0])
        twin.after(token, shares[lane])
    ours.learn(states, cumulated(shares), tokens)
    twin.end_step()
    np.testing.assert_array_equal(ours._numbers, twin.A)
    assert np.isfinite(twin.A).all()
    assert np.abs(twin.A).max() > 0


def test_an_adapter_that_knows_nothing_changes_next_to_nothing():
    model, chance = random_model(GROUPED), np.random.default_rng(0)
    integers, scale = some_states(chance, GROUPED, 5)
    found = Adapter(model).logits(integers, scale)
    expected = model.product(integers, model.weights.head) * scale
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_it_makes_likelier_what_comes_again():
    model, chance = random_model(GROUPED), np.random.default_rng(0)
    states, adapter = some_states(chance, GROUPED, 32), Adapter(model)
    tokens = chance.integers(0, GROUPED.vocabulary, 32)

    def chosen():
        logits = adapter.logits(*states).astype(float)
        return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[np.arange(32), tokens].mean()

    before = chosen()
    for _ in range(100):
        parts = np.exp(adapter.logits(*states).astype(float))
        shares = (parts / parts.sum(axis=1, keepdims=True) * (TOTAL - GROUPED.vocabulary)).astype(np.int32) + 1
        shares[:, 0] += TOTAL - shares.sum(axis=1)
        adapter.learn(states, cumulated(shares), tokens.tolist())
    assert chosen() > before + 0.1


@pytest.mark.parametrize("n_lanes", [1, 32, 1024])
def test_its_sums_stay_exact_where_everything_was_wrong(n_lanes):
    """All lanes sure of another token, and all weights of the head as large as can be."""
    tensors = random_tensors(PLAIN)
    tensors["model.embed_tokens.weight"][:] = WEIGHT_MOST
    tensors["model.embed_tokens.weight"][1] = -WEIGHT_MOST
    tensors["model.embed_tokens.scale"][:] = 0.5
    model = Llama(assemble(PLAIN, tensors))
    adapter, sums = Adapter(model), []

    def watched(left, right):
        terms = np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64)
        sums.append(terms.max())
        return Adapter._times(adapter, left, right)

    adapter._times = watched
    shares = np.ones((n_lanes, PLAIN.vocabulary), np.int32)
    shares[:, 0] += TOTAL - PLAIN.vocabulary
    integers = np.full((n_lanes, PLAIN.width), adapter._most, np.float32)
    scale = np.ones((n_lanes, 1), np.float32)
    for _ in range(3):
        adapter.logits(integers, scale)
        adapter.learn((integers, scale), cumulated(shares), [1] * n_lanes)
    assert 0.5 * EXACT_IN_FLOAT32 < max(sums) < EXACT_IN_FLOAT32
    assert np.abs(adapter._numbers).max() <= 3 * RATE


def test_lanes_that_learn_written_with_numpy_are_read_with_torch():
    model, tokens = random_model(GROUPED), random_tokens(GROUPED, 30).tolist() * 4
    twin = TorchLlama(model.weights)

    def options():
        return Options(learner=Learner([], GROUPED.vocabulary, 4), adapts=True)

    payload = lanes.encode_lanes(model, tokens, 4, options())
    assert lanes.encode_lanes(twin, tokens, 4, options()) == payload
    assert lanes.encode_lanes(Llama(model.weights, wide=True), tokens, 4, options()) == payload
    assert lanes.decode_lanes(twin, payload, len(tokens), 4, options()) == tokens


def test_where_numpy_adds_inexactly_in_float32_products_are_computed_in_float64(monkeypatch):
    assert probe.numpy_type(GROUPED) is np.float32
    right = probe.Product.__call__
    monkeypatch.setattr(probe.Product, "__call__", lambda *given: right(*given) + np.float32(1))
    assert probe.numpy_type(GROUPED) is np.float64


def test_a_head_that_an_adapter_could_lead_out_of_the_index_is_refused():
    tensors = random_tensors(PLAIN)
    tensors["model.embed_tokens.scale"][:] = 100
    assemble(PLAIN, tensors)
    tensors["model.norm.weight"] *= np.float32(2**14)
    with pytest.raises(ModelError, match="too large"):
        assemble(PLAIN, tensors)


@pytest.mark.parametrize(("shape", "n_lanes"), [(GROUPED, 1), (GROUPED, 4), (PLAIN, 7)], ids=["1", "4", "7"])
def test_a_tiny_model_that_adapts_codes_as_specified(shape, n_lanes):
    model, tokens = random_model(shape), random_tokens(shape, 30).tolist() * 4
    options = Options(learner=Learner([], shape.vocabulary, n_lanes), adapts=True)
    payload, twin = lanes.encode_lanes(model, tokens, n_lanes, options), reference(shape)
    learner = specified.Learner([], shape.vocabulary, n_lanes, twin)
    decoder = specified.LearningDecoder(exact.Decoder(payload), learner, len(tokens))
    firsts = [[twin.embed(twin.start)]] * n_lanes
    assert exact.run_lanes(twin, firsts, len(tokens), decoder, said=learner.adapter.said) == tokens
    decoder.check_end()
