"""The built-in model: what `cramzip c` uses when nobody names another."""

import subprocess
import sys

import pytest
from models import ROOT

import cramzip
from cramzip import CramConfig, describe

FOLDER = ROOT / "cramzip" / "models" / "primer"
TEXT = b"She opened the window and looked out over the garden."


@pytest.fixture(scope="module")
def lm():
    return cramzip.load()


@pytest.fixture(scope="module")
def blob(lm):
    return cramzip.compress(TEXT, lm, CramConfig(effort=1))


def test_it_is_found_without_a_name_and_named_in_the_file(lm, blob):
    assert lm.model_id == cramzip.read(blob).header.model.model_id == "builtin:primer"


def test_a_text_comes_back(lm, blob):
    assert describe.describe(blob).n_crammed > 0
    assert cramzip.decompress(blob, lm) == TEXT


def test_the_reference_reader_decodes_with_it(blob, tmp_path):
    (tmp_path / "x.cram").write_bytes(blob)
    command = [sys.executable, ROOT / "formats" / "reader.py", tmp_path / "x.cram", FOLDER]
    assert subprocess.run(command, capture_output=True, check=True).stdout == TEXT


def test_every_byte_has_a_token(lm):
    (piece,) = lm.tokenizer.encode(bytes(range(256)))
    assert piece.ids is not None


def test_it_predicts_english_better_than_zstd_packs_it(lm):
    text = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()
    (piece,) = lm.tokenizer.encode(text)
    nats = lm.score([piece.ids[:512]])[0].sum()
    assert nats < 0.693 * 2.75 * len(lm.tokenizer.decode(piece.ids[:512]))


def test_it_is_an_ordinary_model_for_transformers():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, report = AutoModelForCausalLM.from_pretrained(FOLDER, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.decode(tokenizer.encode("Hello <|bos|> there")) == "Hello <|bos|> there"


def test_it_fits_into_the_package():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 32 * 2**20
