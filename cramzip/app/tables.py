"""Tables on standard output: as wide as the terminal at most, with paths cut in the middle and headings never."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from .console import at_terminal, printable

GAP = "  "
LEAST, CUT = 8, "..."  # columns of a text that is cut, and what stands for the rest of it


@dataclass
class Table:
    """Rows under headings. Columns of `numbers` stand on the right and are never cut; a row of one text is a heading
    of its own over the rows that follow."""

    headings: Sequence[str]
    numbers: frozenset[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        self.rows.append([printable(cell) for cell in cells])

    def lines(self, room: int | None) -> list[str]:
        """The table in so many columns, or in as many as it needs. A line is longer only if its headings are."""
        whole = [row for row in self.rows if len(row) > 1]
        widths = [max(map(width, column)) for column in zip(self.headings, *whole, strict=True)]
        if room is not None:
            self._shrink(widths, room)
        lines = [self._line(self.headings, widths), GAP.join("-" * one for one in widths)]
        for row in self.rows:
            lines.append(self._line(row, widths) if len(row) > 1 else cut(row[0], room or width(row[0])))
        return [line.rstrip() for line in lines]

    def _shrink(self, widths: list[int], room: int) -> None:
        """Take columns away from the widest texts, one by one, until all fits or none can be cut."""
        texts = [i for i, heading in enumerate(self.headings) if heading not in self.numbers]
        while sum(widths) + len(GAP) * (len(widths) - 1) > room:
            able = [i for i in texts if widths[i] > max(LEAST, width(self.headings[i]))]
            if not able:
                return
            widths[max(able, key=widths.__getitem__)] -= 1

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        return GAP.join(
            _padded(cut(cell, size), size, right=heading in self.numbers)
            for cell, size, heading in zip(cells, widths, self.headings, strict=True)
        )

    def shown(self) -> list[str]:
        """The table as it suits stdout: whole where no terminal limits it."""
        room = os.get_terminal_size(sys.stdout.fileno()).columns if at_terminal(sys.stdout) else 0
        return self.lines(room or None)  # a terminal may not know its size


def width(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide letter, none for what joins another."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def cut(text: str, size: int) -> str:
    """A text in at most `size` columns, with `...` in place of its middle."""
    if width(text) <= size:
        return text
    begin, end = "", ""
    while True:
        longer = (text[len(begin)], "") if width(begin) <= width(end) else ("", text[-len(end) - 1])
        if width(begin + end + "".join(longer)) > size - len(CUT):
            return f"{begin}{CUT}{end}"
        begin, end = begin + longer[0], longer[1] + end


def _padded(text: str, size: int, *, right: bool) -> str:
    blanks = " " * (size - width(text))
    return blanks + text if right else text + blanks
