"""Do a few bits that choose among learned vectors pay? The start of a file, with one of K vectors before it.

    python prompts_study.py results.jsonl TRAINING HELD_OUT [-m MODEL]      folders with a folder of texts for each kind

For every kind of text one float vector is trained on the beginnings of its texts.  At the beginnings of held-out
texts each of these vectors takes the place of the start token, and the best of them, or the start token itself, is
chosen: that takes log2(K + 1) bits.  Counted is what the text costs less.
"""

import json
import math
from pathlib import Path

import click
import torch

import cramzip
from cramzip.coding.cram import Slots
from cramzip.coding.encode import Writer
from cramzip.coding.view import Chunk
from cramzip.config import CramConfig
from cramzip.lm.frozen import token_costs
from cramzip.lm.models import as_torch

LENGTH, LEAST = 80, 40  # tokens of a beginning, and the fewest that count
BYTES = 600  # that hold them
RATE = 0.5  # at first, in units of the embedding scale


def beginnings(lm, folder, n):
    """The first tokens of up to `n` texts in a folder."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = path.read_bytes()[:BYTES].decode(errors="ignore").encode()
        ids = [token for piece in lm.tokenizer.encode(text) for token in piece.ids or []][:LENGTH]
        if len(ids) >= LEAST:
            found.append(ids)
        if len(found) == n:
            break
    return found


class Shared(Slots):
    """One vector for all chunks: they start alike, and move by the sum of their gradients, at a decaying rate."""

    def initial(self, chunk):
        return self.lm.embed(torch.tensor([self.lm.start], device=self.lm.device)).cpu() / self.lm.embedding_scale

    def move(self, gradient):
        super().move(gradient.sum(0, keepdim=True).expand_as(gradient))

    def rate(self):
        return RATE * (1 - self.steps / (self.config.steps + 1))


def learn(lm, rows, steps):
    """One vector (1, D) that makes the rows likelier."""
    slots = Shared(Writer(lm, CramConfig(bits="16", max_steps=steps, dtype="float32")).goal, 1, 0)
    slots.add(list(enumerate(sorted((Chunk(row) for row in rows), key=lambda chunk: chunk.length))))
    for _ in range(steps):
        slots.step()
    return slots.x[0] * lm.embedding_scale


@torch.inference_mode()
def bits(lm, before, row):
    """What a row of tokens costs after `before` (1, D)."""
    inputs = torch.cat([before, lm.embed(torch.tensor(row[:-1], device=lm.device))])
    targets = torch.tensor([row], device=lm.device)
    return float(token_costs(lm.logits(inputs[None], len(row)).float(), targets).sum()) / math.log(2)


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("training", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", help="As for cramzip; the built-in model without it.")
@click.option("--texts", default=48, show_default=True, help="Of each kind, to learn from.")
@click.option("--held-out-texts", default=12, show_default=True, help="Of each kind, to measure with.")
@click.option("--steps", default=60, show_default=True)
def main(results, training, held_out, model, texts, held_out_texts, steps):
    lm = as_torch(cramzip.load(model))
    start = lm.embed(torch.tensor([lm.start], device=lm.device))
    vectors = {"start token": start}
    for folder in sorted(path for path in training.iterdir() if path.is_dir()):
        rows = beginnings(lm, folder, texts)
        if len(rows) >= 4:
            vectors[folder.name] = learn(lm, rows, steps)
            click.echo(f"{folder.name}: a vector from {len(rows)} texts", err=True)
    spent = math.log2(len(vectors))
    for folder in sorted(path for path in held_out.iterdir() if path.is_dir()):
        rows = beginnings(lm, folder, held_out_texts)
        if not rows:
            continue
        costs = torch.tensor([[bits(lm, before, row) for row in rows] for before in vectors.values()])  # (K + 1, rows)
        record = {
            "model": lm.model_id,
            "kind": folder.name,
            "texts": len(rows),
            "bits_without": round(float(costs[0].mean()), 1),
            "bits_saved": round(float((costs[0] - costs.amin(0)).mean()), 1),
            "bits_spent": round(spent, 1),
            "chosen": [[*vectors][index] for index in costs.argmin(0).tolist()],
        }
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
