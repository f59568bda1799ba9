"""`capacity --save-codebook`: learns from texts, and writes what `c --codebook` reads."""

from pathlib import Path

import pytest
from models import PROSE, ROOT

from cramzip.exact.codebook import read_codebook
from cramzip.laboratory.windows import by_kind, parted

FLOATS, INTEGERS = ROOT / "formats" / "model", ROOT / "formats" / "exact_model"


@pytest.fixture
def texts(folder):
    for kind, text in [("prose", PROSE), ("lines", b"id, name; size|12\t3\nid, name; more|13\t3\n")]:
        Path("texts", kind).mkdir(parents=True)
        for n in range(11):
            Path("texts", kind, f"{n}.txt").write_bytes(text[n:] * 3)


@pytest.mark.parametrize("model", [FLOATS, INTEGERS], ids=["floats", "integers"])
def test_a_codebook_is_learned_and_read(cramzip, texts, model):
    arguments = ("-m", model, "--save-codebook", "my.mem", "--entries", 3, "--minutes", 0.02)
    result = cramzip("capacity", *arguments, "texts")
    assert result.exit_code == 0, result.stderr
    book = read_codebook(Path("my.mem"))
    assert (book.n_entries, book.n_each) == (3, 2)
    assert "windows of texts held out, a choice costs" in result.stderr
    Path("a.txt").write_bytes(PROSE)
    assert cramzip("c", "-m", model, "--codebook", "my.mem", "a.txt").exit_code == 0
    assert cramzip("t", "-m", model, "--codebook", "my.mem", "a.cram").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--save-codebook", "my.mem"), 2, "name files"),
        (("--save-codebook", "my.mem", "nowhere"), 1, "nowhere"),
        (("--save-codebook", "texts/lines/0.txt", "texts"), 1, "is there already"),
        (("--save-codebook", "nowhere/my.mem", "texts"), 1, "is no folder"),
        (("--save-codebook", "my.mem", "--experiment", "capacity", "texts"), 2, "measures nothing"),
        (("--save-codebook", "my.mem", "--entries", "0", "texts"), 2, "--entries"),
        (("--save-codebook", "my.mem", "--minutes", "0", "texts"), 2, "--minutes"),
        (("--save-codebook", "my.mem", "short"), 2, "no text has"),
    ],
)
def test_what_cannot_be_learned_from_is_said(cramzip, texts, arguments, code, told):
    Path("short").write_bytes(b"-")
    result = cramzip("capacity", "-m", FLOATS, *arguments)
    assert (result.exit_code, Path("my.mem").exists()) == (code, False)
    assert told in result.stderr


def test_texts_are_of_the_kind_of_their_folder(texts):
    kinds = by_kind([Path("texts")])
    assert {kind: len(paths) for kind, paths in kinds.items()} == {"prose": 11, "lines": 11}
    assert set(by_kind([Path("texts", "prose", "0.txt")])) == {str(Path("texts", "prose"))}
    learned, held_out = parted(kinds)
    assert {len(paths) for paths in learned.values()} == {10}
    assert not {path for paths in learned.values() for path in paths} & {
        p for paths in held_out.values() for p in paths
    }
