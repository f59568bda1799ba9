"""What a model is known by, twice: test vectors of section 9, for the reference reader and for the library."""

import json
import sys

import pytest
from models import ROOT
from tokenizers import Tokenizer

from cramzip.errors import ModelError
from cramzip.tokens import table_hash, token_table

FORMATS = ROOT / "formats"
IDENTITY = FORMATS / "identity"
sys.path.insert(0, str(FORMATS))

import llama  # noqa: E402
import make_identity  # noqa: E402

TOKENIZERS = json.loads((IDENTITY / "tokenizers.json").read_text("utf-8"))
tokenizers = pytest.mark.parametrize("case", TOKENIZERS, ids=lambda case: case["name"])


def table_by_reference_reader(folder):
    return llama.token_table(folder)


def table_by_library(folder):
    return list(token_table(Tokenizer.from_file(str(folder / "tokenizer.json"))))


both_readers = pytest.mark.parametrize(
    "read", [table_by_reference_reader, table_by_library], ids=["reference", "library"]
)


@both_readers
@tokenizers
def test_a_token_table_is_as_section_9_says(case, read, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(case["tokenizer"]), "utf-8")
    if case["expect"] == "unsupported":
        with pytest.raises((ModelError, llama.Unsupported)):
            read(tmp_path)
        return
    table = read(tmp_path)
    assert [None if token is None else token.hex() for token in table] == case["table"]
    assert llama.tokenizer_hash(table).hex() == table_hash(tuple(table)).hex() == case["hash"]


def test_the_generator_makes_the_committed_files_again(tmp_path):
    make_identity.write_identity(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in IDENTITY.iterdir()}
