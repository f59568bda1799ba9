"""Models of every architecture that is promised: found, fingerprinted, asked for logits, refused."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from models import ARCHITECTURES, TINY_MODEL, make_model

from cramzip import CramConfig, compress, decompress, describe
from cramzip.errors import MissingModelError, ModelError, UsageError, WrongModelError
from cramzip.lm import FrozenLM, find, load

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


def test_embedding_width_and_scale_are_those_of_what_the_model_takes_in(model):
    embedded = model.embed(torch.arange(100))
    assert embedded.shape == (100, model.width)
    assert model.embedding_scale == pytest.approx(float(embedded.std()), rel=0.3)


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
    assert find(str(copy_of_tiny_model)).fingerprint() == find(str(TINY_MODEL)).fingerprint()


def test_one_flipped_bit_in_the_weights_changes_the_fingerprint(copy_of_tiny_model):
    weights = copy_of_tiny_model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert find(str(copy_of_tiny_model)).fingerprint() != find(str(TINY_MODEL)).fingerprint()


def test_a_setting_that_changes_the_output_changes_the_fingerprint(copy_of_tiny_model):
    change_json(copy_of_tiny_model / "config.json", rms_norm_eps=1e-3)
    assert find(str(copy_of_tiny_model)).fingerprint() != find(str(TINY_MODEL)).fingerprint()


def test_weights_in_several_files_have_the_fingerprint_of_weights_in_one(tmp_path):
    model = make_model("llama", tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    assert find(str(tmp_path / "one")).fingerprint() == find(str(tmp_path / "many")).fingerprint()


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


@pytest.mark.parametrize("name", ["builtin:nonesuch", "builtin:../models", "no such thing", "hf:../../etc", "local:x"])
def test_a_name_that_leads_to_no_model_is_an_error(name):
    with pytest.raises(ModelError):
        find(name)


def test_an_id_from_a_file_is_never_taken_for_a_folder(monkeypatch, tmp_path, copy_of_tiny_model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find("copy").model_id == "local:copy"
    with pytest.raises(ModelError):
        find("hf:copy")


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
