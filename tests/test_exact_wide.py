"""Models that were not made for exact arithmetic: each layout, to the bits of the specification, in any pieces."""

import sys

import numpy as np
import pytest
import torch
from models import ROOT
from test_exact_llama import in_pieces
from wide_models import CONFIGS, PLAIN, SCALED, Given, model_of, tensors_of, tokens_of, weights_of

from cramzip.errors import ModelError
from cramzip.exact import layouts, probe
from cramzip.exact.adapter import Adapter
from cramzip.exact.lanes import decode_lanes, encode_lanes
from cramzip.exact.learner import Learner
from cramzip.exact.probabilities import counts, total_of
from cramzip.exact.run import Options
from cramzip.exact.weights import Matrix
from cramzip.exact.wide import ACTIVATION_MOST, TERMS, WideProduct
from cramzip.lm import exact_torch_wide

sys.path.insert(0, str(ROOT / "formats"))

import exact
import learner as specified
import wide


def reference(config):
    stored = [
        (name, {"dtype": "F32", "shape": list(values.shape), "data": values.tobytes()})
        for name, values in weights_of(config).items()
    ]
    return wide.Model(config, stored)


@pytest.fixture(scope="module", params=CONFIGS, ids=str)
def config(request):
    return CONFIGS[request.param]


def test_logits_are_those_of_the_specification(config):
    model, twin, tokens = model_of(config), reference(config), tokens_of(config, 90)
    sequence = twin.sequence(len(tokens))
    said = [twin.logits(sequence.feed(twin.embed(token))) for token in tokens]
    expected = np.array([y * t for y, t in said], np.float32)
    found = in_pieces(model, model.embed([tokens]), [7, 1, 40])[0]
    assert (found == expected).all()
    assert np.ptp(expected) > 1


def test_pieces_rows_and_kinds_of_products_make_no_difference(config):
    model = model_of(config)
    x = model.embed(tokens_of(config, 64, 50))
    whole = in_pieces(model, x, [50])
    assert (in_pieces(model, x[:1], [1]) == whole[:1]).all()
    assert (in_pieces(model, x[:7], [3, 20]) == whole[:7]).all()
    assert (in_pieces(model_of(config, wide=True), x[:7], [50]) == whole[:7]).all()


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
)
def test_torch_gives_the_bits_of_numpy(config, device):
    model = model_of(config)
    twin = exact_torch_wide.load(layouts.read(layouts.shape_of(config), tensors_of(config)), device)
    x = model.embed(tokens_of(config, 3, 50))
    assert (in_pieces(twin, x, [9, 1, 30]) == in_pieces(model, x, [50])).all()


def test_the_probe_is_that_of_the_specification(config):
    assert probe.model_hash(model_of(config)) == wide.probe(reference(config)).hex()


@pytest.mark.parametrize("n_terms", [1, 30, TERMS, TERMS + 1, 5000])
@pytest.mark.parametrize("n_rows", [1, 7, 64])
def test_products_are_exact_sums_rounded_once(n_terms, n_rows):
    random = np.random.default_rng(n_terms)
    matrix = Matrix(random.integers(-127, 128, (70, n_terms)).astype(np.int8), np.ones(70, np.float32))
    rows = random.integers(-ACTIVATION_MOST, ACTIVATION_MOST + 1, (n_rows, n_terms))
    rows[0] = ACTIVATION_MOST * np.where(matrix.integers[0] < 0, -1, 1)
    expected = (rows @ matrix.integers.T.astype(np.int64)).astype(np.float32)
    product = WideProduct(matrix)
    assert (product(rows.astype(np.float32), np.empty((n_rows, product.width), np.float32)) == expected).all()


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_lanes_with_all_that_is_learned_are_read_by_the_reference(name):
    config = CONFIGS[name]
    model, twin = model_of(config), reference(config)
    tokens = tokens_of(config, 70).tolist()
    options = [Options(learner=Learner([], 61, 3), adapts=True, threads=threads) for threads in (1, 2)]
    payload = encode_lanes(model, tokens, 3, options[0])
    assert decode_lanes(model, payload, len(tokens), 3, options[1]) == tokens
    learns = specified.Learner([], 61, 3, twin)
    decoder = specified.LearningDecoder(exact.Decoder(payload, 61), learns, len(tokens))
    firsts = [twin.embed(twin.start)[None]] * 3
    assert exact.run_lanes(twin, firsts, len(tokens), decoder, said=learns.adapter.said) == tokens


def test_lanes_that_learn_written_with_numpy_are_read_with_torch():
    model, tokens = model_of(PLAIN), tokens_of(PLAIN, 70).tolist()
    twin = exact_torch_wide.load(layouts.read(layouts.shape_of(PLAIN), tensors_of(PLAIN)))
    options = [Options(learner=Learner([], 61, 3), adapts=True) for _ in range(2)]
    payload = encode_lanes(model, tokens, 3, options[0])
    assert decode_lanes(twin, payload, len(tokens), 3, options[1]) == tokens


@pytest.mark.parametrize("size", [2, 2**14, 2**14 + 1, 151936])
@pytest.mark.parametrize("spread", [0.0, 0.01, 3.0])
def test_counts_of_large_vocabularies_are_those_of_the_specification(size, spread):
    logits = (np.random.default_rng(size).standard_normal((1, size)) * spread).astype(np.float32)
    expected = exact.counts(logits[0], np.float32(1))
    found = counts(logits.copy(), np.ones((1, 1), np.float32))[0]
    assert (found == expected).all()
    assert found.min() >= 1
    assert found.sum() == total_of(size) == 2 ** (24 if size <= 2**14 else 30)


def test_large_vocabularies_are_coded_and_learned_like_small_ones():
    config = PLAIN | {"vocab_size": 2**14 + 5}
    model, tokens = model_of(config), [5, 16388, 5, 16388, 5, 16388, 7, 0]
    options = [Options(learner=Learner([], 2**14 + 5, 2), adapts=True) for _ in range(2)]
    payload = encode_lanes(model, tokens, 2, options[0])
    assert decode_lanes(model, payload, len(tokens), 2, options[1]) == tokens
    twin = reference(config)
    learns = specified.Learner([], 2**14 + 5, 2, twin)
    decoder = specified.LearningDecoder(exact.Decoder(payload, 2**14 + 5), learns, len(tokens))
    firsts = [twin.embed(twin.start)[None]] * 2
    assert exact.run_lanes(twin, firsts, len(tokens), decoder, said=learns.adapter.said) == tokens


def test_the_first_positions_are_seen_to_the_end():
    model = model_of(PLAIN)
    tokens, other = tokens_of(PLAIN, 1, 90), tokens_of(PLAIN, 1, 90)
    other[0, 1] = (other[0, 1] + 1) % PLAIN["vocab_size"]
    found = [in_pieces(model, model.embed(ids), [90])[0, -1] for ids in (tokens, other)]
    assert (found[0] != found[1]).any()


UNSUITED = {
    "other kind": {"model_type": "gpt2"},
    "mixture of experts": {"model_type": "mixtral"},
    "other activation": {"hidden_act": "gelu"},
    "bias everywhere": {"attention_bias": True},
    "odd heads": {"head_dim": 9},
    "heads too wide": {"head_dim": 258},
    "heads that cannot share": {"num_key_value_heads": 3},
    "no heads": {"num_attention_heads": 0},
    "part of a head turned": {"partial_rotary_factor": 0.5},
    "other scaling": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "senseless scaling": {"rope_scaling": SCALED | {"original_max_position_embeddings": 8, "factor": 0.5}},
    "theta": {"rope_theta": 0.5},
    "theta, endless": {"rope_theta": float("inf")},
    "theta, a word": {"rope_theta": "much"},
    "theta, a number in words": {"rope_theta": "1e6"},
    "width, in words": {"hidden_size": "24"},
    "width, a fraction": {"hidden_size": 24.5},
    "heads of a fraction": {"head_dim": 8.0},
    "positions of a fraction": {"max_position_embeddings": 512.5},
    "scaling in words": {"rope_scaling": SCALED | {"factor": "8"}},
    "epsilon": {"rms_norm_eps": 0.0},
    "epsilon, no number": {"rms_norm_eps": float("nan")},
    "two positions": {"max_position_embeddings": 2},
    "vocabulary": {"vocab_size": 2**18 + 1},
    "layers": {"num_hidden_layers": 10**6},
    "width": {"hidden_size": 10**9},
    "hidden": {"intermediate_size": -1},
    "quantised": {"quantization_config": {"bits": 4}},
    "nothing": {"hidden_size": None},
}


@pytest.mark.parametrize("change", UNSUITED.values(), ids=UNSUITED)
def test_what_exact_arithmetic_cannot_run_is_said_before_a_weight_is_read(change):
    with pytest.raises(layouts.Unsuited):
        layouts.shape_of(PLAIN | change)


def test_tensors_that_are_missing_misshapen_or_left_over_are_refused():
    shape, tensors = layouts.shape_of(PLAIN), tensors_of(PLAIN)
    name = "model.layers.1.mlp.up_proj.weight"
    for changed in (
        {key: value for key, value in tensors.items() if key != name},
        tensors | {name: Given(tensors[name].values.T)},
        tensors | {"model.layers.1.mlp.up_proj.bias": tensors["model.norm.weight"]},
    ):
        with pytest.raises(layouts.Unsuited):
            layouts.read(shape, changed)
    layouts.read(shape, tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": tensors["model.norm.weight"]})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**24])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.down_proj.weight", "model.norm.weight"])
def test_weights_that_are_no_numbers_or_too_large_are_errors(bad, name):
    tensors = tensors_of(PLAIN)
    tensors[name].values.flat[-1] = bad
    with pytest.raises(ModelError, match=name):
        layouts.read(layouts.shape_of(PLAIN), tensors)


def test_numbers_that_could_leave_the_tables_are_refused():
    tensors = tensors_of(PLAIN)
    tensors["model.layers.0.self_attn.q_proj.weight"].values[:] *= 2.0**20
    tensors["model.layers.0.input_layernorm.weight"].values[:] = 2.0**15
    with pytest.raises(ModelError, match="too large"):
        layouts.read(layouts.shape_of(PLAIN), tensors)


def test_rows_of_zeros_and_of_next_to_nothing_become_zeros():
    rows = np.array([[0, 0, 0], [1e-38, 0, -1e-38], [1e-42, 0, 0], [-0.5, 0.25, 0.1]], np.float32)
    integers, scales = layouts.quantised("rows", rows)
    assert integers.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [-127, 64, 25]]
    assert scales.tolist() == [1, 1, 1, np.float32(0.5) / np.float32(127)]


def test_the_adapter_of_wide_states_is_that_of_the_specification():
    config, chance = CONFIGS["llama"], np.random.default_rng(0)
    ours, twin = Adapter(model_of(config)), specified.Adapter(reference(config))
    for step in range(4):
        states = np.rint(chance.standard_normal((5, 24)) * 9999).astype(np.float32), np.full((5, 1), 1e-4, np.float32)
        logits, tokens = ours.logits(*states), chance.integers(0, 61, 5).tolist()
        shares = counts(logits * np.float32(step + 1), np.ones((5, 1), np.float32))
        for lane in range(5):
            y, t = twin.said(states[0][lane].astype(np.int64), states[1][lane, 0])
            assert (logits[lane] == y * t).all()
            twin.after(tokens[lane], shares[lane])
        sums = np.concatenate([np.zeros((5, 1), np.int32), shares.cumsum(axis=1, dtype=np.int32)], axis=1)
        ours.learn(states, sums, tokens)
        twin.end_step()
    assert (ours._numbers == twin.A).all()
    assert np.abs(twin.A).max() > 0
