"""What was found, as tables in Markdown: a row for every model of the paper, and the models that were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .measures import mean_std
from .published import PUBLISHED, Published
from .store import Record
from .texts import BOOKS, FILES, KINDS, NEW, RANDOM

NOT_YET, NONE = "not yet measured", "-"
TITLES = {
    BOOKS: "Books (PG-19 in the paper)",
    NEW: "Text newer than the models (fan fiction in the paper)",
    RANDOM: "Random words",
    FILES: "Other files",
}
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


def capacity_tables(findings: Sequence[Record]) -> str:
    """A table for each kind of text: decoding capacity, exact greedy capacity, token gain and information gain.

    Capacities are those of the best text, as in the paper, with mean and standard deviation of all, and with ≥ where
    no longer text was there to be tried; gains are the largest of each text, as mean and standard deviation.
    """
    measured = [one for one in findings if one["key"]["experiment"] == "capacity"]
    kinds = [kind for kind in KINDS if kind == BOOKS or any(_rows(one, kind) for one in measured)]
    return "\n\n".join(f"{TITLES[kind]}:\n\n{capacity_table(measured, kind)}" for kind in kinds) + "\n"


def capacity_table(measured: Sequence[Record], kind: str) -> str:
    lines = [_line(HEADINGS), _line("---" for _ in HEADINGS)]
    left = list(measured)
    for published in PUBLISHED if kind != FILES else ():
        found = next((one for one in left if _is(one, published)), None)
        if found:
            left.remove(found)
        lines.append(_line(_cells(published.name, published.width, published, found, kind)))
    lines += [_line(_cells(one["name"], one["width"], None, one, kind)) for one in left]
    return "\n".join(lines)


def _cells(name: str, width: int, published: Published | None, found: Record | None, kind: str) -> list[str]:
    rows = _rows(found, kind) if found else []
    figures = published.figures[kind] if published else None

    def here(field: str, show: Callable[[list[float]], str]) -> str:
        return show([row[field] for row in rows]) if rows else NOT_YET

    return [
        name,
        str(width),
        str(figures.capacity) if figures else NONE,
        ("≥ " if any(row["at_least"] for row in rows) else "") + here("decoding_capacity_after_first", _best),
        here("recited_capacity", _best),
        _paper(*figures.token_gain) if figures else NONE,
        here("token_gain", _mean),
        _paper(*figures.information_gain) if figures else NONE,
        here("information_gain", _mean),
    ]


def _rows(found: Record, kind: str) -> list[Row]:
    return [row for row in found["rows"] if row["kind"] == kind]


def _is(found: Record, published: Published) -> bool:
    return str(found["name"]).lower() in (published.name.lower(), f"{published.name.lower()}-deduped")


def _best(values: list[float]) -> str:
    return f"{max(values):.0f} ({_mean(values)})"


def _mean(values: list[float]) -> str:
    mean, std = mean_std(values)
    return f"{mean:.1f} ± {std:.1f}"


def _paper(mean: float, std: float | None) -> str:
    return f"{mean:g}" if std is None else f"{mean} ± {std}"


def _line(cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
