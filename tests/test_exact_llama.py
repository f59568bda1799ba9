"""The layers in exact arithmetic: the same bits however the work is cut up, and close to the model in floats."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cramzip.errors import ModelError
from cramzip.exact import WEIGHTS_NAME, llama, probe, weights
from cramzip.exact.cache import WINDOW
from cramzip.exact.llama import Llama
from cramzip.exact.product import Product
from cramzip.exact.weights import BLOCK, Matrix, Shape, assemble, quantise

PRIMER = Path(weights.__file__).parent.parent / "models" / "primer"
TEXT = (
    b"It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    b"was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    b"Darkness, it was the spring of hope, it was the winter of despair. We had everything before us, we had nothing "
    b"before us, we were all going direct to Heaven, we were all going direct the other way.\n"
)
LONG_TEXT = (Path(__file__).parent.parent / "examples" / "texts" / "lighthouse.txt").read_bytes()
PRIMER_LOGITS = "41ee709333cbf7948d780384efa633e10ad0bd23b7b349493498748809ed2968"

GROUPED = Shape(
    width=96,
    n_layers=2,
    n_heads=4,
    n_key_heads=2,
    hidden=200,
    vocabulary=300,
    theta=10000,
    epsilon=1e-5,
    tied=False,
    start=1,
)
PLAIN = Shape(
    width=64,
    n_layers=3,
    n_heads=1,
    n_key_heads=1,
    hidden=64,
    vocabulary=130,
    theta=5000,
    epsilon=1e-6,
    tied=True,
    start=0,
)


def random_tensors(shape, seed=0):
    random = np.random.default_rng(seed)
    heads, keys = shape.n_heads * 64, shape.n_key_heads * 64
    sizes = {"model.embed_tokens.weight": (shape.vocabulary, shape.width)}
    for index in range(shape.n_layers):
        prefix = f"model.layers.{index}."
        sizes |= {
            f"{prefix}self_attn.q_proj.weight": (heads, shape.width),
            f"{prefix}self_attn.k_proj.weight": (keys, shape.width),
            f"{prefix}self_attn.v_proj.weight": (keys, shape.width),
            f"{prefix}self_attn.o_proj.weight": (shape.width, heads),
            f"{prefix}mlp.gate_proj.weight": (shape.hidden, shape.width),
            f"{prefix}mlp.up_proj.weight": (shape.hidden, shape.width),
            f"{prefix}mlp.down_proj.weight": (shape.width, shape.hidden),
            f"{prefix}input_layernorm.weight": (shape.width,),
            f"{prefix}post_attention_layernorm.weight": (shape.width,),
        }
    sizes["model.norm.weight"] = (shape.width,)
    if not shape.tied:
        sizes["lm_head.weight"] = (shape.vocabulary, shape.width)
    tensors = {}
    for name, size in sizes.items():
        values = random.standard_normal(size).astype(np.float32)
        if len(size) == 2:
            matrix = quantise(values * np.float32(2.0 / np.sqrt(size[1])))
            tensors[name], tensors[name.removesuffix("weight") + "scale"] = matrix.integers, matrix.scales
        else:
            tensors[name] = 1 + values * np.float32(0.2)
    return tensors


def random_model(shape, seed=0, *, wide=False):
    return Llama(assemble(shape, random_tensors(shape, seed)), wide=wide)


def random_tokens(shape, *size, seed=0):
    return np.random.default_rng(seed).integers(0, shape.vocabulary, size)


@pytest.fixture(scope="module", params=[GROUPED, PLAIN], ids=["grouped", "plain"])
def model(request):
    return random_model(request.param)


@pytest.fixture(scope="module")
def primer():
    return probe.load(weights.read_model(PRIMER))


def in_pieces(model, x, sizes):
    """Logits of x (B, N, D), computed in pieces of these numbers of positions, again and again."""
    cache, found, first, index = model.new_cache(len(x), x.shape[1]), [], 0, 0
    while first < x.shape[1]:
        n = sizes[index % len(sizes)]
        found.append(model.logits(x[:, first : first + n], cache))
        first, index = first + n, index + 1
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("sizes", [[1], [7, 1, 64], [40]], ids=str)
def test_steps_give_the_bits_of_one_pass(model, sizes):
    x = model.embed(random_tokens(model.shape, 3, 90))
    assert in_pieces(model, x, sizes).tobytes() == in_pieces(model, x, [90]).tobytes()


@pytest.mark.parametrize("size", [1, 7, 64])
def test_rows_give_the_same_bits_in_any_batch(model, size):
    x = model.embed(random_tokens(model.shape, 64, 9))
    parts = [in_pieces(model, x[first : first + size], [5, 1]) for first in range(0, 64, size)]
    assert np.concatenate(parts).tobytes() == in_pieces(model, x, [9]).tobytes()


def test_what_follows_does_not_change_what_was_before(model):
    tokens = random_tokens(model.shape, 2, 30)
    changed = tokens.copy()
    changed[0, 20:] = 5
    bits = [in_pieces(model, model.embed(ids), [30])[0, :20].tobytes() for ids in (tokens, changed)]
    assert bits[0] == bits[1]


def test_the_last_positions_alone_have_the_same_logits(model):
    x = model.embed(random_tokens(model.shape, 2, BLOCK + 20))
    whole = model.logits(x, model.new_cache(2, BLOCK + 20))
    for n_last in (1, 19, 30, BLOCK + 20):
        assert (model.logits(x, model.new_cache(2, BLOCK + 20), n_last) == whole[:, -n_last:]).all()


@pytest.mark.parametrize("sizes", [[1], [100]], ids=str)
def test_steps_give_the_bits_of_one_pass_beyond_the_window(sizes):
    model = random_model(PLAIN)
    x = model.embed(random_tokens(PLAIN, 2, WINDOW + BLOCK + 40))
    assert in_pieces(model, x, sizes).tobytes() == in_pieces(model, x, [x.shape[1]]).tobytes()


def test_a_position_sees_its_block_and_the_two_before_it():
    shape = Shape(64, 1, 1, 1, 64, 130, 10000, 1e-6, True, 0)
    model, tokens = random_model(shape), random_tokens(PLAIN, 1, WINDOW + 10)
    changed = tokens.copy()
    changed[0, :BLOCK] = 7
    old, new = (model.logits(model.embed(ids), model.new_cache(1, WINDOW + 10), 12)[0] for ids in (tokens, changed))
    assert (old[:2] != new[:2]).any()
    assert (old[2:] == new[2:]).all()


def test_rows_that_are_left_go_on_as_before(model):
    x = model.embed(random_tokens(model.shape, 4, 12))
    whole = in_pieces(model, x, [12])
    cache = model.new_cache(4, 12)
    model.logits(x[:, :11], cache)
    cache.keep(slice(2))
    assert (model.logits(x[:2, 11:], cache) == whole[:2, 11:]).all()


def test_vectors_are_read_like_embeddings(model):
    tokens = random_tokens(model.shape, 1, 10)
    x = model.embed(tokens)
    x[0, 3] = np.random.default_rng(1).standard_normal(model.shape.width).astype(np.float32) * 9
    assert in_pieces(model, x, [1]).tobytes() == in_pieces(model, x, [10]).tobytes()
    assert in_pieces(model, x, [10]).tobytes() != in_pieces(model, model.embed(tokens), [10]).tobytes()


@pytest.mark.parametrize("size", [0.0, 1e-30, 2.0**16])
def test_vectors_of_any_size_give_finite_logits(model, size):
    x = np.full((1, 3, model.shape.width), size, np.float32)
    assert np.isfinite(in_pieces(model, x, [1])).all()
    assert in_pieces(model, x, [1]).tobytes() == in_pieces(model, x, [3]).tobytes()


def test_float64_gives_the_same_bits(model):
    x = model.embed(random_tokens(model.shape, 3, 40))
    wide = Llama(model.weights, wide=True)
    assert in_pieces(wide, x, [30, 1]).tobytes() == in_pieces(model, x, [40]).tobytes()


def test_a_full_cache_is_an_error(model):
    cache = model.new_cache(1, 4)
    with pytest.raises(ValueError, match="full"):
        model.forward(model.embed(random_tokens(model.shape, 1, 5)), cache)


@pytest.mark.parametrize("n_rows", [1, 2, 33, 64])
@pytest.mark.parametrize("n_terms", [1, 320, 864, 1040])
def test_the_largest_sums_are_exact(n_terms, n_rows):
    random = np.random.default_rng(0)
    integers = np.full((70, n_terms), 127, np.int8)
    integers[:, 0] -= np.arange(70, dtype=np.int8)
    row = np.full((n_rows, n_terms), llama.levels(n_terms), np.float32)
    row[:, 0] -= np.arange(n_rows)
    signs = random.choice([-1, 1], n_terms)
    expected = row.astype(np.int64) @ integers.T.astype(np.int64)
    assert expected.max() < 2**24
    product = Product(Matrix((integers * signs).astype(np.int8), np.ones(70, np.float32)))
    found = product((row * signs).astype(np.float32), np.empty((n_rows, product.width), np.float32))
    assert (found == expected).all()


def test_the_largest_scores_and_values_are_exact(model):
    random, n_keys = np.random.default_rng(0), model.shape.n_key_heads
    cache = model.new_cache(3, WINDOW)
    stored = random.choice(np.array([-127, 126, 127], np.int8), (3, n_keys, WINDOW, 64))
    queries = random.choice(np.array([-1, 1]), (3, n_keys, 2, 64)).astype(np.float32) * llama.QUERY_MOST
    scores = model._product_with(stored, queries, cache, transposed=True)
    assert (scores == queries.astype(np.int64) @ stored.swapaxes(2, 3).astype(np.int64)).all()
    shares = np.full((3, n_keys, 2, WINDOW), (llama.SHARE_ONE + WINDOW // 2) // WINDOW, np.float32)
    same = np.full_like(stored, 127)
    same[..., 1] = 126
    seen = model._product_with(same, shares, cache, transposed=False)
    assert (seen == shares.astype(np.int64) @ same.astype(np.int64)).all()


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 300.0])
def test_shares_of_values_never_add_up_to_more_than_their_bound(model, scale):
    random, (n_keys, n_shared) = (
        np.random.default_rng(1),
        (model.shape.n_key_heads, model.shape.n_heads // model.shape.n_key_heads),
    )
    cache = model.new_cache(2, WINDOW)
    cache.length = WINDOW - 1
    cache.integers[:] = random.integers(-127, 128, cache.integers.shape)
    cache.scales[:] = random.random(cache.scales.shape) + (scale > 1)
    queries = random.integers(-9, 10, (2, n_keys, n_shared, 1, 64)).astype(np.float32)
    query_scales = np.full((2, n_keys, n_shared, 1), scale, np.float32)
    shares, _ = model._shares(queries, query_scales, cache, 0, slice(0, 2))
    assert shares.min() >= 0
    assert shares.sum(axis=-1, dtype=np.float64).max() * 127 < 2**24


def test_a_model_whose_scores_leave_the_table_s_index_is_refused():
    tensors = random_tensors(PLAIN)
    for name in ("q", "k"):
        tensors[f"model.layers.0.self_attn.{name}_proj.scale"] *= np.float32(30000)
    tensors["model.layers.0.input_layernorm.weight"] *= np.float32(30000)
    with pytest.raises(ModelError, match="too large"):
        assemble(PLAIN, tensors)


def primer_tokens(text):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(PRIMER / "tokenizer.json"))
    return [0, *tokenizer.encode(text.decode(), add_special_tokens=False).ids]


def test_the_built_in_model_gives_the_logits_that_it_gives_everywhere(primer):
    logits = in_pieces(primer, primer.embed([primer_tokens(TEXT)]), [64, 1])
    assert hashlib.sha256((logits + np.float32(0)).astype("<f4").tobytes()).hexdigest() == PRIMER_LOGITS


def test_exact_arithmetic_costs_the_built_in_model_less_than_a_thousandth(primer):
    torch = pytest.importorskip("torch")
    from cramzip.lm.loading import load_model
    from cramzip.lm.source import find

    tokens = primer_tokens(LONG_TEXT)
    reference = load_model(find())
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0, :-1].double()
    found = torch.from_numpy(in_pieces(primer, primer.embed([tokens]), [len(tokens)]))[0, :-1].double()
    costs = [torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:])).item() for logits in (expected, found)]
    assert abs(costs[1] / costs[0] - 1) < 1e-3
    assert (found - expected).abs().mean() < 0.05


def test_the_loaded_model_notices_wrong_bits(primer):
    assert probe.model_hash(primer) == primer.weights.probe_hash
    wrong = weights.Weights(**{**primer.weights.__dict__, "probe_hash": "0" * 64})
    with pytest.raises(ModelError, match="come out right"):
        probe.load(wrong)


def test_a_machine_whose_float32_goes_wrong_computes_in_float64(primer, monkeypatch):
    multiply = np.matmul

    def coarse(left, right, out=None, dtype=None):  # as with operands cut to eight bits
        if out is None or out.dtype != np.float32:
            return multiply(left, right, out=out, dtype=dtype)
        return multiply((left.view(np.uint32) & 0xFFFF0000).view(np.float32), right, out=out)

    monkeypatch.setattr(np, "matmul", coarse)
    model = probe.load(primer.weights)
    assert model.dtype is np.float64


def test_the_configuration_and_the_weights_of_the_built_in_model_agree():
    config = json.loads((PRIMER / "config.json").read_text())
    shape = weights.read_shape(PRIMER)
    assert (shape.width, shape.vocabulary, shape.theta) == (config["hidden_size"], config["vocab_size"], 10000)
    assert (PRIMER / WEIGHTS_NAME).stat().st_size < 8_000_000
