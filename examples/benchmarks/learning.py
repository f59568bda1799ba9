"""What is learned while decoding: whole files of real texts, with it and without, beside other compressors.

    python learning.py gather TEXTS [FOLDER ...]     # texts of this machine, and of FOLDERs, as TEXTS/KIND/FILE
    python learning.py measure TEXTS -o OUT.jsonl    # a line of JSON for each text, then a table

`gather` takes the largest texts of each kind that it finds among logs, the standard library, packages, headers and
documents, and lock files that npm makes; none of these was in the training texts of the built-in model. Every file that
`measure` makes is decoded again, and compared.
"""

import argparse
import json
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


def size_of(data, lm, level):
    """Bytes of the smallest file; it was decoded again."""
    blob = cramzip.compress(data, lm, cramzip.CramConfig(effort=level), strip=True)
    if cramzip.decompress(blob, lm) != data:
        raise AssertionError("not the same bytes")
    return len(blob)


def measure(texts, level):
    """A record for each text."""
    lm = cramzip.load()
    for path in sorted(texts.glob("*/*")):
        data = path.read_bytes()
        with learning(level, 0):
            without = size_of(data, lm, level)
        record = {"kind": path.parent.name, "text": path.name, "bytes": len(data), "level": level, "without": without}
        record["with"] = size_of(data, lm, level)
        rivals = {name: len(RIVALS[name].compress(data)) for name in installed()}
        yield record | rivals


def show(records):
    print("| kind | texts | without | with | less | best of the others |\n|---|---|---|---|---|---|")
    for kind in SUFFIXES:
        rows = [record for record in records if record["kind"] == kind]
        if rows:
            names = rows[0].keys() - {"kind", "text", "bytes", "level", "without", "with"}
            saved = statistics.mean(1 - row["with"] / row["without"] for row in rows)
            sums = [sum(row[key] for row in rows) for key in ("without", "with")]
            others = sum(min(row[name] for name in names) for row in rows)
            print(f"| {kind} | {len(rows)} | {sums[0]:,} | {sums[1]:,} | {saved:.1%} | {others:,} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("gather", "measure"))
    parser.add_argument("texts", type=Path)
    parser.add_argument("folders", nargs="*", help="where gather looks first")
    parser.add_argument("--count", type=int, default=3, help="texts of each kind")
    parser.add_argument("--level", type=int, default=LEVEL)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    if given.job == "gather":
        return gather(given.texts, given.folders, given.count)
    records = []
    with given.output.open("a", encoding="utf-8") if given.output else nullcontext(sys.stderr) as out:
        for record in measure(given.texts, given.level):
            records.append(record)
            print(json.dumps(record), file=out, flush=True)
    return show(records)


if __name__ == "__main__":
    main()
