"""Codebooks in files of their own: they come back, files name them, and nothing is restored without the right one."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from models import PROSE, ROOT

import cramzip
from cramzip.coding import choosing, encode, laned
from cramzip.coding.exact_decode import chosen_by
from cramzip.config import CramConfig
from cramzip.container import reading
from cramzip.container.records import Entry, Kind
from cramzip.errors import ModelError, UsageError, WrongModelError
from cramzip.exact import lanes, layouts
from cramzip.exact.codebook import MOST_BYTES, PRIOR_TOTAL, Codebook, hash_of, pack, unpack
from cramzip.exact.lanes import Options, encode_lanes
from cramzip.exact.weights import Matrix
from cramzip.lm import exact_torch_wide
from cramzip.lm.exact import floats_of
from cramzip.lm.models import as_torch
from cramzip.workers.base import WorkerModel

sys.path.insert(0, str(ROOT / "formats"))

import codebook as specified

FLOATS, INTEGERS = ROOT / "formats" / "model", ROOT / "formats" / "exact_model"
TEXT = PROSE * 2


def learned_for(lm, n_each=2, **notes):
    """The file of a codebook of embeddings: after them the model says what follows these."""
    embedding = lm.model.weights.embedding
    ids = np.array([[token] * n_each for token in (65, 100, 10)])
    priors = np.full((2, 3), PRIOR_TOTAL // 3)
    priors[:, 0] += PRIOR_TOTAL - priors.sum(axis=1)
    selector = Matrix(np.ones((3, lm.width), np.int8), np.ones(3, np.float32))
    book = Codebook(
        embedding.integers[ids].astype(np.int8), embedding.scales[ids], priors, selector, np.zeros(3, np.float32)
    )
    return pack(book, {"model": lm.fingerprint.hex()} | notes)


@pytest.fixture(scope="module", params=[FLOATS, INTEGERS], ids=["floats", "integers"])
def lm(request):
    return cramzip.load(str(request.param))


@pytest.fixture
def always(monkeypatch):
    """Let an entry seem to save many bits, and be taken; and nothing be smaller stored."""
    monkeypatch.setattr(laned, "expected_entry", lambda content: Entry(Kind.RAW, len(content), 10**6, 0, 0))
    monkeypatch.setattr(encode, "is_hopeless", lambda *_: False)
    monkeypatch.setattr(encode, "is_redundant", lambda _: False)
    monkeypatch.setattr(
        laned, "choose", lambda model, book, ids, n_lanes, threads: choosing.Choice([1] * n_lanes, 1, 9999)
    )
    monkeypatch.setattr(laned, "TRIED_WHOLE", 0)
    sizes = iter(range(10**6, 0, -(10**3)))
    encode_lanes = laned.encode_lanes

    def encoded(model, ids, n_lanes, options):
        found = encode_lanes(model, ids, n_lanes, options)
        return found if options.progress else bytes(next(sizes))  # what is only tried becomes ever smaller

    monkeypatch.setattr(laned, "encode_lanes", encoded)


def kinds(blob):
    return {entry.kind for entry in cramzip.read(blob).entries}


@pytest.mark.parametrize("length", [None, 8])
def test_a_file_names_the_codebook_and_needs_it(lm, always, length):
    content = learned_for(lm)
    blob = cramzip.compress(TEXT, lm, CramConfig(chunk_tokens=length), codebook=content)
    header = reading.read(blob).header
    assert kinds(blob) == {Kind.CHOSEN}
    assert header.codebook == hash_of(content)[:4]
    assert cramzip.decompress(blob, lm, codebook=content) == TEXT
    assert cramzip.decompress(blob, lm, start=3, stop=30, codebook=content) == TEXT[3:30]
    with pytest.raises(WrongModelError, match="say with --codebook"):
        cramzip.decompress(blob, lm)
    with pytest.raises(WrongModelError, match="the one that is given has"):
        cramzip.decompress(blob, lm, codebook=learned_for(lm, note="another"))
    found = chosen_by(reading.read(blob), lm.with_codebook(content))
    assert (found.lanes > 1, found.entries) == (length is not None, 1)


def test_a_file_that_has_not_chosen_needs_no_codebook(lm):
    content = learned_for(lm)
    blob = cramzip.compress(TEXT, lm, codebook=content)
    assert blob == cramzip.compress(TEXT, lm, CramConfig(codebook=False))
    assert cramzip.decompress(blob, lm) == cramzip.decompress(blob, lm, codebook=content) == TEXT


@pytest.mark.parametrize("bytes_less", [4, 5, 8, 9])
def test_a_codebook_is_taken_where_it_saves_more_than_its_name(lm, monkeypatch, bytes_less):
    other = lm.with_codebook(learned_for(lm))
    method = laned.Laned(other, CramConfig())
    monkeypatch.setattr(laned, "choose", lambda *_: choosing.Choice([1], 1.0, 99.0))
    monkeypatch.setattr(laned, "encode_lanes", lambda *rest: bytes(50 - bytes_less * bool(rest[-1].codebook)))
    _, choice = method._tokens(list(range(40, 60)), 1, Options())
    assert (choice is not None) == (bytes_less > (4 if lm.is_wide else 8))


@pytest.mark.parametrize("n_tokens", [60, 66, 150, 700])
@pytest.mark.parametrize("at_once", [7, 512])
def test_tokens_come_back_however_many_are_computed_at_once(lm, n_tokens, at_once, monkeypatch):
    book = unpack(learned_for(lm, 3))
    tokens = [n * n % 250 for n in range(n_tokens)]
    payload = lanes.encode_lanes(lm.model, tokens, 2, Options(codebook=book, choices=[1, 2]))
    monkeypatch.setattr(lanes, "TOKENS_AT_ONCE", at_once)
    assert lanes.encode_lanes(lm.model, tokens, 2, Options(codebook=book, choices=[1, 2])) == payload
    assert lanes.decode_lanes(lm.model, payload, n_tokens, 2, Options(codebook=book)) == tokens


def test_torch_computes_the_same(lm):
    if not lm.is_wide:
        pytest.skip("tests/test_exact_torch.py has the model for exact arithmetic")
    floats = floats_of(lm.source)
    other = exact_torch_wide.load(layouts.read(floats.shape, floats.tensors))
    tokens, options = [n * n % 250 for n in range(700)], Options(codebook=unpack(learned_for(lm, 3)), choices=[2])
    assert encode_lanes(other, tokens, 1, options) == encode_lanes(lm.model, tokens, 1, options)


def test_files_that_are_opened_take_one(lm, always, tmp_path):
    content = learned_for(lm)
    with cramzip.open(tmp_path / "a.cram", "wb", lm, codebook=content) as file:
        file.write(TEXT)
    with cramzip.open(tmp_path / "a.cram", "rb", lm, codebook=content) as file:
        assert file.read() == TEXT
    with cramzip.open(tmp_path / "a.cram", "rb", lm) as file, pytest.raises(WrongModelError):
        file.read()


def test_a_group_of_the_models_own_codebook_does_not_take_another():
    model = cramzip.load(str(INTEGERS))
    blob = (ROOT / "formats" / "vectors" / "ok-chosen-entry-1.cram").read_bytes()
    assert cramzip.decompress(blob, model.with_codebook(learned_for(model))) == cramzip.decompress(blob, model)


def test_vectors_ranks_and_dictionaries_take_none(lm):
    content = learned_for(lm)
    for config in (CramConfig(vectors=1), CramConfig(ranks=True), CramConfig(exact=True)):
        with pytest.raises(UsageError, match="codebook"):
            cramzip.compress(TEXT, lm, config, codebook=content)
    with pytest.raises(UsageError, match="codebook"):
        cramzip.compress(TEXT, lm, dictionary=TEXT, codebook=content)
    with pytest.raises(UsageError, match="exact arithmetic"):
        cramzip.compress(TEXT, as_torch(lm), codebook=content)


def test_workers_get_it(lm):
    content = learned_for(lm)
    assert WorkerModel.of(lm.with_codebook(content), "cpu", 1).load().given.content == content


def test_a_codebook_of_another_model_is_refused(lm):
    other = cramzip.load(str(INTEGERS if lm.is_wide else FLOATS))
    with pytest.raises(ModelError, match="learned for"):
        lm.with_codebook(learned_for(other))
    without = pack(unpack(learned_for(other)))
    with pytest.raises(ModelError, match=r"mem\.weight"):
        lm.with_codebook(without)


def test_a_model_that_sees_too_little_is_refused(monkeypatch):
    model = cramzip.load(str(FLOATS))
    content = learned_for(model)
    object.__setattr__(model, "shape", type(model.shape)(**(vars(model.shape) | {"block": 21})))
    with pytest.raises(ModelError, match="the model sees 63 positions"):
        model.with_codebook(content)


HOSTILE = {
    "empty": b"",
    "a length alone": b"\xff" * 8,
    "no object": b"\x02\0\0\0\0\0\0\0[]",
    "nested": (2 * 9999).to_bytes(8, "little") + b"[" * 9999 + b"]" * 9999,
    "a shape beyond all": b'{"mem.weight":{"dtype":"I8","shape":[1e400,2],"data_offsets":[0,0]}}',
    "a shape that wraps": b'{"mem.weight":{"dtype":"I8","shape":[-1],"data_offsets":[0,0]}}',
    "notes that are none": b'{"__metadata__":7}',
    "too long": bytes(MOST_BYTES + 1),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_can_be_no_codebook_is_refused(lm, content):
    if content.startswith(b"{"):
        content = len(content).to_bytes(8, "little") + content
    with pytest.raises(ModelError):
        lm.with_codebook(content)


def test_a_name_that_is_there_twice_is_refused_by_both_readers(lm):
    content = learned_for(lm)
    size = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + size].rstrip(), content[8 + size :]
    prior = header[header.index(b'"mem.prior"') :].partition(b"},")[0] + b"},"
    header = header.replace(prior, prior * 2)
    doubled = len(header).to_bytes(8, "little") + header + body
    assert len(specified.of_file(content, lm.width, lm.shape.block).vectors) == 3
    with pytest.raises(ModelError, match="twice"):
        lm.with_codebook(doubled)
    with pytest.raises(specified.Unsupported, match="twice"):
        specified.of_file(doubled, lm.width, lm.shape.block)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def files(folder):
    content = learned_for(cramzip.load(str(FLOATS)))
    Path("book.mem").write_bytes(content)
    Path("other.mem").write_bytes(learned_for(cramzip.load(str(FLOATS)), note="other"))
    Path("broken.mem").write_bytes(content[:-1])
    Path("a.txt").write_bytes(TEXT)
    return content


def test_a_file_goes_there_and_back(cramzip, files, always):
    assert cramzip("c", "-m", FLOATS, "--codebook", "book.mem", "a.txt").exit_code == 0
    given = ("-m", FLOATS, "--codebook", "book.mem")
    assert cramzip("t", *given, "a.cram").exit_code == 0
    assert cramzip("d", "-f", *given, "a.cram").exit_code == 0
    assert Path("a.txt").read_bytes() == TEXT
    assert f"{hash_of(files).hex()[:8]}, needed to decompress" in cramzip("l", "-v", "a.cram").stdout
    (record,) = json.loads(cramzip("l", "--json", "a.cram").stdout)["files"]
    assert record["codebook_hash"] == hash_of(files).hex()[:8]


def test_the_environment_says_where_it_is_to_readers_alone(cramzip, files, always, monkeypatch):
    monkeypatch.setitem(os.environ, "CRAMZIP_CODEBOOK", "book.mem")
    assert cramzip("c", "-m", FLOATS, "a.txt").exit_code == 0
    assert reading.read(Path("a.cram").read_bytes()).header.codebook is None
    assert cramzip("c", "-f", "-m", FLOATS, "--codebook", "book.mem", "a.txt").exit_code == 0
    assert cramzip("t", "-m", FLOATS, "a.cram").exit_code == 0


def test_a_missing_or_another_codebook_is_an_error_of_code_4(cramzip, files, always):
    assert cramzip("c", "-m", FLOATS, "--codebook", "book.mem", "a.txt").exit_code == 0
    Path("a.txt").unlink()
    for command in ("d", "t"):
        for given, told in [((), "say with --codebook"), (("--codebook", "other.mem"), "the one that is given has")]:
            result = cramzip(command, "-m", FLOATS, *given, "a.cram")
            assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
            assert told in result.stderr
    assert not Path("a.txt").exists()


def test_a_codebook_that_is_none_is_an_error_that_names_it(cramzip, files):
    for name, code in [("broken.mem", 4), ("a.txt", 4), ("nowhere.mem", 1)]:
        result = cramzip("c", "-m", FLOATS, "--codebook", name, "a.txt")
        assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
        assert name in result.stderr
    assert not Path("a.cram").exists()


@pytest.mark.parametrize("option", ["--no-codebook", "--exact", "--ranks", "--vectors=1", "--dictionary=a.txt"])
def test_what_excludes_a_codebook_is_said(cramzip, files, option):
    result = cramzip("c", "-m", FLOATS, "--codebook", "book.mem", option, "a.txt")
    assert (result.exit_code, Path("a.cram").exists()) == (2, False)


def test_it_is_never_removed_nor_overwritten(cramzip, files):
    result = cramzip("c", "-m", FLOATS, "--rm", "--codebook", "book.mem", "book.mem")
    assert result.exit_code == 2
    assert "it is the codebook, without which nothing can be restored" in result.stderr
    assert cramzip("c", "-f", "-m", FLOATS, "--codebook", "book.mem", "a.txt", "-o", "book.mem").exit_code == 1
    assert Path("book.mem").read_bytes() == files
