"""The figures, as PNG and SVG, of what experiments have found. Knows nothing of models but their findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .measures import mean_std, utilisation
from .published import PUBLISHED, PUBLISHED_BY_VECTORS
from .recipes import OURS, PAPER
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

Row = dict[str, Any]
Findings = Sequence[Record]


def draw(findings: Findings, folder: Path) -> list[Path]:
    """Draw the figure of every experiment that was made. Raises UsageError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError("figures need matplotlib: pip install 'cramzip[plots]'") from None
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, plot in FIGURES.items():
            if same := [one for one in findings if one["key"]["experiment"] == name and one["rows"]]:
                paths += _save(plot(same), folder / name)
    return paths


def _save(figure: Figure, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=DPI)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return [path.with_suffix(".png"), path.with_suffix(".svg")]


def _panels(n_rows: int, n_columns: int, width: float, height: float = PANEL, **shared: Any) -> tuple[Figure, Any]:
    """A figure without a window, and its axes (n_rows, n_columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * n_rows), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **shared)


def _per_model(findings: Findings, height: float = PANEL) -> tuple[Figure, list[tuple[Axes, Record]]]:
    """A panel for each model, side by side, named if there are several."""
    width = COLUMN if len(findings) == 1 else PAGE
    figure, axes = _panels(1, len(findings), width, height)
    panels = list(zip(axes[0], findings, strict=True))
    for axis, found in panels:
        axis.set_title(found["name"])
    return figure, panels


# -- one figure each -------------------------------------------------------------------------------


def _capacity(findings: Findings) -> Figure:
    """Tokens and nats that one vector holds, by kind of text."""
    figure, axes = _panels(len(findings), 2, PAGE, width_ratios=(2, 1))
    bars = (
        ("recited_capacity", "recited by greedy decoding", "#1b6ca8"),
        ("decoding_capacity_after_first", "99% right, as the paper counts", "#8fb8d8"),
        ("token_gain", "token gain", "#c8b273"),
    )
    for (left, right), found in zip(axes, findings, strict=True):
        kinds = _kinds(found["rows"])
        for place, (field, label, colour) in enumerate(bars):
            _bars(left, found["rows"], kinds, field, (place - 1) * 0.27, 0.25, colour, label)
        _bars(right, found["rows"], kinds, "information_gain", 0, 0.5, "#3d8b5c", "")
        left.set(ylabel="tokens", title=f"{found['name']}: one vector")
        right.set(ylabel="information gain (nats)")
        left.set_ylim(0, left.get_ylim()[1] * 1.3)
        left.legend(loc="upper right", ncols=1)
    return figure


def _bars(
    axis: Axes, rows: list[Row], kinds: list[str], field: str, shift: float, width: float, colour: str, label: str
) -> None:
    places = np.arange(len(kinds))
    found = [mean_std(row[field] for row in rows if row["kind"] == kind) for kind in kinds]
    means, spreads = [mean for mean, _ in found], [std for _, std in found]
    axis.bar(places + shift, means, width, yerr=_whiskers(means, spreads), color=colour, label=label, **_WHISKERS)
    axis.set_xticks(places, kinds)
    axis.set_xlim(-0.6, len(kinds) - 0.4)


_WHISKERS: dict[str, Any] = {"error_kw": {"lw": 0.8, "capsize": 2, "ecolor": "0.25"}}


def _whiskers(means: Sequence[float], spreads: Sequence[float], most: float = np.inf) -> list[list[float]]:
    """Error bars that do not go below zero or above `most`."""
    pairs = list(zip(means, spreads, strict=True))
    return [[min(mean, spread) for mean, spread in pairs], [min(most - mean, spread) for mean, spread in pairs]]


def _vectors(findings: Findings) -> Figure:
    """Tokens over the number of vectors, with what was published."""
    figure, axes = _panels(1, 1, COLUMN, PANEL * (1.15 + 0.1 * len(findings)))
    axis = axes[0, 0]
    for name, points in PUBLISHED_BY_VECTORS.items():
        axis.plot(list(points), list(points.values()), "--", marker="s", ms=2.5, lw=0.9, color=GREY)
        last = max(points)
        axis.annotate(f"{name} (paper)", (last, points[last]), (-2, 5), textcoords="offset points", ha="right",
                      fontsize=6.5, color="0.35")  # fmt: skip
    for colour, found in zip(COLOURS, findings, strict=False):
        xs, means, stds = _series(found["rows"], "vectors", "recited_capacity")
        _line(axis, xs, means, stds, colour, f"{found['name']}, recited")
        _, decoded, _ = _series(found["rows"], "vectors", "decoding_capacity_after_first")
        axis.plot(xs, decoded, ":", color=colour, label=f"{found['name']}, 99% right")
        if means[0] > 0:
            axis.plot(xs, [means[0] * x / xs[0] for x in xs], color=colour, lw=0.6, alpha=0.5)
    ticks = sorted({x for points in PUBLISHED_BY_VECTORS.values() for x in points}
                   | {row["vectors"] for found in findings for row in found["rows"]})  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="vectors", ylabel="tokens")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(top=2 * axis.get_ylim()[1])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center")
    return figure


def _cross_entropy(findings: Findings) -> Figure:
    """What texts cost after over what they cost before, and the thresholds."""
    figure, panels = _per_model(findings, PANEL * 1.1)
    for axis, found in panels:
        rows = found["rows"]
        most = max(row["nats_without"] for row in rows) * 1.03
        axis.plot([0, most], [0, most], ":", color=GREY, lw=0.9, label="without vectors")
        for kind in _kinds(rows):
            same = [row for row in rows if row["kind"] == kind]
            limit = same[0]["threshold"]
            colour = KIND_COLOURS[kind]
            axis.plot([row["nats_without"] for row in same], [row["nats"] for row in same], "o", ms=2.8, mew=0,
                      alpha=0.75, color=colour)  # fmt: skip
            axis.plot([0, limit, most], [0, 0, most - limit], color=colour, label=f"{kind}: {limit:.0f} nats")
        axis.set(xlabel="cross-entropy of the text (nats)", ylabel="the same after one vector (nats)")
        axis.set(xlim=(0, most), ylim=(-0.02 * most, most))
        axis.legend(loc="upper left", title=None)
    return figure


def _utilisation(findings: Findings) -> Figure:
    """Token gain as a share of what the bits of a vector could name, with what was published."""
    names, means, spreads, colours = [], [], [], []
    for one in PUBLISHED:
        gain, std = one.figures[BOOKS].token_gain
        names.append(f"{one.name} (paper)")
        means.append(100 * utilisation(gain, one.width, one.vocabulary_size))
        spreads.append(100 * utilisation(std or 0.0, one.width, one.vocabulary_size))
        colours.append("0.75")
    for found in findings:
        for kind in _kinds(found["rows"]):
            mean, std = mean_std(100 * row["utilisation"] for row in found["rows"] if row["kind"] == kind)
            names.append(f"{found['name']}, {kind}")
            means.append(mean)
            spreads.append(std)
            colours.append(KIND_COLOURS[kind])
    figure, axes = _panels(1, 1, COLUMN * 1.3, 0.5 + 0.22 * len(names))
    axis = axes[0, 0]
    places = np.arange(len(names))
    axis.barh(places, means, 0.62, xerr=_whiskers(means, spreads), color=colours, **_WHISKERS)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set(xlabel="token gain over D · 16 / log₂ V (%)")
    return figure


def _similarity(findings: Findings) -> Figure:
    """Cosines of solutions of one text, and of solutions of different texts."""
    figure, panels = _per_model(findings)
    for axis, found in panels:
        values = {same: [row["cosine"] for row in found["rows"] if row["same"] is same] for same in (True, False)}
        every = [*values[True], *values[False]]
        low, high = min([*every, -0.05]), max([*every, 0.05])
        edges = np.linspace(low, high, 25).tolist()
        for same, label, colour in ((False, "different texts", "#c8b273"), (True, "the same text", "#1b6ca8")):
            weights = np.full(len(values[same]), 100 / max(1, len(values[same])))
            axis.hist(values[same], edges, weights=weights, color=colour, alpha=0.7, label=label)
        axis.axvline(0, color=GREY, lw=0.7, ls=":")
        axis.set(xlabel="cosine similarity of two solutions", ylabel="pairs (%)")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
        axis.legend(loc="upper right")
    return figure


def _interpolation(findings: Findings) -> Figure:
    """Tokens right on the line between two solutions of one text."""
    figure, panels = _per_model(findings)
    for axis, found in panels:
        lines = 100 * np.array([row["right"] for row in found["rows"]])
        xs = np.linspace(0, 1, lines.shape[1])
        axis.plot(xs, lines.T, color="#8fb8d8", lw=0.6)
        axis.plot(xs, lines.mean(0), color="#1b6ca8", lw=1.8, label=f"mean of {len(lines)} pairs")
        axis.set(xlabel="from one solution (0) to another (1)", ylabel="tokens right (%)", ylim=(0, 104), xlim=(0, 1))
        axis.legend(loc="lower right")
    return figure


def _bits(findings: Findings) -> Figure:
    """What survives fewer bits per dimension."""
    figure, axes = _panels(1, 2, PAGE)
    for colour, found in zip(COLOURS, findings, strict=False):
        shares = sorted({row["share"] for row in found["rows"]})
        for share, style in zip(shares, ("-", "--", ":"), strict=False):
            rows = [row for row in found["rows"] if row["share"] == share]
            label = f"{found['name']}, {share:.0%}"
            _line(axes[0, 0], *_series(rows, "bits", _right_share), colour, label, style, 100)
            xs, means, _ = _series(rows, "bits", _recited)
            _line(axes[0, 1], xs, means, None, colour, label, style)
    ticks = sorted({row["bits"] for found in findings for row in found["rows"]})
    for axis, what in zip(axes[0], ("tokens right (%)", "texts recited (%)"), strict=True):
        axis.set(xscale="log", xlabel="bits per dimension", ylabel=what, ylim=(0, 104))
        axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axis.minorticks_off()
    title = "length of the text, of what\none vector holds"
    axes[0, 0].legend(loc="lower right", title=title, title_fontsize=7, alignment="left")
    return figure


def _context(findings: Findings) -> Figure:
    """Cost of texts with and without a vector, over the tokens before them in view."""
    figure, axes = _panels(1, 2, PAGE)
    for colour, found in zip(COLOURS, findings, strict=False):
        xs, without, stds = _series(found["rows"], "context", "nats_without")
        places = list(range(len(xs)))
        _line(axes[0, 0], places, without, None, colour, f"{found['name']}, without a vector", "--")
        _, with_mem, stds = _series(found["rows"], "context", "nats")
        _line(axes[0, 0], places, with_mem, stds, colour, f"{found['name']}, with one")
        _, gains, stds = _series(found["rows"], "context", lambda row: row["nats_without"] - row["nats"])
        _line(axes[0, 1], places, gains, stds, colour, found["name"])
        for axis in axes[0]:
            axis.set_xticks(places, [str(x) for x in xs])
    for axis, what in zip(axes[0], ("cross-entropy of the text (nats)", "information gain (nats)"), strict=True):
        axis.set(xlabel="tokens before the text in view", ylabel=what)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.3)
        axis.legend(loc="upper right")
    return figure


def _learning_rate(findings: Findings) -> Figure:
    """What is right after the same number of steps, by learning rate."""
    figure, axes = _panels(1, 2, PAGE)
    for colour, found in zip(COLOURS, findings, strict=False):
        _line(axes[0, 0], *_series(found["rows"], "learning_rate", _right_share), colour, found["name"], most=100)
        _line(axes[0, 1], *_series(found["rows"], "learning_rate", "nats"), colour, found["name"])
    axes[0, 0].set_ylim(0, 104)
    axes[0, 1].set_ylim(bottom=0)
    ticks = sorted({row["learning_rate"] for found in findings for row in found["rows"]})
    for axis, what in zip(axes[0], ("tokens right (%)", "cross-entropy left (nats)"), strict=True):
        axis.set(xscale="log", xlabel="learning rate (embedding scales per step)", ylabel=what)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    axes[0, 0].legend(loc="lower right")
    return figure


def _recipe(findings: Findings) -> Figure:
    """The same texts by the paper's recipe and by cramzip's."""
    figure, panels = _per_model(findings)
    measures = (
        ("decoding_capacity_after_first", "99% right\nafter the first"),
        ("decoding_capacity", "99% right"),
        ("recited_capacity", "recited"),
    )
    for axis, found in panels:
        for shift, recipe, label, colour in (
            (-0.2, PAPER, "the paper's recipe", "0.7"),
            (0.2, OURS, "cramzip", "#1b6ca8"),
        ):
            same = [row for row in found["rows"] if row["recipe"] == recipe]
            pairs = [mean_std(row[field] for row in same) for field, _ in measures]
            means, spreads = [mean for mean, _ in pairs], [std for _, std in pairs]
            places = np.arange(len(measures)) + shift
            axis.bar(places, means, 0.36, yerr=_whiskers(means, spreads), color=colour, label=label, **_WHISKERS)
            for place in places[np.array(means) == 0]:
                axis.annotate("0", (place, 0), (0, 2), textcoords="offset points", ha="center", color="0.4")
        axis.set_xticks(range(len(measures)), [label for _, label in measures])
        axis.set(ylabel="tokens of the longest text")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
        axis.legend(loc="upper right", ncols=2)
    return figure


FIGURES: dict[str, Callable[[Findings], Figure]] = {
    "learning-rate": _learning_rate,
    "capacity": _capacity,
    "vectors": _vectors,
    "cross-entropy": _cross_entropy,
    "utilisation": _utilisation,
    "similarity": _similarity,
    "interpolation": _interpolation,
    "bits": _bits,
    "context": _context,
    "recipe": _recipe,
}


# -- small helpers ---------------------------------------------------------------------------------


def _kinds(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["kind"] for row in rows))


def _right_share(row: Row) -> float:
    return 100 * float(row["right"]) / float(row["tokens"])


def _recited(row: Row) -> float:
    return 100.0 * bool(row["recited"])


def _series(
    rows: Sequence[Row], over: str, measure: str | Callable[[Row], float]
) -> tuple[list[float], list[float], list[float]]:
    """Values of `over` in order, and mean and standard deviation of the measure at each."""
    value = (lambda row: float(row[measure])) if isinstance(measure, str) else measure
    xs = sorted({row[over] for row in rows})
    found = [mean_std(value(row) for row in rows if row[over] == x) for x in xs]
    return xs, [mean for mean, _ in found], [std for _, std in found]


def _line(
    axis: Axes,
    xs: Sequence[float],
    means: Sequence[float],
    spreads: Sequence[float] | None,
    colour: str,
    label: str,
    style: str = "-",
    most: float = np.inf,
) -> None:
    errors = None if spreads is None else _whiskers(means, spreads, most)
    axis.errorbar(xs, means, errors, ls=style, marker="o", color=colour, label=label, capsize=2, elinewidth=0.8)
