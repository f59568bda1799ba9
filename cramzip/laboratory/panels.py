"""What figures are drawn with: panels, bars and lines in one style. Knows nothing of what they show."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..whole import write_whole
from .measures import mean_std
from .store import Record
from .texts import BOOKS, FILES, NEW, RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "svg.hashsalt": "cramzip",
    "svg.fonttype": "none",
}
KIND_COLOURS = {BOOKS: "#1b6ca8", NEW: "#3d8b5c", RANDOM: "#c8553d", FILES: "#7b5ea7"}
COLOURS = ("#1b6ca8", "#c8553d", "#3d8b5c", "#7b5ea7", "#b8860b", "#444444")
GREY = "0.55"
COLUMN, PAGE, PANEL = 3.5, 7.0, 2.5  # inches: the width of a column and of a page, the height of a panel
DPI = 200
FORMATS: dict[str, dict[str, Any]] = {  # without dates, so that the same findings make the same files
    ".png": {"dpi": DPI},
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
}
WHISKERS: dict[str, Any] = {"error_kw": {"lw": 0.8, "capsize": 2, "ecolor": "0.25"}}

Row = dict[str, Any]
Findings = Sequence[Record]


def save(figure: Figure, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending, options in FORMATS.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format=ending[1:], **options)
        write_whole(path.with_suffix(ending), drawn.getvalue())
    return [path.with_suffix(ending) for ending in FORMATS]


def panels(n_rows: int, n_columns: int, width: float, height: float = PANEL, **shared: Any) -> tuple[Figure, Any]:
    """A figure without a window, and its axes (n_rows, n_columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * n_rows), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **shared)


def panel_per_model(findings: Findings, height: float = PANEL) -> tuple[Figure, list[tuple[Axes, Record]]]:
    """A panel for each model, side by side, named if there are several."""
    width = COLUMN if len(findings) == 1 else PAGE
    figure, axes = panels(1, len(findings), width, height)
    named = list(zip(axes[0], findings, strict=True))
    for axis, found in named:
        axis.set_title(found["name"])
    return figure, named


# -- what is drawn ---------------------------------------------------------------------------------


class Series(NamedTuple):
    """Means and standard deviations at the places `xs`; without `stds` none are drawn."""

    xs: list[float]
    means: list[float]
    stds: list[float] | None


def series(rows: Sequence[Row], over: str, measure: str | Callable[[Row], float]) -> Series:
    """Values of `over` in order, and mean and standard deviation of the measure at each."""
    value = (lambda row: float(row[measure])) if isinstance(measure, str) else measure
    xs = sorted({row[over] for row in rows})
    found = [mean_std(value(row) for row in rows if row[over] == x) for x in xs]
    return Series(xs, [mean for mean, _ in found], [std for _, std in found])


def line(axis: Axes, values: Series, colour: str, label: str, *, style: str = "-", most: float = np.inf) -> None:
    """A line through means, with their spreads, as far as these are between 0 and `most`."""
    errors = None if values.stds is None else whiskers(values.means, values.stds, most)
    look: dict[str, Any] = {"ls": style, "marker": "o", "capsize": 2, "elinewidth": 0.8}
    axis.errorbar(values.xs, values.means, errors, color=colour, label=label, **look)


class Bars(NamedTuple):
    """How the bars of one measure look: `width` of each, and its `shift` from the middle of its group."""

    colour: str
    label: str = ""
    width: float = 0.5
    shift: float = 0.0


def bars(axis: Axes, found: Sequence[tuple[float, float]], look: Bars) -> None:
    """A bar for the mean and the standard deviation of each group."""
    means, stds = [mean for mean, _ in found], [std for _, std in found]
    places = np.arange(len(found)) + look.shift
    errors = whiskers(means, stds)
    axis.bar(places, means, look.width, yerr=errors, color=look.colour, label=look.label, **WHISKERS)


def whiskers(means: Sequence[float], stds: Sequence[float], most: float = np.inf) -> list[list[float]]:
    """Error bars that do not go below zero or above `most`."""
    pairs = list(zip(means, stds, strict=True))
    return [[min(mean, std) for mean, std in pairs], [min(most - mean, std) for mean, std in pairs]]


def kinds_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["kind"] for row in rows))
