"""What was found, as tables: a row for every model of the paper, and the models that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .measures import mean_std
from .published import PUBLISHED, Figures, Published
from .store import Record
from .texts import BOOKS, FILES, KINDS, NEW, RANDOM

NOT_YET, NONE = "not yet measured", "-"
TITLES = {
    BOOKS: "Books (PG-19 in the paper)",
    NEW: "Text newer than the models (fan fiction in the paper)",
    RANDOM: "Random words",
    FILES: "Other files",
}
BRIEF_HEADINGS = ("model", "D", "at 99%", "recited", "token gain", "nats gained")
HEADINGS = (
    "model",
    "D",
    "tokens at 99%, paper",
    "here",
    "recited, here",
    "token gain, paper",
    "here",
    "nats gained, paper",
    "here",
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """What the paper published of a model, and what was measured here, of one kind of text."""

    name: str
    width: int
    published: Figures | None
    rows: Sequence[Row]

    def here(self, field: str) -> list[float]:
        return [row[field] for row in self.rows]

    def cells(self) -> list[str]:
        """As the Markdown tables have it: under HEADINGS."""
        paper, at_least = self.published, any(row["at_least"] for row in self.rows)
        return [
            self.name,
            str(self.width),
            str(paper.capacity) if paper else NONE,
            ("≥ " if at_least else "") + _best(self.here("decoding_capacity_after_first")),
            _best(self.here("recited_capacity")),
            _paper(*paper.token_gain) if paper else NONE,
            _mean(self.here("token_gain")),
            _paper(*paper.information_gain) if paper else NONE,
            _mean(self.here("information_gain")),
        ]

    def brief(self) -> Iterator[list[str]]:
        """A row for what the paper published, and one for what was measured: under BRIEF_HEADINGS."""
        paper, width = self.published, str(self.width)
        if paper:
            gains = _paper(*paper.token_gain), _paper(*paper.information_gain)
            yield [f"{self.name}, paper", width, str(paper.capacity), NONE, *gains]
        if self.rows:
            most = [f"{max(self.here(name)):.0f}" for name in ("decoding_capacity_after_first", "recited_capacity")]
            yield [self.name, width, *most, _mean(self.here("token_gain")), _mean(self.here("information_gain"))]


@dataclass(frozen=True)
class CapacityTable:
    """What models hold of a kind of text: decoding capacity, what is recited, token gain and information gain.

    Capacities are those of the best text, as in the paper, with mean and standard deviation of all, and with ≥ where
    no longer text was there to be tried; gains are the largest of each text, as mean and standard deviation.
    """

    title: str
    lines: Sequence[Line]

    @property
    def markdown(self) -> str:
        rows = [HEADINGS, ["---"] * len(HEADINGS), *(line.cells() for line in self.lines)]
        return f"{self.title}:\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def capacity_tables(findings: Sequence[Record]) -> Iterator[CapacityTable]:
    """A table for each kind of text that was measured, and in any case for books."""
    measured = [one for one in findings if one["key"]["experiment"] == "capacity"]
    for kind in KINDS:
        lines = list(_lines(measured, kind))
        n_texts = max(len(line.rows) for line in lines) if lines else 0
        if n_texts or kind == BOOKS:
            yield CapacityTable(TITLES[kind] + (f", n = {n_texts} here" if n_texts else ""), lines)


def _lines(measured: Sequence[Record], kind: str) -> Iterator[Line]:
    left = list(measured)
    for published in PUBLISHED if kind != FILES else ():
        found = next((one for one in left if _is(one, published)), None)
        if found:
            left.remove(found)
        rows = _rows(found, kind) if found else []
        yield Line(published.name, published.width, published.figures[kind], rows)
    for one in left:
        yield Line(one["name"], one["width"], None, _rows(one, kind))


def _rows(found: Record, kind: str) -> list[Row]:
    return [row for row in found["rows"] if row["kind"] == kind]


def _is(found: Record, published: Published) -> bool:
    return str(found["name"]).lower() in (published.name.lower(), f"{published.name.lower()}-deduped")


def _best(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.0f}" if values else NOT_YET
    return f"{max(values):.0f} ({_mean(values)})"


def _mean(values: list[float]) -> str:
    """With the standard deviation, which a single text has not."""
    if not values:
        return NOT_YET
    mean, std = mean_std(values)
    return f"{mean:.1f} ± {std:.1f}" if len(values) > 1 else f"{mean:.1f}"


def _paper(mean: float, std: float | None) -> str:
    return f"{mean:g}" if std is None else f"{mean} ± {std}"
