"""What users see: stdout, stderr, exit codes and files of every command, with the tiny model of formats/."""

import errno
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from hashlib import sha256
from math import prod
from pathlib import Path

import pytest
from models import TINY_MODEL, make_model, recital

from cramzip import __version__
from cramzip.app import files
from cramzip.app.cli import commands
from cramzip.app.journal import Journal
from cramzip.app.values import bytes_of
from cramzip.container import layout, reading, writing
from cramzip.container.records import BITS, BuiltinModel, Header
from cramzip.container.stored import stored_groups
from cramzip.errors import ModelError, UsageError
from cramzip.lm.fingerprint import tensors_of

MODEL = ("-m", TINY_MODEL)
FAST = (*MODEL, "-1")
RANKS = (*FAST, "--ranks")  # of the tiny model, whose weights of eight bits say something else than its floats
VECTOR = (*RANKS, "--vectors", 1)
TEXT = b"the cat sat on the mat.\n"
NOISE = random.Random(0).randbytes(300)  # is stored, so that nothing has to be optimised

AWKWARD = {
    "empty": b"",
    "newline": b"\n",
    "text": TEXT,
    "NULs in text": b"a\0b\0\0c",
    "CRLF": b"one\r\ntwo\r\n",
    "byte order mark": b"\xef\xbb\xbftext",
    "invalid UTF-8": b"caf\xe9 \xff\xfe",
    "special tokens": b"<|endoftext|></s><s>[MASK]<unk>",
    "zeros": bytes(2**20),
    "noise": NOISE,
    "much noise": random.Random(1).randbytes(2**17),
}


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def text():
    """What even the tiny model compresses well."""
    from cramzip.lm.models import load

    return recital(load(str(TINY_MODEL)), 300)


@pytest.fixture(scope="session")
def crammed(tmp_path_factory, text):
    """A `.cram` file of `text`, called text.txt, with vectors and corrections."""
    from click.testing import CliRunner

    path = tmp_path_factory.mktemp("crammed") / "text.txt"
    path.write_bytes(text)
    result = CliRunner().invoke(commands, ["c", *map(str, VECTOR), str(path)])
    assert result.exit_code == 0, result.stderr
    blob = path.with_suffix(".cram").read_bytes()
    assert reading.read(blob).header.vectors is not None
    return blob


def with_header(blob, **changes):
    """The same file with another header."""
    file = reading.read(blob)
    sink = io.BytesIO()
    writing.write(sink, replace(file.header, **changes), list(file))
    return sink.getvalue()


def described(cramzip, blob):
    """What `l --json` says of a file."""
    Path("described.cram").write_bytes(blob)
    (one,) = json.loads(cramzip("l", "--json", "described.cram").stdout)["files"]
    return one


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", AWKWARD.values(), ids=AWKWARD)
def test_every_file_comes_back(cramzip, folder, content):
    Path("a.txt").write_bytes(content)
    assert cramzip("c", *FAST, "a.txt").exit_code == 0
    Path("a.txt").unlink()
    assert cramzip("d", *MODEL, "a.cram").exit_code == 0
    assert Path("a.txt").read_bytes() == content
    assert entries(folder) == ["a.cram", "a.txt"]


@pytest.mark.parametrize("content", [b"", TEXT, NOISE], ids=["empty", "text", "noise"])
def test_stdin_to_stdout(cramzip, folder, content):
    compressed = cramzip("c", *FAST, stdin=content)
    assert compressed.exit_code == 0
    restored = cramzip("d", *MODEL, stdin=compressed.stdout_bytes)
    assert restored.exit_code == 0
    assert restored.stdout_bytes == content
    assert entries(folder) == []


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize(
    "options",
    [
        ("--exact", "--bits", "8"),
        ("--vectors", "0"),
        ("--context", "0"),
        ("--context", "50"),
        ("--smallest",),
        ("--seed", "3"),
        ("--batch-size", "1"),
        ("--dtype", "bfloat16"),
    ],
    ids=" ".join,
)
def test_no_option_of_compress_is_needed_to_decompress(cramzip, text, options):
    original = text[:10] if "--exact" in options else text[:100]
    compressed = cramzip("c", *FAST, *options, stdin=original)
    assert compressed.exit_code == 0
    assert reading.read(compressed.stdout_bytes).header.model is not None
    assert cramzip("d", *MODEL, stdin=compressed.stdout_bytes).stdout_bytes == original


def test_the_same_command_gives_the_same_file(cramzip, text, crammed):
    Path("text.txt").write_bytes(text)
    cramzip("compress", *VECTOR, "text.txt", "-o", "again")
    assert Path("again").read_bytes() == crammed


def test_several_files(cramzip, folder):
    names = ["a", "b", "c"]
    for name in names:
        Path(name).write_bytes(NOISE + name.encode())
    assert cramzip("c", *FAST, *names).exit_code == 0
    restored = cramzip("d", "-c", "a.cram", "b.cram", "c.cram")
    assert restored.stdout_bytes == b"".join(NOISE + name.encode() for name in names)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize(("levels", "effort"), [((), 5), (("-3", "-1"), 1), (("-1", "-9", "-2"), 2)])
def test_the_last_level_counts(cramzip, levels, effort):
    Path("a").write_bytes(NOISE)
    document = json.loads(cramzip("bench", "--json", "--settings", "default", *MODEL, *levels, "a").stdout)
    assert document["settings"]["default"]["effort"] == effort


def test_a_name_with_a_dash_in_front(cramzip, folder):
    Path("-1").write_bytes(NOISE)
    assert cramzip("c", *FAST, "--", "-1").exit_code == 0
    assert entries(folder) == ["-1", "-1.cram"]


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_vectors", "said"), [(0, "no vectors"), (1, r"300\.0 tokens/vector")])
def test_compress_ends_with_one_line(cramzip, text, n_vectors, said):
    Path("a.txt").write_bytes(text)
    result = cramzip("c", *RANKS, "--vectors", n_vectors, "a.txt")
    assert result.stdout == ""
    assert re.fullmatch(
        rf"a\.txt -> a\.cram: {len(text)} -> \d+ bytes, ratio \d\.\d{{3}}, \d+\.\d{{3}} bits/byte, {said}, \d+\.\d s\n",
        result.stderr,
    )


def test_compress_says_what_was_merely_stored(cramzip):
    Path("a").write_bytes(NOISE)
    result = cramzip("c", *FAST, "a")
    assert re.fullmatch(r"a -> a\.cram: 300 -> 3\d\d bytes, ratio 0\.\d+, .* bits/byte, stored, .* s\n", result.stderr)


def test_an_empty_file_is_no_division_by_zero(cramzip):
    Path("a").write_bytes(b"")
    result = cramzip("c", *FAST, "a")
    assert re.fullmatch(r"a -> a\.cram: 0 -> 19 bytes, \d\.\d s\n", result.stderr)
    assert cramzip("l", "a.cram").exit_code == 0
    assert cramzip("l", "-v", "a.cram").exit_code == 0
    assert json.loads(cramzip("l", "--json", "a.cram").stdout)["files"][0]["bits_per_byte"] is None


def test_decompress_ends_with_one_line(cramzip, text, crammed):
    Path("text.cram").write_bytes(crammed)
    result = cramzip("decompress", *MODEL, "text.cram")
    assert result.stdout == ""
    assert re.fullmatch(rf"text\.cram -> text\.txt: {len(text)} bytes, \d+\.\d s\n", result.stderr)


def test_test_decodes_and_writes_nothing(cramzip, text, crammed, folder):
    Path("text.cram").write_bytes(crammed)
    result = cramzip("t", *MODEL, "text.cram")
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(rf"text\.cram: ok, {len(text)} bytes, \d+\.\d s\n", result.stderr)
    assert entries(folder) == ["text.cram"]


def test_quiet_is_silent(cramzip):
    Path("a").write_bytes(NOISE)
    for arguments in (("c", *FAST, "a"), ("t", "a.cram"), ("d", "-f", "a.cram")):
        result = cramzip(*arguments, "-q")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_verbose_names_the_model_and_then_tells_what_list_would(cramzip, text):
    Path("a").write_bytes(text)
    first, closing, *details = cramzip("c", *FAST, "-v", "a").stderr.splitlines()
    assert re.fullmatch(r"model local:model, [\d,]+ parameters, on cpu", first)
    assert closing.startswith("a -> a.cram: ")
    assert details == cramzip("l", "-v", "a.cram").stdout.splitlines()[1:]


def test_quiet_is_stronger_than_verbose(cramzip):
    Path("a").write_bytes(NOISE)
    assert cramzip("c", *FAST, "-q", "-v", "a").stderr == ""


def test_progress_is_shown_on_request(cramzip):
    Path("a").write_bytes(NOISE)
    assert "B/s" in cramzip("c", *FAST, "--progress", "a").stderr


def test_version(cramzip):
    for option in ("-V", "--version"):
        assert cramzip(option).stdout == f"cramzip {__version__}\n"


def test_help_shows_each_command_once(cramzip):
    shown = cramzip("-h").stdout
    for line in ("c, compress", "d, decompress", "t, test", "l, list", "bench"):
        assert shown.count(line) == 1


def test_help_of_compress_shows_the_levels_once(cramzip):
    shown = cramzip("c", "--help").stdout
    assert "-1 ... -9" in shown
    assert "-2" not in shown


def test_help_names_the_defaults(cramzip):
    from cramzip.config import DEFAULT_BITS, EXACT_BITS, CramConfig

    shown = " ".join(cramzip("c", "--help").stdout.split())
    for fact in (
        f"0: none. [default: 0; {CramConfig().n_vectors} with ranks, --exact]",
        f"dimension of a vector. [default: {DEFAULT_BITS}; {EXACT_BITS} with --exact]",
        f"tries hardest (--best). [default: CRAMZIP_LEVEL, or {CramConfig.effort}]",
        "compute on. [default: auto]",
    ):
        assert fact in shown


def test_without_a_command_there_is_help(cramzip):
    result = cramzip()
    assert result.exit_code == 2
    assert "compress" in result.stderr


# -- what can be chosen -----------------------------------------------------------------------------


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize("bits", BITS)
def test_vectors_take_the_bits_that_were_asked_for_and_decompress_needs_not_know(cramzip, text, bits):
    original = text[:100]
    blob = cramzip("c", *FAST, "--bits", bits, "--vectors", "2", stdin=original).stdout_bytes
    one = described(cramzip, blob)
    assert one["vectors"]["bits_per_dimension"] == bits
    assert one["vectors"]["bits_spent"] == 8 * one["vector_bytes"] == 8 * 2 * BITS[bits].vector_size(16)
    assert cramzip("d", *MODEL, stdin=blob).stdout_bytes == original


def test_without_vectors_there_are_corrections_alone(cramzip, text):
    one = described(cramzip, cramzip("c", *RANKS, "--vectors", "0", stdin=text).stdout_bytes)
    assert one["groups"] == {"predicted": 1}
    assert one["vectors"] is None
    assert (one["vector_bytes"], one["n_vectors"]) == (0, 0)


def test_exact_files_have_no_corrections(cramzip, text):
    from cramzip.config import EXACT_BITS

    one = described(cramzip, cramzip("c", *VECTOR, "--exact", stdin=text[:10]).stdout_bytes)
    assert "recited" in one["groups"]
    assert one["correction_bytes"] == 0
    assert one["vectors"]["bits_per_dimension"] == EXACT_BITS


@pytest.mark.parametrize("context", [0, 7, 100])
def test_a_chunk_sees_as_many_tokens_as_were_asked_for(cramzip, text, context):
    one = described(cramzip, cramzip("c", *FAST, "--context", context, stdin=text).stdout_bytes)
    assert one["parameters"]["context_tokens"] == context


def test_a_context_that_does_not_fit_into_the_model_is_a_usage_error(cramzip, folder):
    Path("a").write_bytes(NOISE)
    result = cramzip("c", *FAST, "--context", "60000", "a")
    assert result.exit_code == 2
    assert re.fullmatch(r"cramzip: a: .* do not fit into the \d+ positions of the model\n", result.stderr)
    assert entries(folder) == ["a"]


def test_stripping_leaves_out_most_of_the_hash_and_takes_no_name(cramzip, folder, text):
    Path("book.txt").write_bytes(text)
    cramzip("c", *VECTOR, "-o", "whole", "--name", "book.txt")
    assert cramzip("c", *VECTOR, "--strip", "--name", "book.txt").exit_code == 2
    assert cramzip("c", *VECTOR, "--rm", "--strip", "book.txt").exit_code == 0
    assert entries(folder) == ["book.cram", "whole"]
    header, whole = (reading.read(Path(name).read_bytes()).header for name in ("book.cram", "whole"))
    assert (header.name, header.ending, whole.name, whole.ending) == (None, "txt", "book.txt", None)
    assert header.original_hash == whole.original_hash[:4]
    assert header.vectors.gain is None
    assert cramzip("d", *MODEL, "book.cram").exit_code == 0
    assert Path("book.txt").read_bytes() == text


def test_a_stripped_file_does_not_say_where_its_model_is(cramzip, folder, text):
    Path("book.txt").write_bytes(text)
    whole = cramzip("c", *RANKS, "-c", "book.txt").stdout_bytes
    stripped = cramzip("c", *RANKS, "--smallest", "-c", "book.txt").stdout_bytes
    model, brief = (reading.read(blob).header.model for blob in (whole, stripped))
    assert brief == model.brief
    assert (brief.model_id, len(brief.fingerprint), len(brief.tokenizer_hash)) == ("", 4, 4)
    Path("book.cram").write_bytes(stripped)
    result = cramzip("t", "book.cram")
    assert result.exit_code == 4
    assert "-m" in result.stderr
    assert f"model {brief.fingerprint.hex()}" in cramzip("l", "book.cram").stdout
    assert cramzip("t", *MODEL, "book.cram").exit_code == 0
    assert cramzip("t", "-m", "builtin:primer", "book.cram").exit_code == 4


def test_the_header_of_a_stripped_file_is_short(cramzip, text):
    one = described(cramzip, cramzip("c", *MODEL, "--smallest", stdin=text).stdout_bytes)
    assert one["header_bytes"] <= 40


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize("other", ["fingerprint", "tokenizer_hash"])
def test_four_bytes_of_a_hash_tell_models_apart(cramzip, text, other):
    blob = cramzip("c", *FAST, "--smallest", stdin=text).stdout_bytes
    model = reading.read(blob).header.model
    flipped = bytes([getattr(model, other)[0] ^ 1]) + getattr(model, other)[1:]
    Path("a.cram").write_bytes(with_header(blob, model=replace(model, **{other: flipped})))
    result = cramzip("t", *MODEL, "a.cram")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)


@pytest.mark.parametrize("options", [(), ("--strip", "--vectors", "0")], ids=" ".join)
def test_the_smallest_file_is_stripped_and_has_no_vectors(cramzip, text, options):
    smallest = cramzip("c", *FAST, "--smallest", *options, stdin=text).stdout_bytes
    assert smallest == cramzip("c", *FAST, "--strip", "--vectors", "0", stdin=text).stdout_bytes


@pytest.mark.parametrize("kind", ["empty", "text", "invalid UTF-8", "zeros", "noise", "recital"])
def test_the_smallest_file_is_no_larger_than_any_other(cramzip, text, kind):
    content = text if kind == "recital" else AWKWARD[kind]
    sizes = {
        options: len(cramzip("c", *RANKS, *options, stdin=content).stdout_bytes)
        for options in (("--vectors", "0"), ("--vectors", "1", "--bits", "8"), ("--strip",), ("--smallest",))
    }
    assert sizes["--smallest",] == min(sizes.values())


# -- folders ---------------------------------------------------------------------------------------


@pytest.fixture
def tree(folder):
    """A folder with files in folders, and with what is to be left out of it."""
    originals = {
        "tree/a.txt": b"a",
        "tree/a.md": NOISE,
        "tree/-": b"dash",
        "tree/sub/b": TEXT,
        "tree/sub/deep/c.d": b"",
    }
    left_out = {"tree/.hidden": b"h", "tree/.git/config": b"g", "tree/sub/old.cram": b"not ours"}
    for name, content in (originals | left_out).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    Path("tree/link").symlink_to("a.txt")
    Path("tree/folder link").symlink_to("sub")
    os.mkfifo("tree/pipe")
    return originals


TREE = ["tree/a.txt.cram", "tree/a.md.cram", "tree/-.cram", "tree/sub/b.cram", "tree/sub/deep/c.cram"]


def files_below(folder):
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())


def test_folders_are_compressed_and_restored(cramzip, tree):
    before = files_below("tree")
    result = cramzip("c", *FAST, "-r", "tree")
    assert result.exit_code == 0
    assert files_below("tree") == sorted([*before, *TREE])
    Path("tree/sub/old.cram").unlink()
    assert cramzip("t", "-r", "tree").stderr.count(": ok, ") == len(tree)
    for name in tree:
        Path(name).unlink()
    assert cramzip("d", "-r", "--rm", "tree").exit_code == 0
    assert {name: Path(name).read_bytes() for name in tree} == tree
    assert files_below("tree") == sorted(set(before) - {"tree/sub/old.cram"})


NEIGHBOURS = ["code", "code.c", "code.h", "code.h.c", "other.c", "other.unheardof"]


@pytest.mark.parametrize("named", [("-r", "."), NEIGHBOURS, NEIGHBOURS[::-1]], ids=["folder", "files", "backwards"])
def test_files_that_differ_in_their_ending_alone_do_not_get_in_each_others_way(cramzip, folder, named):
    for name in (*NEIGHBOURS, "alone.c"):
        Path(name).write_bytes(name.encode())
    assert cramzip("c", *FAST, "--rm", *named, *([] if "-r" in named else ["alone.c"])).exit_code == 0
    assert entries(folder) == sorted(["alone.cram", *(f"{name}.cram" for name in NEIGHBOURS)])
    assert cramzip("d", "-r", "--rm", ".").exit_code == 0
    expected = {name: name.encode() for name in ("alone.c", *NEIGHBOURS)}
    assert {name: Path(name).read_bytes() for name in entries(folder)} == expected


def test_a_command_does_not_overwrite_its_own_results(cramzip, folder):
    for name in ("a", "b"):
        Path(f"{name}.cram").write_bytes(nested("code.c", name.encode()))
    result = cramzip("d", "-f", "--rm", "a.cram", "b.cram")
    assert result.exit_code == 1
    assert "cramzip: b.cram: code.c was just made of another file; say where to write with -o\n" in result.stderr
    assert entries(folder) == ["b.cram", "code.c"]
    assert Path("code.c").read_bytes() == b"a"


@pytest.mark.parametrize("command", ["c", "d"])
def test_links_are_skipped_as_zstd_skips_them(cramzip, folder, command):
    Path("a").write_bytes(NOISE)
    cramzip("c", *FAST, "a")
    there = "a" if command == "c" else "a.cram"
    Path("link").symlink_to(there)
    Path("link.cram").symlink_to(there)
    for name, options in (("link.cram", ()), ("link.cram", ("-c",)), ("link.cram", ("-o", "out"))):
        result = cramzip(command, *options, name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"{name}: is a symbolic link; skipped (-f takes it)\n"
    assert cramzip(command, "-q", "link.cram").stderr == ""
    assert not Path("out").exists()
    assert cramzip(command, *MODEL, "-f", "link.cram", "-o", "out").exit_code == 0


def test_a_link_is_skipped_and_the_others_are_done(cramzip, folder):
    Path("a").write_bytes(NOISE)
    Path("link").symlink_to("a")
    result = cramzip("c", *FAST, "link", "a")
    assert result.exit_code == 0
    assert result.stderr.startswith("link: is a symbolic link; skipped (-f takes it)\na -> a.cram: ")
    for command in ("t", "l"):  # which write nothing
        Path("link.cram").unlink(missing_ok=True)
        Path("link.cram").symlink_to("a.cram")
        assert cramzip(command, "link.cram").exit_code == 0


def test_a_link_is_skipped_and_standard_input_is_done(cramzip, folder):
    (folder / "a").write_bytes(b"one")
    (folder / "link").symlink_to("a")
    assert cramzip("c", "link", "-", stdin=b"two").exit_code == 0


def test_what_is_compressed_already_is_skipped(cramzip, folder):
    Path("book.txt").write_bytes(NOISE)
    assert cramzip("c", *FAST, "book.txt").exit_code == 0
    again = cramzip("c", *FAST, "book.cram")
    assert (again.exit_code, again.stderr) == (1, "book.cram: has the ending .cram already; skipped (-f takes it)\n")
    both = cramzip("c", *FAST, "book.txt", "book.cram")
    assert both.exit_code == 1
    assert both.stderr.endswith("cramzip: book.txt: book.cram exists already; -f overwrites it\n")
    assert cramzip("c", *FAST, "book.cram", "-o", "twice").exit_code == 0
    assert cramzip("c", *FAST, "-f", "--rm", "book.cram").exit_code == 0
    assert entries(folder) == ["book.cram.cram", "book.txt", "twice"]
    assert cramzip("d", "book.cram.cram").exit_code == 0
    assert entries(folder) == ["book.cram", "book.cram.cram", "book.txt", "twice"]


def nested(name, content=NOISE):
    """A `.cram` file of stored `content` that calls its original `name`."""
    sink = io.BytesIO()
    writing.write(sink, Header(len(content), sha256(content).digest(), name), list(stored_groups(content)))
    return sink.getvalue()


@pytest.fixture(params=["b.cram", "./b.cram", "sub/../b.cram", "folder/b.cram", "link", "hard link"])
def spelling(request, folder):
    """A name of the file b.cram, which is to be."""
    Path("sub").mkdir()
    Path("folder").symlink_to(".")
    Path("link").symlink_to("b.cram")
    Path("b.cram").write_bytes(nested("original", b"of b"))
    os.link("b.cram", "hard link")
    return request.param


def test_an_input_that_is_still_to_come_is_not_overwritten_by_decompress(cramzip, spelling):
    Path("a.cram").write_bytes(nested("b.cram", b"of a"))
    result = cramzip("d", "-f", "a.cram", spelling)
    assert result.exit_code == 1
    assert "cramzip: a.cram: b.cram is another input of this command; say where to write with -o\n" in result.stderr
    assert Path("original").read_bytes() == b"of b"
    assert Path("b.cram").read_bytes() == nested("original", b"of b")


def test_an_input_that_is_still_to_come_is_not_overwritten_by_compress(cramzip, spelling):
    Path("b.txt").write_bytes(NOISE)
    before = Path("b.cram").read_bytes()
    result = cramzip("c", *FAST, "-f", "b.txt", spelling, "-v")
    assert result.exit_code == 1
    assert "cramzip: b.txt: b.cram is another input of this command; say where to write with -o\n" in result.stderr
    assert Path("b.cram").read_bytes() == before


@pytest.mark.parametrize("name", ["b.cram", "link.cram", "hard.cram"])
def test_an_input_in_a_folder_that_is_still_to_come_is_not_overwritten(cramzip, folder, name):
    Path("tree").mkdir()
    Path("tree/b.cram").write_bytes(nested("original", b"of b"))
    Path("tree/link.cram").symlink_to("b.cram")
    os.link("tree/b.cram", "tree/hard.cram")
    Path("tree/a.cram").write_bytes(nested(name, b"of a"))
    result = cramzip("d", "-r", "-f", "tree/a.cram", "tree")
    assert result.exit_code == 1
    assert f"tree/{name} is another input of this command" in result.stderr
    assert Path("tree/original").read_bytes() == b"of b"
    assert Path(f"tree/{name}").read_bytes() == nested("original", b"of b")


def test_an_input_that_was_read_already_is_not_overwritten_either(cramzip, folder):
    Path("a.cram").write_bytes(nested("original", b"of a"))
    Path("b.cram").write_bytes(nested("a.cram", b"of b"))
    result = cramzip("d", "-f", "a.cram", "b.cram")
    assert result.exit_code == 1
    assert "cramzip: b.cram: a.cram is another input of this command" in result.stderr
    assert Path("a.cram").read_bytes() == nested("original", b"of a")


def test_an_input_that_is_gone_is_in_nobodys_way(cramzip, folder):
    Path("a.cram").write_bytes(nested("original", b"of a"))
    Path("b.cram").write_bytes(nested("a.cram", b"of b"))
    assert cramzip("d", "--rm", "a.cram", "b.cram").exit_code == 0
    assert {name: Path(name).read_bytes() for name in entries(folder)} == {"a.cram": b"of b", "original": b"of a"}


def test_a_result_is_not_overwritten_under_another_spelling_of_its_name(cramzip, folder):
    Path("a").mkdir()
    Path("link").symlink_to("a")
    for name in ("one", "two"):
        Path(f"a/{name}.cram").write_bytes(nested("code.c", name.encode()))
    result = cramzip("d", "-f", "a/one.cram", "link/two.cram")
    assert result.exit_code == 1
    assert "link/code.c was just made of another file" in result.stderr
    assert Path("a/code.c").read_bytes() == b"one"


def test_two_spellings_of_a_folder_do_not_hide_that_results_would_be_the_same(cramzip, folder):
    Path("a").mkdir()
    Path("link").symlink_to("a")
    for name in ("code.c", "code.h"):
        Path("a", name).write_bytes(name.encode())
    assert cramzip("c", *FAST, "a/code.c", "link/code.h").exit_code == 0
    assert entries(folder / "a") == ["code.c", "code.c.cram", "code.h", "code.h.cram"]


def test_a_folder_is_looked_into_as_often_for_many_files_as_for_few(cramzip, folder, listings):
    counts = []
    for n in (2, 20):
        Path(f"{n}").mkdir()
        for index in range(n):
            Path(f"{n}/{index}.cram").write_bytes(nested(f"{index}.txt"))
        assert cramzip("d", "-r", f"{n}").exit_code == 0
        counts.append(listings.count(f"{n}"))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("options", [(), ("--rm",)], ids=["kept", "removed"])
def test_what_is_named_twice_is_done_once(cramzip, tree, options):
    before = files_below("tree")
    result = cramzip("c", *FAST, *options, "-r", "tree", "tree/sub", "tree/a.txt", "tree/sub/../a.md")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count(" -> ") == len(tree) * 2
    kept = before if not options else set(before) - set(tree)
    assert files_below("tree") == sorted([*kept, *TREE])


def test_what_is_named_twice_is_printed_twice(cramzip, folder):
    Path("a.cram").write_bytes(nested("a", b"a"))
    assert cramzip("d", "-c", "a.cram", "./a.cram").stdout == "aa"


def test_a_bad_file_in_a_folder_does_not_stop_the_others(cramzip, tree):
    result = cramzip("t", "-r", "tree")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("cramzip: tree/sub/old.cram: magic: ")
    cramzip("c", *FAST, "-r", "tree")
    result = cramzip("t", "-r", "tree")
    assert result.exit_code == 3
    assert result.stderr.count(": ok, ") == len(tree)


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(cramzip, tree, monkeypatch):
    def forbidding(folder, wanted):
        if folder == "tree/sub":
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return files.inside(folder, wanted)

    monkeypatch.setattr("cramzip.app.given.inside", forbidding)
    result = cramzip("c", *FAST, "-r", "tree", "tree/sub/b")
    assert result.exit_code == 1
    assert "cramzip: tree/sub: Permission denied\n" in result.stderr
    assert "tree/a.txt -> tree/a.txt.cram" in result.stderr  # beside a.md
    assert "tree/sub/b -> tree/sub/b.cram" in result.stderr


@pytest.mark.parametrize(
    ("command", "verb"), [("c", "compresses"), ("d", "decompresses"), ("t", "tests")], ids=["c", "d", "t"]
)
def test_a_folder_is_an_error_unless_asked_for(cramzip, tree, command, verb):
    Path("a").write_bytes(NOISE)
    result = cramzip(command, *MODEL, "tree", "a")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cramzip: tree: is a directory; -r {verb} what is in it\n")
    assert result.stderr.count("\n") == 2


def test_one_command_loads_and_measures_the_model_once(cramzip, folder, text, never_stored, monkeypatch):
    from cramzip.lm.frozen import FrozenLM

    done = []
    for name in ("__init__", "measure_noise"):
        original = getattr(FrozenLM, name)

        def counted(self, *arguments, name=name, original=original):
            done.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(FrozenLM, name, counted)
    for index in range(3):
        Path(f"{index}.txt").write_bytes(text[index:][:40])
    assert cramzip("c", *RANKS, "--vectors", "0", "-r", ".").exit_code == 0
    assert done == ["__init__", "measure_noise"]
    for arguments in (("t", "-r", "."), ("d", "-f", "-r", ".")):
        done.clear()
        assert cramzip(*arguments, *MODEL).exit_code == 0
        assert done == ["__init__"]


# -- list ------------------------------------------------------------------------------------------


def test_list_needs_no_model(cramzip, text, crammed):
    Path("text.cram").write_bytes(crammed)
    result = cramzip("l", "text.cram")
    assert (result.exit_code, result.stderr) == (0, "")
    heading, _, row = result.stdout.splitlines()
    assert re.sub(" +", " ", heading) == "Compressed Original Ratio Model Name File"
    assert row.split()[:2] == [f"{len(crammed):,}", f"{len(text):,}"]
    assert row.split()[-3:] == ["local:model", "text.txt", "text.cram"]


def test_list_tells_everything_when_asked(cramzip, crammed):
    Path("text.cram").write_bytes(crammed)
    shown = cramzip("l", "-v", "text.cram").stdout
    header = reading.read(crammed).header
    for fact in (
        "*.txt",
        f"{header.original_hash.hex()} (the first 8 of 32 bytes)",
        "1 corrected",
        "300 in 1 chunk",
        f"up to {header.parameters.chunk_tokens:,} tokens, after up to {header.parameters.context_tokens:,} seen",
        "1 per chunk, 1 in all, of 16 dimensions, 1 bit per dimension",
        f"2^-{header.parameters.noise_exponent}",
        header.model.fingerprint.hex(),
        header.model.tokenizer_hash.hex(),
        "3 bytes, ",
        "% of the file",
    ):
        assert fact in shown


def test_a_whole_hash_is_shown_as_it_is(cramzip):
    Path("a").write_bytes(random.Random(1).randbytes(2**20))
    cramzip("c", *FAST, "a")
    header = reading.read(Path("a.cram").read_bytes()).header
    assert len(header.original_hash) == 32
    assert f"{header.original_hash.hex()}\n" in cramzip("l", "-v", "a.cram").stdout


@pytest.mark.parametrize(
    ("gain", "told", "balance"),
    [
        (1033, "24 bits spent, 1,033 bits saved, balance +1,009 bits", 1009),
        (1, "24 bits spent, 1 bit saved, balance -23 bits", -23),
        (0, "24 bits spent, 0 bits saved, balance -24 bits", -24),
        (None, "24 bits spent, what they saved is not known", None),
    ],
)
def test_list_tells_what_the_vectors_bought(cramzip, crammed, gain, told, balance):
    blob = with_header(crammed, vectors=replace(reading.read(crammed).header.vectors, gain=gain))
    one = described(cramzip, blob)
    assert f"{told}\n" in cramzip("l", "-v", "described.cram").stdout
    assert one["vectors"]["bits_spent"] == 24
    assert one["vectors"]["bits_gained"] == gain
    assert one["vectors"]["bits_balance"] == balance


def test_list_for_machines(cramzip, text, crammed):
    Path("text.cram").write_bytes(crammed)
    document = json.loads(cramzip("list", "--json", "text.cram").stdout, parse_constant=pytest.fail)
    (one,) = document["files"]
    assert one["file"] == "text.cram"
    assert (one["name"], one["ending"]) == (None, "txt")
    assert one["original_size"] == len(text)
    parts = ("header_bytes", "vector_bytes", "correction_bytes", "stored_bytes")
    assert sum(one[part] for part in parts) == one["file_size"] == len(crammed)
    assert one["groups"] == {"corrected": 1}
    assert (one["n_groups"], one["n_modelled"], one["n_stored"], one["n_chunks"]) == (1, 1, 0, 1)
    assert (one["n_tokens"], one["n_vectors"], one["tokens_per_vector"]) == (300, 1, 300)
    assert one["model"]["id"] == "local:model"


def test_what_became_of_each_input_for_machines(cramzip, folder):
    Path("a.txt").write_bytes(NOISE)
    result = cramzip("c", *FAST, "--json", "missing", "a.txt")
    assert result.exit_code == 1
    missing, made = json.loads(result.stdout)["files"]
    expected = {"class": "FileNotFoundError", "message": "No such file or directory", "exit_code": 1, "stage": None}
    assert missing == {"file": "missing", "error": expected}
    assert (made["file"], made["output"], made["ending"], made["original_size"]) == ("a.txt", "a.cram", "txt", 300)
    assert made["file_size"] == Path("a.cram").stat().st_size
    assert made["seconds"] > 0
    Path("bad.cram").write_bytes(b"CRAMPED")
    for command, output in (("t", None), ("d", "a.txt")):
        result = cramzip(command, *(["-f"] if command == "d" else []), "--json", "bad.cram", "a.cram")
        bad, good = json.loads(result.stdout)["files"]
        assert (result.exit_code, good["output"], good["file"]) == (3, output, "a.cram")
        assert (bad["error"]["class"], bad["error"]["stage"], bad["error"]["exit_code"]) == (
            "DamagedFileError",
            "magic",
            3,
        )
        assert bad["error"]["message"] in result.stderr
    bad, good = json.loads(cramzip("l", "--json", "bad.cram", "a.cram").stdout)["files"]
    assert ("error" in bad, good["name"], good["ending"]) == (True, None, "txt")


@pytest.mark.parametrize(
    "arguments", [("c", "--json"), ("c", "--json", "-c", "a"), ("d", "--json", "-o", "-", "a.cram")]
)
def test_documents_and_results_do_not_share_standard_output(cramzip, arguments):
    result = cramzip(*arguments, stdin=NOISE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--json prints to standard output" in result.stderr


def test_help_has_options_in_groups(cramzip):
    shown = cramzip("c", "--help").stdout
    headings = re.findall(r"^(\w.*):$", shown, re.MULTILINE)
    assert headings == ["Results", "What a file keeps", "Size against time", "Model", "Machine", "Messages"]
    for command in ("d", "t", "l", "bench", "capacity"):
        assert "Messages:" in cramzip(command, "--help").stdout


def test_list_knows_nothing_of_models_where_none_is_needed(cramzip):
    one = described(cramzip, cramzip("c", *FAST, stdin=NOISE).stdout_bytes)
    assert (one["model"], one["parameters"], one["vectors"], one["groups"]) == (None, None, None, {"raw": 1})
    shown = cramzip("l", "-v", "described.cram").stdout
    assert "vectors bought" not in shown
    assert "model" not in shown


def test_a_built_in_model_is_called_by_its_name(cramzip, crammed):
    from cramzip.lm.source import find

    source = find()
    one = described(cramzip, with_header(crammed, model=BuiltinModel(source.digest)))
    assert one["model"] == {"id": source.model_id, "digest": source.digest.hex()}
    assert source.model_id in cramzip("l", "described.cram").stdout


def test_a_built_in_model_of_another_version_is_called_by_its_digest(cramzip, crammed):
    one = described(cramzip, with_header(crammed, model=BuiltinModel(b"\0\1\2\3")))
    assert one["model"] == {"id": "built-in 00010203", "digest": "00010203"}
    for arguments in (("l",), ("l", "-v")):
        assert "built-in 00010203" in cramzip(*arguments, "described.cram").stdout


def test_list_goes_on_after_a_bad_file(cramzip, crammed):
    Path("good.cram").write_bytes(crammed)
    Path("bad.cram").write_bytes(crammed[:-1])
    result = cramzip("l", "bad.cram", "good.cram")
    assert result.exit_code == 3
    assert "good.cram" in result.stdout
    assert re.fullmatch(r"cramzip: bad\.cram: \w+: .*\n", result.stderr)


def test_names_in_a_file_cannot_steer_the_terminal(cramzip):
    name = "\x9b2J\u202e[red]gnp.txt"
    Path(name).write_bytes(NOISE)
    cramzip("c", *FAST, "--name", name, "-o", "a.cram")
    for arguments in (("l", "a.cram"), ("l", "-v", "a.cram"), ("d", "a.cram"), ("d", "-f", "a.cram")):
        result = cramzip(*arguments)
        assert not set("\x9b\u202e") & set(result.stdout + result.stderr)
        assert "\\x9b2J\\u202e[red]gnp.txt" in result.stdout + result.stderr


def test_names_are_shown_letter_by_letter_in_tables(cramzip, short_runs):
    name = ":smile:[bold].txt"
    Path(name).write_bytes(NOISE)
    cramzip("c", *FAST, name)
    assert cramzip("l", ":smile:[bold].cram").stdout.split()[-2:] == [name, ":smile:[bold].cram"]
    assert f"{name} (300 bytes)" in cramzip("bench", *FAST, "--settings", "default", name).stdout


# -- where results go ------------------------------------------------------------------------------


def test_nothing_is_overwritten_silently(cramzip):
    Path("a").write_bytes(NOISE)
    Path("a.cram").write_bytes(b"precious")
    result = cramzip("c", *FAST, "a")
    assert result.exit_code == 1
    assert result.stderr == "cramzip: a: a.cram exists already; -f overwrites it\n"
    assert Path("a.cram").read_bytes() == b"precious"
    assert cramzip("c", *FAST, "-f", "a").exit_code == 0
    assert cramzip("d", "a.cram").exit_code == 1
    assert cramzip("d", "-f", "a.cram").exit_code == 0


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_at_a_terminal_the_user_is_asked(terminal, folder, answer, code):
    Path("a").write_bytes(NOISE)
    Path("a.cram").write_bytes(b"precious")
    with terminal() as user:
        user.write(f"{answer}\n".encode())
        with pytest.raises(SystemExit) as caught:
            commands(["c", *map(str, FAST), "a"])
        assert caught.value.code == code
        assert b"a.cram exists already; overwrite it? [y/N]" in user.read(10_000)
    assert (Path("a.cram").read_bytes() == b"precious") == (answer == "n")


def test_compressed_data_does_not_go_to_a_terminal(terminal, folder):
    Path("a").write_bytes(NOISE)
    with terminal() as user:
        with pytest.raises(SystemExit) as caught:
            commands(["c", *map(str, FAST), "-c", "a"])
        assert caught.value.code == 2
        shown = user.read(10_000)
    assert b"terminal" in shown
    assert layout.MAGIC not in shown


def test_no_input_is_read_from_a_terminal(terminal, folder):
    with terminal() as user:
        with pytest.raises(SystemExit) as caught:
            commands(["d"])
        assert caught.value.code == 2
        assert b"no input" in user.read(10_000)


def test_the_source_stays_unless_it_is_to_go(cramzip, folder):
    Path("a").write_bytes(NOISE)
    assert cramzip("c", *FAST, "-k", "a").exit_code == 0
    assert entries(folder) == ["a", "a.cram"]
    assert cramzip("c", *FAST, "-f", "--rm", "a").exit_code == 0
    assert entries(folder) == ["a.cram"]
    assert cramzip("d", "--rm", "a.cram").exit_code == 0
    assert entries(folder) == ["a"]


def test_the_source_stays_when_something_fails(cramzip, folder, crammed):
    Path("a.cram").write_bytes(crammed[:-1])
    assert cramzip("d", "--rm", *MODEL, "a.cram").exit_code == 3
    assert entries(folder) == ["a.cram"]


def test_mode_and_times_are_copied(cramzip):
    Path("a").write_bytes(NOISE)
    Path("a").chmod(0o604)
    os.utime("a", ns=(10**18, 10**18))
    cramzip("c", *FAST, "a")
    cramzip("d", "a.cram", "-o", "b")
    for name in ("a.cram", "b"):
        assert Path(name).stat().st_mode & 0o777 == 0o604
        assert Path(name).stat().st_mtime_ns == 10**18


def test_the_original_name_is_restored(cramzip, folder):
    Path("book.txt").write_bytes(NOISE)
    cramzip("c", *FAST, "--rm", "--name", "book.txt", "-o", "somewhere")
    assert cramzip("d", "--rm", "somewhere").exit_code == 0
    assert entries(folder) == ["book.txt"]


@pytest.mark.parametrize("options", [(), ("--strip",), ("--smallest",), ("-1",)], ids=["", "strip", "smallest", "fast"])
@pytest.mark.parametrize("name", ["book.txt", "book.tar.gz", "book.XyZ9", "book", ".book", "book.2", "book.txt.txt"])
def test_every_setting_has_one_rule_for_names(cramzip, folder, name, options):
    Path(name).write_bytes(NOISE)
    assert cramzip("c", *FAST, "--rm", *options, name).exit_code == 0
    expected = {"book.txt": "book.cram", "book.tar.gz": "book.tar.cram", "book.XyZ9": "book.cram"}
    assert entries(folder) == [expected.get(name, f"{name}.cram")]
    (path,) = folder.iterdir()
    assert cramzip("d", "--rm", path.name).exit_code == 0
    assert entries(folder) == [name]


def test_the_rest_of_the_name_is_that_of_the_compressed_file(cramzip, folder):
    Path("book.txt").write_bytes(NOISE)
    cramzip("c", *FAST, "--rm", "book.txt")
    Path("book.cram").rename("novel.cram")
    assert "novel.txt" in cramzip("l", "novel.cram").stdout
    cramzip("d", "--rm", "novel.cram")
    assert entries(folder) == ["novel.txt"]
    assert b"book" not in cramzip("c", *FAST, "-c", "novel.txt").stdout_bytes
    cramzip("c", *FAST, "--rm", "novel.txt", "-o", "novel.txt.cram")
    cramzip("d", "--rm", "novel.txt.cram")
    assert entries(folder) == ["novel.txt"]


def test_a_name_that_is_left_out_stands_in_the_name_of_the_file(cramzip, folder):
    Path("book.txt").write_bytes(NOISE)
    cramzip("c", *FAST, "--rm", "--no-name", "book.txt")
    assert entries(folder) == ["book.txt.cram"]
    assert b"book" not in Path("book.txt.cram").read_bytes()
    cramzip("d", "--rm", "book.txt.cram")
    assert entries(folder) == ["book.txt"]


def test_without_any_name_the_user_has_to_give_one(cramzip):
    Path("download").write_bytes(cramzip("c", *FAST, stdin=NOISE).stdout_bytes)
    result = cramzip("d", "download")
    assert result.exit_code == 2
    assert "-o" in result.stderr
    assert cramzip("d", "download", "-o", "a").exit_code == 0
    assert Path("a").read_bytes() == NOISE


def test_a_file_whose_name_is_no_name_for_a_header(cramzip):
    for name in (os.fsdecode(b"caf\xe9.txt"), "two\nlines", "back\\slash"):
        Path(name).write_bytes(NOISE)
        assert cramzip("c", *FAST, name, "-o", "a.cram", "-f").exit_code == 0
        assert reading.read(Path("a.cram").read_bytes()).header.name is None


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.txt"), "two\nlines.txt", "back\\slash.txt"], ids=ascii)
def test_a_name_that_cannot_be_in_the_header_stands_in_the_name_of_the_file(cramzip, folder, name):
    Path(name).write_bytes(NOISE)
    assert cramzip("c", *FAST, "--rm", name).exit_code == 0
    assert entries(folder) == [f"{name.removesuffix('.txt')}.cram"]
    assert cramzip("d", "--rm", f"{name.removesuffix('.txt')}.cram").exit_code == 0
    assert entries(folder) == [name]


@pytest.fixture(params=["/dev/null", "link to /dev/null", "named pipe", "open pipe", "open file", "terminal", "-"])
def keeps_nothing(request, folder):
    """What can be written to, and is no file that stays under that name."""
    user, program = os.openpty()
    reader, writer = os.pipe()
    with Path("redirected").open("wb") as redirected:
        os.mkfifo("pipe")
        Path("link").symlink_to("/dev/null")
        yield {
            "link to /dev/null": "link",
            "named pipe": "pipe",
            "open pipe": f"/dev/fd/{writer}",
            "open file": f"/dev/fd/{redirected.fileno()}",
            "terminal": os.ttyname(program),
        }.get(request.param, request.param)
    for descriptor in (user, program, reader, writer):
        os.close(descriptor)


@pytest.mark.parametrize("command", ["c", "d"])
def test_a_source_is_not_removed_where_nothing_keeps_the_result(cramzip, keeps_nothing, command):
    Path("a").write_bytes(b"not even looked at")
    result = cramzip(command, "--rm", "-f", "-o", keeps_nothing, "-m", "./no/such/model", "a")
    assert result.exit_code == 2
    assert re.fullmatch(r"cramzip: --rm is .*\n", result.stderr)
    assert Path("a").read_bytes() == b"not even looked at"


@pytest.mark.parametrize("command", ["c", "d"])
def test_a_source_is_not_removed_where_its_own_result_would_go_into_a_pipe(cramzip, command):
    Path("book.cram").write_bytes(cramzip("c", *FAST, stdin=NOISE).stdout_bytes)
    source, target = {"c": ("book.cram", "book.cram.cram"), "d": ("book.cram", "book")}[command]
    os.mkfifo(target)
    result = cramzip(command, "--rm", "-f", "-m", "./no/such/model", source)
    assert result.exit_code == 2
    assert result.stderr == f"cramzip: {source}: --rm is for results that are kept in a file, and {target} is none\n"
    assert Path(source).exists()


def test_an_open_file_is_written_into_where_it_stands(cramzip):
    Path("a").write_bytes(NOISE)
    with Path("log").open("wb") as log:
        log.write(b"before ")
        log.flush()
        assert cramzip("c", *FAST, "a", "-o", f"/dev/fd/{log.fileno()}").exit_code == 0
        log.write(b" after")
    written = Path("log").read_bytes()
    assert written.startswith(b"before " + layout.MAGIC)
    assert written.endswith(b" after")


def test_what_is_not_open_is_refused_before_any_work(cramzip):
    Path("a").write_bytes(NOISE)
    reader, writer = os.pipe()
    os.close(writer)
    for descriptor in (reader, writer):
        result = cramzip("c", "-m", "./no/such/model", "a", "-o", f"/dev/fd/{descriptor}")
        assert result.exit_code == 1
        assert result.stderr == f"cramzip: a: /dev/fd/{descriptor} is not open for writing\n"
    os.close(reader)


def test_devices_can_be_written_to(cramzip):
    Path("a").write_bytes(NOISE)
    assert cramzip("c", *FAST, "a", "-o", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c", "a", "b", "-o", "x"), "-o takes the result of one file"),
        (("c", "a", "b", "-c"), "--stdout takes one file"),
        (("c", "a", "-c", "-o", "x"), "exclude each other"),
        (("c", "a", "-c", "--rm"), "--rm"),
        (("c", "--vectors", "-1", "a"), "--vectors"),
        (("c", "--vectors", "4097", "a"), "--vectors"),
        (("c", "--bits", "5", "a"), "--bits"),
        (("c", "--context", "-1", "a"), "--context"),
        (("c", "--smallest", "--exact", "a"), "--smallest and --exact exclude each other"),
        (("c", "--smallest", "--vectors", "1", "a"), "it excludes --vectors 1"),
        (("c", "--exact", "--vectors", "0", "a"), "it excludes --vectors 0"),
        (("c", "--exact", "--context", "9", "a"), "it excludes --context"),
        (("c", "--paper", "--bits", "2", "a"), "it excludes --bits 2"),
        (("c", "-r", "-o", "x", "a"), "-o takes the result of one file"),
        (("c", "-r", "-c", "a"), "--stdout takes one file"),
        (("d", "-r", "-o", "x", "a"), "-o takes the result of one file"),
        (("bench", "--settings", "fastest", "a"), "expected some of default, smallest, exact, found 'fastest'"),
        (("bench", "--settings", "", "a"), "found ''"),
        (("bench", "--settings", "default,", "a"), "found ''"),
        (("bench", "--settings", "default,,exact", "a"), "found ''"),
        (("capacity", "--experiment", ""), "found ''"),
        (("capacity", "--experiment", "bits, "), "found ''"),
        (("capacity", "--kinds", "books,"), "found ''"),
        (("capacity", "--kinds", "books", "--kinds", ""), "found ''"),
        (("bench", "--exact", "a"), "--exact"),
        (("c", "-m", "", "a"), "--model"),
        (("d", "-m", "", "a"), "--model"),
        (("c", "-o", "", "a"), "--output"),
        (("c", "--dtype", "int8", "a"), "--dtype"),
        (("c", "--frobnicate", "a"), "--frobnicate"),
        (("frobnicate",), "frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_senseless_arguments_are_refused_in_one_line(cramzip, arguments, message):
    result = cramzip(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("cramzip: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize("length", range(251, 256))
def test_a_name_that_leaves_no_room_for_the_ending_is_refused_before_any_work(cramzip, folder, length):
    name = "n" * length
    Path(name).write_bytes(NOISE)
    result = cramzip("c", "-m", "./no/such/model", name)
    assert result.exit_code == 1
    said = f"{name}.cram cannot be written: File name too long; say where to write with -o"
    assert result.stderr == f"cramzip: {name}: {said}\n"
    assert cramzip("c", *FAST, "--name", name, "-o", "a.cram").exit_code == 0
    assert cramzip("d", "-f", "a.cram").exit_code == 0
    assert entries(folder) == ["a.cram", name]


def test_an_output_whose_name_is_too_long_is_refused_before_any_work(cramzip):
    Path("a").write_bytes(NOISE)
    for options in ((), ("--rm",)):
        result = cramzip("c", "-m", "./no/such/model", *options, "a", "-o", "n" * 300)
        assert result.exit_code == 1
        assert result.stderr == f"cramzip: a: {'n' * 300} cannot be written: File name too long\n"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="there is no /proc")
def test_a_folder_that_takes_no_files_is_refused_before_any_work(cramzip):
    result = cramzip("c", "-m", "./no/such/model", "/proc/cpuinfo")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"cramzip: /proc/cpuinfo: nothing can be written into /proc: .*; say where to write with -o\n", result.stderr
    )
    assert cramzip("c", *FAST, "/proc/cpuinfo", "-o", "a.cram").exit_code == 0


def test_a_name_that_the_locale_cannot_spell_is_told(cramzip):
    Path("a.cram").write_bytes(nested("日.txt"))
    process = start("d", "a.cram", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    said = process.communicate()[1]
    if process.returncode == 0:
        pytest.skip("every locale spells every name here")
    assert process.returncode == 1
    assert re.fullmatch(
        r"cramzip: a\.cram: .*\.txt cannot be written: the locale cannot spell this name; say where to write with -o\n",
        said,
    )


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="there is no /dev/stdin")
@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "//dev/stdin", "/dev/../dev/stdin"])
def test_every_name_of_standard_input_is_standard_input(cramzip, folder, name):
    Path("a").write_bytes(nested("original", TEXT))
    others = [("d", name), ("t", name), ("l", name)] if name == "/dev/fd/0" else []
    for arguments in (*others, ("d", name, "-o", "b")):
        with Path("a").open("rb") as stream:
            process = start(*arguments, stdin=stream, stdout=subprocess.PIPE)
            assert "(stdin)" in "".join(process.communicate())
            assert process.returncode == 0
    assert Path("b").read_bytes() == TEXT
    assert entries(folder) == ["a", "b"]


@pytest.mark.parametrize("command", ["c", "d"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_an_open_file_has_no_place_beside_it(cramzip, folder, command, kind):
    Path("a").write_bytes(nested("original"))
    reader, writer = os.pipe()
    with Path("a").open("rb") as stream:
        name = f"/dev/fd/{reader if kind == 'pipe' else stream.fileno()}"  # nothing is ever written into the pipe
        result = cramzip(command, "-m", "./no/such/model", name)
    os.close(reader)
    os.close(writer)
    assert result.exit_code == 2
    said = "it is no file with a name of its own; say where to write with -o"
    assert result.stderr == f"cramzip: {name}: {said}\n"
    assert entries(folder) == ["a"]


def test_an_open_file_is_read_and_stays(cramzip, folder):
    Path("a").write_bytes(nested("original"))
    with Path("a").open("rb") as stream:
        assert cramzip("d", "--rm", f"/dev/fd/{stream.fileno()}", "-o", "b").exit_code == 0
        assert cramzip("d", f"/dev/fd/{stream.fileno()}", "-c").stdout_bytes == NOISE
    assert Path("b").read_bytes() == NOISE
    assert entries(folder) == ["a", "b"]


@pytest.mark.parametrize("arguments", [("c", "-r", ""), ("t", "-r", ""), ("d", ""), ("l", "a", "")], ids=" ".join)
def test_an_empty_name_is_not_the_current_folder(cramzip, folder, arguments):
    (folder / "a").write_bytes(NOISE)
    result = cramzip(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "must not be empty" in result.stderr
    assert entries(folder) == ["a"]


@pytest.mark.parametrize("command", ["c", "d", "t", "l", "bench"])
@pytest.mark.parametrize("names", [("-", "-"), ("-", "a", "/dev/stdin"), ("/dev/fd/0", "-")], ids=" ".join)
def test_standard_input_cannot_be_read_twice(cramzip, command, names):
    result = cramzip(command, *names, stdin=NOISE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "standard input can be read once" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("first", [b"", NOISE, bytes(2**23)], ids=["empty", "one group", "several groups"])
@pytest.mark.parametrize("command", ["d", "t", "l"])
def test_files_that_were_joined_are_told_where_the_second_begins(cramzip, command, first):
    joined = nested("a", first) + nested("b")
    result = cramzip(command, stdin=joined)
    assert result.exit_code == 3
    assert f"another cramzip file seems to begin at byte {len(nested('a', first))}" in result.stderr
    assert result.stderr.count("\n") == 1


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "cramzip: missing: No such file or directory\n"),
        ("/dev/zero", "cramzip: /dev/zero: is neither a file nor a pipe\n"),
    ],
)
@pytest.mark.parametrize("command", ["c", "d", "t", "l", "bench"])
def test_inputs_that_cannot_be_read(cramzip, command, path, message):
    result = cramzip(command, path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)


@pytest.mark.parametrize("command", ["l", "bench"])
def test_folders_are_no_input(cramzip, command):
    result = cramzip(command, ".")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "cramzip: .: is a directory\n")


def test_the_other_files_are_done_after_a_failure(cramzip, folder):
    Path("a").write_bytes(NOISE)
    Path("b").write_bytes(NOISE)
    result = cramzip("c", *FAST, "a", "missing", "b")
    assert result.exit_code == 1
    assert entries(folder) == ["a", "a.cram", "b", "b.cram"]
    Path("a.cram").write_bytes(b"damaged")
    result = cramzip("d", "-f", "a.cram", "missing", "b.cram")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1].startswith("b.cram -> b: 300 bytes")


def test_a_missing_model_is_an_error_of_its_own(cramzip):
    Path("a").write_bytes(NOISE)
    result = cramzip("c", "-m", "./no/such/model", "a")
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1


def test_a_local_model_has_to_be_pointed_at(cramzip, crammed, folder):
    Path("text.cram").write_bytes(crammed)
    result = cramzip("d", "text.cram")
    assert result.exit_code == 4
    assert "-m" in result.stderr
    assert entries(folder) == ["text.cram"]


def test_another_model_is_refused_with_both_fingerprints(cramzip, crammed, folder):
    other = folder / "other"
    other.mkdir()
    for file in TINY_MODEL.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    Path("text.cram").write_bytes(crammed)
    result = cramzip("d", "-m", other, "text.cram")
    assert result.exit_code == 4
    assert len(re.findall("[0-9a-f]{64}", result.stderr)) == 2
    assert not Path("text.txt").exists()


@pytest.fixture
def hub_file(folder, crammed):
    """`a.cram`, which says that its model comes from Hugging Face."""
    model = replace(reading.read(crammed).header.model, model_id="hf:nobody/nothing-that-exists")
    Path("a.cram").write_bytes(with_header(crammed, model=model))
    return "a.cram"


def test_a_file_cannot_cause_a_download(cramzip, hub_file):
    result = cramzip("d", hub_file)
    assert result.exit_code == 4
    assert "--download" in result.stderr
    assert cramzip("d", *MODEL, hub_file).exit_code == 0


def test_a_download_is_offered_at_a_terminal(terminal, hub_file):
    with terminal() as user:
        user.write(b"n\n")
        with pytest.raises(SystemExit) as caught:
            commands(["d", hub_file])
        assert caught.value.code == 4
        assert b"download it from Hugging Face? [y/N]" in user.read(10_000)


def test_damage_is_found_before_anything_is_written(cramzip, crammed, folder):
    rng = random.Random(0)
    for place in rng.sample(range(len(crammed)), 12):
        damaged = bytearray(crammed)
        damaged[place] ^= 1 << rng.randrange(8)
        Path("a.cram").write_bytes(damaged)
        for command in ("d", "t", "l"):
            result = cramzip(command, "a.cram")
            assert result.exit_code == 3
            assert result.stderr.startswith("cramzip: a.cram: ")
            assert result.stderr.count("\n") == 1
    assert entries(folder) == ["a.cram"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda blob: blob[:9], ": the file is cut off\n"),
        (lambda blob: blob[:-3], ": the file is damaged or cut off\n"),
        (lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), ": the file is damaged or cut off\n"),
        (lambda blob: b"\x1d" + blob[1:], "magic: not a cramzip file: expected 9d 43 5a, found 1d 43 5a\n"),
    ],
    ids=["9 bytes", "3 bytes missing", "a bit", "magic"],
)
def test_what_is_the_matter_with_a_file_is_said(cramzip, crammed, change, told):
    Path("a.cram").write_bytes(change(crammed))
    for command in ("d", "t", "l"):
        result = cramzip(command, "a.cram")
        assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
        assert result.stderr.endswith(told)


def test_damage_that_only_decoding_finds_is_found(cramzip, crammed, folder):
    Path("a.cram").write_bytes(with_header(crammed, original_hash=bytes(32)))
    for command in ("d", "t"):
        result = cramzip(command, *MODEL, "a.cram")
        assert result.exit_code == 3
        assert "Original_Hash" in result.stderr
    assert entries(folder) == ["a.cram"]


def test_a_genomics_file_is_recognised(cramzip):
    Path("a.cram").write_bytes(b"CRAM\x03\x00" + NOISE)
    result = cramzip("d", "a.cram")
    assert result.exit_code == 3
    assert "samtools" in result.stderr


def test_debug_shows_where_an_error_came_from(folder):
    from click.testing import CliRunner

    result = CliRunner().invoke(commands, ["d", "--debug", "missing"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_two_processes_do_not_write_the_same_output(cramzip, folder):
    Path("a").write_bytes(NOISE)
    journal = Journal(folder / ".a.cram.journal", bytes(32))
    result = cramzip("c", *FAST, "a")
    journal.close(remove=True)
    assert result.exit_code == 1
    assert "another cramzip" in result.stderr


# -- no room ---------------------------------------------------------------------------------------


def test_nothing_is_left_on_a_full_disk_by_decompress(cramzip, folder, little_room):
    Path("a").write_bytes(bytes(2**20))
    cramzip("c", *FAST, "a")
    Path("a").write_bytes(b"precious")
    with little_room(2**16):
        result = cramzip("d", "-f", "--rm", "a.cram")
    assert (result.exit_code, result.stderr) == (1, "cramzip: a.cram: a: File too large\n")
    assert entries(folder) == ["a", "a.cram"]
    assert Path("a").read_bytes() == b"precious"


def test_nothing_is_left_on_a_full_disk_by_compress(cramzip, folder, little_room):
    Path("a").write_bytes(random.Random(1).randbytes(3000))
    with little_room(3010):
        result = cramzip("c", *FAST, "--rm", "a")
    assert (result.exit_code, result.stderr) == (1, "cramzip: a: .a.cram.journal: File too large\n")
    assert entries(folder) == ["a"]


def test_a_full_folder_for_temporary_files_is_told_by_its_name(cramzip, folder, little_room):
    Path("a").write_bytes(NOISE)
    with little_room(200):
        result = cramzip("c", *FAST, "--rm", "a")
    assert (result.exit_code, result.stderr) == (1, f"cramzip: a: {tempfile.gettempdir()}: File too large\n")
    assert entries(folder) == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    ("arguments", "subject"),
    [(("d", "-c", "a.cram"), "a.cram: "), (("l", "a.cram"), ""), (("--help",), ""), (("-V",), ""), (("c", "-h"), "")],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_full_standard_output_is_one_line_and_an_exit_code(cramzip, arguments, subject):
    Path("a").write_bytes(NOISE)
    cramzip("c", *FAST, "a")
    with Path("/dev/full").open("wb") as full:
        process = start(*arguments, stdout=full)
        assert process.communicate()[1] == f"cramzip: {subject}(stdout): No space left on device\n"
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    ("arguments", "code"), [(("d", "a.cram"), 0), (("d", "--progress", "a.cram"), 0), (("d", "b"), 1)]
)
def test_where_messages_cannot_be_written_the_work_is_done(cramzip, folder, arguments, code):
    Path("a").write_bytes(NOISE)
    cramzip("c", *FAST, "--rm", "a")
    with Path("/dev/full").open("wb") as full:
        process = start(*arguments, stderr=full)
        process.communicate()
    assert process.returncode == code
    assert Path("a").exists() == (code == 0)


# -- interruption ----------------------------------------------------------------------------------

NOISE_FIRST = random.Random(2).randbytes(2 * 2**22)  # two stored groups


def start(*arguments, stdin=None, stdout=None, stderr=subprocess.PIPE, **variables):
    environment = os.environ | {"PYTHONPATH": str(TINY_MODEL.parent.parent)} | variables
    command = [sys.executable, "-m", "cramzip", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, text=True)


def wait_for_a_group(journal):
    """Wait until the first group of NOISE_FIRST is in the journal."""
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 2**22):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_jobs_go_on_where_they_stopped_and_give_the_same_file(cramzip, folder, text, monkeypatch):
    Path("long").write_bytes(NOISE_FIRST + text)
    assert cramzip("c", *FAST, "long", "-o", "uninterrupted").exit_code == 0

    process = start("c", *FAST, "long")
    wait_for_a_group(Path(".long.cram.journal"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert entries(folder) == [".long.cram.journal", "long", "uninterrupted"]

    with monkeypatch.context() as patch:  # Ctrl-C after the next segment
        append = Journal.append
        patch.setattr(Journal, "append", lambda *given: append(*given) or os.kill(os.getpid(), signal.SIGINT))
        result = cramzip("c", *FAST, "long")
    assert result.exit_code == 130
    whole = f"{len(NOISE_FIRST) + len(text):,}"
    assert re.search(rf"long\.cram: continuing after \d+,\d{{3}},\d{{3}} of {whole} bytes\n", result.stderr)
    assert "the same command continues from there\n" in result.stderr
    assert result.stderr.endswith("cramzip: interrupted\n")
    assert entries(folder) == [".long.cram.journal", "long", "uninterrupted"]

    result = cramzip("c", *FAST, "long")
    assert result.exit_code == 0
    assert "continuing after" in result.stderr
    assert Path("long.cram").read_bytes() == Path("uninterrupted").read_bytes()
    assert entries(folder) == ["long", "long.cram", "uninterrupted"]


@pytest.mark.parametrize("module", ["click", "json"])
def test_ctrl_c_while_modules_are_loaded_is_one_line(folder, module):
    """A module of the same name comes first, and interrupts the process that loads it."""
    Path("path").mkdir()
    Path(f"path/{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    Path("a.cram").write_bytes(nested("a"))
    process = start("l", "a.cram", PYTHONPATH=f"{folder / 'path'}:{TINY_MODEL.parent.parent}", stdout=subprocess.PIPE)
    shown, said = process.communicate()
    assert (process.returncode, shown) == (130, "")
    assert said.strip() == "cramzip: interrupted"


def test_the_journal_of_other_options_is_not_continued(cramzip, folder):
    Path("a").write_bytes(NOISE)
    Journal(folder / ".a.cram.journal", bytes(32)).close(remove=False)
    result = cramzip("c", *FAST, "a")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "a.cram: a journal of other input, options, versions, threads or profiles was there"
    )
    assert entries(folder) == ["a", "a.cram"]


def test_a_closed_pipe_is_no_reason_for_words(cramzip, folder):
    Path("a").write_bytes(random.Random(3).randbytes(2**20))
    cramzip("c", *FAST, "a")
    environment = os.environ | {"PYTHONPATH": str(TINY_MODEL.parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cramzip", "d", "-q", "-c", "a.cram"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() != 0


@pytest.mark.parametrize(
    ("model", "bytes_each"),
    [(None, 0), (TINY_MODEL, 2), ("gpt2", 4)],
    ids=["built-in", "exact arithmetic", "floats"],
)
def test_a_model_that_would_take_more_memory_is_refused_before_it_is_loaded(
    cramzip, folder, model, bytes_each, monkeypatch
):
    if model == "gpt2":
        make_model("gpt2", folder / "gpt2")
    Path("a").write_bytes(b"some words and more words")
    monkeypatch.setattr("cramzip.lm.models.in_torch", lambda *given: pytest.fail("loaded a model"))
    chosen = ("-m", model) if model else ()
    result = cramzip("c", *chosen, "-M", "1K", "a")
    assert result.exit_code == ModelError.exit_code
    said = re.fullmatch(
        r"cramzip: a: \S+ takes about ([\d,]+) bytes of memory; 1,024 are allowed\n", result.stderr
    ).group(1)
    if model:
        n_weights = sum(prod(tensor.shape) for tensor in tensors_of(Path(model)))
        assert int(said.replace(",", "")) == bytes_each * n_weights
    assert entries(folder) == (["a", "gpt2"] if model == "gpt2" else ["a"])


@pytest.mark.parametrize(("said", "size"), [("7", 7), ("2k", 2048), ("1.5 MiB", 3 * 2**19), ("3GB", 3 * 2**30)])
def test_sizes_are_those_of_xz_and_zstd(said, size):
    assert bytes_of(None, None, said) == size


@pytest.mark.parametrize("said", ["", "M", "-1", "10%", "1 KB of it"])
def test_what_is_no_size_is_refused(cramzip, folder, said):
    Path("a").write_bytes(b"some words")
    result = cramzip("c", "-M", said, "a")
    assert result.exit_code == UsageError.exit_code
    assert "expected a size such as 500M or 2G" in result.stderr


def test_records_name_what_was_skipped(cramzip, folder):
    Path("a").write_bytes(b"some words")
    Path("b.cram").write_bytes(b"whatever")
    result = cramzip("c", *FAST, "--json", "a", "b.cram")
    assert result.exit_code == 0
    done, left = json.loads(result.stdout)["files"]
    assert (done["file"], done["output"]) == ("a", "a.cram")
    assert left["file"] == "b.cram"
    assert left["skipped"]
