"""What do a few bits buy that choose `[mem]` from a codebook? Bits spent on choices, and bits taken off a text.

    python codebook_study.py lanes results.jsonl HELD_OUT        cold lanes, by kind; the model alone
    python codebook_study.py searched results.jsonl HELD_OUT     one vector for each lane, searched for, at 1 to 4 bits
    python codebook_study.py files results.jsonl FILE...         whole files, decoded, with and without learning
    python codebook_study.py draw results.jsonl FOLDER           the figure, and a table in Markdown

HELD_OUT has a folder of texts for each kind. A cold lane is 48 tokens that the model reads after nothing but the start
token and an entry. *Stages*: the second vector of an entry is exchanged for that of another one.
"""

import json
import math
from pathlib import Path

import click
import numpy as np
import torch

import cramzip
from cramzip.coding.cram import cram
from cramzip.coding.encode import Writer
from cramzip.coding.view import Chunk
from cramzip.config import CramConfig
from cramzip.container.records import BITS, Kind
from cramzip.laboratory.codebook import Learning
from cramzip.laboratory.windows import by_kind, windows
from cramzip.lm.models import as_torch

SIZES = (1, 4, 16, 64, 256)  # entries: the likeliest ones of the codebook
TRIED = 24  # entries for a lane, by the selector
EXCHANGED = 8  # entries whose second vector is tried in the second stage
SEARCHED_BITS = ("1", "1.58", "2", "3", "4")


def summary(values):
    """Mean and standard error."""
    values = np.asarray(values, float)
    return round(float(values.mean()), 2), round(float(values.std(ddof=1) / math.sqrt(len(values))), 2)


def add(results, record):
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    click.echo(json.dumps(record))


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Lanes:
    """Held-out lanes, and what they cost after the entries that are likely for them."""

    def __init__(self, model, held_out, n):
        self.exact = cramzip.load(model)
        self.book, self.lm = self.exact.codebook, as_torch(self.exact)
        self.windows, self.kinds = windows(self.lm, by_kind([held_out]), n, seed=3)
        self.lab = Learning(self.lm, self.windows, (1, 1))
        self.vectors = torch.from_numpy(self.book.vectors(range(self.book.n_entries)))
        rates = -np.log2(self.book.priors / self.book.priors.sum(1, keepdims=True))
        self.rates = torch.from_numpy(rates)[torch.where(self.windows.begins, 0, 1)]  # (N, K)

    def costs(self):
        """Bits (N, K) of all lanes after the likeliest entries of each size; infinite for those that are not tried."""
        guesses = torch.from_numpy(self.book.guessed(self.lab.states.numpy()))
        order = torch.from_numpy(np.argsort(-self.book.priors.sum(0), kind="stable"))
        found = torch.full(guesses.shape, math.inf)
        for size in SIZES:
            allowed = order[: min(size, len(order))]
            likely = allowed[guesses[:, allowed].topk(min(TRIED, len(allowed))).indices]
            found.scatter_(1, likely, self.lab.bits(self.windows.tokens, likely, self.vectors))
        return found, order


@click.group(help=__doc__.split("\n\n")[0])
def cli():
    pass


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", help="A folder with a codebook; the built-in model without it.")
@click.option("--lanes", "n", default=400, show_default=True)
def lanes(results, held_out, model, n):
    """Measure what choices from codebooks of several sizes take off cold lanes."""
    torch.set_num_threads(1)
    data = Lanes(model, held_out, n)
    costs, order = data.costs()
    without, every = data.lab.without, torch.arange(len(data.kinds))
    for size in SIZES:
        allowed = order[: min(size, len(order))]
        priors = data.book.priors[:, allowed.numpy()].astype(float)
        rates = torch.from_numpy(-np.log2(priors / priors.sum(1, keepdims=True)))[
            torch.where(data.windows.begins, 0, 1)
        ]
        total = costs[:, allowed] + rates
        best = total.argmin(1)
        saved, spent = without - costs[:, allowed][every, best], rates[every, best]
        pays = saved > spent  # or else no choice is made, which is free
        saved, spent = torch.where(pays, saved, 0), torch.where(pays, spent, 0)
        for kind in ("all", *sorted(set(data.kinds))):
            chosen = [i for i, name in enumerate(data.kinds) if kind in ("all", name)]
            if len(chosen) > 1:
                mean, error = summary(saved[chosen])
                record = {"what": "lanes", "kind": kind, "lanes": len(chosen), "entries": len(allowed), "saved": mean}
                record |= {"error": error, "spent": summary(spent[chosen])[0]}
                add(results, record | {"without": summary(without[chosen])[0]})
    best = (costs + data.rates).argmin(1)
    other = (costs + data.rates).topk(EXCHANGED, largest=False).indices  # of the entries that suit the lane best
    if data.book.n_each > 1:
        stages = data.vectors[best][:, None].expand(-1, EXCHANGED, -1, -1).clone()
        stages[:, :, 1:] = data.vectors[other][:, :, 1:]
        flat, place = stages.flatten(0, 1), torch.arange(len(best) * EXCHANGED).view(len(best), EXCHANGED)
        second = data.lab.bits(data.windows.tokens, place, flat)
        extra = math.log2(EXCHANGED)
        mean, error = summary(without - second.amin(1))
        spent = summary(data.rates[every, best] + extra)[0]
        add(results, {"what": "stages", "lanes": len(best), "saved": mean, "error": error, "spent": spent})


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", help="As for cramzip.")
@click.option("--lanes", "n", default=24, show_default=True)
@click.option("--steps", default=60, show_default=True)
def searched(results, held_out, model, n, steps):
    """Measure what a vector of a lane's own takes off it."""
    torch.set_num_threads(1)
    lm = as_torch(cramzip.load(model))
    rows, _ = windows(lm, by_kind([held_out]), n, seed=3)
    chunks = [Chunk(row) for row in rows.tokens.tolist()]
    without = np.array([cost.sum() for cost in lm.score([chunk.tokens for chunk in chunks])]) / math.log(2)
    for bits in SEARCHED_BITS:
        goal = Writer(lm, CramConfig(vectors=1, bits=bits, max_steps=steps, context=0, noise_exponent=14)).goal
        left = np.array([result.nats_left for result in cram(goal, chunks, n_slots=goal.slots)]) / math.log(2)
        mean, error = summary(without - left)
        record = {"what": "searched", "lanes": len(chunks), "bits_per_dimension": bits, "steps": steps, "saved": mean}
        add(results, record | {"error": error, "spent": round(lm.width * BITS[bits].bits, 1)})


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", help="As for cramzip.")
@click.option("--bytes", "n_bytes", type=int, help="Of each file; all of them without it.")
@click.option("--kind", default="files", show_default=True, help="What the records call them.")
def files(results, files, model, n_bytes, kind):
    """Measure whole files, each decoded, with the codebook and without."""
    lm = cramzip.load(model)
    for path in files:
        text = path.read_bytes()[:n_bytes].decode(errors="ignore").encode()
        blobs = [cramzip.compress(text, lm, CramConfig(codebook=wanted), strip=True) for wanted in (False, True)]
        without, chosen = map(len, blobs)  # `compress` has decoded them
        kinds = sorted(Kind(entry.kind).name.lower() for entry in cramzip.read(blobs[1]).entries)
        record = {"what": "files", "kind": kind, "name": path.name, "bytes": len(text), "groups": kinds}
        add(results, record | {"without": without, "with": chosen, "smaller": round(1 - chosen / without, 4)})


@cli.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def draw(results, folder):
    """Draw the figure into FOLDER, as PNG and SVG, and print the tables in Markdown."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "cramzip"}
    records = read(results)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
    chosen = [r for r in records if r["what"] == "lanes" and r["kind"] == "all"]
    style = {"marker": "o", "ms": 3.5, "lw": 1.2, "capsize": 2}
    for what, colour, label in [
        (chosen, "#1b6ca8", "chosen from 1 to 256 entries"),
        ([r for r in records if r["what"] == "stages"], "#3d8b5c", "a second stage of three bits"),
        ([r for r in records if r["what"] == "searched"], "#c8553d", "searched for, 1 to 4 bits a dimension"),
    ]:
        spent, saved, error = ([max(r[key], 0.2) for r in what] for key in ("spent", "saved", "error"))
        left.errorbar(spent, saved, error, color=colour, label=label, **style)
    line = np.geomspace(0.5, 1500, 50)
    left.plot(line, line, color="0.6", lw=1, ls=":", label="break-even")
    left.set(xscale="log", yscale="log", xlabel="bits spent on a lane", ylabel="bits saved on its first 48 tokens")
    left.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    kinds = sorted({r["kind"] for r in records if r["what"] == "lanes"} - {"all"})
    largest = [next(r for r in records[::-1] if r["what"] == "lanes" and r["kind"] == kind) for kind in kinds]
    largest.sort(key=lambda r: r["saved"])
    places = range(len(largest))
    right.barh(places, [r["saved"] for r in largest], xerr=[r["error"] for r in largest], color="#1b6ca8", ecolor="0.3")
    right.barh(places, [r["spent"] for r in largest], color="#c8553d", height=0.4)
    right.set(xlabel="bits of a lane: saved (blue), spent (red)")
    right.set_yticks(places, [r["kind"] for r in largest])
    for suffix in ("png", "svg"):
        path = folder / f"codebook_study.{suffix}"
        figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == "svg" else {})
    click.echo("| kind | lanes | bits without | spent | saved | balance |\n|---|---|---|---|---|---|")
    for r in [*chosen[-1:], *largest[::-1]]:
        cells = [r["kind"], r["lanes"], f"{r['without']:.0f}", r["spent"], f"{r['saved']} ± {r['error']}"]
        click.echo(f"| {' | '.join(map(str, [*cells, round(r['saved'] - r['spent'], 1)]))} |")
    click.echo("\n| files | n | bytes without | with | smaller |\n|---|---|---|---|---|")
    whole = [r for r in records if r["what"] == "files"]
    for kind in dict.fromkeys(r["kind"] for r in whole):
        own = [r for r in whole if r["kind"] == kind]
        without, found = sum(r["without"] for r in own), sum(r["with"] for r in own)
        click.echo(f"| {kind} | {len(own)} | {without:,} | {found:,} | {1 - found / without:.2%} |")


if __name__ == "__main__":
    cli()
