"""Model folders: what is read, and what is refused because its sums would not be exact."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_exact_llama import GROUPED, PLAIN, PRIMER, random_tensors

import cramzip
from cramzip.errors import ModelError
from cramzip.exact import WEIGHTS_NAME, probe, weights
from cramzip.exact.weights import assemble, parse, quantise, read_model, read_shape, serialise

CONFIG = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 96,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 200,
    "vocab_size": 300,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "bos_token_id": 1,
}


def write(folder, config, tensors=None, notes=None):
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        (folder / WEIGHTS_NAME).write_bytes(serialise(tensors, notes or {}))
    return folder


def test_a_folder_is_read_as_it_was_written(tmp_path):
    tensors = random_tensors(GROUPED)
    read = read_model(write(tmp_path, CONFIG, tensors, {"probe": "ab"}))
    assert read.shape == GROUPED
    assert read.probe_hash == "ab"
    assert (read.head.integers == tensors["lm_head.weight"]).all()
    assert (read.layers[1].qkv.integers[256:384] == tensors["model.layers.1.self_attn.k_proj.weight"]).all()
    assert (read.layers[0].gate_up.scales[200:] == tensors["model.layers.0.mlp.up_proj.scale"]).all()


def test_the_layout_is_that_of_safetensors():
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = random_tensors(PLAIN)
    read = safetensors.load(serialise(tensors, {"a": "b"}))
    assert read.keys() == tensors.keys()
    assert all((read[name] == tensors[name]).all() for name in tensors)
    again, _ = parse(safetensors.save(tensors))
    assert all((again[name] == tensors[name]).all() for name in tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 32}, "head_dim"),
        ({"head_dim": None, "num_attention_heads": 2}, "head_dim"),
        ({"model_type": "qwen2"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "llama3"}}, "rope_type"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic"}}, "rope_type"),
        ({"rope_parameters": {"rope_theta": 10000.5}}, "rope_theta"),
        ({"hidden_size": 1041}, "hidden_size"),
        ({"intermediate_size": 1041}, "intermediate_size"),
        ({"num_attention_heads": 17, "num_key_value_heads": 17}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "share"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": 2**18 + 1}, "vocab_size"),
        ({"bos_token_id": 300}, "start token"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"rms_norm_eps": "small"}, "no description"),
        ({"hidden_size": None}, "no description"),
        ({"hidden_size": "96"}, "hidden_size: expected an integer, found '96'"),
        ({"hidden_size": 96.7}, "hidden_size: expected an integer, found 96.7"),
        ({"hidden_size": float("inf")}, "hidden_size: expected an integer, found inf"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected an integer, found True"),
        ({"num_key_value_heads": {}}, "num_key_value_heads: expected an integer"),
        ({"num_attention_heads": 0, "head_dim": None}, "head_dim"),
        ({"rope_parameters": {"rope_theta": "10000"}}, "rope_theta: expected a number, found '10000'"),
        ({"rope_parameters": {"rope_theta": float("inf")}}, "no description"),
        ({"rms_norm_eps": 10**400}, "no description"),
    ],
    ids=str,
)
def test_models_that_would_not_be_exact_are_refused(tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        read_shape(write(tmp_path, CONFIG | change))


def test_older_configurations_name_theta_elsewhere(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key not in ("rope_parameters", "head_dim")}
    shape = read_shape(write(tmp_path, config | {"rope_theta": 500000.0, "hidden_size": 256, "bos_token_id": None}))
    assert (shape.theta, shape.width, shape.start) == (500000, 256, 0)


@pytest.mark.parametrize("start", [None, True, 5.0, [5]])
def test_a_start_token_that_is_no_integer_is_that_of_the_number_0(tmp_path, start):
    assert read_shape(write(tmp_path, CONFIG | {"bos_token_id": start})).start == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 10**5], ids=lambda content: repr(content[:4]))
def test_a_configuration_that_is_none_is_an_error(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError):
        read_shape(tmp_path)


def test_missing_files_are_an_error_of_the_model(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        read_model(tmp_path)
    with pytest.raises(ModelError, match=r"exact\.safetensors"):
        read_model(write(tmp_path, CONFIG))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("lm_head.weight", None, "lm_head.weight"),
        ("lm_head.weight", np.zeros((300, 95), np.int8), "lm_head.weight"),
        ("lm_head.weight", np.zeros((300, 96), np.float32), "lm_head.weight"),
        ("lm_head.weight", np.full((300, 96), -128, np.int8), "-128"),
        ("lm_head.scale", np.full(300, np.nan, np.float32), "finite"),
        ("lm_head.scale", np.full(300, 1e30, np.float32), "finite"),
        ("model.norm.weight", np.full(96, -np.inf, np.float32), "finite"),
        ("model.layers.2.input_layernorm.weight", np.zeros(96, np.float32), "no place"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_that_do_not_fit_are_refused(name, tensor, message):
    tensors = random_tensors(GROUPED) | {name: tensor}
    if tensor is None:
        del tensors[name]
    with pytest.raises(ModelError, match=message):
        assemble(GROUPED, tensors)


@pytest.mark.parametrize("notes", [b"null", b"[]", b'"a"', b"5"], ids=bytes.decode)
def test_notes_that_are_no_object_are_an_error_of_the_model(tmp_path, notes):
    file = write(tmp_path, CONFIG, random_tensors(GROUPED)) / WEIGHTS_NAME
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'"__metadata__":{}', b'"__metadata__":' + notes)
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(ModelError, match="__metadata__"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "content", [None, b"{}", b'{"model": 5}', b"[" * 10**5], ids=["none", "empty", "number", "deep"]
)
def test_a_tokenizer_that_is_none_is_an_error_of_the_model(tmp_path, content):
    folder = tmp_path / "model"
    shutil.copytree(PRIMER.parents[2] / "formats" / "exact_model", folder)
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer"):
        cramzip.load(str(folder)).tokenizer  # noqa: B018 (it is read when it is first asked for)


def damaged_files():
    data = serialise({"a": np.zeros(4, np.float32), "b": np.zeros(2, np.int8)}, {})
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]

    def with_header(old, new):
        changed = header.replace(old, new)
        return len(changed).to_bytes(8, "little") + changed + data[8 + len(header) :]

    return {
        "empty": b"",
        "cut short": data[:-1],
        "too long": data + b"\0",
        "header longer than the file": (10**9).to_bytes(8, "little") + data[8:],
        "no JSON": with_header(b"{", b"["),
        "a gap": with_header(b"[16,18]", b"[15,17]"),
        "an overlap": with_header(b"[16,18]", b"[ 0, 2]"),
        "too few bytes": with_header(b"[4]", b"[5]"),
        "a shape in words": with_header(b"[4]", b'["4"]'),
        "a shape of a fraction": with_header(b"[4]", b"[4.0]"),
        "a shape to be found out": with_header(b"[4]", b"[-1]"),
        "another type": with_header(b'"F32"', b'"F8"'),
        "no offsets": with_header(b"data_offsets", b"data_offset"),
        "negative": with_header(b"[0,16]", b"[-4,16]"),
    }


@pytest.mark.parametrize("fault", damaged_files())
def test_damaged_weights_are_an_error_of_the_model(fault):
    with pytest.raises(ModelError):
        parse(damaged_files()[fault])


def test_weights_are_rounded_to_the_nearest_of_255_levels():
    values = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    values[7] = 0
    matrix = quantise(values)
    assert (np.abs(matrix.integers).max(axis=1)[np.arange(50) != 7] == 127).all()
    assert (np.abs(matrix.integers * matrix.scales[:, None] - values) <= matrix.scales[:, None] * 0.5001).all()


def test_the_command_that_makes_int8_weights_gives_those_that_a_model_was_rounded_to(tmp_path):
    from cramzip.lm.loading import float_weights

    floats, integers = tmp_path / "floats", tmp_path / "integers"
    shutil.copytree(PRIMER, floats)
    (floats / WEIGHTS_NAME).unlink()
    (floats / "model.safetensors").write_bytes(serialise(float_weights(PRIMER), {}))
    script = PRIMER.parents[2] / "examples" / "training" / "to_int8.py"
    subprocess.run([sys.executable, script, floats, integers], check=True, capture_output=True)
    made, notes = weights.parse((integers / WEIGHTS_NAME).read_bytes())
    expected, _ = weights.parse((PRIMER / WEIGHTS_NAME).read_bytes())
    assert probe.load(weights.read_model(integers)).weights.probe_hash == notes["probe"]
    for name, tensor in expected.items():
        assert (made[name] == tensor).all() if tensor.dtype == np.int8 else np.allclose(made[name], tensor, rtol=1e-6)
