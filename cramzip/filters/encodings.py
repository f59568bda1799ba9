"""Filters of encodings: what is no UTF-8 becomes UTF-8, and the byte order mark goes."""

from __future__ import annotations

import codecs

from .base import Change, Filter, check_size, fail

SAMPLE = 2**12  # bytes in which the zeros of wide characters are looked for
MARK = codecs.BOM_UTF8
BLANKS = b" \t\n\r"
# The upper bytes of what Chinese, Japanese and Korean consist of: marks, kana, characters, syllables, full width.
ASIAN = frozenset((0x20, 0x30, *range(0x4E, 0xA0), *range(0xAC, 0xD8), 0xFF))
NO_TEXT = bytes(value for value in range(256) if (value < 0x20 or 0x7F <= value < 0xA0) and value not in BLANKS)
MIN_BLANKS = 32  # of a text in letters of one byte, one byte in so many is a blank


class Mark(Filter):
    """U+FEFF in UTF-8 at the beginning is left out."""

    id, name = 1, "byte order mark"

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        return Change(data[len(MARK) :], b"") if data.startswith(MARK) else None

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        if parameters:
            fail("parameters of a byte order mark")
        check_size(len(changed) + len(MARK), limit)
        return MARK + changed


class Wide(Filter):
    """UTF-16 or UTF-32; what follows the last whole unit is the parameters, and lone surrogates are kept."""

    def __init__(self, id_: int, codec: str):
        self.id, self.name, self.codec = id_, codec, codec
        self.unit = 4 if "32" in codec else 2
        self._mark = "\ufeff".encode(codec)

    def is_sign(self, data: bytes) -> bool:
        """Whether the beginning of `data` has a byte order mark, or its zeros where ASCII has them in this encoding.

        Chinese has few of these, and zeros at the other places: then nearly all must be characters of its kind.
        """
        text = self._text(data[:SAMPLE])
        if not text or text.startswith("\ufeff"):
            return bool(text)
        low = [code for code in map(ord, text) if code < 0x100]
        if not low or 16 * len(bytes(low).translate(None, NO_TEXT)) < 15 * len(low):
            return False
        n_swapped = sum(code & 0xFF == 0 for code in map(ord, text))  # they would be low in the other byte order
        if 128 * len(low) >= len(text) and 16 * n_swapped <= len(low):
            return True
        n_asian = sum(code >> 8 in ASIAN for code in map(ord, text))
        n_high = sum(code & 0xFF >= 0x80 for code in map(ord, text))  # none, were it ASCII
        return 32 * (n_asian + len(low)) >= 31 * len(text) and 4 * n_high >= len(text)

    def decoded(self, data: bytes) -> bytes | None:
        """All whole units in UTF-8, None where they stand for nothing."""
        text = self._text(data)
        return None if text is None else text.encode("utf-8", "surrogatepass")

    def _text(self, data: bytes) -> str | None:
        try:
            return data[: len(data) // self.unit * self.unit].decode(self.codec, "surrogatepass")
        except UnicodeDecodeError:
            return None

    def end(self, data: bytes) -> int:
        """Where to cut `data`: after the last line in its second half, or else a word, or else a whole character."""
        whole = len(data) // self.unit * self.unit
        for mark in ("\n".encode(self.codec), " ".encode(self.codec)):
            found = data.rfind(mark, whole // 2, whole)
            while found >= 0 and found % self.unit:
                found = data.rfind(mark, whole // 2, found + self.unit - 1)
            if found >= 0:
                return found + self.unit
        last = self._text(data[max(0, whole - self.unit) : whole])
        is_half = self.unit == 2 and last is not None and "\ud800" <= last <= "\udbff"  # of a pair of surrogates
        return whole - 2 if is_half and whole > 2 else whole

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and not self.is_sign(data):
            return None
        changed = self.decoded(data)
        return None if changed is None else Change(changed, data[len(data) // self.unit * self.unit :])

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        if len(parameters) >= self.unit:
            fail(f"{len(parameters)} bytes after the last unit of {self.name}")
        try:
            data = changed.decode("utf-8", "surrogatepass").encode(self.codec, "surrogatepass")
        except UnicodeDecodeError:
            fail("the text is no UTF-8")
        return data + parameters


class CodePage(Filter):
    """One byte for each character. A byte that the page leaves open is the character of the same number."""

    is_certain = False

    def __init__(self, id_: int, name: str, codec: str):
        self.id, self.name = id_, name
        self.table = "".join(
            bytes([value]).decode(codec, "ignore") or chr(value) if value >= 0x80 else chr(value)
            for value in range(256)
        )
        self._bytes = {ord(character): value for value, character in enumerate(self.table)}

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and is_utf8(data):
            return None
        return Change(data.decode("latin-1").translate(self.table).encode(), b"")

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        if parameters:
            fail("parameters of a code page")
        try:
            return codecs.charmap_encode(changed.decode(), "strict", self._bytes)[0]
        except UnicodeError:
            fail(f"the text is no UTF-8, or has characters that {self.name} does not have")


WIDE = (Wide(6, "utf-32-le"), Wide(7, "utf-32-be"), Wide(4, "utf-16-le"), Wide(5, "utf-16-be"))
CODE_PAGES = tuple(
    CodePage(id_, name, codec)
    for id_, name, codec in [
        (32, "windows-1252", "cp1252"),
        (33, "windows-1250", "cp1250"),
        (34, "windows-1251", "cp1251"),
        (35, "iso-8859-1", "latin-1"),
        (36, "iso-8859-2", "iso8859-2"),
        (37, "iso-8859-15", "iso8859-15"),
        (38, "koi8-r", "koi8-r"),
        (39, "macintosh", "mac-roman"),
        (40, "ibm437", "cp437"),
        (41, "windows-1253", "cp1253"),
        (42, "windows-1254", "cp1254"),
        (43, "ibm850", "cp850"),
        (44, "ibm866", "cp866"),
    ]
)


def is_utf8(data: bytes) -> bool:
    """Whether all of `data` is valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def wide_encoding(data: bytes) -> Wide | None:
    """The UTF-16 or UTF-32 of which the beginning of `data` has the sign."""
    if b"\0" not in data[:SAMPLE] and data[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return None
    return next((wide for wide in WIDE if wide.is_sign(data) and wide.decoded(data) is not None), None)


def has_blanks_like_text(data: bytes) -> bool:
    """Whether there are about as many blanks as between words."""
    n = len(data) - len(data.translate(None, BLANKS))
    return MIN_BLANKS * n >= len(data) and 2 * n <= len(data)
