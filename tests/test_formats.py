"""The format, twice: the test vectors, read by the reference reader and by the library.

Neither knows the other, so a file that both read alike is read as the specification says.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FORMATS = Path(__file__).parent.parent / "formats"
MODEL = FORMATS / "model"
VECTORS = FORMATS / "vectors"
sys.path.insert(0, str(FORMATS))

import llama  # noqa: E402
import make_model  # noqa: E402
import make_vectors  # noqa: E402
import reader  # noqa: E402

INDEX = json.loads((VECTORS / "index.json").read_text("utf-8"))["vectors"]


def vectors(expectation, but_stage=None):
    chosen = [v for v in INDEX if v["expect"] == expectation and v.get("stage", "") != but_stage]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["file"].removesuffix(".cram"))


def blob_of(vector):
    return (VECTORS / vector["file"]).read_bytes()


def assert_is_original(data, vector):
    assert len(data) == vector["size"]
    assert hashlib.sha256(data).hexdigest() == vector["sha256"]
    assert data.hex() == vector.get("original", data.hex())


@pytest.fixture(scope="module")
def cramzip():
    import cramzip.errors

    return cramzip


@pytest.fixture(scope="module")
def lm(cramzip):
    from cramzip.lm import FrozenLM

    return FrozenLM.load(MODEL)


# ---------------------------------------------------------------- the reference reader


@vectors("ok")
def test_reference_reader_decodes(vector):
    assert_is_original(reader.read(blob_of(vector), MODEL), vector)


@vectors("damaged")
def test_reference_reader_calls_damaged_at_the_right_stage(vector):
    with pytest.raises(reader.Damaged) as refusal:
        reader.read(blob_of(vector), MODEL)
    assert refusal.value.stage == vector["stage"]


@vectors("wrong model")
def test_reference_reader_wants_another_model_for(vector):
    with pytest.raises(reader.WrongModel) as refusal:
        reader.read(blob_of(vector), MODEL)
    assert refusal.value.stage == vector["stage"] == "model"


@vectors("damaged", but_stage="content")
def test_reference_reader_needs_no_model_to_find_damage_before_the_stage_model(vector):
    with pytest.raises(reader.Damaged) as refusal:
        reader.read(blob_of(vector))
    assert refusal.value.stage == vector["stage"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([VECTORS / "ok-crammed-recital.cram", MODEL], 0),
        ([VECTORS / "ok-raw-one-byte.cram"], 0),
        ([VECTORS / "no-such-file.cram"], 1),
        ([], 2),
        ([VECTORS / "magic-genomics.cram"], 3),
        ([VECTORS / "model-other-fingerprint.cram", MODEL], 4),
        ([VECTORS / "ok-crammed-recital.cram"], 4),
    ],
    ids=lambda value: value if isinstance(value, int) else "-".join(Path(part).stem for part in value),
)
def test_reference_reader_exits_with_the_code_of_the_problem(arguments, code):
    run = subprocess.run([sys.executable, FORMATS / "reader.py", *arguments], capture_output=True)
    assert run.returncode == code
    assert bool(run.stdout) == (code == 0)
    assert bool(run.stderr) == (code != 0)


# ---------------------------------------------------------------- the vectors themselves


def test_every_committed_vector_is_in_the_index():
    assert {path.name for path in VECTORS.glob("*.cram")} == {vector["file"] for vector in INDEX}


def test_every_stage_has_vectors():
    stages = ["magic", "version", "header", "table", "length", "payload", "vectors", "corrections", "model", "content"]
    assert list(dict.fromkeys(vector["stage"] for vector in INDEX if vector["expect"] != "ok")) == stages


def test_generators_make_the_committed_files_again(tmp_path):
    make_model.write_model(tmp_path / "model")
    make_vectors.write_vectors(tmp_path / "vectors")
    for folder in ("model", "vectors"):
        made = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        assert made == {path.name: path.read_bytes() for path in (FORMATS / folder).iterdir()}


# ---------------------------------------------------------------- the library, on the same files


@vectors("ok")
def test_library_decodes(vector, cramzip, lm):
    assert_is_original(cramzip.decompress(blob_of(vector), lm), vector)


@vectors("damaged")
def test_library_calls_damaged_at_the_right_stage(vector, cramzip, lm):
    with pytest.raises(cramzip.errors.DamagedFileError) as refusal:
        cramzip.decompress(blob_of(vector), lm)
    assert refusal.value.stage == vector["stage"]


@vectors("wrong model")
def test_library_wants_another_model_for(vector, cramzip, lm):
    with pytest.raises(cramzip.errors.WrongModelError):
        cramzip.decompress(blob_of(vector), lm)


AWKWARD = {
    "nothing": b"",
    "one NUL": b"\0",
    "every byte": bytes(range(256)),
    "line endings": b"a\r\nb\rc\n\n\r\n",
    "no UTF-8 amid English": b"The \xff\xfe of \xc3( the \xed\xa0\x80 water, and \x80 on.",
    "byte order mark": "\ufeffthe end".encode(),
    "special token spelt out": b"the <|end|> of the <|end|>",
    "character of SentencePiece": "\u2581the\u2581end".encode(),
    "composed and decomposed": "é e\u0301 ﬁ fi Å Å".encode(),
    "same letter": b"a" * 5000,
    "noise": np.random.RandomState(0).bytes(3000),
    "worth cramming": make_model.CITIES_TEXT.encode(),
    "worth cramming amid noise": b"\xff\0" + make_model.CITIES_TEXT.encode() + b"\r\n\xfe",
}


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD.keys())
def test_reference_reader_decodes_what_the_library_writes(data, cramzip, lm):
    blob = cramzip.compress(data, lm, cramzip.CramConfig(effort=1))
    assert reader.read(blob, MODEL) == data
    assert cramzip.decompress(blob, lm) == data


def test_library_crams_the_text_that_is_worth_it(cramzip, lm):
    """Without this, the test above might see stored chunks only."""
    blob = cramzip.compress(AWKWARD["worth cramming"], lm, cramzip.CramConfig(effort=1))
    assert reader.parse_header(blob)[0].model is not None


# ---------------------------------------------------------------- the model at hand


def test_library_and_reference_reader_agree_on_the_fingerprint(lm):
    assert llama.fingerprint(llama.read_config(MODEL), llama.read_tensors(MODEL)) == lm.fingerprint


def test_library_and_reference_reader_agree_on_the_tokenizer_hash(lm):
    assert llama.tokenizer_hash(llama.token_table(MODEL)) == lm.tokenizer_hash


def test_plain_forward_pass_agrees_with_transformers():
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    ours = llama.Llama(llama.read_config(MODEL), llama.read_tensors(MODEL))
    x = make_vectors.draw(0, 100).astype(np.float32)
    cache = ours.empty_cache(len(x))
    logits = np.stack([ours.logits(x[position], position, cache) for position in range(len(x))])
    with torch.no_grad():
        expected = theirs(inputs_embeds=torch.from_numpy(x)[None]).logits[0].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_fingerprint_ignores_how_a_model_was_saved_and_nothing_else():
    config, tensors = llama.read_config(MODEL), llama.read_tensors(MODEL)
    saved_otherwise = {"use_cache": False, "transformers_version": "9", **config, "dtype": "float16"}
    assert llama.fingerprint(saved_otherwise, tensors) == llama.fingerprint(config, tensors)
    assert llama.fingerprint({**config, "rms_norm_eps": 1e-6}, tensors) != llama.fingerprint(config, tensors)
    assert llama.fingerprint(config, tensors[:-1]) != llama.fingerprint(config, tensors)


def test_fingerprint_does_not_depend_on_the_cut_into_files(tmp_path):
    tensors = make_model.weights()
    for i, name in enumerate(tensors):
        (tmp_path / f"{i}.safetensors").write_bytes(make_model.safetensors_file({name: tensors[name]}))
    weight_map = {name: f"{i}.safetensors" for i, name in enumerate(tensors)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert llama.read_tensors(tmp_path) == llama.read_tensors(MODEL)


def test_sentencepiece_entries_stand_for_bytes_as_section_8_says(tmp_path):
    vocab = ["<unk>", "<s>", "\u2581the", "<0x0A>", "<0x0AB>", "\u2581\u2581", "é"]
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(
            {
                "added_tokens": [
                    {"id": 1, "content": "<s>", "special": True},
                    {"id": 8, "content": "\u2581x", "special": False},
                ],
                "decoder": {
                    "type": "Sequence",
                    "decoders": [
                        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                        {"type": "ByteFallback"},
                    ],
                },
                "model": {"type": "BPE", "unk_token": "<unk>", "vocab": {entry: i for i, entry in enumerate(vocab)}},
            }
        )
    )
    table = [None, None, b" the", b"\n", b"<0x0AB>", b"  ", "é".encode(), None, "\u2581x".encode()]
    assert llama.token_table(tmp_path) == table
