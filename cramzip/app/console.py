"""What people are told, on stderr: messages, questions, progress; and numbers in words.

Knows nothing of files and models. Every name that comes out of a file goes through `printable` before it
reaches a terminal.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Timer
from typing import TYPE_CHECKING, TextIO

import click

from .streams import patient

if TYPE_CHECKING:
    from ..container.description import Description

UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories: controls, bidi overrides, lone surrogates
UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
REDRAWN_EVERY, LOGGED_EVERY = 0.1, 10.0  # seconds
SILENT_FOR = 1.0


def printable(text: str) -> str:
    """`text` in one line, with everything that could steer a terminal written as an escape."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNPRINTABLE else character
        for character in text
    )


def at_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal; a standard stream that was closed is None, and is not."""
    return stream is not None and stream.isatty()


@dataclass(frozen=True)
class Console:
    """Messages as loud as their user wants them; `show_progress` None: where stderr is a terminal."""

    quiet: bool = False
    verbose: bool = False
    show_progress: bool | None = None

    def say(self, message: str) -> None:
        if not self.quiet:
            click.echo(printable(message), err=True)

    def detail(self, message: str) -> None:
        if self.verbose:
            self.say(message)

    def complain(self, subject: str, message: str) -> None:
        """One line about what went wrong, with whatever it went wrong with; even when quiet."""
        about = f"{subject}: " if subject else ""
        click.echo(printable(f"cramzip: {about}{message}"), err=True)

    def ask(self, question: str) -> bool:
        """A yes at the terminal; without one, the answer is no. Never reads input that is data."""
        if not (at_terminal(sys.stdin) and at_terminal(sys.stderr)):
            return False
        click.echo(printable(f"cramzip: {question} [y/N] "), nl=False, err=True)
        return patient(sys.stdin.buffer).readline().strip().lower() in (b"y", b"yes")

    @property
    def _shows_progress(self) -> bool:
        if sys.stderr is None:
            return False
        return at_terminal(sys.stderr) and not self.quiet if self.show_progress is None else self.show_progress

    @contextmanager
    def waiting(self, for_what: str) -> Iterator[None]:
        """Say what is being waited for, where progress is shown and it takes longer than a second."""
        if not self._shows_progress:
            yield
            return
        shown, line = Event(), printable(f"{for_what} ...")

        def show() -> None:
            shown.set()
            click.echo(line, nl=not at_terminal(sys.stderr), err=True)

        timer = Timer(SILENT_FOR, show)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            if shown.is_set() and at_terminal(sys.stderr):
                click.echo(f"\r{' ' * len(line)}\r", nl=False, err=True)

    @contextmanager
    def progress(self, label: str, total: int, *, done: int = 0, passes: int = 1) -> Iterator[Callable[[int], None]]:
        """A bar with rate and time left. It gives a function to tell how many more bytes are done, of any of `passes`
        over all of them."""
        if not self._shows_progress:
            yield lambda _: None
            return
        from tqdm import tqdm

        with tqdm(
            desc=printable(label),
            total=total,
            initial=done / passes,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            leave=False,
            mininterval=REDRAWN_EVERY if sys.stderr.isatty() else LOGGED_EVERY,
            dynamic_ncols=True,
        ) as bar:
            yield lambda n: bar.update(n / passes) and None


# -- numbers ---------------------------------------------------------------------------------------


def count(n: int, noun: str) -> str:
    """`1 vector`, `2,000 vectors`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def human(n: float, suffix: str = "") -> str:
    """Bytes in a few digits: `1.23 MB`."""
    for size, unit in UNITS:
        if n >= size:
            return f"{n / size:.3g} {unit}{suffix}"
    return f"{n:.3g} B{suffix}"


def closing_line(described: Description, seconds: float, packed: str | None = None) -> str:
    """What became of one file: sizes, ratio, bits per byte, tokens per vector, time.

    `packed`: the format in which the original is compressed already, if it is.
    """
    parts = [f"{described.original_size:,} -> {count(described.file_size, 'byte')}"]
    if described.original_size:
        parts.append(f"ratio {ratio(described)}")
        if described.n_vectors:
            parts.append(f"{described.tokens_per_vector:.1f} tokens/vector")
        else:
            stored = f"stored: {packed} is compressed already" if packed else "stored"
            parts.append("no vectors" if described.n_modelled else stored)
    return ", ".join([*parts, f"{seconds:.1f} s"])


def ratio(described: Description) -> str:
    """Ratio and bits per byte, as far as they are defined."""
    per_byte = f", {described.bits_per_byte:.3f} bits/byte" if described.original_size else ""
    return f"{described.ratio:.3f}{per_byte}"
