"""formats/exact.md twice: the library, and the reference in formats/, position by position: the same bits."""

import hashlib
import json
import re
import sys
from decimal import Decimal, localcontext
from math import floor

import numpy as np
import pytest
import safetensors
from models import ROOT
from test_exact_llama import GROUPED, PLAIN, PRIMER, in_pieces, random_model, random_tensors, random_tokens

from cramzip.errors import ModelError
from cramzip.exact import lanes, probe, rotations, vectors, weights
from cramzip.exact.layouts import MOST_WIDTH
from cramzip.exact.vectors import dequantised

FORMATS = ROOT / "formats"
sys.path.insert(0, str(FORMATS))

import exact  # noqa: E402
import llama  # noqa: E402
import make_exact_model  # noqa: E402
import make_model  # noqa: E402
import reader  # noqa: E402

SPECIFICATION = (FORMATS / "exact.md").read_text("utf-8")


def config(shape):
    """config.json of a shape."""
    return {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_key_heads,
        "head_dim": 64,
        "intermediate_size": shape.hidden,
        "vocab_size": shape.vocabulary,
        "rope_theta": shape.theta,
        "rms_norm_eps": shape.epsilon,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": shape.start,
    }


def reference(shape):
    return exact.Model(config(shape), random_tensors(shape))


def logits(model, tokens):
    sequence = exact.Sequence(model, len(tokens))
    units = [model.logits(sequence.feed(model.embed(token))) for token in tokens]
    return np.array([y * t for y, t in units], np.float32)


def test_the_tables_are_those_of_the_specification():
    first = [exact.rotation(position, 10000) for position in range(1024)]
    rotations = np.concatenate([np.stack(part) for part in zip(*first, strict=True)])
    tables = exact.powers(), exact.sigmoids(), rotations, exact.stretches()
    hashes = [hashlib.sha256(table.astype("<f4").tobytes()).hexdigest() for table in tables]
    assert hashes == re.findall("`([0-9a-f]{64})`", SPECIFICATION)


@pytest.mark.parametrize("theta", [10000, 5003, 1])
@pytest.mark.parametrize("position", [0, 1023, 40000, 65535])
def test_rotations_far_on_are_those_of_the_specification(position, theta):
    found = rotations.Rotations(theta).at(position, 1)
    np.testing.assert_array_equal(np.concatenate(found), exact.rotation(position, theta))


@pytest.mark.parametrize(("shape", "n"), [(GROUPED, 40), (PLAIN, 40)], ids=["grouped", "plain"])
def test_logits_are_those_of_the_specification(shape, n):
    model, tokens = random_model(shape), random_tokens(shape, n)
    expected = logits(reference(shape), tokens)
    assert in_pieces(model, model.embed([tokens]), [11])[0].tobytes() == expected.tobytes()


def test_logits_beyond_the_window_are_those_of_the_specification():
    model, tokens = random_model(PLAIN), random_tokens(PLAIN, 790)
    found = model.logits(model.embed([tokens]), model.new_cache(1, 790), 30)[0]
    assert found.tobytes() == logits(reference(PLAIN), tokens)[-30:].tobytes()


def test_lanes_are_those_of_the_specification():
    model, tokens = reference(GROUPED), random_tokens(GROUPED, 26).tolist()
    decoder = exact.Decoder(lanes.encode_lanes(random_model(GROUPED), tokens, 4))
    assert exact.run_lanes(model, [[model.embed(model.start)]] * 4, 26, decoder) == tokens
    decoder.check_end()


# ---------------------------------------------------------------- model folders


@pytest.mark.parametrize("folder", [FORMATS / "exact_model", PRIMER], ids=["tiny", "primer"])
def test_the_probe_is_that_of_the_specification(folder):
    model, notes = read_model(folder)
    assert exact.probe(model) == notes["probe"] == probe.probe_hash(weights.read_model(folder))


def read_model(folder):
    """-> a model of the reference, and the notes in its file."""
    content = (folder / "exact.safetensors").read_bytes()
    notes = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return exact.Model(llama.read_config(folder), exact.arrays(safetensors.deserialize(content))), notes


def write_model(folder, config, tensors):
    kinds = {np.dtype("i1"): "I8", np.dtype("f4"): "F32", np.dtype("f2"): "F16"}
    typed = {name: (kinds[values.dtype], values) for name, values in tensors.items()}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "exact.safetensors").write_bytes(make_model.safetensors_file(typed, {"format": "cramzip-exact-1"}))


LARGE = {"model.layers.0.input_layernorm.weight": 6e4, "model.layers.0.self_attn.k_proj.scale": -6e4}
ALLOWED = {
    "the model as it is": {},
    "heads of 64 that are not named": {"head_dim": None, "hidden_size": 128, "num_attention_heads": 2},
    "biases that are none": {"attention_bias": None, "mlp_bias": 0},
    "another theta": {"rope_parameters": {"rope_theta": 2.0**40}},
    "theta at the old place": {"rope_parameters": None, "rope_theta": 500000},
    "no start token": {"bos_token_id": None},
    "several start tokens": {"bos_token_id": [5, 6]},
    "the largest scales": {"model.layers.0.mlp.down_proj.scale": 2.0**16},
    "few positions": {"max_position_embeddings": 1},
}
FORBIDDEN = {
    "another architecture": {"model_type": "mistral"},
    "gelu": {"hidden_act": "gelu"},
    "biases of attention": {"attention_bias": True},
    "biases of the MLP": {"mlp_bias": True},
    "heads of 32": {"head_dim": 32},
    "heads that cannot be shared": {"num_attention_heads": 3, "num_key_value_heads": 2},
    "a width in words": {"hidden_size": "52"},
    "a width of a fraction": {"hidden_size": 52.0},
    "heads of a fraction": {"head_dim": 64.0},
    "layers that are a truth": {"num_hidden_layers": True},
    "a theta in words": {"rope_parameters": {"rope_theta": "10007"}},
    "scaled RoPE": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0}},
    "a theta with a fraction": {"rope_parameters": {"rope_theta": 10000.5}},
    "a theta beyond 2^40": {"rope_parameters": {"rope_theta": 2.0**40 + 1}},
    "an epsilon of 0": {"rms_norm_eps": 0},
    "an epsilon of 1": {"rms_norm_eps": 1},
    "a start token beyond the vocabulary": {"bos_token_id": 277},
    "a start token below 0": {"bos_token_id": -1},
    "too wide": {"hidden_size": 1041},
    "too wide inside": {"intermediate_size": 1041},
    "too many heads": {"num_attention_heads": 17, "num_key_value_heads": 1},
    "too many layers": {"num_hidden_layers": 257},
    "too large a vocabulary": {"vocab_size": 2**18 + 1},
    "a tied head beside its own": {"tie_word_embeddings": True},
    "a scale that is no number": {"lm_head.scale": np.nan},
    "a scale beyond 2^16": {"lm_head.scale": np.nextafter(np.float32(2**16), np.float32(2**17))},
    "a weight of a norm that is infinite": {"model.norm.weight": np.inf},
    "a weight of -128": {"model.layers.1.mlp.gate_proj.weight": -128},
    "scores that are too large": LARGE,
}


def changed(changes, shape=make_exact_model.CONFIG):
    """The configuration with these changes, and tensors for `shape` with them; a number fills a whole tensor."""
    tensors = make_exact_model.tensors(shape)
    for name in changes.keys() & tensors.keys():
        tensors[name] = np.full_like(tensors[name], changes[name])
    return configured({name: value for name, value in changes.items() if name not in tensors}), tensors


def configured(changes):
    return make_exact_model.CONFIG | changes


@pytest.mark.parametrize("changes", ALLOWED.values(), ids=ALLOWED.keys())
def test_both_read_a_model_that_section_3_allows(changes, tmp_path):
    write_model(tmp_path, *changed(changes, configured(changes)))
    model, _ = read_model(tmp_path)
    assert exact.probe(model) == probe.probe_hash(weights.read_model(tmp_path))


@pytest.mark.parametrize("changes", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_both_refuse_a_model_that_section_3_forbids(changes, tmp_path):
    write_model(tmp_path, *changed(changes))
    with pytest.raises(llama.Unsupported):
        read_model(tmp_path)
    with pytest.raises(ModelError):
        weights.read_model(tmp_path)


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.scale", "model.layers.1.mlp.up_proj.weight"])
def test_both_refuse_a_tensor_that_is_missing_superfluous_or_of_another_type(name, tmp_path):
    config, tensors = changed({})
    without = {other: values for other, values in tensors.items() if other != name}
    for wrong in (without, tensors | {"lm_head.bias": tensors[name]}, tensors | {name: tensors[name].astype("f2")}):
        write_model(tmp_path, config, wrong)
        with pytest.raises(llama.Unsupported):
            read_model(tmp_path)
        with pytest.raises(ModelError):
            weights.read_model(tmp_path)


# ---------------------------------------------------------------- numbers of section 11


def cosine(numerator, denominator):
    """cos(pi numerator / denominator) to 45 digits, for an angle from 0 to pi / 2."""
    with localcontext(prec=50):
        square = (exact.PI * numerator / denominator) ** 2
        term = total = Decimal(1)
        for n in range(2, 80, 2):
            term *= -square / (n * (n - 1))
            total += term
        return total


def distance_to_tie(width):
    """How near the numbers of section 11 that are rounded to K come to a tie, by their floats, and where."""
    places = np.arange(1, width + 1)  # the angle of each, in units of pi / 2 D
    numbers = 2**14 * np.cos(np.pi / 2 * places / width)
    distances = np.abs(numbers % 1 - 0.5)
    return distances.min(), width, int(places[distances.argmin()])


@pytest.mark.parametrize(("widest", "exponent"), [(1040, 7), (MOST_WIDTH, 9)])
def test_no_entry_of_the_table_of_cosines_is_near_a_tie(widest, exponent):
    found = [distance_to_tie(width) for width in range(1, widest + 1)]
    least = min(found)[0] + 1e-11  # three times as wide a model has the same angle
    distance, width, place = next(one for one in found if one[0] < least)
    precise = cosine(place, 2 * width) * 2**14
    assert abs(abs(precise % 1 - Decimal("0.5")) - Decimal(float(distance))) < Decimal("1e-11")
    said, specification = floor(distance * 10 ** (exponent + 1)) / 10, SPECIFICATION.replace("\n", " ")
    assert f"nearer than {said} 10^-{exponent} " in specification
    assert f"the nearest at D = {width:,}" in specification
    assert f"For D = 320 it is {distance_to_tie(320)[0]:.4f}." in SPECIFICATION


@pytest.mark.parametrize("width", [1, 2, 7, 66, 320, 940, 1040])
def test_the_table_of_cosines_is_that_of_the_specification(width):
    table = exact.cosines(width)
    assert (table[0] == 11585).all()
    for f, n in np.random.RandomState(width).randint(width, size=(40, 2)):
        if f:
            turns = int(f * (2 * n + 1)) % (4 * width)  # in units of pi / 2 D
            half = min(turns, 4 * width - turns)
            precise = cosine(min(half, 2 * width - half), 2 * width) * (1 if half <= width else -1)
            assert table[f, n] == int((precise * 2**14).to_integral_value())
    if width == 940:  # where a number is nearest to a tie: 2^14 cos(317 pi / 1880)
        assert table[317, 0] == int((cosine(317, 1880) * 2**14).to_integral_value())


def test_the_table_of_powers_for_scales_is_that_of_the_specification():
    stated = [float.fromhex(digits) for digits in re.findall(r"`(0x1\.[0-9a-f]+p\+0)`", SPECIFICATION)]
    with localcontext(prec=50):
        assert stated == exact.P8 == [float(Decimal(2) ** (Decimal(k) / 8)) for k in range(8)]
        assert round(2**14 / Decimal(2).sqrt()) == 11585


@pytest.mark.parametrize(
    ("stored", "levels", "codes"),
    [("78 30 08", 3, [0, 1, 2, 1, 0, 2, 2]), ("7D F1 51 0D", 8, [1, 6, 7, 0, 5, 2, 3])],
)
def test_the_examples_of_vectors(stored, levels, codes):
    signs, scale = np.array([-1, -1, 1, 1, -1, -1, 1]), int(stored[:2], 16)
    (x,) = exact.vectors(np.array([codes]), np.array([scale]), levels, signs)
    example = " ".join(SPECIFICATION[SPECIFICATION.index(f"the vector `{stored}`".replace("the", "he", 1)) :].split())
    sums, g, bits = re.match(r".*? S = ([-\d, ]+) and g = (\S+)\. .*? is ([0-9a-f, ]+)\.", example).groups()
    assert [int(s) for s in sums.split(",")] == ((2 * np.array(codes) - (levels - 1)) @ exact.cosines(7)).tolist()
    by_hand = Decimal(2) ** (Decimal(scale - 128 - 8 * 14) / 8) * (Decimal(2) / 7).sqrt() / (levels - 1)
    assert float.fromhex(g) == pytest.approx(float(by_hand), rel=1e-15)
    assert x.astype(">f4").tobytes().hex() == bits.replace(", ", "")


def test_the_example_of_coded_tokens():
    data = bytes.fromhex(re.search("The bytes are `(.*)`", SPECIFICATION)[1])
    decoder = exact.Decoder(data)
    assert [decoder.take(np.array([16777000, 150, 66])) for _ in range(4)] == [0, 1, 0, 2]
    decoder.check_end()
    low, size = map(int, re.search(r"low is\s+(\d+) and range (\d+)", SPECIFICATION).groups())
    assert (decoder.at, decoder.range) == (4 + 6, size)
    assert exact.chosen(low, size).to_bytes(10, "big").rstrip(b"\0") == data


@pytest.mark.parametrize("n_levels", [2, 3, 4, 8, 16, 256])
@pytest.mark.parametrize("width", [52, 320])
def test_vectors_come_out_to_the_last_bit(n_levels, width):
    rng = np.random.default_rng(n_levels)
    codes = rng.integers(0, n_levels, (40, width)).astype(np.uint8)
    scales = rng.integers(60, 190, 40).astype(np.uint8)
    expected = np.array(exact.vectors(codes, scales, n_levels, reader.signs_of(width)))
    assert dequantised(codes, scales, n_levels).tobytes() == expected.astype(np.float32).tobytes()


def test_vectors_of_a_wide_model_are_those_of_the_specification():
    """Wider than what is computed at once."""
    width, random = 2100, np.random.RandomState(3)
    codes, scales = random.randint(0, 4, (2, width)).astype(np.uint8), np.array([120, 131], np.uint8)
    signs = vectors.signs(width).astype(np.int64)
    assert (dequantised(codes, scales, 4) == exact.vectors(codes, scales, 4, signs)).all()
