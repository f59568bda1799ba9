"""A filter for text that is UTF-8 in the main: bytes of a code page become characters, stray bytes are cut out."""

from __future__ import annotations

import re
from functools import cache

from .base import Change, Filter, check_size, fail, pack_runs, pack_varint, take_varint, unpack_runs
from .encodings import CODE_PAGES, is_utf8
from .letters import bytes_of, text_of

PAGES = {page.id: page.table[0x80:] for page in CODE_PAGES}
NO_PAGE = 0  # all that is no UTF-8 is cut out
SYMBOLS = frozenset("‘’‚“”„«»‹›–—…•·§©®°€£¥½¼¾¿¡ªº×÷±²³№\xa0")
WITHIN_WORDS = frozenset("’·\xad")
LATIN = "\u024f"  # the last letter
INVALID = re.compile("[\udc80-\udcff]")  # what stands for invalid bytes in text
VALID = re.compile("[\x80-\ud7ff\ue000-\U0010ffff]")  # characters of several bytes


class StrayBytes(Filter):
    """What is no UTF-8 is read as of a code page where that makes sense, and cut out elsewhere.

    Parameters: the id of the page, the size of the cuts, the cuts, and runs that say which characters of the page were
    bytes.
    """

    id, name = 11, "stray bytes"
    is_certain = False

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        """The page is that of `like`; without one nothing is changed."""
        if not like or is_utf8(data):
            return None
        table = PAGES.get(like[0], "")
        left, cuts = _cut(text_of(data), table)
        flags = []

        def character(found: re.Match[str]) -> str:
            flags.append("\udc80" <= found[0] <= "\udcff")
            return table[ord(found[0]) - 0xDC80] if flags[-1] else found[0]

        changed = _places(table, "\udc80-\udcff").sub(character, left) if table else left
        return Change(bytes_of(changed), like[:1] + pack_varint(len(cuts)) + cuts + pack_runs(flags))

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        table, cuts, at = _unpack(parameters)
        text = text_of(changed)
        places = _places(table) if table else re.compile("(?!)")
        flags = iter(unpack_runs(parameters, at, sum(1 for _ in places.finditer(text))))
        left = bytes_of(
            places.sub(lambda found: chr(0xDC80 + table.index(found[0])) if next(flags) else found[0], text)
        )
        check_size(len(left) + len(cuts), limit)
        return _with_cuts(left, cuts)


def n_invalid(data: bytes) -> tuple[int, int]:
    """How many bytes of `data` are no UTF-8, and how many characters of several bytes there are."""
    text = text_of(data)
    valid = INVALID.sub("", text)
    return len(text) - len(valid), len(valid) - len(valid.encode("ascii", "ignore"))


@cache
def _places(table: str, others: str = "") -> re.Pattern[str]:
    """What finds the characters of a page, or `others`."""
    return re.compile(f"[{''.join(map(re.escape, table))}{others}]")


def _makes_sense(text: str, place: int, table: str) -> bool:
    """Whether the byte at `place` of a text may well be a character of the page."""

    def at(index: int) -> str:
        found = text[index : index + 1]
        return table[ord(found) - 0xDC80] if INVALID.match(found) else found

    before, own, after = at(place - 1) if place else "", at(place), at(place + 1)
    if not own.isalpha():
        is_within = before.isalpha() and after.isalpha()
        return own in (WITHIN_WORDS if is_within else SYMBOLS)
    if own.isupper() and before.islower():
        return False
    neighbours = [one for one in (before, after) if one.isalpha()]
    return all((one <= LATIN) == (own <= LATIN) for one in neighbours)


def _cut(text: str, table: str) -> tuple[str, bytes]:
    """The text without invalid bytes that make no sense; and these, packed."""
    kept: list[str] = []
    cuts: list[tuple[int, bytes]] = []  # bytes left since the former cut, and what is cut out
    last = 0
    for found in INVALID.finditer(text):
        place = found.start()
        if table and _makes_sense(text, place, table):
            continue
        if place == last and cuts:
            cuts[-1] = cuts[-1][0], cuts[-1][1] + bytes_of(found[0])
        else:
            cuts.append((len(bytes_of(text[last:place])), bytes_of(found[0])))
        kept.append(text[last:place])
        last = place + 1
    packed = (
        pack_varint(2 * gap + (len(cut) > 1)) + (pack_varint(len(cut)) if len(cut) > 1 else b"") + cut
        for gap, cut in cuts
    )
    return "".join([*kept, text[last:]]), b"".join(packed)


def _unpack(parameters: bytes) -> tuple[str, bytes, int]:
    """The characters of the page, the packed cuts, and where the runs begin."""
    if not parameters or parameters[0] not in (NO_PAGE, *PAGES):
        fail("a code page that there is not")
    size, at = take_varint(parameters, 1)
    if at + size > len(parameters):
        fail(f"{size} bytes of cuts, {len(parameters) - at} left")
    return PAGES.get(parameters[0], ""), parameters[at : at + size], at + size


def _with_cuts(left: bytes, cuts: bytes) -> bytes:
    """What was left, with what was cut out at its places."""
    out = []
    at = place = 0
    while at < len(cuts):
        value, next_ = take_varint(cuts, at)
        length, next_ = take_varint(cuts, next_) if value & 1 else (1, next_)
        gap, content = value >> 1, cuts[next_ : next_ + length]
        if len(content) < length or (gap == 0 and at > 0) or (value & 1 and length < 2):
            fail("a cut is too long, or is none of its own")
        if gap > len(left) - place:
            fail("a cut after the end")
        out += [left[place : place + gap], content]
        place, at = place + gap, next_ + length
    return b"".join([*out, left[place:]])
