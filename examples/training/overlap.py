"""Look for text that a folder shares with the training texts.

    python overlap.py TRAINING FOLDER

TRAINING is a folder of texts, or one that `train_model.py prepare` has made: then it is what was packed that counts.  A
window is 50 letters and digits in a row, whatever their case and whatever stands between them.  Prints, as JSON, the
share of the folder's windows that occur in the training texts, by kind; `--hits FILE` lists the places.  Memory is
bounded: the folder is taken in slabs of some million letters, and the training texts are read once for each.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np
from texts import packed_texts, read_text, text_files
from windows import WINDOW, Windows, letters, runs, window_hashes

SLAB = 1 << 24  # letters of the folder at once; some ten bytes of memory each


def slabs(files):
    """Lists of (path, kind, text, hashes, places) of about SLAB letters."""
    slab, n = [], 0
    for path, kind in files:
        text = read_text(path)
        points, places = letters(text)
        for begin in range(0, max(1, len(points) - WINDOW + 1), SLAB):
            hashes = window_hashes(points[begin : begin + SLAB + WINDOW - 1])
            slab.append((path, kind, text, hashes, places[begin:]))
            n += len(hashes)
            if n >= SLAB:
                yield slab
                slab, n = [], 0
    if slab:
        yield slab


def training_texts(folder):
    if (folder / "train.bin").exists():
        return packed_texts(folder)
    return (read_text(path) for path, _ in text_files(folder))


def shared(hashes, training):
    """Which of the hashes occur in the training texts."""
    wanted = Windows(hashes)
    found = np.zeros(len(wanted.hashes), dtype=bool)
    for text in training_texts(training):
        theirs = window_hashes(letters(text)[0])
        found[np.searchsorted(wanted.hashes, theirs[wanted.within(theirs)])] = True
    return found[np.searchsorted(wanted.hashes, hashes)]


def compare(training, folder, listed):
    """Counts of windows and of shared ones by kind; each place goes to `listed` as a record."""
    windows, hits = Counter(), Counter()
    for slab in slabs(text_files(folder)):
        marks = shared(np.concatenate([hashes for _, _, _, hashes, _ in slab]), training)
        for path, kind, text, hashes, places in slab:
            own, marks = marks[: len(hashes)], marks[len(hashes) :]
            windows[kind] += len(own)
            hits[kind] += int(own.sum())
            for begin, end in runs(own):
                first, last = int(places[begin]), int(places[end + WINDOW - 2])
                listed({"file": str(path), "at": first, "windows": end - begin, "text": text[first : last + 1][:200]})
    return windows, hits


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("training", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--hits", type=click.Path(dir_okay=False, path_type=Path), help="List the shared places here, as JSON lines."
)
@click.option("--limit", type=float, help="Exit with 1 if more than this share of the windows is shared.")
def main(training, folder, hits, limit):
    records = []
    windows, shared_windows = compare(training, folder, records.append)
    if hits:
        hits.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    total = sum(shared_windows.values()) / max(1, sum(windows.values()))
    kinds = {kind: {"windows": n, "shared": shared_windows[kind]} for kind, n in sorted(windows.items())}
    click.echo(json.dumps({"share": round(total, 6), "places": len(records), "kinds": kinds}, indent=2))
    sys.exit(limit is not None and total > limit)


if __name__ == "__main__":
    main()
