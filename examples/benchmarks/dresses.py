"""What the dress of a text costs: whole files of the text as it is and in each dress, made and decoded again.

    python dresses.py NOVEL.txt FRENCH.txt ...              # a line of JSON for each file, then a table
    python dresses.py NOVEL.txt --only crlf,"half crlf"     # some dresses

Texts are UTF-8 with LF. A dress that a text cannot have, such as a code page without its letters, is left out.
"""

import argparse
import json
import random
import re
import sys
import unicodedata
from pathlib import Path

import cramzip

SEED = 1
PAGES = ("cp1252", "cp1250", "cp1251", "latin-1", "iso8859-2", "iso8859-15", "koi8-r", "mac-roman", "cp437", "cp866")
MOST = {  # how much larger than plain a file may be
    "crlf cr mark utf-16-le utf-16-be utf-32-le utf-32-be": 0.005,
    " ".join(PAGES): 0.01,
    "decomposed no-break trailing quoted indented": 0.03,
    "mixed": 0.05,
    "capitals": 0.15,
}
LIMITS = {name: limit for names, limit in MOST.items() for name in names.split()}
LATIN = "Le garçon était là, près de la fenêtre, à écouter la pluie. « Où êtes-vous allé cet été ? » demanda-t-elle.\n"
LATIN += "Il ne répondit pas tout de suite ; il pensait à la mer, à l'odeur du café brûlé, aux années passées.\n\n"
APART = 2000  # bytes between stray ones, on average


def encoded(text, page):
    """The text in a code page; None where that says nothing new, or cannot be."""
    try:
        return None if text.isascii() else text.encode(page)
    except UnicodeEncodeError:
        return None


def decomposed(text):
    found = unicodedata.normalize("NFD", text)
    return None if found == text else found.encode()


def middle(lines):
    """Where the second half of some lines begins."""
    return len(lines) // 2


def half_crlf(text):
    lines = text.splitlines(keepends=True)
    return "".join(lines[: middle(lines)]) + "".join(lines[middle(lines) :]).replace("\n", "\r\n")


def any_crlf(text):
    """CRLF at the end of every other line, by chance."""
    draw = random.Random(SEED)
    return re.sub("\n", lambda _: draw.choice(["\n", "\r\n"]), text)


def with_latin(text, page=None):
    """A paragraph of French in the middle: in UTF-8, or in a code page."""
    lines = text.splitlines(keepends=True)
    before, after = "".join(lines[: middle(lines)]), "".join(lines[middle(lines) :])
    return before.encode() + LATIN.encode(page or "utf-8") + after.encode()


def with_strays(data):
    """Bytes that belong to nothing, at places by chance, none of them within a character."""
    draw, out, at = random.Random(SEED), bytearray(), 0
    for place in sorted(draw.sample(range(len(data)), len(data) // APART)):
        if data[place] < 0x80:
            out += data[at:place] + bytes([draw.randrange(0x80, 0x100)])
            at = place
    return bytes(out + data[at:])


def mixed(text):
    """All of it: CRLF in one half, a paragraph of Latin-1 and strays."""
    return with_strays(with_latin(half_crlf(text), "latin-1"))


DRESSES = {
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "mark": lambda text: ("\ufeff" + text).encode(),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: ("\ufeff" + text).encode("utf-16-be"),
    "utf-32-le": lambda text: text.encode("utf-32-le"),
    "utf-32-be": lambda text: ("\ufeff" + text).encode("utf-32-be"),
    "utf-16 crlf": lambda text: ("\ufeff" + text.replace("\n", "\r\n")).encode("utf-16-le"),
    **{page: lambda text, page=page: encoded(text, page) for page in PAGES},
    "decomposed": decomposed,
    "no-break": lambda text: text.replace(" ", "\xa0").encode(),
    "trailing": lambda text: text.replace("\n", " \n").encode(),
    "quoted": lambda text: re.sub("^", "> ", text, flags=re.MULTILINE).encode(),
    "indented": lambda text: re.sub("^(?=.)", "    ", text, flags=re.MULTILINE).encode(),
    "capitals": lambda text: text.upper().encode(),
    "half crlf": lambda text: half_crlf(text).encode(),
    "any crlf": lambda text: any_crlf(text).encode(),
    "latin": lambda text: with_latin(text, "latin-1"),
    "strays": lambda text: with_strays(text.encode()),
    "mixed": mixed,
}
CLEANED = {"latin": with_latin, "mixed": with_latin}  # what these are compared with


def file_size(lm, data, effort):
    """Bytes of the whole file, and the filters of its groups. Raises SystemExit if it does not come back."""
    from cramzip.container import reading
    from cramzip.container.description import describe

    blob = cramzip.compress(data, lm, cramzip.CramConfig(effort=effort))
    if cramzip.decompress(blob, lm) != data:
        sys.exit("what came back differs")
    return len(blob), sorted({", ".join(names) for names in describe(reading.read(blob)).filters})


def measured(lm, path, names, effort):
    """A record for each dress."""
    text = path.read_bytes().decode()
    plain = {}
    for name in names:
        data = DRESSES[name](text)
        if data is None:
            continue
        clean = CLEANED.get(name, str.encode)(text)
        if clean not in plain:
            plain[clean] = file_size(lm, clean, effort)[0]
        size, filters = file_size(lm, data, effort)
        record = {"text": path.name, "dress": name, "bytes": len(data), "plain_bytes": len(clean), "file": size}
        record |= {"plain_file": plain[clean], "larger": round(size / plain[clean] - 1, 5), "filters": filters}
        yield record | {"limit": LIMITS.get(name), "effort": effort, "model": lm.model_id}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--only", help="dresses, with commas between them")
    parser.add_argument("--effort", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="append the lines to this file, too")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(DRESSES)
    lm, records = cramzip.load(), []
    for path in arguments.texts:
        for record in measured(lm, path, names, arguments.effort):
            records.append(record)
            line = json.dumps(record)
            print(line, flush=True)
            if arguments.output:
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
    for one in records:
        verdict = "" if one["limit"] is None or one["larger"] <= one["limit"] else f"  over {one['limit']:.1%}"
        sizes = f"{one['plain_file']:>8,} {one['file']:>8,} {one['larger']:>8.2%}"
        print(f"{one['text']:<16} {one['dress']:<14} {sizes}{verdict}")


if __name__ == "__main__":
    main()
