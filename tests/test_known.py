"""What is known of outside models from an earlier time: found again, and never trusted further than it is right."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from models import TINY_MODEL, make_gguf

from cramzip.container.records import OutsideModel
from cramzip.errors import ModelError
from cramzip.lm import known, source
from cramzip.lm.gguf_view import Reader
from cramzip.lm.identity import locate
from cramzip.lm.models import as_torch, load
from cramzip.lm.source import find


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cramzip" / "models"


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copytree(TINY_MODEL, tmp_path / "a model"))


@pytest.fixture
def readings(monkeypatch):
    """The models whose fingerprint was taken from their files."""
    read = []
    monkeypatch.setattr(source, "folder_fingerprint", lambda path: read.append(path) or bytes(31) + bytes([len(read)]))
    return read


def test_a_fingerprint_is_taken_once(cache, model, readings):
    assert find(str(model)).fingerprint == find(str(model)).fingerprint == bytes(31) + b"\1"
    assert readings == [model]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer.model"])
def test_a_model_that_was_changed_is_read_again(cache, model, readings, name):
    (model / "tokenizer.model").write_bytes(b"SentencePiece")
    assert find(str(model)).fingerprint[-1] == 1
    (model / name).write_bytes((model / name).read_bytes() + b" ")
    assert find(str(model)).fingerprint[-1] == 2
    assert find(str(model)).fingerprint[-1] == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"0001", b"0007"),
        lambda content: b"[" * 100_000,
        lambda content: b'{"check": 1}',
        lambda content: b"\xff" + content,
    ],
    ids=["empty", "cut", "another fingerprint", "deep", "strange", "not UTF-8"],
)
def test_facts_that_are_damaged_are_found_out_again(cache, model, readings, damage):
    find(str(model)).fingerprint  # noqa: B018
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert find(str(model)).fingerprint[-1] == 2
    assert find(str(model)).fingerprint[-1] == 2


def test_the_facts_of_another_version_are_not_used(cache, model, readings, monkeypatch):
    find(str(model)).fingerprint  # noqa: B018
    monkeypatch.setattr(known, "VERSION", known.VERSION + 1)
    assert find(str(model)).fingerprint[-1] == 2


def test_processes_that_write_at_once_leave_facts_that_can_be_read(cache, model):
    def write(number):
        for _ in range(20):
            known.remember(model, **{f"n{number}": number})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    facts = known.recall(model)
    assert facts
    assert all(name == f"n{value}" for name, value in facts.items())
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_where_nothing_can_be_kept_everything_works(model, readings, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert [find(str(model)).fingerprint[-1] for _ in range(2)] == [1, 2]


def test_the_noise_and_the_tokenizer_are_found_out_once(cache, tmp_path, monkeypatch):
    path = make_gguf(tmp_path / "tiny.gguf")
    first = as_torch(load(str(path)))
    noise, table = first.noise, first.tokenizer_hash
    monkeypatch.setattr("cramzip.lm.probe.noise", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: pytest.fail("made again"))
    again = as_torch(load(str(path)))
    assert (again.noise, again.tokenizer_hash) == (noise, table)
    text = "Two words, naïve café.\n".encode()
    assert [p.ids for p in again.tokenizer.encode(text)] == [p.ids for p in first.tokenizer.encode(text)]


def test_a_model_that_was_used_is_found_by_its_fingerprint(cache, model):
    fingerprint = find(str(model)).fingerprint
    whole = OutsideModel("local:elsewhere", "", fingerprint, bytes(32))
    for needed in (whole, whole.brief):
        assert locate(needed).path == model
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="-m"):
        locate(whole.brief)


@pytest.mark.usefixtures("never_stored")
def test_decompress_finds_what_compress_was_told(cache, cramzip, model, folder):
    (folder / "a.txt").write_bytes(b"the cat sat on the mat. " * 30)
    assert cramzip("c", "-1", "--smallest", "-m", model, "a.txt").exit_code == 0
    assert cramzip("d", "-f", "a.cram").exit_code == 0
    (model / "config.json").write_bytes(b"{}")
    result = cramzip("d", "-f", "a.cram")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)


def test_transformers_is_shown_what_the_library_of_the_format_reads(tmp_path):
    path = make_gguf(tmp_path / "tiny.gguf")
    ours, theirs = Reader(path), GGUFReader(path)
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.fields) == list(fields)
    for name, field in fields.items():
        found = ours.fields[name]
        assert list(map(int, field.types)) == found.types, name
        expected = [bytes(field.parts[i]) if field.types[-1] == 8 else field.parts[i].tolist() for i in field.data]
        assert [found.parts[i] for i in found.data] == expected, name
    for tensor, expected in zip(ours.tensors, theirs.tensors, strict=True):
        assert (tensor.name, tensor.tensor_type) == (expected.name, expected.tensor_type)
        assert tensor.data.dtype == expected.data.dtype
        np.testing.assert_array_equal(tensor.data, expected.data)
        assert list(tensor.shape) == list(expected.shape)


def test_facts_are_json_with_a_checksum(cache, model):
    known.remember(model, answer=42)
    (file,) = cache.iterdir()
    record = json.loads(file.read_bytes())
    assert record["facts"] == {"answer": 42}
    assert set(record["files"]) == {path.name for path in model.iterdir() if path.suffix in known.MODEL_FILES}
