"""Models of every architecture that is promised: found, fingerprinted, asked for logits, refused."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from models import ARCHITECTURES, TINY_MODEL, byte_level_tokenizer, make_gguf, make_model, recital
from safetensors.torch import load_file, save_file

from cramzip import CramConfig, compress, decompress, read
from cramzip.errors import MissingModelError, ModelError, UsageError, WrongModelError
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.models import load
from cramzip.lm.probe import NOISE_TOKENS
from cramzip.lm.source import BUILTIN_MODELS, find, find_digest, find_named

LENGTH = 40  # tokens, more than the sliding windows of some models


@pytest.fixture(params=sorted(ARCHITECTURES), scope="module")
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_model(request.param, folder)
    return FrozenLM.load(folder)


@pytest.fixture(scope="module")
def tiny():
    return FrozenLM.load(TINY_MODEL)


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize(
    "config",
    [
        CramConfig(vectors=0, chunk_tokens=16, context=9),
        CramConfig(vectors=1, effort=1, chunk_tokens=16, context=9),
        CramConfig(effort=1, vectors=8, exact=True),
    ],
    ids=["no vectors", "default", "exact"],
)
def test_every_architecture_gives_a_text_back(model, config):
    text = recital(model, 8) if config.exact else recital(model, 30) + "\N{SNOWMAN}\r\n".encode() + b"\xff"
    blob = compress(text, model, config)
    assert any(not entry.kind.is_stored for entry in read(blob).entries)
    assert decompress(blob, model) == text
    vectors = read(blob).header.vectors
    assert vectors.after_start is model.vectors_after_start if config.vectors else vectors is None


def test_vectors_stand_after_the_start_token_where_they_say_more_there(model):
    """Of these models of random weights only some listen badly at position 0."""
    if model.model_id.startswith(("local:gpt2", "local:llama")):
        assert model.vectors_after_start is model.model_id.startswith("local:gpt2")


def rows_of(model):
    return model.embed(torch.arange(2 * LENGTH).reshape(2, LENGTH) + 5)


def noise_of(logits):
    """What is more than rounding, far less than another answer."""
    return 1e-3 * float(logits.std())


def test_cached_logits_are_those_of_the_whole_row(model):
    inputs = rows_of(model)
    whole = model.logits(inputs)
    last, cache = model.step(inputs[:, :4])
    stepwise = [last]
    for t in range(4, LENGTH):
        last, cache = model.step(inputs[:, t : t + 1], cache)
        stepwise.append(last)
    torch.testing.assert_close(torch.stack(stepwise, 1), whole[:, 3:], rtol=0, atol=noise_of(whole))


@pytest.mark.parametrize("n_last", [1, 7, LENGTH])
@pytest.mark.parametrize("asks_the_model", [True, False])
def test_the_last_logits_are_the_last_of_all(model, monkeypatch, n_last, asks_the_model):
    if not asks_the_model:
        monkeypatch.setattr(model, "_last_only", {})
    inputs = rows_of(model)
    whole = model.logits(inputs)
    last = model.logits(inputs, n_last)
    assert last.shape == (2, n_last, model.vocabulary_size)
    torch.testing.assert_close(last, whole[:, -n_last:], rtol=0, atol=noise_of(whole))


def test_all_these_architectures_are_asked_for_the_last_logits_alone(model):
    assert model._last_only == {"logits_to_keep": 1}


def test_logits_can_be_differentiated(tiny):
    inputs = rows_of(tiny).clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(tiny.logits(inputs, 3).sum(), inputs)
    assert gradient.abs().sum() > 0


def test_noise_is_positive_and_small(model):
    assert 0 < model.measure_noise() < noise_of(model.logits(rows_of(model)))


def test_noise_is_measured_once(copy_of_tiny_model, monkeypatch):
    lm = FrozenLM.load(copy_of_tiny_model)
    first = lm.noise
    monkeypatch.setattr(lm, "step", None)
    assert lm.noise == first


def test_noise_is_the_largest_difference_between_one_by_one_and_all_at_once(tiny, monkeypatch):
    step, steps = tiny.step, []

    def wrong_at_one_place(inputs, cache=None):
        logits, cache = step(inputs, cache)
        steps.append(inputs.shape[1])
        logits[0, 17] += 0.25 if len(steps) == NOISE_TOKENS else 0.0
        return logits, cache

    monkeypatch.setattr(tiny, "step", wrong_at_one_place)
    assert tiny.measure_noise() == pytest.approx(0.25, rel=1e-2)
    assert steps == [1] * (NOISE_TOKENS + 1)


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


def costs_by_hand(lm, context, row):
    logits = lm.logits(lm.embed(torch.tensor([[lm.start, *context, *row[:-1]]])))
    return -logits[0, len(context) :].log_softmax(-1)[torch.arange(len(row)), torch.tensor(row)]


def test_score_is_minus_log_probability_after_the_start_token(tiny):
    rows = [[70, 71, 72, 73], [70, 71], [9]]
    for row, costs in zip(rows, tiny.score(rows), strict=True):
        np.testing.assert_allclose(costs, costs_by_hand(tiny, [], row).numpy(), rtol=1e-5)


def test_score_with_contexts_is_minus_log_probability_after_these(tiny):
    rows, contexts = [[70, 71, 72, 73], [70, 71], [9]], [[80, 81], [], [1, 2, 3]]
    for row, context, costs in zip(rows, contexts, tiny.score(rows, contexts), strict=True):
        np.testing.assert_allclose(costs, costs_by_hand(tiny, context, row).numpy(), rtol=1e-5)


def test_the_tokens_of_a_row_cost_what_they_do_in_a_longer_row(tiny):
    row = list(range(60, 90))
    (whole,) = tiny.score([row])
    np.testing.assert_allclose(np.concatenate(tiny.score([row[:11], row[11:]], [[], row[:11]])), whole, rtol=1e-3)


@pytest.fixture
def copy_of_tiny_model(tmp_path):
    return shutil.copytree(TINY_MODEL, tmp_path / "copy")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("bos", "eos", "start"),
    [
        (5, 7, 5),
        (0, 7, 0),
        (None, 7, 7),
        (None, None, 0),
        (None, [8, 9], 8),
        (288, 7, 7),
        (-1, None, 0),
        (None, [], 0),
    ],
)
def test_before_a_text_stands_the_token_that_begins_or_else_ends_texts(copy_of_tiny_model, bos, eos, start):
    change_json(copy_of_tiny_model / "config.json", bos_token_id=bos, eos_token_id=eos)
    assert FrozenLM.load(copy_of_tiny_model).start == load(str(copy_of_tiny_model)).start == start


@pytest.mark.parametrize("positions", [3, 40])
def test_the_noise_of_a_model_of_few_positions_is_measured_within_them(copy_of_tiny_model, monkeypatch, positions):
    change_json(copy_of_tiny_model / "config.json", max_position_embeddings=positions)
    lm = FrozenLM.load(copy_of_tiny_model)
    step, steps = lm.step, []
    monkeypatch.setattr(lm, "step", lambda inputs, cache: steps.append(1) or step(inputs, cache))
    assert lm.measure_noise() >= 0
    assert len(steps) == positions


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
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, revision, **_: asked.append(revision) or TINY_MODEL
    )
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


def test_a_folder_name_that_no_file_can_hold_is_changed(tmp_path, never_stored):
    folder = shutil.copytree(TINY_MODEL, tmp_path / ("mo\ndel" + "x" * 240))
    lm = load(str(folder))
    text = recital(lm, 30)
    blob = compress(text, lm, CramConfig(vectors=0))
    assert decompress(blob, lm) == text
    assert read(blob).header.model.model_id == lm.model_id
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


@pytest.mark.parametrize("architecture", ["opt", "qwen2"])
@pytest.mark.usefixtures("never_stored")
def test_a_vocabulary_of_older_models_stands_for_what_its_file_says(tmp_path, architecture):
    """What transformers makes of it depends on the version: of Qwen2, some know special tokens that the files lack."""
    make_model(architecture, tmp_path)
    alphabet = byte_level_tokenizer().get_vocab()
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({**alphabet, "</s>": 256, "<|endoftext|>": 257}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    lm = FrozenLM.load(tmp_path)
    assert sorted(lm.tokenizer.table[:256]) == [bytes([value]) for value in range(256)]
    assert lm.tokenizer.table[256:] == (b"</s>", b"<|endoftext|>")
    text = recital(lm, 30) + b"<|endoftext|>"
    assert decompress(compress(text, lm, CramConfig(vectors=0)), lm) == text


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_model_file_is_a_model_error(copy_of_tiny_model, missing):
    (copy_of_tiny_model / missing).unlink()
    for other in ("tokenizer_config.json",) if missing == "tokenizer.json" else ():
        (copy_of_tiny_model / other).unlink()
    with pytest.raises(ModelError):
        load(str(copy_of_tiny_model))


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_gguf_file_without_what_reads_it_is_an_error_that_says_what_to_install(tmp_path, monkeypatch, package):
    (tmp_path / "x.gguf").write_bytes(b"garbage" * 10)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError) as raised:
        load(str(tmp_path / "x.gguf"))
    assert str(raised.value) == f"local:x.gguf needs {package}: pip install 'cramzip[gguf]'"


def test_the_suffix_of_a_gguf_file_may_be_in_capitals(tmp_path):
    assert find(str(make_gguf(tmp_path / "X.GGUF"))).is_gguf


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


def change_embeddings(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights["model.embed_tokens.weight"])
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"].clone())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_json(folder / "config.json", tie_word_embeddings=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_row_of_an_unused_token_has_no_part_in_the_scale_of_embeddings(copy_of_tiny_model, tiny, value):
    change_embeddings(copy_of_tiny_model, lambda rows: rows[200, 3:5].fill_(value))
    assert FrozenLM.load(copy_of_tiny_model).embedding_scale == pytest.approx(tiny.embedding_scale, rel=0.01)


def test_embeddings_that_are_all_the_same_are_refused(copy_of_tiny_model):
    change_embeddings(copy_of_tiny_model, lambda rows: rows.fill_(1.0))
    with pytest.raises(ModelError, match="no scale"):
        FrozenLM.load(copy_of_tiny_model)


@pytest.mark.parametrize("positions", [-1, 0])
def test_a_model_without_positions_is_refused(copy_of_tiny_model, positions):
    change_json(copy_of_tiny_model / "config.json", max_position_embeddings=positions)
    with pytest.raises(ModelError, match=f"max_position_embeddings: expected 1 or more, found {positions}"):
        load(str(copy_of_tiny_model))


@pytest.mark.parametrize("vectors", [0, 1, 30])
def test_a_text_longer_than_the_context_of_the_model_comes_back(copy_of_tiny_model, never_stored, vectors):
    change_json(copy_of_tiny_model / "config.json", max_position_embeddings=40)
    lm = load(str(copy_of_tiny_model))
    text = b"It is a far, far better thing that I do, than I have ever done."
    assert decompress(compress(text, lm, CramConfig(effort=1, vectors=vectors)), lm) == text


@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
@pytest.mark.usefixtures("never_stored")
def test_a_text_longer_than_there_are_learned_positions_comes_back(tmp_path, architecture):
    make_model(architecture, tmp_path)
    lm = FrozenLM.load(tmp_path)
    text = recital(lm, 200) + recital(lm, 70, seed=1)
    assert len(text) > lm.context
    for config in (CramConfig(vectors=0), CramConfig(vectors=1, effort=1)):
        assert decompress(compress(text, lm, config), lm) == text


def test_decoding_is_plain_float32_whatever_the_program_around_has_set():
    lm = FrozenLM.load(TINY_MODEL)
    torch.set_float32_matmul_precision("medium")
    try:
        with lm.plain_float32():
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


@pytest.fixture(scope="module")
def blob(tiny):
    blob = compress(recital(tiny, 150), tiny, CramConfig(vectors=0))
    assert read(blob).header.model is not None
    return blob


def test_a_file_of_another_model_is_refused_with_both_fingerprints(tiny, blob, tmp_path):
    make_model("llama", tmp_path)
    other = FrozenLM.load(tmp_path)
    with pytest.raises(WrongModelError) as caught:
        decompress(blob, other)
    assert tiny.fingerprint.hex() in str(caught.value)
    assert other.fingerprint.hex() in str(caught.value)


def test_a_file_of_another_tokenizer_is_refused(blob, copy_of_tiny_model):
    path = copy_of_tiny_model / "tokenizer.json"
    path.write_text(path.read_text().replace('"special": true', '"special": false'))
    with pytest.raises(WrongModelError, match="Tokenizer_Hash"):
        decompress(blob, FrozenLM.load(copy_of_tiny_model))


def test_a_model_with_fewer_positions_than_a_chunk_needs_is_refused(tiny, blob, monkeypatch):
    monkeypatch.setattr(tiny, "context", 150)
    with pytest.raises(WrongModelError, match="151 positions"):
        decompress(blob, tiny)


def test_a_builtin_model_is_found_by_the_first_bytes_of_its_fingerprint():
    primer = find()
    assert primer.path.parent == BUILTIN_MODELS
    assert len(primer.digest) == 4
    assert primer.fingerprint.startswith(primer.digest)
    assert find_digest(primer.digest) == primer


def test_a_builtin_model_of_another_version_is_a_model_error():
    with pytest.raises(WrongModelError, match=r"00000000 of another version.*-m"):
        find_digest(bytes(4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"vectors": -1},
        {"vectors": 4097},
        {"effort": 0},
        {"effort": 10},
        {"bits": "5"},
        {"context": -1},
        {"chunk_tokens": 0},
        {"noise_exponent": 16},
        {"dtype": "int8"},
        {"batch_size": 0},
        {"exact": True, "vectors": 0},
    ],
)
def test_a_configuration_out_of_range_is_a_usage_error(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CramConfig(**wrong)
