import sys
import time

import pytest
from models import ROOT

from cramzip.app import console
from cramzip.app.console import Console, printable
from cramzip.app.estimate import seconds, tell_compress
from cramzip.app.tables import Table, cut, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("book.txt", "book.txt"),
        ("Grüße 日本.txt", "Grüße 日本.txt"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\nlines"),
        ("\x9b2J", "\\x9b2J"),
        ("txt\u202egnp", "txt\\u202egnp"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_names_cannot_steer_the_terminal(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("typed", "expected"), [("y", True), ("YES", True), ("n", False), ("", False), ("maybe", False)]
)
def test_only_yes_is_a_yes(terminal, typed, expected):
    with terminal() as user:
        user.write(f"{typed}\n".encode())
        assert Console().ask("sure?") is expected


def test_without_a_terminal_the_answer_is_no(capsys):
    assert not Console().ask("sure?")
    assert capsys.readouterr().err == ""


def test_quiet_keeps_all_but_complaints(capsys):
    quiet = Console(quiet=True, verbose=True)
    quiet.say("done")
    quiet.detail("details")
    quiet.complain("a.txt", "is\nbad")
    assert capsys.readouterr().err == "cramzip: a.txt: is\\nbad\n"


def test_progress_shows_rate_and_time_left_when_wanted(capsys):
    with Console(show_progress=True).progress("book.txt", 2000, done=500) as progress:
        progress(500)
    shown = capsys.readouterr().err
    assert "book.txt" in shown
    assert "B/s" in shown


def test_progress_is_for_terminals(capsys):
    with Console().progress("book.txt", 2000) as progress:
        progress(500)
    assert capsys.readouterr().err == ""


def test_where_standard_streams_are_closed_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert not Console().ask("Overwrite it?")
    with Console(show_progress=True).progress("book.txt", 2000) as progress:
        progress(500)


def test_progress_shows_at_a_terminal(terminal):
    with terminal() as user:
        with Console().progress("book.txt", 2000) as progress:
            progress(500)
        assert b"book.txt" in user.read(10_000)


@pytest.mark.parametrize(
    ("n", "shown"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5 * 10**6, "5 MB"), (2.5e9, "2.5 GB")]
)
def test_sizes_in_few_digits(n, shown):
    assert console.human(n) == shown


def test_counts_agree_with_their_nouns():
    assert console.count(1, "byte") == "1 byte"
    assert console.count(2000, "byte") == "2,000 bytes"


# -- tables ----------------------------------------------------------------------------------------


def table(*files):
    found = Table(("Bytes", "Model", "File"), frozenset({"Bytes"}))
    for number, file in enumerate(files):
        found.add(f"{10**number:,}", "builtin:primer", file)
    return found


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("a/b/book.txt", 12, "a/b/book.txt"),
        ("a/b/c/d/book.txt", 12, "a/b/c....txt"),
        ("日本語の本.txt", 10, "日本...txt"),
        ("日本語の本.txt", 14, "日本語の本.txt"),
        ("e\u0301tude.txt", 9, "e\u0301tude.txt"),
    ],
)
def test_paths_are_cut_in_the_middle(text, size, shown):
    assert cut(text, size) == shown
    assert width(shown) <= size


@pytest.mark.parametrize("room", [40, 60, 80, None])
def test_a_table_fits_and_keeps_its_headings_and_numbers(room):
    lines = table("a" * 100 + ".cram", "b.cram", "名" * 50 + ".cram").lines(room)
    assert lines[0].split() == ["Bytes", "Model", "File"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "10", "100"]
    assert all(line.endswith(".cram") or room == 40 for line in lines[2:])
    assert room is None or max(map(width, lines)) <= room


def test_a_row_of_one_text_is_over_the_others():
    found = table("a")
    found.rows.insert(0, ["a/long/path/of/a/book.txt (9 bytes)"])
    assert found.lines(20)[2] == "a/long/pa...9 bytes)"


def test_what_list_prints_fits_into_a_terminal(terminal, folder):
    from cramzip.app.cli import commands

    deep = folder / "/".join(["folder"] * 12)
    deep.mkdir(parents=True)
    path = deep / "a long name of a file that no terminal shows as a whole.cram"
    path.write_bytes(bytes.fromhex("9D 43 5A 01 00 00 E3 B0 C4 42 00 E4 9A B0 01"))
    with terminal() as user:
        with pytest.raises(SystemExit):
            commands(["l", str(path.relative_to(folder))])
        lines = user.read(10_000).decode().splitlines()
    assert lines[0].split() == ["Compressed", "Original", "Ratio", "Model", "Name", "File"]
    assert max(map(len, lines)) <= 80


# -- waiting ---------------------------------------------------------------------------------------


def test_what_takes_longer_than_a_moment_is_told_and_taken_back(terminal, monkeypatch):
    monkeypatch.setattr(console, "SILENT_FOR", 0.05)
    with terminal() as user:
        with Console().waiting("loading a model"):
            assert user.read(1000) == b"loading a model ..."
        assert user.read(1000).decode() == f"\r{' ' * 19}\r"
        with Console(quiet=True).waiting("loading a model"):
            assert user.read(1000) == b""


def test_what_is_quick_is_not_told(terminal):
    with terminal() as user:
        with Console().waiting("loading a model"):
            pass
        assert user.read(1000) == b""


def test_waiting_is_told_in_a_log_only_where_progress_is_wanted(capsys, monkeypatch):
    monkeypatch.setattr(console, "SILENT_FOR", 0.0)
    for wanted in (None, True):
        with Console(show_progress=wanted).waiting("loading\na model"):
            time.sleep(0.1)
        assert capsys.readouterr().err == ("loading\\na model ...\n" if wanted else "")


def test_an_error_while_waiting_comes_through(terminal):
    with terminal(), pytest.raises(KeyError), Console().waiting("loading"):
        raise KeyError


def test_one_bar_shows_both_passes(capsys, monkeypatch):
    monkeypatch.setattr(console, "LOGGED_EVERY", 0.0)
    with Console(show_progress=True).progress("book.txt", 2000, passes=2) as progress:
        progress(2000)
        progress(2000)
    assert " 50%|█████     | 1.00k/2.00k" in capsys.readouterr().err


# -- estimates -------------------------------------------------------------------------------------


TEXT = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()


class Slow:
    """A model of which little is known."""

    device, n_parameters = "cpu", 135_000_000

    class source:
        is_exact = False


@pytest.mark.parametrize(
    ("size", "told"), [(1000, ""), (60_000, "a: about 7 minutes for 60 kB\n"), (10**6, "a: about 1 hour for 1 MB\n")]
)
def test_long_jobs_are_told_at_once(capsys, size, told):
    text = (TEXT * (size // len(TEXT) + 1))[:size]
    tell_compress(Console(), "a", text, Slow(), lambda: 1)
    assert capsys.readouterr().err == told
    tell_compress(Console(quiet=True), "a", text, Slow(), lambda: 1)
    tell_compress(Console(), "a", bytes(range(256)) * (size // 256), Slow(), lambda: 1)
    assert capsys.readouterr().err == ""


def test_estimates_grow_with_the_text_and_shrink_with_workers(capsys):
    alone = seconds(Slow(), 10**6, decodes_only=True)
    assert alone == pytest.approx(10 * seconds(Slow(), 10**5, decodes_only=True))
    tell_compress(Console(), "a", TEXT * 37, Slow(), lambda: 7)
    assert capsys.readouterr().err == ""
    tell_compress(Console(), "a", TEXT * 37, Slow(), lambda: 2)
    assert "a: about 3 minutes" in capsys.readouterr().err
