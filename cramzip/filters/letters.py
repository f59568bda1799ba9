"""Filters of characters: decomposed letters, no-break blanks, capitals.

Their tables are written out as ranges and rules, so that nothing depends on the Unicode tables of a machine: Unicode
3.2, which every Python has, never changes. Bytes that are no UTF-8 are left as they are.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import compress, groupby
from unicodedata import ucd_3_2_0 as unicode_3_2

from .base import Change, Filter, check_size, pack_runs, unpack_runs

# Letters of Latin, Greek, Cyrillic and kana, and Hangul syllables; first and last.
COMPOSED = [(0x00C0, 0x0233), (0x0386, 0x03CE), (0x0400, 0x04FF), (0x1E00, 0x1EF9), (0x1F00, 0x1FFC)]
COMPOSED += [(0x3041, 0x30FE), (0xAC00, 0xD7A3)]
MARKS = re.compile("[\u0300-\u0345\u3099\u309a\u1161-\u1175]")  # of decompositions; vowels of Hangul stand for theirs
# Small letters, first and last of a range, and what is added to make them large. Step 2 where they take turns.
SMALL = [(0x61, 0x7A, 1, -32), (0xE0, 0xF6, 1, -32), (0xF8, 0xFE, 1, -32), (0x101, 0x12F, 2, -1), (0x133, 0x137, 2, -1)]
SMALL += [(0x13A, 0x148, 2, -1), (0x14B, 0x177, 2, -1), (0x17A, 0x17E, 2, -1)]
SMALL += [(0x3AC, 0x3AC, 1, -38), (0x3AD, 0x3AF, 1, -37), (0x3B1, 0x3C1, 1, -32), (0x3C3, 0x3CB, 1, -32)]
SMALL += [(0x3CC, 0x3CC, 1, -64), (0x3CD, 0x3CE, 1, -63), (0x430, 0x44F, 1, -32), (0x450, 0x45F, 1, -80)]
SMALL += [(0x461, 0x481, 2, -1), (0x48B, 0x4BF, 2, -1), (0x4D1, 0x4FF, 2, -1)]

NO_BREAK, BLANK = b"\xc2\xa0", b" "
AT_ONCE = 2**16  # characters that are decomposed before it is seen whether they are too many
MIN_WORDS = 4  # of a run of capitals that is worth two numbers
SHARE = 1 / 8  # of all letters that are in such runs, from which on it is worth a try
_SENTENCE = re.compile("(^|\n\n|[.!?][\"'”’)]*\\s+)([\"'“‘(]*)([^\\W\\d_])|\\bi\\b")


def text_of(data: bytes) -> str:
    """Data as text; what is no UTF-8 becomes lone surrogates, one for each byte."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@cache
def decompositions() -> dict[str, str]:
    """What composed letters consist of; no two of the same, and each of two characters or more."""
    found = {}
    for first, last in COMPOSED:
        for letter in map(chr, range(first, last + 1)):
            parts = unicode_3_2.normalize("NFD", letter)
            if len(parts) > 1 and unicode_3_2.normalize("NFC", letter) == letter:
                found[letter] = parts
    return found


@cache
def _composed_letter() -> re.Pattern[str]:
    """Finds what has a decomposition."""
    return re.compile(f"[{''.join(decompositions())}]")


_FIRST, _REST = slice(0, 1), slice(1, None)


@cache
def _compositions() -> tuple[dict[str, str], re.Pattern[str]]:
    """The letters of decompositions, and what finds them, and first letters with all their marks."""
    letters = {parts: letter for letter, parts in decompositions().items()}
    syllables = "[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|[\uac00-\ud7a3]"
    others = {parts: letter for parts, letter in letters.items() if letter < "\uac00"}
    firsts, marks = ("".join(sorted({c for parts in others for c in parts[place]})) for place in (_FIRST, _REST))
    singles = "".join(others.values())
    return letters, re.compile(f"{syllables}|[{firsts}][{marks}]+|[{singles}]")


class Composed(Filter):
    """Decomposed letters become composed ones (NFC). Runs say which composed letters were decomposed."""

    id, name = 8, "composed letters"

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and data.isascii():
            return None
        text = text_of(data)
        if like is None and not MARKS.search(text):
            return None
        letters, pattern = _compositions()
        flags = []

        def compose(found: re.Match[str]) -> str:
            for end in range(len(found[0]), 1, -1):
                if letter := letters.get(found[0][:end]):
                    flags.append(True)
                    return letter + found[0][end:]
            flags.extend([False] * (len(found[0]) == 1))
            return found[0]

        changed = pattern.sub(compose, text)
        if like is None and 2 * sum(flags) <= len(flags):
            return None
        return Change(bytes_of(changed), pack_runs(flags))

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        table, pattern, text = decompositions(), _composed_letter(), text_of(changed)
        flags = iter(unpack_runs(parameters, 0, sum(1 for _ in pattern.finditer(text))))
        out = bytearray()
        for first in range(0, len(text), AT_ONCE):
            part = text[first : first + AT_ONCE]
            out += bytes_of(pattern.sub(lambda found: table[found[0]] if next(flags) else found[0], part))
            check_size(len(out), limit)
        return bytes(out)


class Blanks(Filter):
    """No-break blanks (U+00A0) become blanks. Runs say which blanks were such ones."""

    id, name = 9, "no-break blanks"
    _either = re.compile(NO_BREAK + b"|" + BLANK)

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and NO_BREAK not in data:
            return None
        flags = [found == NO_BREAK for found in self._either.findall(data)]
        if like is None and 2 * sum(flags) <= len(flags):
            return None
        return Change(data.replace(NO_BREAK, BLANK), pack_runs(flags))

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        words = changed.split(BLANK)
        flags = unpack_runs(parameters, 0, len(words) - 1)
        check_size(len(changed) + sum(flags), limit)
        blanks = (NO_BREAK if flag else BLANK for flag in flags)
        return b"".join(word + blank for word, blank in zip(words, blanks, strict=False)) + words[-1]


@cache
def capitals() -> dict[int, int]:
    """The large letter for each small one."""
    return {code: code + add for first, last, step, add in SMALL for code in range(first, last + 1, step)}


@cache
def _small() -> tuple[dict[int, int], re.Pattern[str]]:
    """The small letter for each large one; and what finds words, the runs of either."""
    small = {large: code for code, large in capitals().items()}
    return small, re.compile("[" + "".join(map(chr, sorted({*small, *small.values()}))) + "]+")


class Capitals(Filter):
    """Words in capitals become sentences. Runs say which words were in capitals; others are as they were."""

    id, name = 10, "capitals"
    is_certain = False

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and not self.is_sign(data):
            return None
        small, pattern = _small()
        text = text_of(data)
        words = pattern.findall(text)
        flags: list[bool] = []
        for is_large, run in groupby(words, key=lambda word: word == word.translate(capitals())):
            n = sum(1 for _ in run)
            flags += [is_large and n >= MIN_WORDS] * n
        letters = sum(map(len, words))
        if like is None and not sum(map(len, compress(words, flags))) >= SHARE * letters > 0:
            return None
        sentences = _SENTENCE.sub(lambda found: found[0].translate(capitals()), text.translate(small))
        out, at = [], 0
        for found, flag in zip(pattern.finditer(text), flags, strict=True):
            if not flag:
                out += [sentences[at : found.start()], found[0]]
                at = found.end()
        return Change(bytes_of("".join(out) + sentences[at:]), pack_runs(flags))

    def is_sign(self, data: bytes) -> bool:
        """Whether many letters are large."""
        if data.isascii():
            small = len(data) - len(data.translate(None, bytes(range(0x61, 0x7B))))
            large = len(data) - len(data.translate(None, bytes(range(0x41, 0x5B))))
            return large >= SHARE * (small + large) > 0
        return True

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        _, pattern = _small()
        text = text_of(changed)
        flags = iter(unpack_runs(parameters, 0, sum(1 for _ in pattern.finditer(text))))
        return bytes_of(pattern.sub(lambda found: found[0].translate(capitals()) if next(flags) else found[0], text))
