"""Learns the codebook of a model: vectors that texts may begin with instead of the start token.

    python codebook.py TEXTS MODEL_FOLDER [--from EARLIER] [--minutes 12 | --until 20:45] [--held-out FOLDER]

TEXTS holds files in UTF-8; its first-level folders name the kinds of text. MODEL_FOLDER is one for exact arithmetic;
what is learned becomes `mem.safetensors` in it, after every round. By it the model changes its fingerprint.
"""

import json
import random
import time
from datetime import datetime, timedelta
from pathlib import Path

import click
import torch

from cramzip.exact import CODEBOOK_NAME
from cramzip.exact.codebook import pack, read_codebook
from cramzip.laboratory.codebook import Learning, Windows
from cramzip.lm.models import as_torch, load
from cramzip.whole import write_whole

LENGTH = 48  # tokens of a window
BYTES = 8 * LENGTH  # that hold them, but for texts of the densest kind
BEGINNINGS = 0.4  # of the windows: those of texts; the others begin anywhere, as lanes do
MOST_TRIES = 20  # for each window that is wanted of a kind
TRIED = 12  # entries that are tried for a held-out text


def files_by_kind(folder):
    kinds = {}
    for path in sorted(path for path in folder.rglob("[!.]*") if path.is_file() and path.stat().st_size):
        kinds.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return kinds


def window(lm, path, rng, begins):
    """The first tokens of a text, or tokens from somewhere in it; None if there are too few."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(0 if begins else rng.randrange(max(1, size - BYTES)))
        content = file.read(BYTES).decode(errors="ignore").encode()
    ids = [token for piece in lm.tokenizer.encode(content) for token in piece.ids or []]
    first = 0 if begins else rng.randrange(2, 5)  # the first tokens may be of half a word
    ids = ids[first : first + LENGTH]
    return ids if len(ids) == LENGTH else None


def windows(lm, folder, n, weights, seed):
    """About `n` windows, and their kinds: of each by its weight, and by the fourth root of its size."""
    rng, found = random.Random(seed), []
    kinds = files_by_kind(folder)
    sizes = {kind: sum(path.stat().st_size for path in paths) for kind, paths in kinds.items()}
    shares = {kind: weights.get(kind, 1.0) * size**0.25 for kind, size in sizes.items()}
    for kind, paths in kinds.items():
        wanted, roots = round(n * shares[kind] / sum(shares.values())), [p.stat().st_size ** 0.5 for p in paths]
        own = []
        for _ in range(MOST_TRIES * wanted):
            begins = rng.random() < BEGINNINGS
            path = rng.choice(paths) if begins else rng.choices(paths, roots)[0]
            if (ids := window(lm, path, rng, begins)) is not None:
                own.append((ids, begins, kind))
            if len(own) == wanted:
                break
        found += own
    rng.shuffle(found)
    tokens, begins, names = zip(*found, strict=True)
    return Windows(torch.tensor(tokens), torch.tensor(begins)), names


def held_out_gains(learning, codebook, held_out, names):
    """Bits that the best likely entry saves, less what saying so takes; nothing where the start token is better."""
    without, states = learning.begun(held_out.tokens)
    likely = torch.from_numpy(codebook.guessed(states.numpy())).topk(min(TRIED, codebook.n_entries)).indices
    vectors = torch.from_numpy(codebook.vectors(range(codebook.n_entries)))
    rates = -torch.from_numpy(codebook.priors / codebook.priors.sum(1, keepdims=True)).log2()
    spent = torch.stack([rates[0 if begins else 1][own] for begins, own in zip(held_out.begins, likely, strict=True)])
    gains = (without[:, None] - learning.bits(held_out.tokens, likely, vectors) - spent).amax(1).clamp(min=0)
    by_kind = {}
    for name, gain in zip(names, gains.tolist(), strict=True):
        by_kind.setdefault(name, []).append(gain)
    return float(gains.mean()), {name: sum(own) / len(own) for name, own in sorted(by_kind.items())}


def seconds_left(minutes, until):
    if until is None:
        return 60 * minutes
    now = datetime.now()
    end = now.replace(hour=int(until[:2]), minute=int(until[3:]), second=0)
    return ((end if end > now else end + timedelta(days=1)) - now).total_seconds()


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("texts", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--from",
    "earlier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An earlier codebook, to begin with.",
)
@click.option(
    "--held-out", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Texts to measure with."
)
@click.option("--entries", default=256, show_default=True)
@click.option("--vectors", default=2, show_default=True, help="Of each entry.")
@click.option("--windows", "n_windows", default=20000, show_default=True, help="To learn from.")
@click.option("--held-out-windows", default=300, show_default=True)
@click.option("--minutes", default=12.0, show_default=True, help="In all, about.")
@click.option("--until", metavar="HH:MM", help="Instead of minutes.")
@click.option("--weight", "weights", type=(str, float), multiple=True, metavar="KIND N", help="More of a kind.")
@click.option("--threads", default=1, show_default=True)
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Add a line of JSON for each round.")
def main(texts, folder, earlier, held_out, weights, **given):
    begin, left = time.monotonic(), seconds_left(given["minutes"], given["until"])
    torch.set_num_threads(given["threads"])
    lm = as_torch(load(str(folder)))
    known = read_codebook(earlier, lm.width) if earlier else None
    shape = (known.n_entries, known.n_each) if known else (given["entries"], given["vectors"])
    learning = Learning(lm, windows(lm, texts, given["n_windows"], dict(weights), 1)[0], shape)
    trial = windows(lm, held_out, given["held_out_windows"], dict(weights), 2) if held_out else None
    reserve = 0.05 * left if trial else 0.0  # for each round's trial
    click.echo(f"{len(learning.labels)} windows of {float(learning.without.mean()):.0f} bits", err=True)

    def tell(line):
        click.echo(f"{time.monotonic() - begin:5.0f} s  {line}", err=True)

    for codebook in learning.run(left - (time.monotonic() - begin) - 3 * reserve, known, tell):
        write_whole(folder / CODEBOOK_NAME, pack(codebook))
        if trial:
            mean, by_kind = held_out_gains(learning, codebook, *trial)
            record = {"seconds": round(time.monotonic() - begin), "bits_saved": round(mean, 2)}
            record |= {kind: round(gain, 1) for kind, gain in by_kind.items()}
            tell(f"held-out texts: {json.dumps(record)}")
            if given["log"]:
                with given["log"].open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
    tell(f"{folder / CODEBOOK_NAME}: {(folder / CODEBOOK_NAME).stat().st_size} bytes")


if __name__ == "__main__":
    main()
