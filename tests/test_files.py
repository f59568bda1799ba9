import fcntl
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from cramzip.app import files, output
from cramzip.app.output import Leftovers, Output
from cramzip.container.endings import ending_of
from cramzip.container.records import Header
from cramzip.errors import InputOutputError, UsageError


def no(question):
    return False


def yes(question):
    return True


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(3 * files.BLOCK + 1)], ids=["empty", "byte", "blocks"])
def test_a_source_is_what_the_file_holds(folder, content):
    Path("a").write_bytes(content)
    source = files.read("a")
    assert bytes(source.data) == content
    assert source.size == len(content)


def test_a_source_outlives_its_file(folder):
    Path("a").write_bytes(b"as it was")
    source = files.read("a")
    Path("a").write_bytes(b"")
    assert bytes(source.data) == b"as it was"


def test_a_changed_file_is_noticed(folder):
    Path("a").write_bytes(b"as it was")
    source = files.read("a")
    source.check_unchanged("nothing happens")
    Path("a").write_bytes(b"as it is now")
    with pytest.raises(InputOutputError, match="changed in the meantime; too bad"):
        source.check_unchanged("too bad")


def test_a_replaced_file_is_noticed(folder):
    Path("a").write_bytes(b"as it was")
    source = files.read("a")
    Path("b").write_bytes(b"as it was")
    os.utime("b", ns=(source.status.st_atime_ns, source.status.st_mtime_ns))
    Path("b").replace("a")
    with pytest.raises(InputOutputError):
        source.check_unchanged("")


def test_a_named_pipe_is_read_to_its_end(folder):
    os.mkfifo("pipe")
    if not (child := os.fork()):
        Path("pipe").write_bytes(b"through the pipe")
        os._exit(0)
    source = files.read("pipe")
    os.waitpid(child, 0)
    assert bytes(source.data) == b"through the pipe"
    assert source.name is None


@pytest.mark.parametrize("path", [".", "/dev/null"])
def test_folders_and_devices_are_no_input(folder, path):
    with pytest.raises(InputOutputError):
        files.read(path)


def test_a_closed_standard_input_is_no_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputOutputError, match="closed"):
        files.read("-")


def test_a_name_that_is_not_utf8_is_no_name(folder):
    name = os.fsdecode(b"caf\xe9.txt")
    Path(name).write_bytes(b"")
    assert files.read(name).name is None


# -- folders ---------------------------------------------------------------------------------------


def test_a_folder_holds_folders_and_the_files_that_are_wanted(folder):
    for name in ("b.txt", "a.txt", "c.md", ".hidden"):
        Path(name).touch()
    for name in ("z", ".git"):
        Path(name).mkdir()
    Path("link").symlink_to("a.txt")
    Path("folder link").symlink_to("z")
    os.mkfifo("pipe.txt")
    assert files.inside(".", lambda path: path.suffix == ".txt") == ["./a.txt", "./b.txt", "./z"]


def test_a_file_in_a_folder_is_never_taken_for_standard_input(folder):
    Path("-").touch()
    assert files.inside(".", lambda path: True) == ["./-"]


def test_a_missing_folder_is_an_error(folder):
    with pytest.raises(FileNotFoundError):
        files.inside("missing", lambda path: True)


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "short", "whole"),
    [
        ("book.txt", "book.cram", "book.txt.cram"),
        ("dir.d/README", "dir.d/README.cram", "dir.d/README.cram"),
        ("a.tar.gz", "a.tar.cram", "a.tar.gz.cram"),
        (".hidden", ".hidden.cram", ".hidden.cram"),
        ("book.cram", "book.cram.cram", "book.cram.cram"),
        ("Mr. Smith", "Mr. Smith.cram", "Mr. Smith.cram"),
        ("notes.", "notes..cram", "notes..cram"),
        ("...txt", "...txt.cram", "...txt.cram"),
        ("cramzip.1", "cramzip.1.cram", "cramzip.1.cram"),
        ("a.txt.txt", "a.txt.txt.cram", "a.txt.txt.cram"),
        ("song.mp3", "song.cram", "song.mp3.cram"),
        ("a.abcdefghijklmn", "a.cram", "a.abcdefghijklmn.cram"),
        ("a.abcdefghijklmno", "a.abcdefghijklmno.cram", "a.abcdefghijklmno.cram"),
    ],
)
def test_the_name_of_the_compressed_file(path, short, whole):
    assert files.compressed_path(Path(path), whole_name=False) == Path(short)
    assert files.compressed_path(Path(path), whole_name=True) == Path(whole)


@pytest.mark.parametrize(
    ("path", "kept", "expected"),
    [
        ("d/book.cram", {"name": "book.txt"}, "d/book.txt"),
        ("d/renamed.cram", {"name": "book.txt"}, "d/book.txt"),
        ("d/download", {"name": "book.txt"}, "d/book.txt"),
        ("d/book.txt.cram", {}, "d/book.txt"),
        ("d/book.cram", {"ending": "txt"}, "d/book.txt"),
        ("d/book.txt.cram", {"ending": "txt"}, "d/book.txt"),
        ("d/book.md.cram", {"ending": "txt"}, "d/book.md.txt"),
        ("d/booktxt.cram", {"ending": "txt"}, "d/booktxt.txt"),
        (".bashrc.cram", {"name": ".bashrc"}, ".bashrc"),
    ],
)
def test_the_name_of_the_original(path, kept, expected):
    assert files.original_path(Path(path), Header(0, b"", **kept)) == Path(expected)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("download", {}),
        ("download", {"ending": "txt"}),
        ("holiday.cram", {"name": ".bashrc"}),
        (".cram", {"ending": "txt"}),
        ("..cram", {}),
        ("...cram", {}),
    ],
)
def test_names_that_the_user_has_to_choose(path, kept):
    with pytest.raises(UsageError, match="-o"):
        files.original_path(Path(path), Header(0, b"", **kept))


@pytest.mark.parametrize("stem", ["a", "a.b", ".a", "a.", "a.txt", ""])
@pytest.mark.parametrize("ending", ["txt", "TXT", "cram", "2", "é", "7z", ""])
def test_the_name_of_every_original_comes_back(stem, ending):
    name = f"{stem}.{ending}"
    if not name.strip("."):
        return
    kept = Header(0, b"", ending=ending_of(name))
    assert files.original_path(files.compressed_path(Path(name)), kept).name == name


def test_companions_of_very_long_names_can_be_made(folder):
    path = folder / ("n" * 250 + ".cram")
    with Output(path) as output:
        output.commit()
    files.beside(path, ".journal").touch()
    assert path.exists()


# -- permission ------------------------------------------------------------------------------------


def source(folder):
    Path("source").write_bytes(b"original")
    return files.read("source")


def test_a_free_path_is_no_question(folder):
    assert files.check_target(Path("new"), source(folder), force=False, ask=no) is False


def test_an_existing_file_is_overwritten_only_with_consent(folder):
    Path("old").touch()
    with pytest.raises(InputOutputError, match="-f"):
        files.check_target(Path("old"), source(folder), force=False, ask=no)
    assert files.check_target(Path("old"), source(folder), force=False, ask=yes)
    assert files.check_target(Path("old"), source(folder), force=True, ask=no)


def test_the_source_is_never_overwritten(folder):
    Path("link").symlink_to("source")
    for name in ("source", "./source", "link"):
        with pytest.raises(InputOutputError, match="same file"):
            files.check_target(Path(name), source(folder), force=True, ask=yes)


def test_what_can_be_written_is_tried_and_leaves_nothing(folder):
    Path("old").write_bytes(b"old")
    for name in ("new", "old", ".", "missing/file", "/dev/null"):
        output.try_writing(Path(name))
    assert entries(folder) == ["old"]
    assert Path("old").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["n" * 300, "n" * 251 + ".cram"], ids=["300", "256"])
def test_a_name_that_is_too_long_is_found_out_at_once(folder, name):
    with pytest.raises(InputOutputError, match="too long"):
        output.try_writing(Path(name))


def test_a_folder_that_may_not_be_written_is_found_out_at_once(own_folder):
    own_folder.chmod(0o555)
    with pytest.raises(InputOutputError, match=r"nothing can be written into .*: Permission denied"):
        output.try_writing(own_folder / "a")


def test_a_pipe_that_may_not_be_written_to_is_found_out_at_once(own_folder):
    os.mkfifo(own_folder / "pipe", 0o400)
    with pytest.raises(InputOutputError, match="may not be written to"):
        files.check_target(own_folder / "pipe", files.Source(None, b"", b"", None), force=True, ask=yes)


@pytest.mark.parametrize("path", [".", "missing/file", "d/" * 3000 + "n"], ids=["folder", "missing", "too long"])
def test_impossible_targets_are_refused_at_once(folder, path):
    with pytest.raises(InputOutputError, match="directory"):
        files.check_target(Path(path), source(folder), force=True, ask=yes)


# -- writing ---------------------------------------------------------------------------------------


def test_an_output_appears_whole_or_not_at_all(folder):
    with Output(folder / "a") as output:
        output.file.write(b"result")
        (part,) = entries(folder)
        assert part.startswith(".a.")
        assert part.endswith(".part")
        assert stat.S_IMODE((folder / part).stat().st_mode) == 0o600
        output.commit()
    assert entries(folder) == ["a"]
    assert Path("a").read_bytes() == b"result"


def test_without_a_commit_nothing_remains(folder):
    Path("a").write_bytes(b"old")
    with suppress(KeyboardInterrupt), Output(folder / "a", overwrite=True) as output:
        output.file.write(b"half of the resu")
        raise KeyboardInterrupt
    assert entries(folder) == ["a"]
    assert Path("a").read_bytes() == b"old"


@pytest.mark.parametrize("size", [2**20, 1001, 1000], ids=["much", "little", "a byte"])
def test_nothing_remains_of_an_output_that_there_is_no_room_for(folder, little_room, size):
    Path("a").write_bytes(b"old")

    def attempt():
        with Output(folder / "a", overwrite=True) as output:
            output.file.write(bytes(size))
            output.commit()

    with little_room(999), pytest.raises(OSError, match="too large") as caught:
        attempt()
    assert caught.value.filename == str(folder / "a")
    assert entries(folder) == ["a"]
    assert Path("a").read_bytes() == b"old"


def test_a_file_without_a_name_that_there_is_no_room_for_is_told_by_its_folder(folder, little_room):
    Path("a").write_bytes(bytes(2**20))
    with little_room(999), pytest.raises(OSError, match="too large") as caught:
        files.read("a")
    assert caught.value.filename == tempfile.gettempdir()
    with little_room(999), pytest.raises(OSError, match="too large") as caught, Output(None) as output:
        output.file.write(bytes(2**20))
    assert caught.value.filename == tempfile.gettempdir()


def test_a_file_that_appears_in_the_meantime_is_not_overwritten(folder):
    with Output(folder / "a") as output:
        Path("a").write_bytes(b"somebody else's")
        with pytest.raises(InputOutputError, match="meantime"):
            output.commit()
    assert Path("a").read_bytes() == b"somebody else's"


def test_mode_and_times_are_those_of_the_source(folder):
    Path("source").touch()
    Path("source").chmod(0o640)
    os.utime("source", ns=(10**18, 10**18 + 12345))
    with Output(folder / "a") as output:
        output.commit(Path("source").stat())
    found = Path("a").stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_mtime_ns == 10**18 + 12345


def test_set_user_id_is_not_copied(folder):
    Path("source").touch()
    Path("source").chmod(0o4755)
    with Output(folder / "a") as output:
        output.commit(Path("source").stat())
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o755


def test_without_a_source_the_umask_counts(folder):
    previous = os.umask(0o027)
    try:
        with Output(folder / "a") as output:
            output.commit()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o640


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(folder):
    Path("precious").write_bytes(b"precious")
    Path("link").symlink_to("precious")
    with Output(folder / "link", overwrite=True) as output:
        output.commit()
    assert Path("precious").read_bytes() == b"precious"
    assert not Path("link").is_symlink()


def test_devices_are_written_into_and_not_replaced(folder):
    with Output(Path("/dev/null"), overwrite=True) as output:
        output.file.write(b"gone")
        output.commit()
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_a_killed_process_left_is_removed(folder):
    Path(".a.leftover.part").write_bytes(b"half of the resu")
    with Output(folder / "a") as output:
        output.commit()
    assert entries(folder) == ["a"]


@pytest.mark.parametrize("name", [".a.my_notes.txt", ".a.mynotes.part", ".a.leftover.b.part", ".ab.leftover.part"])
def test_files_that_merely_look_like_leftovers_are_left_alone(folder, name):
    Path(name).touch()
    with Output(folder / "a") as output:
        output.commit()
    assert entries(folder) == sorted([name, "a"])


def test_what_a_living_process_writes_is_left_alone(folder):
    with Path(".a.is_alive.part").open("wb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        with Output(folder / "a") as output:
            output.commit()
        assert entries(folder) == [".a.is_alive.part", "a"]


def test_a_folder_that_may_be_written_but_not_listed_is_written_into(own_folder):
    own_folder.chmod(0o333)
    for _ in range(2):
        with Output(own_folder / "a", overwrite=True) as output:
            output.file.write(b"result")
            output.commit()
    own_folder.chmod(0o700)
    assert entries(own_folder) == ["a"]


def test_a_folder_is_listed_once_for_all_outputs_of_a_command(folder, listings):
    names = [f"{index}.txt" for index in range(20)]
    for name in names:
        Path(f".{name}.leftover.part").write_bytes(b"half of the resu")
    leftovers = Leftovers()
    for name in names:
        with Output(Path(name), leftovers=leftovers) as output:
            output.commit()
    assert listings == ["."]
    assert entries(folder) == sorted(names)


def test_the_example_texts_are_found(folder):
    assert all(Path(text).is_file() for text in files.example_texts())
