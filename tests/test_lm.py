"""Models of every architecture that is promised: found, fingerprinted, asked for logits, refused."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from models import ARCHITECTURES, TINY_MODEL, byte_level_tokenizer, make_model
from safetensors.torch import load_file, save_file

from cramzip import CramConfig, compress, decompress, describe
from cramzip.errors import MissingModelError, ModelError, UsageError, WrongModelError
from cramzip.lm import FrozenLM, load
from cramzip.source import find, find_named

TEXT = "The cat sat on the mat. \N{SNOWMAN}\r\n".encode() + b"\xff"


@pytest.fixture(params=sorted(ARCHITECTURES), scope="module")
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(request.param, folder)
    return FrozenLM.load(folder)


def test_every_architecture_gives_a_text_back(model):
    blob = compress(TEXT, model, CramConfig(effort=2, vectors=8))
    assert describe.describe(blob).n_crammed > 0
    assert decompress(blob, model) == TEXT


def test_cached_logits_are_those_of_the_whole_row(model):
    inputs = model.embed(torch.arange(24).reshape(2, 12) + 5)
    whole = model.logits(inputs)
    last, cache = model.step(inputs[:, :4])
    stepwise = [last]
    for t in range(4, 12):
        last, cache = model.step(inputs[:, t : t + 1], cache)
        stepwise.append(last)
    torch.testing.assert_close(torch.stack(stepwise, 1), whole[:, 3:], rtol=0, atol=2e-4)


def test_embeddings_are_those_that_the_model_looks_up_itself(model):
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        looked_up = model._model(input_ids=ids).logits
    torch.testing.assert_close(model.logits(model.embed(ids)), looked_up, rtol=0, atol=1e-5)
    assert model.embed(ids).shape == (1, 10, model.width)


def test_opt_takes_embeddings_narrower_than_its_hidden_states(tmp_path):
    make_model("opt", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert FrozenLM.load(tmp_path).width == config["word_embed_proj_dim"] < config["hidden_size"]


def test_score_is_minus_log_probability_from_the_beginning_of_text_token():
    lm = FrozenLM.load(TINY_MODEL)
    row = [70, 71, 72, 73]
    logits = lm.logits(lm.embed(torch.tensor([[lm.bos, *row[:-1]]])))
    expected = -logits[0].log_softmax(-1)[torch.arange(4), torch.tensor(row)]
    np.testing.assert_allclose(lm.score([row, row[:2]])[0], expected.numpy(), rtol=1e-5)


def test_without_a_beginning_of_text_token_the_first_costs_log_of_the_vocabulary():
    lm = FrozenLM.load(TINY_MODEL)
    lm.bos = None
    first, second = lm.score([[70, 71], [70]])
    assert first[0] == pytest.approx(math.log(lm.vocabulary_size))
    assert second.tolist() == [first[0]]


@pytest.fixture
def copy_of_tiny_model(tmp_path):
    return shutil.copytree(TINY_MODEL, tmp_path / "copy")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_copy_of_a_model_has_the_same_fingerprint(copy_of_tiny_model):
    change_json(copy_of_tiny_model / "config.json", transformers_version="0.0", dtype="bfloat16")
    assert find(str(copy_of_tiny_model)).fingerprint == find(str(TINY_MODEL)).fingerprint


def test_one_flipped_bit_in_the_weights_changes_the_fingerprint(copy_of_tiny_model):
    weights = copy_of_tiny_model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert find(str(copy_of_tiny_model)).fingerprint != find(str(TINY_MODEL)).fingerprint


def test_a_setting_that_changes_the_output_changes_the_fingerprint(copy_of_tiny_model):
    change_json(copy_of_tiny_model / "config.json", rms_norm_eps=1e-3)
    assert find(str(copy_of_tiny_model)).fingerprint != find(str(TINY_MODEL)).fingerprint


def test_weights_in_several_files_have_the_fingerprint_of_weights_in_one(tmp_path):
    model = make_model("llama", tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    assert find(str(tmp_path / "one")).fingerprint == find(str(tmp_path / "many")).fingerprint


def test_pickled_weights_are_refused(copy_of_tiny_model):
    (copy_of_tiny_model / "model.safetensors").unlink()
    torch.save({}, copy_of_tiny_model / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load(str(copy_of_tiny_model))


def test_remote_code_is_refused(copy_of_tiny_model):
    trap = copy_of_tiny_model / "run"
    change_json(
        copy_of_tiny_model / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"},
    )
    (copy_of_tiny_model / "evil.py").write_text(f"open({str(trap)!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(copy_of_tiny_model))
    assert not trap.exists()


@pytest.mark.parametrize("name", ["builtin:nonesuch", "builtin:../models", "no such thing", "hf:../../etc", ""])
def test_a_name_that_leads_to_no_model_is_an_error(name):
    with pytest.raises(ModelError):
        find(name)


@pytest.mark.parametrize("name", ["hf:copy", "copy", "local:copy", "local:my:copy", "./copy", "builtin:copy", "x:copy"])
def test_an_id_from_a_file_is_never_taken_for_a_folder(monkeypatch, tmp_path, copy_of_tiny_model, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for folder in ("local:copy", "local:my:copy", "x:copy", "hf:copy"):
        shutil.copytree("copy", folder)
    assert find("copy").model_id == "local:copy"
    with pytest.raises(ModelError):
        find_named(name, "")


@pytest.mark.parametrize("revision", ["/dev/zero", "../../x", "main", "f" * 39, "a/b"])
def test_a_revision_from_a_file_is_followed_only_if_it_is_a_commit(monkeypatch, revision):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, revision, **_: asked.append(revision) or ".")
    find_named("hf:a/b", revision)
    find_named("hf:a/b", "0123456789abcdef" * 2 + "01234567")
    assert asked == [None, "0123456789abcdef" * 2 + "01234567"]


@pytest.mark.parametrize("revision", ["/dev/zero", "../x", "a//b", "a/../b", ""])
def test_a_revision_that_leads_out_of_the_cache_is_a_usage_error(revision):
    with pytest.raises(UsageError, match="revision"):
        find("a/b", revision=revision)


def test_a_revision_of_a_local_model_is_a_usage_error():
    with pytest.raises(UsageError, match="Hugging Face"):
        find(str(TINY_MODEL), revision="main")


def test_a_folder_name_that_no_file_can_hold_is_changed(tmp_path):
    folder = shutil.copytree(TINY_MODEL, tmp_path / ("mo\ndel" + "x" * 240))
    lm = load(str(folder))
    blob = compress(b"Hello, hello", lm, CramConfig(effort=1, vectors=64))
    assert decompress(blob, lm) == b"Hello, hello"
    assert lm.model_id.startswith("local:mo_del")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "not json"),
        ("config.json", '{"model_type": "llama", "transformers_weights": "x.bin"}'),
        ("model.safetensors", ""),
        ("model.safetensors", "garbage, and more of it"),
        ("tokenizer.json", "{}"),
    ],
)
def test_a_broken_model_file_is_a_model_error(copy_of_tiny_model, file, content):
    (copy_of_tiny_model / file).write_text(content)
    with pytest.raises(ModelError):
        load(str(copy_of_tiny_model))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_model_file_is_a_model_error(copy_of_tiny_model, missing):
    (copy_of_tiny_model / missing).unlink()
    for other in ("tokenizer_config.json",) if missing == "tokenizer.json" else ():
        (copy_of_tiny_model / other).unlink()
    with pytest.raises(ModelError):
        load(str(copy_of_tiny_model))


def test_a_file_that_is_no_gguf_is_a_model_error(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"garbage" * 10)
    with pytest.raises(ModelError):
        load(str(tmp_path / "x.gguf"))


def test_an_index_cannot_lead_out_of_its_folder(copy_of_tiny_model):
    (copy_of_tiny_model / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (copy_of_tiny_model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="folder itself"):
        load(str(copy_of_tiny_model))


def test_a_model_with_weights_missing_is_refused(copy_of_tiny_model):
    path = copy_of_tiny_model / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, path)
    with pytest.raises(ModelError, match="missing_keys"):
        load(str(copy_of_tiny_model))


def test_a_model_that_sees_what_comes_later_is_refused(tmp_path):
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    byte_level_tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match=r"causal|embeddings"):
        load(str(tmp_path))


def test_positions_that_depend_on_the_length_of_the_text_are_refused(copy_of_tiny_model):
    change_json(
        copy_of_tiny_model / "config.json", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    )
    with pytest.raises(ModelError, match="not supported"):
        load(str(copy_of_tiny_model))


def test_a_text_longer_than_the_context_of_the_model_comes_back(copy_of_tiny_model):
    change_json(copy_of_tiny_model / "config.json", max_position_embeddings=40)
    lm = load(str(copy_of_tiny_model))
    text = b"It is a far, far better thing that I do, than I have ever done."
    assert decompress(compress(text, lm, CramConfig(effort=1, vectors=30)), lm) == text


def test_decoding_is_plain_float32_whatever_the_program_around_has_set():
    lm = FrozenLM.load(TINY_MODEL)
    torch.set_float32_matmul_precision("medium")
    try:
        with lm.exact():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_hub_model_that_is_not_here_is_missing_and_not_fetched(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModelError, match="--download"):
        find("hf:nobody/nothing-of-that-name")


def test_a_device_that_is_not_here_is_an_error():
    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ModelError, match="mps"):
        load(str(TINY_MODEL), device="mps")


def test_a_file_of_another_model_is_refused_with_both_fingerprints(tmp_path):
    tiny = FrozenLM.load(TINY_MODEL)
    make_model("llama", tmp_path)
    other = FrozenLM.load(tmp_path)
    blob = compress(b"Hello, hello", tiny, CramConfig(effort=1))
    with pytest.raises(WrongModelError) as caught:
        decompress(blob, other)
    assert tiny.fingerprint.hex() in str(caught.value)
    assert other.fingerprint.hex() in str(caught.value)


def test_a_file_of_another_tokenizer_is_refused(copy_of_tiny_model):
    tiny = FrozenLM.load(TINY_MODEL)
    path = copy_of_tiny_model / "tokenizer.json"
    path.write_text(path.read_text().replace('"special": true', '"special": false'))
    blob = compress(b"Hello, hello", tiny, CramConfig(effort=1))
    with pytest.raises(WrongModelError, match="Tokenizer_Hash"):
        decompress(blob, FrozenLM.load(copy_of_tiny_model))


@pytest.mark.parametrize("wrong", [{"vectors": 0}, {"effort": 10}, {"dtype": "int8"}, {"batch_size": 0}])
def test_a_configuration_out_of_range_is_a_usage_error(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CramConfig(**wrong)
