"""A filter of escapes: what is written as `\\uXXXX`, as in JSON, becomes characters."""

from __future__ import annotations

import re
from itertools import compress

from .base import Change, Filter, check_size, fail, pack_runs, unpack_runs
from .letters import bytes_of, text_of

MIN_ESCAPES = 4  # that are worth a filter
_CHARACTER = re.compile("[\x80-\ud7ff\ue000-\U0010ffff]")


def _either(a: str, b: str, c: str, d: str, f: str) -> re.Pattern[str]:
    """What finds a pair of surrogates, or a unit, in digits of which these are letters; or else a character."""
    digit = f"[0-9{a}-{f}]"
    high, low = f"{d}[89{a}{b}]{digit}{{2}}", f"{d}[{c}-{f}]{digit}{{2}}"
    return re.compile(rf"\\u({high})\\u({low})|\\u({digit}{{4}})|({_CHARACTER.pattern})")


_EITHER = (_either(*"abcdf"), _either(*"ABCDF"))  # small digits, large ones


class Escapes(Filter):
    """Escapes of characters from U+0080 on become these.

    Parameters: 0 for small digits, 1 for large ones; and runs that say which characters were escapes.
    """

    id, name = 16, "escapes"
    is_certain = False

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if b"\\u" not in data and like is None:
            return None
        text = text_of(data)
        if like is None:
            changes = [self._change(text, large) for large in (0, 1)]
            n, change = max(changes, key=lambda one: one[0])
            is_worth = n >= MIN_ESCAPES and 2 * len(change.parameters) <= n + MIN_ESCAPES
            return change if is_worth else None
        return self._change(text, like[0] if like and like[0] in (0, 1) else 0)[1]

    def _change(self, text: str, large: int) -> tuple[int, Change]:
        """How many escapes become characters; and the change."""
        flags = []

        def character(found: re.Match[str]) -> str:
            high, low, unit, already = found.groups()
            if already:
                flags.append(False)
                return found[0]
            code = int(unit, 16) if unit else 0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00
            if not _CHARACTER.match(chr(code)):
                return found[0]
            flags.append(True)
            return chr(code)

        changed = bytes_of(_EITHER[large].sub(character, text))
        return sum(flags), Change(changed, bytes([large]) + pack_runs(flags))

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        if not parameters or parameters[0] > 1:
            fail("digits are neither small nor large")
        digits = "04X" if parameters[0] else "04x"
        text = text_of(changed)
        flags = unpack_runs(parameters, 1, sum(1 for _ in _CHARACTER.finditer(text)))
        growth = sum(_growth(found[0]) for found in compress(_CHARACTER.finditer(text), flags))
        check_size(len(changed) + growth, limit)
        out, last = [], 0
        for found in compress(_CHARACTER.finditer(text), flags):
            units = found[0].encode("utf-16-be")
            pairs = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
            out += [text[last : found.start()], *(f"\\u{unit:{digits}}" for unit in pairs)]
            last = found.end()
        out.append(text[last:])
        return bytes_of("".join(out))


def _growth(character: str) -> int:
    """Bytes that an escape has more than the character."""
    return 4 if character < "\u0800" else 3 if character <= "\uffff" else 8
