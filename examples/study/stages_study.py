"""Does a correction of a chosen `[mem]`, or a vector of a file's own for all its lanes, pay for its bits?

    python stages_study.py residuals results.jsonl TEXTS HELD_OUT   a second, small codebook of corrections
    python stages_study.py own results.jsonl FILE...                a vector of a file's own, one bit a dimension

TEXTS and HELD_OUT have a folder of texts for each kind. Corrections are learned as the codebook was: texts belong to
the one that makes them cheapest, and each follows the gradient of its texts. The first is none at all, and takes no
bits but those that say so. Both are measured on cold lanes of 48 tokens: by the model alone, and with all that is
learned while decoding, where every lane is a text of its own.
"""

import json
import math
import time
from pathlib import Path

import click
import numpy as np
import torch

import cramzip
from cramzip.coding.exact_decode import learner_of
from cramzip.coding.quantize import round_trip
from cramzip.container.records import Coding
from cramzip.exact import lanes
from cramzip.exact.lanes import encode_lanes
from cramzip.exact.run import Options
from cramzip.exact.tokencoder import TokenEncoder
from cramzip.exact.weights import quantise
from cramzip.laboratory.codebook import Learning, Windows, clusters
from cramzip.laboratory.windows import by_kind, windows
from cramzip.lm.models import as_torch

TRIED, TRIED_ON, BATCH, RATE, BETAS = 8, 24, 64, 0.03, (0.9, 0.95)
LANE = 48


class Counting(TokenEncoder):
    """Counts the bits of what is coded."""

    bits = 0.0

    def encode(self, before, count):
        Counting.bits += self.total_bits - math.log2(count)
        super().encode(before, count)


def bits_of(lm, ids, vectors=None):
    """Bits of a text in one lane with all that is learned; after the start token stand `vectors` (M, D), or none."""
    lanes.TokenEncoder, Counting.bits = Counting, 0.0
    options = Options(vectors=vectors, after_start=vectors is not None, threads=1)
    learner = learner_of(lm, 1, has_dictionary=False)
    encode_lanes(lm.model, ids, 1, Options(**(vars(options) | {"learner": learner})))
    return Counting.bits


def summary(values):
    values = np.asarray(values, float)
    return [round(float(values.mean()), 2), round(float(values.std(ddof=1) / math.sqrt(len(values))), 2)]


def add(results, record):
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    click.echo(json.dumps(record))


def chosen(lab, book, data):
    """The cheapest likely entry (N,) of each window, with what saying so takes; its bits and rate (N,)."""
    likely = torch.from_numpy(book.guessed(lab.states.numpy())).topk(min(TRIED, book.n_entries)).indices
    rates = -torch.from_numpy(book.priors / book.priors.sum(1, keepdims=True)).log2()
    rates = rates[torch.where(data.begins, 0, 1)].gather(1, likely)
    bits = lab.bits(data.tokens, likely, torch.from_numpy(book.vectors(range(book.n_entries))))
    best = (bits + rates).argmin(1, keepdim=True)
    return tuple(found.gather(1, best)[:, 0] for found in (likely, bits, rates))


def step(lab, tokens, own, state, rate):
    """A step of Adam of corrections (R, M, D), by the gradients of rows of tokens at vectors that `own` gives."""
    values, mean, square, n = state
    wanted = values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(lab._costs(own(wanted), tokens).sum(), wanted)
    mean.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
    square.mul_(BETAS[1]).add_(gradient.square(), alpha=1 - BETAS[1])
    corrected = mean / (1 - BETAS[0] ** (n + 1)), square / (1 - BETAS[1] ** (n + 1))
    values -= rate * corrected[0] / (corrected[1].sqrt() + 1e-8)
    return values, mean, square, n + 1


def begun(lab, data, base, n):
    """Which of `n` clusters the gradients of windows belong to, at their entries (N, M, D)."""
    directions = []
    for rows in torch.arange(len(base)).split(BATCH):
        at = base[rows].requires_grad_()
        (gradient,) = torch.autograd.grad(lab._costs(at, data.tokens[rows]).sum(), at)
        directions.append((gradient / (gradient.norm(dim=(1, 2), keepdim=True) + 1e-9)).flatten(1))
    points = torch.cat(directions)
    return clusters(points @ torch.randn(points.shape[1], 64) / 8, n, torch.Generator().manual_seed(0))


@click.group(help=__doc__.split("\n\n")[0])
def cli():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("texts", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", help="A folder with a codebook; the built-in model without it.")
@click.option("--windows", "n_windows", default=2000, show_default=True)
@click.option("--lanes", "n_lanes", default=220, show_default=True)
@click.option("--sizes", default="2,4,8", show_default=True, help="Numbers of corrections.")
@click.option("--minutes", default=4.0, show_default=True, help="For each size.")
def residuals(results, texts, held_out, model, n_windows, n_lanes, sizes, minutes):
    """Learn corrections of the chosen entry, and measure them on cold lanes."""
    exact = cramzip.load(model)
    book, lm = exact.codebook, as_torch(exact)
    entries = torch.from_numpy(book.vectors(range(book.n_entries)))
    learned, _ = windows(lm, by_kind([texts]), n_windows, seed=1)
    trial, _ = windows(lm, by_kind([held_out]), n_lanes, seed=3)
    lab, other = Learning(lm, learned, (1, 1)), Learning(lm, trial, (1, 1))
    entry, _, _ = chosen(lab, book, learned)
    theirs, plain, _ = chosen(other, book, trial)
    kept = torch.arange(0, len(theirs), max(1, len(theirs) // 60))  # lanes that are coded with all that is learned
    base = torch.stack(
        [torch.tensor(bits_of(exact, trial.tokens[i].tolist(), entries[theirs[i]].numpy())) for i in kept]
    )
    for size in map(int, sizes.split(",")):
        labels = begun(lab, learned, entries[entry], size)
        zeros = torch.zeros(size, *entries.shape[1:])
        state, begin, rounds = (zeros.clone(), zeros.clone(), zeros.clone(), 0), time.monotonic(), 0
        while (used := (time.monotonic() - begin) / 60) < minutes:
            rows = torch.randint(len(entry), (BATCH,))
            scale = RATE * lm.embedding_scale * (1 - 0.9 * used / minutes)
            state = step(
                lab,
                learned.tokens[rows],
                lambda r, at=entries[entry[rows]], own=labels[rows]: at + r[own],
                state,
                scale,
            )
            state[0][0] = 0.0
            if used > minutes / 2 and not rounds:
                labels, rounds = cheapest(lab, learned, entries[entry], state[0], TRIED_ON).argmin(1), 1
        shares = torch.bincount(labels, minlength=size) + 1.0
        costs = cheapest(other, trial, entries[theirs], state[0]) - (shares / shares.sum()).log2()
        best = costs.argmin(1)
        said = -(shares / shares.sum()).log2()[best]
        saved = plain - (costs.amin(1) - said)
        whole = entries[theirs] + state[0][best]
        integers = quantise(whole.flatten(0, 1).numpy())
        whole = (integers.integers * integers.scales[:, None]).reshape(whole.shape).astype(np.float32)
        learning = [bits_of(exact, trial.tokens[i].tolist(), whole[i]) for i in kept]
        record = {
            "what": "residuals",
            "corrections": size,
            "lanes": len(saved),
            "steps": state[3],
            "windows": len(entry),
        }
        record |= {"spent": summary(said)[0], "saved": summary(saved), "balance": summary(saved - said)}
        record |= {"learned_lanes": len(kept), "saved_with_learner": summary(base - torch.tensor(learning))}
        add(results, record | {"spent_there": summary(said[kept])[0], "entry_saved": summary(other.without - plain)})


def cheapest(lab, data, base, corrections, length=LANE):
    """Bits (N, R) of the first tokens of windows after their entries (N, M, D) with each of the corrections."""
    n, each = len(base), len(corrections)
    flat = (base[:, None] + corrections).flatten(0, 1)
    return lab.bits(data.tokens[:, :length], torch.arange(n * each).view(n, each), flat)


@cli.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", help="A folder with a codebook; the built-in model without it.")
@click.option("--lanes", "n_lanes", default=32, show_default=True)
@click.option("--steps", default=60, show_default=True)
def own(results, files, model, n_lanes, steps):
    """Optimise one vector for all lanes of a file, through the quantiser, and compare it with the best single entry."""
    exact = cramzip.load(model)
    book, lm = exact.codebook, as_torch(exact)
    entries = torch.from_numpy(book.vectors(range(book.n_entries)))
    for path in files:
        ids = [token for piece in lm.tokenizer.encode(path.read_bytes()) for token in piece.ids or []]
        lengths = np.linspace(0, len(ids), n_lanes + 1).astype(int)[:-1]
        tokens = torch.tensor([ids[first : first + LANE] for first in lengths])
        lab = Learning(lm, Windows(tokens, torch.zeros(n_lanes, dtype=torch.bool)), (1, 1))
        every = torch.arange(book.n_entries).expand(n_lanes, -1)
        likely = torch.from_numpy(book.guessed(lab.states.numpy())).mean(0).topk(20).indices
        bits = lab.bits(tokens, every[:, likely], entries)
        best = entries[likely[int(bits.sum(0).argmin())]]
        record = {"what": "own", "name": path.name, "lanes": n_lanes, "without": round(float(lab.without.sum()))}
        record |= {"entry_saved": round(float(lab.without.sum() - bits.sum(0).min())), "dimensions": lm.width}
        for name, coding in [("1", Coding.SIGNS), ("1.58", Coding.TERNARY)]:
            start = best[-1:].clone()
            state, least = (start, torch.zeros_like(start), torch.zeros_like(start), 0), math.inf
            for n in range(steps):
                rate = 0.3 * lm.embedding_scale * (1 - 0.9 * n / steps)
                state = step(lab, tokens, lambda v, c=coding: round_trip(v, c).expand(n_lanes, 1, -1), state, rate)
                with torch.no_grad():
                    stored = round_trip(state[0], coding)
                    least = min(least, float(lab._costs(stored.expand(n_lanes, 1, -1), tokens).sum()) / math.log(2))
            record[f"saved_at_{name}"] = round(float(lab.without.sum()) - least)
            record[f"spent_at_{name}"] = 8 * coding.vector_size(lm.width)
        add(results, record)


if __name__ == "__main__":
    cli()
