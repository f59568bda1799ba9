"""The manual page, made of what `--help` says: `python -m cramzip.app.manual > cramzip.1`."""

from __future__ import annotations

import re
import sys

import click

from .. import __version__
from .cli import commands
from .shell import ALIASES, grouped_options

CODES = (  # in short
    ("0", "done"),
    ("1", "a file cannot be read or written, or another failure"),
    ("2", "wrong usage"),
    ("3", "a damaged file, or not a cramzip file"),
    ("4", "the model, the dictionary or the codebook is missing, unusable, or not the one that the file was made with"),
    ("5", "the output would differ from the input; nothing was written"),
    ("130, 143", "interrupted"),
)


def man_page() -> str:
    """The page in the macros of man(7)."""
    short = {name: alias for alias, name in ALIASES.items()}
    lines = [f'.TH CRAMZIP 1 "" "cramzip {__version__}"', ".SH NAME"]
    lines += [f"cramzip \\- {_plain(commands.help or '')}", ".SH SYNOPSIS"]
    for name in commands.commands:
        names = " | ".join(filter(None, (short.get(name), name)))
        lines += [f".B cramzip {_plain(names)}", "[OPTION]... [FILE]...", ".br"]
    for name, command in commands.commands.items():
        lines += [f".SH {name.upper()}", *_paragraphs(command.help or "")]
        for heading, records in grouped_options(command, click.Context(command, info_name=name)).items():
            lines.append(f".SS {_plain(heading)}")
            for option, told in records:
                lines += [".TP", f".B {_plain(option)}", _plain(told)]
    lines.append(".SH EXIT STATUS")
    for code, meaning in CODES:
        lines += [".TP", f".B {code}", _plain(meaning)]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return [line for paragraph in paragraphs for line in (".PP", _plain(paragraph))]


def _plain(text: str) -> str:
    """A line of text in which roff finds nothing to obey."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


if __name__ == "__main__":
    sys.stdout.write(man_page())
