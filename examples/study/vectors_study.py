"""What does a quantised vector buy? Bits spent on `[mem]` against the bits that it takes off the text.

    python vectors_study.py measure results.jsonl TEXT... -m MODEL     may be stopped, and goes on where it was
    python vectors_study.py draw results.jsonl FOLDER                  the figures and the table

Two questions are asked of every number of bits per dimension.  *Saved*: chunks of some length, each with M vectors and
the tokens before it in view as in a file; the bits that the chunk costs less than without vectors.  *Survival*: short
chunks with nothing before them and no corrections; how many of their tokens, and how many whole chunks, greedy decoding
gets right.  Everything is optimised through the quantiser.
"""

import json
import math
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import torch

import cramzip
from cramzip.coding.cram import cram
from cramzip.coding.encode import Writer
from cramzip.coding.view import Chunk
from cramzip.config import CramConfig
from cramzip.container.records import BITS
from cramzip.lm.models import as_torch

NOISE_EXPONENT = 14
CONTEXT = 128  # tokens before the chunks of which the savings are measured


def settings(steps, exact_steps, short):
    """What is measured: kind, bits per dimension, tokens of a chunk, vectors, steps."""
    by_size = sorted(BITS, key=float, reverse=True)
    for bits in by_size:
        yield {"kind": "survival", "bits": bits, "tokens": short, "vectors": 1, "steps": exact_steps}
    for bits in by_size:
        yield {"kind": "saved", "bits": bits, "tokens": 128, "vectors": 1, "steps": steps}
    for tokens in (32, 512):
        for bits in ("16", "2", "1"):
            yield {"kind": "saved", "bits": bits, "tokens": tokens, "vectors": 1, "steps": steps}
    for vectors in (2, 4):
        for bits in ("2", "1"):
            yield {"kind": "saved", "bits": bits, "tokens": 128, "vectors": vectors, "steps": steps}


def sample(lm, texts, n_chunks, n_tokens, n_context):
    """Chunks spread evenly over the texts, with what stands before them."""
    chunks = []
    for text in texts:
        ids = [token for piece in lm.tokenizer.encode(text) for token in piece.ids or []]
        starts = np.linspace(n_context, len(ids) - n_tokens, n_chunks // len(texts) + 1).astype(int)[:-1]
        chunks += [Chunk(ids[s : s + n_tokens], ids[s - n_context : s]) for s in starts]
    return chunks


def measure_one(lm, texts, setting, n_chunks, n_short):
    exact = setting["kind"] == "survival"
    context = 0 if exact else CONTEXT
    chunks = sample(lm, texts, n_short if exact else n_chunks, setting["tokens"], context)
    config = CramConfig(
        vectors=setting["vectors"],
        bits=setting["bits"],
        exact=exact,
        dtype="float32",
        max_steps=setting["steps"],
        noise_exponent=NOISE_EXPONENT,
    )
    goal = Writer(lm, config).goal
    results = cram(goal, chunks, n_slots=goal.slots)
    costs = lm.score([chunk.tokens for chunk in chunks], [chunk.context for chunk in chunks])
    free = np.array([cost.sum() for cost in costs]) / math.log(2)
    left = np.array([result.nats_left for result in results]) / math.log(2)
    wrong = np.array([result.wrong for result in results])
    record = {
        "chunks": len(chunks),
        "bits_without": round(float(free.mean()), 1),
        "bits_saved": round(float((free - left).mean()), 2),
        "bits_saved_std": round(float((free - left).std()), 2),
        "bits_spent": round(setting["vectors"] * lm.width * BITS[setting["bits"]].bits, 1),
    }
    if exact:
        record["tokens_right"] = round(1 - float(wrong.mean()) / setting["tokens"], 4)
        record["chunks_exact"] = round(float((wrong == 0).mean()), 4)
    return record


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@click.group(help=__doc__.split("\n\n")[0])
def cli():
    pass


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", help="As for cramzip; the built-in model without it.")
@click.option("--chunks", default=8, show_default=True, help="For the savings.")
@click.option("--short-chunks", default=48, show_default=True, help="For survival.")
@click.option("--short-tokens", default=8, show_default=True, help="Of the chunks for survival: what one vector holds.")
@click.option("--steps", default=60, show_default=True, help="For the savings.")
@click.option("--exact-steps", default=180, show_default=True, help="For survival.")
@click.option("--bytes", "n_bytes", default=20000, show_default=True, help="Of each text.")
def measure(results, texts, model, chunks, short_chunks, short_tokens, steps, exact_steps, n_bytes):
    """Measure every setting that RESULTS does not hold yet."""
    lm = as_torch(cramzip.load(model))
    contents = [path.read_bytes()[:n_bytes] for path in texts]
    known = {json.dumps([r["model"], r["setting"]], sort_keys=True) for r in read(results)}
    for setting in settings(steps, exact_steps, short_tokens):
        if json.dumps([lm.model_id, setting], sort_keys=True) in known:
            continue
        record = {"model": lm.model_id, "width": lm.width, "setting": setting, "torch": torch.__version__}
        record |= measure_one(lm, contents, setting, chunks, short_chunks)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        click.echo(json.dumps(record), err=True)


@cli.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def draw(results, folder):
    """Draw the figures into FOLDER, as PNG and SVG, and print a table in Markdown."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "cramzip"}
    folder.mkdir(parents=True, exist_ok=True)
    records = read(results)
    models = list(dict.fromkeys(r["model"] for r in records))

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained")
    for colour, model in zip(("#1b6ca8", "#c8553d", "#3d8b5c", "#7b5ea7"), models, strict=False):
        lines = defaultdict(list)
        for r in records:
            if r["model"] == model and r["setting"]["vectors"] == 1:
                key = (r["setting"]["kind"], r["setting"]["tokens"])
                lines[key].append((r["bits_spent"] / r["width"], r))
        label = model.partition(":")[2].removesuffix(".Q4_1.gguf")
        saved = sorted(lines["saved", 128], key=lambda pair: pair[0])
        axes[0].errorbar(
            [x for x, _ in saved],
            [r["bits_saved"] / r["width"] for _, r in saved],
            [r["bits_saved_std"] / r["width"] for _, r in saved],
            marker="o", ms=3.5, lw=1.2, capsize=2, color=colour, label=label,
        )  # fmt: skip
        for kind, tokens in [key for key in lines if key[0] == "survival"]:
            survival = sorted(lines[kind, tokens], key=lambda pair: pair[0])
            for key, style, what in (("tokens_right", "-", f"of {tokens} tokens"), ("chunks_exact", "--", "of chunks")):
                axes[1].plot(
                    [x for x, _ in survival], [100 * r[key] for _, r in survival],
                    style, marker="o", ms=3.5, lw=1.2, color=colour, label=f"{label}, {what}",
                )  # fmt: skip
    ticks = sorted({round(r["bits_spent"] / r["width"] / r["setting"]["vectors"], 2) for r in records})
    spent = np.geomspace(ticks[0], ticks[-1], 50)
    axes[0].plot(spent, spent, color="0.6", lw=1, ls=":", label="break-even")
    axes[0].set(yscale="log", ylabel="bits saved per dimension", title="128 tokens, one vector")
    axes[1].set(ylim=(0, 102), ylabel="right without corrections (%)", title="one vector and nothing else")
    for axis in axes:
        axis.set(xscale="log", xlabel="bits spent per dimension")
        axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"vectors_study.{suffix}", dpi=200, metadata={"Date": None} if suffix == "svg" else {})

    click.echo("| model | tokens | vectors | bits/dim | spent | saved | saved/spent | tokens right | chunks exact |")
    click.echo("|---|---|---|---|---|---|---|---|---|")
    for r in records:
        setting = r["setting"]
        survived = [f"{100 * r[k]:.0f}%" if k in r else "" for k in ("tokens_right", "chunks_exact")]
        cells = [r["model"], setting["tokens"], setting["vectors"], setting["bits"], f"{r['bits_spent']:.0f}"]
        cells += [f"{r['bits_saved']:.0f} ± {r['bits_saved_std']:.0f}", f"{r['bits_saved'] / r['bits_spent']:.2f}"]
        click.echo(f"| {' | '.join(map(str, [*cells, *survived]))} |")


if __name__ == "__main__":
    cli()
