"""Learns the codebook of a model: vectors that texts may begin with instead of the start token.

    python codebook.py TEXTS MODEL_FOLDER [--from EARLIER] [--minutes 12 | --until 20:45] [--held-out FOLDER]

TEXTS holds files in UTF-8; its first-level folders name the kinds of text. MODEL_FOLDER is one for exact arithmetic;
what is learned becomes `mem.safetensors` in it, after every round. By it the model changes its fingerprint.
"""

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import click
import torch

from cramzip.exact import CODEBOOK_NAME
from cramzip.exact.codebook import pack, read_codebook
from cramzip.laboratory.codebook import Learning
from cramzip.laboratory.windows import by_kind, windows
from cramzip.lm.models import as_torch, load
from cramzip.whole import write_whole


def by_kind_of_text(gains, names):
    """Means of the bits by which texts became smaller: of all, and of each kind."""
    kinds = {}
    for name, gain in zip(names, gains.tolist(), strict=True):
        kinds.setdefault(name, []).append(gain)
    return float(gains.mean()), {name: sum(own) / len(own) for name, own in sorted(kinds.items())}


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
    weights = dict(weights)
    learning = Learning(lm, windows(lm, by_kind([texts]), given["n_windows"], weights, 1)[0], shape)
    trial, names = windows(lm, by_kind([held_out]), given["held_out_windows"], weights, 2) if held_out else (None, ())
    reserve = 0.05 * left if trial else 0.0  # for each round's trial
    click.echo(f"{len(learning.labels)} windows of {float(learning.without.mean()):.0f} bits", err=True)

    def tell(line):
        click.echo(f"{time.monotonic() - begin:5.0f} s  {line}", err=True)

    for codebook in learning.run(left - (time.monotonic() - begin) - 3 * reserve, known, tell):
        write_whole(folder / CODEBOOK_NAME, pack(codebook))
        if trial:
            saved, spent = learning.trial(codebook, trial)
            mean, kinds = by_kind_of_text(saved - spent, names)
            record = {"seconds": round(time.monotonic() - begin), "bits_saved": round(mean, 2)}
            record |= {kind: round(gain, 1) for kind, gain in kinds.items()}
            tell(f"held-out texts: {json.dumps(record)}")
            if given["log"]:
                with given["log"].open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
    tell(f"{folder / CODEBOOK_NAME}: {(folder / CODEBOOK_NAME).stat().st_size} bytes")


if __name__ == "__main__":
    main()
