"""cramzip.open, and the library as a program uses it: without a model of its own, with streams, with progress."""

import io
import os
import stat
import subprocess
import sys

import pytest
from models import ROOT, TINY_MODEL

import cramzip
from cramzip.container import reading
from cramzip.exact import lanes
from cramzip.lm.frozen import FrozenLM

TEXT = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()[:600]


@pytest.fixture
def book(folder, monkeypatch):
    """A file of several groups."""
    monkeypatch.setattr("cramzip.coding.laned.SEGMENT_BYTES", 150)
    (folder / "book.cram").write_bytes(cramzip.compress(TEXT))
    assert len(reading.read((folder / "book.cram").read_bytes()).entries) > 3
    return folder / "book.cram"


def test_what_is_written_is_read(folder):
    with cramzip.open("a.cram", "wb") as file:
        assert file.write(TEXT[:100]) == 100
        file.write(TEXT[100:200])
        assert not (folder / "a.cram").exists()
    with cramzip.open("a.cram") as file:
        assert file.read() == TEXT[:200]


def test_texts_have_an_encoding_and_lines(folder):
    with cramzip.open("a.cram", "wt", encoding="latin-1", newline="\r\n") as file:
        print("Crème brûlée", "and tea", sep="\n", file=file)
    with cramzip.open("a.cram", "rt", encoding="latin-1") as file:
        assert list(file) == ["Crème brûlée\n", "and tea\n"]
    with cramzip.open("a.cram") as file:
        assert file.read() == "Crème brûlée\r\nand tea\r\n".encode("latin-1")


def test_seeking_decodes_only_the_group_that_is_read(book, monkeypatch):
    asked = []
    decode = lanes.decode_lanes
    monkeypatch.setattr(lanes, "decode_lanes", lambda *rest: asked.append(1) or decode(*rest))
    with cramzip.open(book) as file:
        assert file.seek(-20, io.SEEK_END) == len(TEXT) - 20
        assert file.read(7) == TEXT[-20:-13]
        assert file.tell() == len(TEXT) - 13
        assert len(asked) == 1
        file.seek(0)
        assert file.read() == TEXT
        assert file.read(1) == b""
        file.seek(10**9)
        assert file.read() == b""
        with pytest.raises(ValueError, match="seek"):
            file.seek(-1)


@pytest.mark.parametrize(("mode", "content"), [("wb", b"new"), ("wt", "new")])
def test_after_an_exception_there_is_what_there_was(folder, mode, content):
    (folder / "a.cram").write_bytes(b"old")

    def fail_while_writing():
        with cramzip.open("a.cram", mode) as file:
            file.write(content)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_writing()
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a.cram", b"old")]


def test_a_new_file_replaces_nothing(folder):
    (folder / "a.cram").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        cramzip.open("a.cram", "xb")
    with cramzip.open("b.cram", "xb") as file:
        file.write(b"new")
    assert cramzip.decompress((folder / "b.cram").read_bytes()) == b"new"


def test_a_new_file_does_not_replace_one_that_has_come_meanwhile(folder):
    file = cramzip.open("a.cram", "xb")
    (folder / "a.cram").write_bytes(b"of somebody else")
    with pytest.raises(FileExistsError):
        file.close()
    assert file.closed
    assert (folder / "a.cram").read_bytes() == b"of somebody else"
    (folder / "link.cram").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        cramzip.open("link.cram", "xb")


@pytest.mark.parametrize("options", [{"encoding": "nonsense"}, {"newline": "x"}, {"encoding": "rot13"}], ids=str)
def test_a_text_that_cannot_be_opened_leaves_what_was_there(folder, options):
    (folder / "a.cram").write_bytes(b"old")
    with pytest.raises((LookupError, ValueError)):
        cramzip.open("a.cram", "wt", **options)
    assert (folder / "a.cram").read_bytes() == b"old"


def test_a_folder_in_the_place_of_a_file_is_told_before_anything_is_written(folder):
    (folder / "a.cram").mkdir()
    with pytest.raises(IsADirectoryError):
        cramzip.open("a.cram", "wb")


def test_a_folder_that_takes_no_files_is_told_before_anything_is_written(own_folder):
    own_folder.chmod(0o500)
    with pytest.raises(PermissionError):
        cramzip.open(own_folder / "a.cram", "wb")


def test_a_pipe_is_read_and_never_replaced(folder):
    blob = cramzip.compress(TEXT[:50])
    os.mkfifo("pipe")
    with pytest.raises(cramzip.InputOutputError, match="pipe is no file"):
        cramzip.open("pipe", "wb")
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    writer = subprocess.Popen([sys.executable, "-c", f"open('pipe', 'wb').write({blob!r})"])
    with cramzip.open("pipe") as file:
        assert file.read() == TEXT[:50]
    assert writer.wait() == 0


def test_a_file_that_is_cut_off_while_it_is_read_is_read_all_the_same(book):
    with cramzip.open(book) as file:
        os.truncate(book, 0)
        assert file.read() == TEXT


def test_a_folder_that_is_not_there_is_told_before_anything_is_written(folder):
    with pytest.raises(FileNotFoundError):
        cramzip.open("no/a.cram", "wb")


@pytest.mark.parametrize(("mode", "options"), [("a", {}), ("rb", {"encoding": "utf-8"}), ("r+", {})])
def test_modes_that_make_no_sense_are_refused(folder, mode, options):
    with pytest.raises(cramzip.UsageError, match="mode"):
        cramzip.open("a.cram", mode, **options)


@pytest.mark.parametrize("content", [b"", b"no cram file"])
def test_what_is_no_cram_file_is_refused(folder, content):
    (folder / "a.cram").write_bytes(content)
    with pytest.raises(cramzip.DamagedFileError):
        cramzip.open("a.cram")


def test_a_closed_file_says_so(book):
    file = cramzip.open(book)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_any_model_can_be_given(folder):
    lm = FrozenLM.load(TINY_MODEL)
    config = cramzip.CramConfig(vectors=0)
    with cramzip.open("a.cram", "wb", lm, config) as file:
        file.write(b"the cat sat on the mat and the hat")
    with cramzip.open("a.cram", lm=lm) as file:
        assert file.read() == b"the cat sat on the mat and the hat"


def test_streams_are_read(folder):
    blob = cramzip.compress(io.BytesIO(TEXT[:90]))
    assert cramzip.decompress(io.BytesIO(blob)) == TEXT[:90]
    assert cramzip.read(io.BytesIO(blob)) == cramzip.read(blob)


def test_progress_is_told_of_all_bytes(book):
    told = []
    assert cramzip.decompress(book.read_bytes(), progress=told.append) == TEXT
    assert sum(told) == len(TEXT)
    assert len(told) > 3


def test_public_names_are_listed_and_there():
    assert set(cramzip.__all__) <= set(dir(cramzip))
    for name in cramzip.__all__:
        assert getattr(cramzip, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute"):
        _ = cramzip.nothing


def test_the_example_of_the_library_runs(tmp_path):
    command = [sys.executable, ROOT / "examples" / "library.py", tmp_path / "book.cram"]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert "Chapter 2" in shown
