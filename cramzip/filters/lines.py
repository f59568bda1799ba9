"""Filters of lines: how they end, blanks before their ends, and what all of them begin with."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from itertools import compress, takewhile

from .base import Change, Filter, check_size, fail, pack_runs, pack_varint, take_varint, unpack_runs

LF, CR, CRLF = b"\n", b"\r", b"\r\n"
MAX_AFFIX = 64  # bytes
MIN_LINES = 4  # of a text whose lines are worth a look
WORTH = 2  # ends of lines in the minority, for a byte of parameters
RARE = 8  # one line in so many may be without what the others begin with, at either end of their order


class LineEnds(Filter):
    """Another line end (`end`) becomes LF. Runs say which LFs stand for it."""

    def __init__(self, id_: int, name: str, end: bytes):
        self.id, self.name, self.end = id_, name, end
        self._either = re.compile(re.escape(end) + b"|\n")

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        if like is None and self.end not in data:
            return None
        flags = [found == self.end for found in self._either.findall(data)]
        parameters = pack_runs(flags)
        if like is None and 2 * sum(flags) < len(flags) and not self._is_worth(sum(flags), parameters):
            return None
        return Change(data.replace(self.end, LF), parameters)

    def _is_worth(self, n: int, parameters: bytes) -> bool:
        """Whether `n` such ends among others are better told apart here than by a model."""
        return self.end == CRLF and WORTH * len(parameters) <= n

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        lines = changed.split(LF)
        flags = unpack_runs(parameters, 0, len(lines) - 1)
        check_size(len(changed) + sum(flags) * (len(self.end) - 1), limit)
        ends = (self.end if flag else LF for flag in flags)
        return b"".join(line + end for line, end in zip(lines, ends, strict=False)) + lines[-1]


class Affix(Filter):
    """What stands before or behind all lines is left out. Runs say of which lines.

    What follows the last LF is a line if it is not empty, and is never left without a byte. An empty line stands for
    the whole affix in mode 0, and for its short form in mode 1.
    """

    is_certain = False

    @abstractmethod
    def affix_of(self, lines: list[bytes]) -> bytes:
        """What most of `lines` have in common; no bytes if there is no such thing."""

    @abstractmethod
    def short(self, affix: bytes) -> bytes:
        """What is left of the affix of an empty line in mode 1."""

    @abstractmethod
    def with_affix(self, line: bytes, affix: bytes) -> bytes:
        """A line as it was."""

    @abstractmethod
    def without(self, line: bytes, affix: bytes) -> bytes | None:
        """A line without the affix, None if it does not have it."""

    @abstractmethod
    def pack(self, affix: bytes, mode: int) -> bytes:
        """The parameters before the runs."""

    @abstractmethod
    def unpack(self, parameters: bytes) -> tuple[bytes, int, int]:
        """Affix, mode, and where the runs begin. Raises DamagedFileError."""

    def apply(self, data: bytes, like: bytes | None = None) -> Change | None:
        lines = data.split(LF)
        if like is not None:
            affix, mode, _ = self.unpack(like)
            return self._change(lines, affix, mode)
        if len(lines) < MIN_LINES or not (affix := self.affix_of(lines)):
            return None
        return min((self._change(lines, affix, mode) for mode in (0, 1)), key=lambda change: len(change.parameters))

    def _change(self, lines: list[bytes], affix: bytes, mode: int) -> Change:
        empty = self.short(affix) if mode else affix
        changed: list[bytes] = []
        flags: list[bool] = []
        for index, line in enumerate(lines):
            is_last = index == len(lines) - 1
            if is_last and not line:
                changed.append(line)
                break
            rest = b"" if line == empty else self.without(line, affix)
            is_dressed = rest is not None and (bool(rest) or (line == empty and not is_last))
            changed.append(rest if is_dressed and rest is not None else line)
            flags.append(is_dressed)
        return Change(LF.join(changed), self.pack(affix, mode) + pack_runs(flags))

    def invert(self, changed: bytes, parameters: bytes, limit: int) -> bytes:
        affix, mode, at = self.unpack(parameters)
        lines = changed.split(LF)
        flags = unpack_runs(parameters, at, len(lines) - (not lines[-1]))
        check_size(len(changed) + sum(map(bool, compress(lines, flags))) * len(affix), limit)
        empty = self.short(affix) if mode else affix
        check_size(len(changed) + sum(flags) * min(len(affix), len(empty)), limit)
        for index, flag in enumerate(flags):
            if flag:
                lines[index] = self.with_affix(lines[index], affix) if lines[index] else empty
        return LF.join(lines)


class LineBlanks(Affix):
    """Blanks at the ends of lines."""

    id, name = 12, "line blanks"

    def affix_of(self, lines: list[bytes]) -> bytes:
        counts = Counter(len(line) - len(line.rstrip(b" ")) for line in lines if line.endswith(b" "))
        if 2 * sum(counts.values()) < sum(map(bool, lines)):
            return b""
        return b" " * min(max(counts, key=lambda n: (counts[n], -n), default=0), MAX_AFFIX)

    def short(self, affix: bytes) -> bytes:
        return b""

    def with_affix(self, line: bytes, affix: bytes) -> bytes:
        return line + affix

    def without(self, line: bytes, affix: bytes) -> bytes | None:
        return line[: -len(affix)] if line.endswith(affix) else None

    def pack(self, affix: bytes, mode: int) -> bytes:
        return pack_varint(2 * len(affix) + mode)

    def unpack(self, parameters: bytes) -> tuple[bytes, int, int]:
        value, at = take_varint(parameters, 0)
        if not 1 <= value >> 1 <= MAX_AFFIX:
            fail(f"{value >> 1} blanks at the end of a line")
        return b" " * (value >> 1), value & 1, at


class Prefix(Affix):
    """What all lines begin with."""

    id, name = 13, "prefix"

    def affix_of(self, lines: list[bytes]) -> bytes:
        full = sorted(line for line in lines if line.strip())
        found = self._common(full)
        longer = self._common([line for line in full if line != found])  # which may be lines in short form
        return longer if self.short(longer) == found else found

    def _common(self, full: list[bytes]) -> bytes:
        """What most of some sorted lines begin with."""
        if len(full) < MIN_LINES:
            return b""
        rare = len(full) // RARE
        same = takewhile(lambda pair: pair[0] == pair[1], zip(full[rare], full[-1 - rare], strict=False))
        found = bytes(first for first, _ in same)[:MAX_AFFIX]
        return found.rstrip(bytes(range(0x80, 0x100)))  # never a part of a character

    def short(self, affix: bytes) -> bytes:
        return affix.rstrip(b" ")

    def with_affix(self, line: bytes, affix: bytes) -> bytes:
        return affix + line

    def without(self, line: bytes, affix: bytes) -> bytes | None:
        return line[len(affix) :] if line.startswith(affix) else None

    def pack(self, affix: bytes, mode: int) -> bytes:
        return pack_varint(2 * len(affix) + mode) + affix

    def unpack(self, parameters: bytes) -> tuple[bytes, int, int]:
        value, at = take_varint(parameters, 0)
        affix = parameters[at : at + (value >> 1)]
        if not 1 <= value >> 1 <= MAX_AFFIX or len(affix) < value >> 1 or LF in affix:
            fail(f"a prefix of {value >> 1} bytes")
        return affix, value & 1, at + len(affix)
