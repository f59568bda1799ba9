"""docs/conventions.md: each row is tried, and so are the examples with other programs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models import ROOT, TINY_MODEL
from test_papers import rows

from cramzip.app.manual import CODES, man_page
from cramzip.container import reading
from cramzip.container.records import BuiltinModel

PAGE = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
BOOK = b"It was a dark night, and nobody was on the road. "
TABLE = [cells for cells in rows(PAGE.splitlines()) if cells[0] != "convention"]


@pytest.fixture
def shelf(cramzip, folder, monkeypatch):
    """The folder that the page describes. The level is that of the environment."""
    monkeypatch.setenv("CRAMZIP_LEVEL", "1")
    (folder / "book.txt").write_bytes(BOOK)
    (folder / "link.txt").symlink_to("book.txt")
    assert cramzip("c", "book.txt").exit_code == 0
    return folder


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[2].strip("`"))
def test_each_convention_is_as_the_table_says(cramzip, shelf, row):
    convention, _, tried, outcome = row
    arguments = shlex.split(tried.strip("`"))
    code, *changes = outcome.split(", ")
    before = {path.name for path in shelf.iterdir()}
    result = cramzip(*arguments, stdin=BOOK if "-" in arguments else b"")
    assert result.exit_code == int(code), (convention, result.stderr)
    after = {path.name for path in shelf.iterdir()}
    assert after ^ before == {change.lstrip("-") for change in changes}
    assert all((change[0] == "-") == (change.lstrip("-") in before) for change in changes)
    for name in after - {"book.cram"}:
        if name.endswith(".txt") and Path(name).exists():
            assert Path(name).read_bytes() == BOOK
    if "-c" in arguments or "--to-stdout" in arguments:
        assert result.stdout_bytes == BOOK or result.stdout_bytes.startswith(b"\x9dCZ") or code != "0"
    if "-q" in arguments or "-dfq" in arguments:
        assert result.stderr == ""
    assert result.stderr.count("\n") <= 2 or "-v" in arguments or "-f" in arguments


def test_the_table_names_what_gzip_zstd_and_xz_have_in_common():
    tried = " ".join(row[2] for row in TABLE)
    for option in [*(f"-{letter}" for letter in "cdfhkloqrtvz19TV"), "--rm", "--"]:
        assert re.search(rf"[ `]{option}\b|[ `]-\w*{option[1]}\w* |[ `]{option} ", tried), option


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("-0", "-1 (fastest) to -9"), ("-10", "-1 (fastest) to -9"), ("--ultra", "-9"), ("-n", "--no-name"), ("-S", "-o")],
)
def test_other_spellings_are_answered_with_the_right_one(cramzip, shelf, wrong, right):
    result = cramzip(wrong, "book.txt")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert right in result.stderr


def test_the_level_of_the_environment_is_that_of_the_option(cramzip, shelf, monkeypatch):
    (shelf / "long.txt").write_bytes(b" ".join(b"%d" % n for n in range(400)))
    sizes = {}
    for level in ("1", "9"):
        monkeypatch.setenv("CRAMZIP_LEVEL", level)
        sizes[level] = cramzip("c", "-c", "long.txt").stdout_bytes
    assert sizes["1"] != sizes["9"] == cramzip("c", "-9", "-c", "long.txt").stdout_bytes
    monkeypatch.setenv("CRAMZIP_LEVEL", "1")
    assert cramzip("c", "-9", "-c", "long.txt").stdout_bytes == sizes["9"]


@pytest.mark.usefixtures("never_stored")
def test_the_model_of_the_environment_is_that_of_the_option(cramzip, shelf, monkeypatch):
    monkeypatch.setenv("CRAMZIP_MODEL", str(TINY_MODEL))
    blob = cramzip("c", "--vectors", "0", "-c", "book.txt").stdout_bytes
    assert reading.read(blob).header.model.model_id == "local:model"
    assert cramzip("d", "-f", "book.cram").exit_code == 0  # which was made with the built-in one
    monkeypatch.setenv("CRAMZIP_MODEL", "")
    assert isinstance(reading.read(cramzip("c", "-c", "book.txt").stdout_bytes).header.model, BuiltinModel)


@pytest.mark.parametrize("level", ["0", "10", "x", "5 "])
def test_a_level_that_is_none_is_told(cramzip, shelf, monkeypatch, level):
    monkeypatch.setenv("CRAMZIP_LEVEL", level)
    result = cramzip("c", "-f", "book.txt")
    assert (result.exit_code, result.stderr) == (2, f"cramzip: CRAMZIP_LEVEL: expected 1 to 9, found {level!r}\n")


# -- other programs --------------------------------------------------------------------------------


@pytest.fixture
def shell(folder):
    """Runs lines of a shell in which `cramzip` is the program of this folder."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "cramzip"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cramzip "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "LESSHISTFILE": "-",
    }

    def run(lines):
        command = ["bash", "-ec", lines]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def example(word):
    """The block of the page in which a word is."""
    (block,) = (block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if word in block)
    return block


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"needs {program}")


@needs("git")
def test_git_shows_what_changed(folder, shell):
    shell("git init -q . && printf 'one\\ntwo\\n' > a.txt && cramzip c -q a.txt && git add a.cram")
    shell("printf 'one\\nthree\\n' > a.txt && cramzip c -qf a.txt")
    assert re.search(r"^-two\n\+three$", shell(example("textconv")), re.MULTILINE)


@needs("less")
def test_less_shows_what_is_inside(folder, shell):
    shell("printf 'one\\ntwo\\n' > 'a book.txt' && cramzip c -q --rm 'a book.txt'")
    assert shell(example("LESSOPEN").replace("book.cram", "'a book.cram'")) == "one\ntwo\n"
    assert shell("printf 'plain\\n' > plain.txt;" + example("LESSOPEN").replace("book.cram", "plain.txt")) == "plain\n"


def test_bash_completes_files_commands_and_options(folder, shell):
    assert "_CRAMZIP_COMPLETE=bash_complete" in shell("_CRAMZIP_COMPLETE=bash_source cramzip < /dev/null")
    ask = "_CRAMZIP_COMPLETE=bash_complete COMP_WORDS='cramzip {}' COMP_CWORD={} cramzip < /dev/null"
    assert "plain,compress" in shell(ask.format("com", 1))
    assert shell(ask.format("d bo", 2)).startswith("file,bo")
    assert shell(ask.format("d -D bo", 3)).startswith("file,bo")
    assert "plain,--smallest" in shell(ask.format("c --sm", 2))


# -- the manual page -------------------------------------------------------------------------------


def test_the_manual_page_has_every_command_and_option():
    from cramzip.app.cli import commands

    page = man_page().replace("\\-", "-")
    for name, command in commands.commands.items():
        assert f"\n.SH {name.upper()}\n" in page
        for param in command.params:
            if param.opts[0].startswith("-") and param.opts[0] not in {f"-{n}" for n in range(2, 10)}:
                assert re.search(rf"^\.B .*{re.escape(param.opts[0])}\b", page, re.MULTILINE), param.opts


def test_the_manual_page_has_the_exit_codes_of_the_manual():
    manual = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    told = [tuple(cells) for cells in rows(manual.splitlines()) if re.fullmatch(r"\d+(, \d+)?", cells[0])]
    assert CODES[:-1] == (*told[:-1],)
    assert CODES[-1][0] == told[-1][0]  # what these two mean is said in a word


@pytest.mark.parametrize(
    "command", [["man", "-l", "-"], ["groff", "-man", "-Tutf8", "-ww", "-z"]], ids=lambda command: command[0]
)
def test_the_manual_page_is_understood(command):
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}")
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"}
    shown = subprocess.run(command, input=man_page(), capture_output=True, text=True, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    if command[0] == "man":
        assert "--smallest" in shown.stdout
        assert re.search("cramzip +- Compress text", shown.stdout)
