"""The built-in model: what `cramzip c` uses when nobody names another."""

import random
import subprocess
import sys

import numpy as np
import pytest
from models import ROOT

import cramzip
from cramzip import CramConfig
from cramzip.container import reading
from cramzip.container.description import describe
from cramzip.container.records import BuiltinModel
from cramzip.container.stored import stored_group
from cramzip.exact.lanes import costs

FOLDER = ROOT / "cramzip" / "models" / "primer"
TEXT = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()[:400]
STRIPPED_OVERHEAD = 24  # bytes, at most, of a file of one group

SETTINGS = ("-1", "--smallest")

WORDS = ["apple", "brick", "cloud", "dozen", "eagle", "flame", "grape", "house", "index", "joker", "knife", "lemon"]
SAMPLES = {
    "empty": b"",
    "one byte": b"x",
    "prose": b"The old man had lived by the river for so long that nobody remembered when he had come. In the evenings "
    b"he sat on the bench before his house, and when children passed he told them of the flood.\n",
    "code": b"def mean(values):\n    if not values:\n        raise ValueError('no values')\n"
    b"    return sum(values) / len(values)\n",
    "JSON": b'{"name": "Ada", "born": 1815, "tags": ["mathematics", "engines"], "address": {"city": "London"}}\n',
    "CSV": b"date,station,celsius\n2024-01-01,Oslo,-4.5\n2024-01-01,Rome,11.2\n2024-01-02,Oslo,-6.1\n",
    "log": b"2024-03-01T10:00:01Z INFO  server started on port 8080\n"
    b"2024-03-01T10:00:07Z WARN  request 17f3 took 2301 ms\n"
    b"2024-03-01T10:00:09Z ERROR request 17f4 failed: connection reset by peer\n",
    "markdown": b"# Setting up\n\n1. Install *Python*.\n2. Run `pip install .`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "German": "Der Fluß war übergetreten, und die Brücke stand unter Wasser.\n".encode(),
    "other scripts": "Где мой дом? 今日は雨が降っている。 كيف حالك؟ τι κάνεις;\n".encode(),
    "random words": " ".join(random.Random(0).choices(WORDS, k=30)).encode(),
    "binary": random.Random(1).randbytes(300),
    "text and binary": b"What follows:\n" + random.Random(2).randbytes(200) + b"\nAnd this is the end of it.\n",
}


@pytest.fixture(scope="module")
def lm():
    return cramzip.load()


@pytest.fixture(scope="module")
def blob(lm):
    return cramzip.compress(TEXT, lm, CramConfig(vectors=1, effort=1))


@pytest.fixture(scope="module")
def there_and_back(tmp_path_factory):
    """The samples as `c -r` compresses them and as `d -r` restores them: {(setting, name): (blob, content)}."""
    found = {}
    for setting in SETTINGS:
        folder = tmp_path_factory.mktemp("samples")
        paths = {name: folder / f"{name}.txt" for name in SAMPLES}
        for name, path in paths.items():
            path.write_bytes(SAMPLES[name])
        run("c", "-r", "--rm", setting, folder)
        assert not any(path.exists() for path in paths.values())
        run("d", "-r", folder)
        found |= {
            (setting, name): (path.with_suffix(".cram").read_bytes(), path.read_bytes()) for name, path in paths.items()
        }
    return found


def run(*arguments):
    from click.testing import CliRunner

    from cramzip.app.cli import commands

    result = CliRunner().invoke(commands, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_kind_of_data_comes_back(there_and_back, setting, name):
    assert there_and_back[setting, name][1] == SAMPLES[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_smallest_file_is_hardly_larger_than_what_is_stored_and_never_than_the_default(there_and_back, name):
    smallest, default = (len(there_and_back[setting, name][0]) for setting in ("--smallest", "-1"))
    stored = len(stored_group(SAMPLES[name]).payload) if SAMPLES[name] else 0
    assert smallest <= min(default, stored + STRIPPED_OVERHEAD)


@pytest.mark.parametrize("name", ["prose", "code", "JSON", "CSV", "log", "markdown"])
def test_what_people_write_is_modelled_and_smaller_than_zstd_makes_it(there_and_back, name):
    described = describe(reading.read(there_and_back["--smallest", name][0]))
    assert described.n_modelled == described.n_groups == 1
    assert described.correction_bytes < 0.75 * len(stored_group(SAMPLES[name]).payload)


def test_the_overhead_of_a_stripped_file_of_one_group_is_small(lm):
    described = describe(reading.read(cramzip.compress(TEXT, lm, CramConfig(vectors=0), strip=True)))
    assert described.n_modelled == described.n_groups == 1
    assert described.header_bytes <= STRIPPED_OVERHEAD


def test_the_overhead_of_a_file_with_vectors_and_a_name_is_at_most_48_bytes(lm):
    described = describe(
        reading.read(cramzip.compress(TEXT, lm, CramConfig(vectors=1, effort=1), name="chapter-01.txt"))
    )
    assert described.vector_bytes > 0
    assert described.header_bytes <= 48


def test_it_is_found_without_a_name_and_its_digest_is_in_the_file(lm, blob):
    assert cramzip.load().model_id == "builtin:primer"
    assert cramzip.read(blob).header.model == BuiltinModel(lm.fingerprint[:4])


def test_a_text_comes_back(lm, blob):
    assert describe(reading.read(blob)).n_modelled > 0
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
    bits = costs(lm.model, piece.ids[:512], 1).sum()
    assert bits < 2.75 * len(lm.tokenizer.decode(piece.ids[:512]))


def test_in_torch_it_says_nearly_the_same(lm):
    (piece,) = lm.tokenizer.encode(TEXT)
    bits = lm.frozen.score([piece.ids])[0] / np.log(2)
    assert bits.sum() == pytest.approx(costs(lm.model, piece.ids, 1).sum(), rel=0.005)


def test_its_tokenizer_is_an_ordinary_one_for_transformers():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.decode(tokenizer.encode("Hello <|bos|> there")) == "Hello <|bos|> there"


def test_it_fits_into_the_package():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 32 * 2**20
