"""Look for text that a folder shares with the training texts.

    python overlap.py TRAINING FOLDER

A window is 50 letters and digits in a row, whatever their case and whatever stands between them.  Prints, as JSON, the
share of the folder's windows that occur in the training texts, by kind; `--hits FILE` lists the places.  Memory is
bounded: the folder is taken in slabs of some million letters, and the training texts are read once for each.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np
from texts import read_text, text_files

WINDOW = 50
SLAB = 1 << 24  # letters of the folder at once; ten bytes or so of memory each
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that the hash depends on every letter
BITMAP = 28  # bits of a hash that the bitmap takes in: 2**28 places, 256 MB


def letters(text):
    """The letters and digits of a text in lower case as code points, and where each stands in it."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    kept = np.array([c.isalnum() for c in map(chr, range(0x250))])
    places = np.flatnonzero((points >= len(kept)) | kept[np.minimum(points, len(kept) - 1)])
    lower = np.array([ord(chr(c).lower()[0]) for c in range(0x600)], dtype=np.uint32)
    points = points[places]
    return np.where(points < len(lower), lower[np.minimum(points, len(lower) - 1)], points), places


def window_hashes(points):
    """A hash of each window, shape (len(points) - WINDOW + 1,), by doubling: windows of 1, 2, 4, ... letters."""
    whole, done, power, size, base = None, 0, (points.astype(np.uint64) + np.uint64(1)) * BASE, 1, BASE
    base_done = np.uint64(1)
    with np.errstate(over="ignore"):
        while True:
            if WINDOW & size:
                n = len(points) - done - size + 1
                if n <= 0:
                    return np.zeros(0, dtype=np.uint64)
                part = power[done : done + n] * base_done
                whole = part if whole is None else whole[:n] + part
                done, base_done = done + size, base_done * base
            if 2 * size > WINDOW:
                break
            if len(power) <= size:
                return np.zeros(0, dtype=np.uint64)
            power = power[:-size] + base * power[size:]
            size, base = 2 * size, base * base
        whole ^= whole >> np.uint64(32)
        return whole * BASE


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


def shared(hashes, training):
    """Which of the hashes occur in the training texts: a bitmap sifts, a sorted list decides."""
    wanted = np.unique(hashes)
    bitmap = np.zeros(1 << BITMAP, dtype=bool)
    shift = np.uint64(64 - BITMAP)
    bitmap[wanted >> shift] = True
    found = np.zeros(len(wanted), dtype=bool)
    for path, _ in training:
        theirs = window_hashes(letters(read_text(path))[0])
        theirs = theirs[bitmap[theirs >> shift]]
        where = np.minimum(np.searchsorted(wanted, theirs), len(wanted) - 1)
        found[where[wanted[where] == theirs]] = True
    return found[np.searchsorted(wanted, hashes)]


def runs(marks):
    """The beginnings and ends of the runs of True."""
    edges = np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8))
    return zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)


def compare(training, folder, listed):
    """Counts of windows and of shared ones by kind; each place goes to `listed` as a record."""
    windows, hits = Counter(), Counter()
    training = text_files(training)
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
@click.argument("training", type=click.Path(exists=True, file_okay=False))
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
