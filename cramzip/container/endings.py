"""How the name of an original ends: the table of formats/cram.md (section 3), and endings that are not in it."""

from __future__ import annotations

import re
from typing import NamedTuple

from .wire import Cursor

_TABLE = """
    txt md html json csv xml py log tex c h js java yaml
    yml toml ini cfg conf tsv jsonl rst adoc org htm xhtml css scss ts tsx jsx sh bash sql cpp cc hpp hh cs go rs rb pl
    php lua kt swift scala hs ml r jl f90 asm ipynb bib srt vtt eml mbox ics vcf po patch diff svg tar bin pdf doc rtf
    epub fb2 wiki
"""
ENDINGS = tuple(_TABLE.split())
IN_FIRST_BYTES = 14  # of the ENDINGS; so many bytes, at most, has an ending that is spelled out
ELSEWHERE = 15  # in place of the number of one of these
PATTERN = re.compile(rf"(?=[0-9]*[A-Za-z])[A-Za-z0-9]{{1,{IN_FIRST_BYTES}}}")


class PackedEnding(NamedTuple):
    """An ending in a file: 4 bits beside Version, and the field Ending, which is often empty."""

    code: int
    field: bytes


def ending_of(name: str) -> str | None:
    """What a header keeps of a file's name: what follows the last dot, if that looks like the ending of a name.

    None for a name that is better kept whole: `.cram` is no ending, nor is what the rest of the name ends with, too.
    """
    stem, _, ending = name.rpartition(".")
    if not stem.strip(".") or not PATTERN.fullmatch(ending) or ending == "cram" or stem.endswith(f".{ending}"):
        return None
    return ending


def pack_ending(ending: str | None) -> PackedEnding:
    if ending is None:
        return PackedEnding(0, b"")
    if ending not in ENDINGS:
        assert PATTERN.fullmatch(ending)
        return PackedEnding(ELSEWHERE, bytes([len(ending)]) + ending.encode())
    number = ENDINGS.index(ending) + 1
    return PackedEnding(number, b"") if number <= IN_FIRST_BYTES else PackedEnding(ELSEWHERE, bytes([number]))


def read_ending(code: int, cursor: Cursor) -> str | None:
    """The ending of which `code` stands beside Version, and the rest before the `cursor`."""
    number = code
    if code == ELSEWHERE:
        number = cursor.u8()
        if 1 <= number <= IN_FIRST_BYTES:
            spelled = cursor.take(number).decode("latin-1")
            if not PATTERN.fullmatch(spelled) or spelled in ENDINGS:
                cursor.fail(f"Ending: {spelled!r} must not be spelled out")
            return spelled
        if not IN_FIRST_BYTES < number <= len(ENDINGS):
            cursor.fail(f"Ending: {number} is reserved")
    return ENDINGS[number - 1] if number else None
