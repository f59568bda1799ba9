"""Filters of encodings with one byte or two for each character: Chinese in GBK, Japanese in Shift-JIS."""

from __future__ import annotations

import re

from .base import Change, Filter, fail
from .encodings import is_utf8

MIN_COMMON = 12  # characters; of fewer nothing can be said


class DoubleByte(Filter):
    """One byte or two for each character; only where the codec gives all bytes back.

    `common`: the codes that a text consists of, beside ASCII; `frequent`: those of which each eighth is at least one.
    """

    is_certain = False

    def __init__(self, id_: int, codec: str, common: bytes, frequent: bytes):
        self.id, self.name, self.codec = id_, codec, codec
        self._common, self._frequent = re.compile(common), re.compile(frequent)

    def is_sign(self, data: bytes) -> bool:
        """Whether nearly all that is no ASCII is common; a cut at either end is no matter."""
        text = data.decode(self.codec, "replace")
        upper = [character for character in text if character >= "\x80"]
        codes = [character.encode(self.codec, "ignore") for character in upper]
        common = [code for code in codes if self._common.fullmatch(code)]
        frequent = [code for code in common if self._frequent.fullmatch(code)]
        return (
            len(common) >= MIN_COMMON and 16 * len(common) >= 15 * len(upper) - 32 and 8 * len(frequent) >= len(upper)
        )

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and is_utf8(data):
            return None
        try:
            text = data.decode(self.codec)
            return Change(text.encode(), b"") if text.encode(self.codec) == data else None
        except UnicodeError:
            return None

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        if parameters:
            fail(f"parameters of {self.name}")
        try:
            text = changed.decode()
            data = text.encode(self.codec)
            is_its_own = data.decode(self.codec) == text
        except UnicodeError:
            is_its_own = False
        if not is_its_own:
            fail(f"the text is no UTF-8, or has characters that {self.name} does not have")
        return data


# The frequent ones of Japanese are kana; of Chinese, characters of the first level of GB 2312.
DOUBLE_BYTE = (
    DoubleByte(49, "cp932", rb"[\x81-\x83\x88-\x9f\xe0-\xea][\x40-\xfc]", rb"[\x82\x83][\x40-\xfc]"),
    DoubleByte(48, "gbk", rb"[\x81-\xfe][\x40-\xfe]", rb"[\xb0-\xd7][\xa1-\xfe]"),
)


def double_byte_encoding(data: bytes) -> DoubleByte | None:
    """The encoding of two bytes of which `data` has the sign."""
    return None if is_utf8(data) else next((each for each in DOUBLE_BYTE if each.is_sign(data)), None)
