"""What do a few bits buy that choose `[mem]` from a codebook? Bits spent on choices, and bits taken off a text.

    python codebook_study.py everything results.jsonl HELD_OUT FOLDER    all of the following, anew
    python codebook_study.py lanes results.jsonl HELD_OUT        cold lanes, by kind; the model alone
    python codebook_study.py searched results.jsonl HELD_OUT     one vector for each lane, searched for, at 1 to 4 bits
    python codebook_study.py messages results.jsonl HELD_OUT     whole files of 300 bytes, decoded, by kind
    python codebook_study.py files results.jsonl FILE...         whole files, decoded
    python codebook_study.py draw results.jsonl FOLDER           the figure, and tables in Markdown

HELD_OUT has a folder of texts for each kind. A cold lane is 48 tokens that the model reads after nothing but the start
token and an entry. *Stages*: the second vector of an entry is exchanged for that of another one. With `-m MODEL
--codebook FILE` all of it is about another model, and its codebook.
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
MESSAGE, MESSAGES = 300, 6  # bytes, and texts of each kind
WHOLE = ("code", "factbook", "json", "docs", "news")  # kinds of which everything measures some whole files, too
WHOLE_FILES, MOST_WHOLE = 3, 12_000  # of each, of at most so many bytes

model_option = click.option("-m", "--model", help="As for cramzip; the built-in one without it.")
codebook_option = click.option("--codebook", type=click.Path(exists=True, dir_okay=False, path_type=Path))


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

    def __init__(self, lm, held_out, n):
        self.book, self.lm = lm.given.codebook if lm.given else lm.codebook, as_torch(lm)
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


def loaded(model, codebook):
    """A model, with a codebook that is not its own if one is named."""
    lm = cramzip.load(model)
    return lm if codebook is None else lm.with_codebook(codebook.read_bytes())


def whole_file(lm, text, record):
    """A record of what `c` makes of a text with the codebook and without; `compress` has decoded both."""
    without = len(cramzip.compress(text, lm, CramConfig(codebook=False), strip=True))
    blob = cramzip.compress(text, lm, strip=True)
    kinds = sorted(Kind(entry.kind).name.lower() for entry in cramzip.read(blob).entries)
    record = {"what": "files"} | record | {"bytes": len(text), "groups": kinds, "without": without, "with": len(blob)}
    return record | {"smaller": round(1 - len(blob) / without, 4)}


def message(path, index):
    """The beginning of a text, or of every second one what stands after a line in its middle."""
    content = path.read_bytes()
    place = content.find(b"\n", len(content) // 2) + 1 if index % 2 else 0
    return content[place : place + MESSAGE].decode(errors="ignore").encode()


@click.group(help=__doc__.split("\n\n")[0])
def cli():
    pass


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@model_option
@codebook_option
@click.option("--lanes", "n", default=220, show_default=True)
def lanes(results, held_out, model, codebook, n):
    """Measure what choices from codebooks of several sizes take off cold lanes."""
    torch.set_num_threads(1)
    lm = loaded(model, codebook)
    about = {"model": lm.model_id} if model else {}
    data = Lanes(lm, held_out, n)
    costs, order = data.costs()
    without, every = data.lab.without, torch.arange(len(data.kinds))
    for size in sorted({min(size, len(order)) for size in SIZES}):
        allowed = order[:size]
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
                record = {"what": "lanes"} | about | {"kind": kind, "lanes": len(chosen), "entries": len(allowed)}
                record |= {"saved": mean}
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
        add(results, {"what": "stages"} | about | {"lanes": len(best), "saved": mean, "error": error, "spent": spent})


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@model_option
@click.option("--lanes", "n", default=24, show_default=True)
@click.option("--steps", default=60, show_default=True)
@click.option("--bits", default=",".join(SEARCHED_BITS), show_default=True)
def searched(results, held_out, model, n, steps, bits):
    """Measure what a vector of a lane's own takes off it."""
    torch.set_num_threads(1)
    lm = as_torch(cramzip.load(model))
    rows, _ = windows(lm, by_kind([held_out]), n, seed=3)
    chunks = [Chunk(row) for row in rows.tokens.tolist()]
    without = np.array([cost.sum() for cost in lm.score([chunk.tokens for chunk in chunks])]) / math.log(2)
    about = {"model": cramzip.load(model).model_id} if model else {}
    for rate in bits.split(","):
        goal = Writer(lm, CramConfig(vectors=1, bits=rate, max_steps=steps, context=0, noise_exponent=14)).goal
        left = np.array([result.nats_left for result in cram(goal, chunks, n_slots=goal.slots)]) / math.log(2)
        mean, error = summary(without - left)
        record = {"what": "searched"} | about | {"lanes": len(chunks), "bits_per_dimension": rate, "steps": steps}
        record |= {"saved": mean}
        add(results, record | {"error": error, "spent": round(lm.width * BITS[rate].bits, 1)})


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@model_option
@codebook_option
@click.option("--bytes", "n_bytes", type=int, help="Of each file; all of them without it.")
@click.option("--kind", default="files", show_default=True, help="What the records call them.")
def files(results, files, model, codebook, n_bytes, kind):
    """Measure whole files, each decoded, with the codebook and without."""
    lm = loaded(model, codebook)
    for path in files:
        text = path.read_bytes()[:n_bytes].decode(errors="ignore").encode()
        about = {"model": lm.model_id} if model else {}
        add(results, whole_file(lm, text, about | {"kind": kind, "name": path.name}))


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@model_option
@codebook_option
@click.option("--texts", "n", default=MESSAGES, show_default=True, help="Of each kind.")
def messages(results, held_out, model, codebook, n):
    """Measure whole files of 300 bytes of each kind, each decoded, with the codebook and without."""
    lm = loaded(model, codebook)
    for kind, paths in by_kind([held_out]).items():
        long = [path for path in paths if path.stat().st_size > 2 * MESSAGE]
        for index, path in enumerate(long[:: max(1, len(long) // n)][:n]):
            record = {"kind": f"{MESSAGE} bytes, {kind}", "name": path.name}
            add(results, whole_file(lm, message(path, index), record))


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.pass_context
def everything(context, results, held_out, folder):
    """Measure all of it anew, of the built-in model, and draw. What other models gave stays in RESULTS."""
    kept = [record for record in read(results) if "model" in record] if results.exists() else []
    results.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    context.invoke(lanes, results=results, held_out=held_out)
    context.invoke(searched, results=results, held_out=held_out)
    context.invoke(messages, results=results, held_out=held_out)
    for kind in WHOLE:
        paths = [path for path in by_kind([held_out]).get(kind, ()) if path.stat().st_size <= MOST_WHOLE]
        largest = sorted(paths, key=lambda path: path.stat().st_size)[-WHOLE_FILES:]
        context.invoke(files, results=results, files=largest, kind=kind)
    context.invoke(draw, results=results, folder=folder)


@cli.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def draw(results, folder):
    """Draw the figure into FOLDER, as PNG and SVG, and print the tables in Markdown."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "cramzip"}
    records = [record for record in read(results) if "model" not in record]
    others = [record for record in read(results) if "model" in record]
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
    for what, marker, said in (("lanes", "s", "chosen"), ("searched", "^", "searched for")):
        own = [r for r in others if r["what"] == what and r.get("kind", "all") == "all"]
        if own:
            label = f"{own[0]['model'].partition(':')[2].split('.')[0]}, {said}"
            left.plot(
                *([max(r[key], 0.2) for r in own] for key in ("spent", "saved")),
                f"{marker}--",
                c="0.3",
                ms=3,
                label=label,
            )
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
    whole = [r for r in [*records, *others] if r["what"] == "files"]
    for kind in dict.fromkeys(r["kind"] for r in whole):
        own = [r for r in whole if r["kind"] == kind]
        without, found = sum(r["without"] for r in own), sum(r["with"] for r in own)
        error = f" ± {summary([100 * r['smaller'] for r in own])[1]}" if len(own) > 1 else ""
        click.echo(f"| {kind} | {len(own)} | {without:,} | {found:,} | {1 - found / without:.2%}{error} |")


if __name__ == "__main__":
    cli()
