"""The figures, as PNG, SVG and PDF, of what experiments have found. Knows nothing of models but their findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from .measures import mean_std, utilisation
from .panels import (
    COLOURS,
    COLUMN,
    GREY,
    KIND_COLOURS,
    PAGE,
    PANEL,
    STYLE,
    WHISKERS,
    Bars,
    Findings,
    Row,
    bars,
    kinds_of,
    line,
    panel_per_model,
    panels,
    save,
    series,
    whiskers,
)
from .published import PUBLISHED, PUBLISHED_BY_VECTORS
from .recipes import OURS, PAPER
from .texts import BOOKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
                paths += save(plot(same), folder / name)
    return paths


# -- one figure each -------------------------------------------------------------------------------


def _capacity(findings: Findings) -> Figure:
    """Tokens and nats that one vector holds, by kind of text."""
    figure, axes = panels(len(findings), 2, PAGE, width_ratios=(2, 1))
    measures = (
        ("recited_capacity", "recited by greedy decoding", "#1b6ca8"),
        ("decoding_capacity_after_first", "99% right, as the paper counts", "#8fb8d8"),
        ("token_gain", "token gain", "#c8b273"),
    )
    for (left, right), found in zip(axes, findings, strict=True):
        for place, (field, label, colour) in enumerate(measures):
            bars(left, _by_kind(found["rows"], field), Bars(colour, label, 0.25, (place - 1) * 0.27))
        bars(right, _by_kind(found["rows"], "information_gain"), Bars("#3d8b5c"))
        kinds = kinds_of(found["rows"])
        for axis in (left, right):
            axis.set_xticks(range(len(kinds)), kinds)
            axis.set_xlim(-0.6, len(kinds) - 0.4)
        left.set(ylabel="tokens", title=f"{found['name']}: one vector")
        right.set(ylabel="information gain (nats)")
        left.set_ylim(0, left.get_ylim()[1] * 1.3)
        left.legend(loc="upper right", ncols=1)
    return figure


def _vectors(findings: Findings) -> Figure:
    """Tokens over the number of vectors, with what was published."""
    figure, axes = panels(1, 1, COLUMN, PANEL * (1.15 + 0.1 * len(findings)))
    axis = axes[0, 0]
    for name, points in PUBLISHED_BY_VECTORS.items():
        axis.plot(list(points), list(points.values()), "--", marker="s", ms=2.5, lw=0.9, color=GREY)
        last = max(points)
        axis.annotate(f"{name} (paper)", (last, points[last]), (-2, 5), textcoords="offset points", ha="right",
                      fontsize=6.5, color="0.35")  # fmt: skip
    for colour, found in zip(COLOURS, findings, strict=False):
        recited = series(found["rows"], "vectors", "recited_capacity")
        line(axis, recited, colour, f"{found['name']}, recited")
        decoded = series(found["rows"], "vectors", "decoding_capacity_after_first")
        axis.plot(decoded.xs, decoded.means, ":", color=colour, label=f"{found['name']}, 99% right")
        if (first := recited.means[0]) > 0:
            xs = recited.xs
            axis.plot(xs, [first * x / xs[0] for x in xs], color=colour, lw=0.6, alpha=0.5)
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
    figure, named = panel_per_model(findings, PANEL * 1.1)
    for axis, found in named:
        rows = found["rows"]
        most = max(row["nats_without"] for row in rows) * 1.03
        axis.plot([0, most], [0, most], ":", color=GREY, lw=0.9, label="without vectors")
        for kind in kinds_of(rows):
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
        for kind in kinds_of(found["rows"]):
            mean, std = mean_std(100 * row["utilisation"] for row in found["rows"] if row["kind"] == kind)
            names.append(f"{found['name']}, {kind}")
            means.append(mean)
            spreads.append(std)
            colours.append(KIND_COLOURS[kind])
    figure, axes = panels(1, 1, COLUMN * 1.3, 0.5 + 0.22 * len(names))
    axis = axes[0, 0]
    places = np.arange(len(names))
    axis.barh(places, means, 0.62, xerr=whiskers(means, spreads), color=colours, **WHISKERS)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set(xlabel="token gain over D · 16 / log₂ V (%)")
    return figure


def _similarity(findings: Findings) -> Figure:
    """Cosines of solutions of one text, and of solutions of different texts."""
    figure, named = panel_per_model(findings)
    for axis, found in named:
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
    figure, named = panel_per_model(findings)
    for axis, found in named:
        lines = 100 * np.array([row["right"] for row in found["rows"]])
        xs = np.linspace(0, 1, lines.shape[1])
        axis.plot(xs, lines.T, color="#8fb8d8", lw=0.6)
        axis.plot(xs, lines.mean(0), color="#1b6ca8", lw=1.8, label=f"mean of {len(lines)} pairs")
        axis.set(xlabel="from one solution (0) to another (1)", ylabel="tokens right (%)", ylim=(0, 104), xlim=(0, 1))
        axis.legend(loc="lower right")
    return figure


def _bits(findings: Findings) -> Figure:
    """What survives fewer bits per dimension."""
    figure, axes = panels(1, 2, PAGE)
    for colour, found in zip(COLOURS, findings, strict=False):
        shares = sorted({row["share"] for row in found["rows"]})
        for share, style in zip(shares, ("-", "--", ":"), strict=False):
            rows = [row for row in found["rows"] if row["share"] == share]
            label = f"{found['name']}, {share:.0%}"
            line(axes[0, 0], series(rows, "bits", _right_share), colour, label, style=style, most=100)
            line(axes[0, 1], series(rows, "bits", _recited)._replace(stds=None), colour, label, style=style)
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
    figure, axes = panels(1, 2, PAGE)
    for colour, found in zip(COLOURS, findings, strict=False):
        rows, name = found["rows"], found["name"]
        without, with_one = series(rows, "context", "nats_without"), series(rows, "context", "nats")
        gains = series(rows, "context", lambda row: row["nats_without"] - row["nats"])
        xs, places = without.xs, [float(place) for place in range(len(without.xs))]
        line(axes[0, 0], without._replace(xs=places, stds=None), colour, f"{name}, without a vector", style="--")
        line(axes[0, 0], with_one._replace(xs=places), colour, f"{name}, with one")
        line(axes[0, 1], gains._replace(xs=places), colour, name)
        for axis in axes[0]:
            axis.set_xticks(places, [str(x) for x in xs])
    for axis, what in zip(axes[0], ("cross-entropy of the text (nats)", "information gain (nats)"), strict=True):
        axis.set(xlabel="tokens before the text in view", ylabel=what)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.3)
        axis.legend(loc="upper right")
    return figure


def _learning_rate(findings: Findings) -> Figure:
    """What is right after the same number of steps, by learning rate."""
    figure, axes = panels(1, 2, PAGE)
    for colour, found in zip(COLOURS, findings, strict=False):
        line(axes[0, 0], series(found["rows"], "learning_rate", _right_share), colour, found["name"], most=100)
        line(axes[0, 1], series(found["rows"], "learning_rate", "nats"), colour, found["name"])
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
    figure, named = panel_per_model(findings)
    measures = (
        ("decoding_capacity_after_first", "99% right\nafter the first"),
        ("decoding_capacity", "99% right"),
        ("recited_capacity", "recited"),
    )
    for axis, found in named:
        for shift, recipe, label, colour in (
            (-0.2, PAPER, "the paper's recipe", "0.7"),
            (0.2, OURS, "cramzip", "#1b6ca8"),
        ):
            same = [row for row in found["rows"] if row["recipe"] == recipe]
            pairs = [mean_std(row[field] for row in same) for field, _ in measures]
            bars(axis, pairs, Bars(colour, label, 0.36, shift))
            for place in (place + shift for place, (mean, _) in enumerate(pairs) if mean == 0):
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


# -- measures of rows ------------------------------------------------------------------------------


def _by_kind(rows: Sequence[Row], field: str) -> list[tuple[float, float]]:
    """Mean and standard deviation of a field for each kind of text."""
    return [mean_std(row[field] for row in rows if row["kind"] == kind) for kind in kinds_of(rows)]


def _right_share(row: Row) -> float:
    return 100 * float(row["right"]) / float(row["tokens"])


def _recited(row: Row) -> float:
    return 100.0 * bool(row["recited"])
