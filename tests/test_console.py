import sys

import pytest

from cramzip.app import console
from cramzip.app.console import Console, printable


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
