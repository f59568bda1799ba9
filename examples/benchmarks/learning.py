"""What is learned while decoding: whole files of real texts, with it and without, beside other compressors.

    python learning.py gather TEXTS [FOLDER ...]     # texts of this machine, and of FOLDERs, as TEXTS/KIND/FILE
    python learning.py measure TEXTS -o OUT.jsonl    # a line of JSON for each text, then a table
    python learning.py before TEXTS CHECKOUT ... -o OUT.jsonl    # the same texts by older versions of cramzip
    python learning.py show OUT.jsonl                # the table again, with all that OUT.jsonl holds

`gather` takes the largest texts of each kind that it finds among logs, the standard library, packages, headers and
documents, and lock files that npm makes; none of these was in the training texts of the built-in model. What
`measure` makes by default is decoded again, and compared. A CHECKOUT is the folder of another version; its
`c --smallest` is run as a user would, and the gain against it is that of all that changed since, the model too.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import cramzip
from cramzip.app.rivals import RIVALS, installed
from cramzip.coding.laned import LANES
from cramzip.filters.encodings import is_utf8

SUFFIXES = {
    "log": ".log",
    "python": ".py",
    "c": ".c .h",
    "json": ".json",
    "yaml": ".yaml .yml",
    "csv": ".csv",
    "markdown": ".md",
    "html": ".html",
    "prose": ".txt",  # of folders that are given alone: what else ends so is mostly none
}
KIND_OF = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes.split()}
PATHS = sysconfig.get_paths()
FOLDERS = ("/var/log", PATHS["stdlib"], PATHS["purelib"], "/usr/include", "/usr/share/doc", "/usr/lib/node_modules")
LOCKED = ("express", "webpack", "eslint")  # packages of npm whose lock files are JSON of packages
MOST_BYTES, LEAST_BYTES = 60_000, 1000
LEVEL = 5


def lock_files(folder):
    """Lock files of some packages of npm, where there is npm and a registry."""
    for package in LOCKED if shutil.which("npm") else ():
        with tempfile.TemporaryDirectory() as place:
            command = ["npm", "install", "--package-lock-only", "--silent", package]
            subprocess.run(command, cwd=place, check=False, timeout=300)
            if (lock := Path(place, "package-lock.json")).exists():
                shutil.copy(lock, Path(folder, f"{package}-lock.json"))


def candidates(first):
    """(rank, size, path) of files by kind; those in the folders of `first` have rank 0."""
    found = {kind: {} for kind in SUFFIXES}
    for folder in (*first, *FOLDERS):
        for path in Path(folder).rglob("*"):
            kind = KIND_OF.get(path.suffix)
            if kind and (folder in first or kind != "prose") and path.is_file() and not path.is_symlink():
                found[kind].setdefault(path.name, (folder not in first, path.stat().st_size, path))
    return found


def gather(texts, folders, count):
    """Copy the beginnings of the largest texts of each kind, as whole lines."""
    with tempfile.TemporaryDirectory() as place:
        lock_files(place)
        for kind, files in candidates([*folders, place]).items():
            n = 0
            for _, _, path in sorted(files.values(), key=lambda one: (one[0], -one[1], one[2].name)):
                data = path.read_bytes()[:MOST_BYTES]
                data = data[: data.rfind(b"\n") + 1]
                if n < count and len(data) >= LEAST_BYTES and is_utf8(data):
                    (texts / kind).mkdir(parents=True, exist_ok=True)
                    (texts / kind / path.name).write_bytes(data)
                    n += 1


@contextmanager
def learning(level, value):
    """Lanes of a level with another parameter Learning."""
    before = LANES[level]
    LANES[level] = replace(before, learning=value)
    try:
        yield
    finally:
        LANES[level] = before


def measure(texts, level, quick):
    """A record for each text: bytes with learning, decoded again, by others, and unless `quick` without it."""
    lm = cramzip.load()
    config = cramzip.CramConfig(effort=level)
    for path in sorted(texts.glob("*/*")):
        data = path.read_bytes()
        record = fields(path, data) | {"level": level}
        if not quick:
            with learning(level, 0):
                record["without"] = len(cramzip.compress(data, lm, config, strip=True))
        blob = cramzip.compress(data, lm, config, strip=True)
        if cramzip.decompress(blob, lm) != data:
            raise AssertionError(f"{path}: not the same bytes")
        rivals = {name: len(RIVALS[name].compress(data)) for name in installed()}
        yield record | {"with": len(blob), "rivals": rivals}


def fields(path, data):
    return {"kind": path.parent.name, "text": path.name, "bytes": len(data)}


def before(texts, checkouts):
    """A record for each text and checkout: bytes of its `c --smallest`."""
    for path in sorted(texts.glob("*/*")):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as place:
                made = Path(place, "made.cram")
                command = [sys.executable, "-m", "cramzip", "c", "-q", "--smallest", path.resolve(), "-o", made]
                subprocess.run(command, cwd=place, env=os.environ | {"PYTHONPATH": checkout}, check=True)
                yield fields(path, path.read_bytes()) | {"checkout": Path(checkout).name, "size": made.stat().st_size}


def show(records):
    """The table of what `measure` and `before` wrote: sums of bytes, and the mean of what each text lost."""
    older = sorted({record["checkout"] for record in records if "checkout" in record})
    sizes = {(record["text"], record["checkout"]): record["size"] for record in records if "checkout" in record}
    columns = [*(["without"] if any("without" in record for record in records) else []), *older]
    print("| kind | texts | bytes | with |", *(f"{name} | less |" for name in columns), "best of the others |")
    print("|---" * (5 + 2 * len(columns)) + "|")
    measured = [record for record in records if "with" in record]
    for kind in dict.fromkeys(record["kind"] for record in measured):
        rows = [record for record in measured if record["kind"] == kind]
        cells = [kind, len(rows), *(f"{sum(row[key] for row in rows):,}" for key in ("bytes", "with"))]
        for name in columns:
            known = [(row, row.get(name) or sizes.get((row["text"], name))) for row in rows]
            known = [(row["with"], size) for row, size in known if size]
            cells += [f"{sum(size for _, size in known):,}", f"{mean(1 - ours / size for ours, size in known):.1%}"]
        print("|", " | ".join(map(str, [*cells, f"{sum(min(row['rivals'].values()) for row in rows):,}"])), "|")


def mean(values):
    values = list(values)
    return statistics.mean(values) if values else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("gather", "measure", "before", "show"))
    parser.add_argument("texts", type=Path)
    parser.add_argument("folders", nargs="*", help="where gather looks first; checkouts of other versions for before")
    parser.add_argument("--count", type=int, default=3, help="texts of each kind")
    parser.add_argument("--level", type=int, default=LEVEL)
    parser.add_argument("--quick", action="store_true", help="measure nothing without learning")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    if given.job == "gather":
        return gather(given.texts, given.folders, given.count)
    if given.job == "show":
        return show([json.loads(line) for line in given.texts.read_text(encoding="utf-8").splitlines()])
    is_older = given.job == "before"
    work = before(given.texts, given.folders) if is_older else measure(given.texts, given.level, given.quick)
    records = []
    with given.output.open("a", encoding="utf-8") if given.output else nullcontext(sys.stderr) as out:
        for record in work:
            records.append(record)
            print(json.dumps(record), file=out, flush=True)
    return show(records)


if __name__ == "__main__":
    main()
