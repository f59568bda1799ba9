"""What a model is known by, twice: test vectors of sections 9 and 10, for the reference reader and for the library."""

import json
import sys

import pytest
from models import ROOT, TINY_MODEL

from cramzip.errors import ModelError
from cramzip.lm.source import find
from cramzip.lm.tokens import read_tokenizer, table_hash, token_table

FORMATS = ROOT / "formats"
IDENTITY = FORMATS / "identity"
sys.path.insert(0, str(FORMATS))

import gguf_model  # noqa: E402
import llama  # noqa: E402
import make_identity  # noqa: E402

TOKENIZERS = json.loads((IDENTITY / "tokenizers.json").read_text("utf-8"))
ALL_MODELS = json.loads((IDENTITY / "models.json").read_text("utf-8"))
GGUF_REFUSED = [case for case in ALL_MODELS if "model.gguf" in case["files"] and case["expect"] == "unsupported"]
MODELS = [case for case in ALL_MODELS if case not in GGUF_REFUSED]


def table_by_library(folder):
    return list(token_table(read_tokenizer((folder / "tokenizer.json").read_bytes())))


def fingerprint_by_library(folder):
    return find(str(file if (file := folder / "model.gguf").exists() else folder)).fingerprint


def fingerprint_by_reference_reader(folder):
    if (file := folder / "model.gguf").exists():
        return gguf_model.gguf_fingerprint(file)
    return llama.fingerprint(llama.read_config(folder), llama.read_tensors(folder))


def cases(listed):
    return pytest.mark.parametrize("case", listed, ids=lambda case: case["name"])


def readers(reference, library):
    return pytest.mark.parametrize("read", [reference, library], ids=["reference", "library"])


def assert_unsupported(read, folder):
    with pytest.raises((ModelError, llama.Unsupported)):
        read(folder)


@readers(llama.token_table, table_by_library)
@cases(TOKENIZERS)
def test_a_token_table_is_as_section_9_says(case, read, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(case["tokenizer"]), "utf-8")
    if case["expect"] == "unsupported":
        assert_unsupported(read, tmp_path)
        return
    table = read(tmp_path)
    assert [None if token is None else token.hex() for token in table] == case["table"]
    assert llama.tokenizer_hash(table).hex() == table_hash(tuple(table)).hex() == case["hash"]


@readers(llama.token_table, table_by_library)
@pytest.mark.parametrize("name", ['"a"', '"\\u0061"'], ids=["as it is", "as an escape"])
def test_an_entry_of_a_vocabulary_that_is_there_twice_is_refused(name, read, tmp_path):
    text = (TINY_MODEL / "tokenizer.json").read_text("utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace('"vocab": {', f'"vocab": {{{name}: 97,'), "utf-8")
    assert_unsupported(read, tmp_path)


@readers(fingerprint_by_reference_reader, fingerprint_by_library)
@cases(MODELS)
def test_a_fingerprint_is_as_section_10_says(case, read, tmp_path):
    for name, content in case["files"].items():
        (tmp_path / name).write_bytes(bytes.fromhex(content))
    if case["expect"] == "unsupported":
        assert_unsupported(read, tmp_path)
    else:
        assert read(tmp_path).hex() == case["fingerprint"]


@cases(GGUF_REFUSED)
def test_reference_reader_refuses_a_gguf_file_that_section_10_does_not_support(case, tmp_path):
    (tmp_path / "model.gguf").write_bytes(bytes.fromhex(case["files"]["model.gguf"]))
    assert_unsupported(fingerprint_by_reference_reader, tmp_path)


def test_the_generator_makes_the_committed_files_again(tmp_path):
    make_identity.write_identity(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in IDENTITY.iterdir()}
