"""The test vectors with chosen groups, for exact_vectors.py. Written from cram.md and exact.md alone."""

import json
from dataclasses import replace

import codebook
import numpy as np
from writer import CHOSEN, CODED, STANDARD_LANES, Group, Lanes, bad, best, now_and_then, ok, raw, tokens_of, told

ALONE = Lanes(limit=1)
NAMED, HASH = 0x40, 4  # of Learning; bytes of Codebook_Hash
LINES = b'id, name; size|12\t3\nid, name; more|13\t3\n"a, b", "c"\n'


def valid_chosen(modeller):
    def chosen(count, choices, want=now_and_then, lanes=ALONE):
        group, encoder = modeller.chosen(count, want, choices, lanes)
        return modeller.file(replace(group, payload=encoder.shortest()), lanes=lanes)

    for entry in range(7):
        yield ok(f"chosen-entry-{entry}", f"24 coded tokens after entry {entry} of the codebook", chosen(24, [entry]))
    three = Lanes(tokens=4)
    yield ok("chosen-lanes", "three lanes after entries 2, 2 and 0", chosen(10, [2, 2, 0], lanes=three))
    description = "nine lanes after the likeliest and the unlikeliest entries"
    yield ok("chosen-lanes-of-one-token", description, chosen(9, [6, 0, 6, 5, 2, 2, 2, 6, 0], lanes=Lanes(tokens=1)))
    lines = tokens_of(LINES, modeller.table)
    learned = Lanes(20, 1024, 1)
    choices = [1, 3, 3, 2, 4, 4, 0][: -(-len(lines) // 20)]
    yield ok("chosen-learned", "lanes of 20 that are learned from", chosen(len(lines), choices, told(lines), learned))
    usual = chosen(len(lines), [0], told(lines), STANDARD_LANES)
    yield ok("chosen-standard", "one lane with the standard parameters", usual)
    yield ok("chosen-forgets", "a lane of 800 tokens, which forgets its entry", chosen(800, [1], best))
    yield ok(
        "chosen-most-lanes",
        "1025 tokens in 1024 lanes, which all choose the same",
        chosen(1025, [2] * 1024, best, Lanes(1, 1024)),
    )
    other = modeller.coded(9, now_and_then, lanes=ALONE)
    group, encoder = modeller.chosen(12, now_and_then, [3])
    file = modeller.file(replace(group, payload=encoder.shortest()), other, raw(b"-"), lanes=ALONE)
    yield ok("chosen-and-coded", "a chosen, a coded and a stored group", file)


def invalid_chosen(modeller):
    group, encoder = modeller.chosen(24, now_and_then, [3])
    group = replace(group, payload=encoder.shortest())

    def file(group, lanes=ALONE, **fields):
        return modeller.file(group, lanes=lanes, **fields)

    long = Group(CHOSEN, b"-" * 16, b"-" * 65521, 65521)
    yield bad(
        "table-chosen-positions", "a lane of 65,521 tokens after an entry: one too many", file(long, Lanes(2**16, 1))
    )
    many = Group(CHOSEN, b"\xc0", b"-" * 4097, 4097)
    yield bad("content-chosen-too-few", "4097 tokens and one byte", file(many, Lanes(2**16)))
    yield bad("content-chosen-as-coded", "a chosen group that is called coded", file(replace(group, kind=CODED)))
    coded = modeller.coded(24, now_and_then, lanes=ALONE)
    yield bad("content-chosen-none", "a coded group that is called chosen", file(replace(coded, kind=CHOSEN)))
    yield bad(
        "content-chosen-last-zero", "a zero after the coded tokens", file(replace(group, payload=encoder.with_zero()))
    )
    target = replace(group, payload=b"\xff" * 8)
    yield bad("content-chosen-target", "no entry has this code", file(target))


# ---------------------------------------------------------------- codebooks that are files of their own


def codebook_file(width, largest=0.5, **changed):
    """Three entries of two vectors, in a file; `changed` takes the place of tensors, where a dot is an underscore."""
    numbers = np.arange(3 * 2 * width, dtype=np.int64)
    arrays = {
        "mem.weight": (numbers * numbers * 40503 % 255 - 127).astype(np.int8).reshape(3, 2, width),
        "mem.scale": np.full((3, 2), largest / 127, np.float32),
        "mem.prior": np.array([[40000, 25000, 536], [10000, 50000, 5536]], np.float32),
        "selector.weight": np.zeros((3, width), np.int8),
        "selector.scale": np.ones(3, np.float32),
        "selector.bias": np.zeros(3, np.float32),
    }
    arrays |= {name.replace("_", "."): array for name, array in changed.items()}
    header, body = {}, b""
    for name, array in arrays.items():
        content = array.tobytes()
        header[name] = {"dtype": "I8" if array.dtype == np.int8 else "F32", "shape": list(array.shape)}
        header[name]["data_offsets"] = [len(body), len(body) + len(content)]
        body += content
    told = json.dumps(header, separators=(",", ":")).encode()
    return len(told).to_bytes(8, "little") + told + body


def named(lanes, content):
    """The same lanes with the codebook in a file."""
    return replace(lanes, learning=lanes.learning | NAMED, codebook=codebook.hash_of(content)[:HASH])


def with_codebook(modeller, book, count, choices, want=now_and_then, lanes=ALONE):
    """A file of one group whose lanes have chosen from `book`."""
    content, entries = book
    group, encoder = modeller.chosen(count, want, choices, lanes, entries)
    return modeller.file(replace(group, payload=encoder.shortest()), lanes=named(lanes, content))


def opened(width, block, **changed):
    content = codebook_file(width, **changed)
    return content, codebook.of_file(content, width, block)


def with_own_codebook(modeller, width):
    """Of a model for exact arithmetic, whose own codebook is not used."""
    book = opened(width, 256)
    file = with_codebook(modeller, book, 24, [1])
    yield ok("codebook-integers", "a codebook in place of the model's own", file, codebook=book[0])
    lines = tokens_of(LINES, modeller.table)
    file = with_codebook(modeller, book, len(lines), [0], told(lines), STANDARD_LANES)
    yield ok("codebook-standard", "the standard parameters, which are written out", file, codebook=book[0])


def valid_with_codebook(modeller):
    """Of a model with float weights."""
    book = opened(modeller.model.width, modeller.model.block)

    def vector(name, description, file):
        return ok(f"wide-codebook-{name}", description, file, codebook=book[0])

    for entry in range(3):
        yield vector(f"entry-{entry}", f"24 tokens after entry {entry}", with_codebook(modeller, book, 24, [entry]))
    lines = tokens_of(LINES, modeller.table)
    lanes = Lanes(20, 1024, 1)
    choices = [1, 1, 0, 2, 2, 1, 0][: -(-len(lines) // 20)]
    file = with_codebook(modeller, book, len(lines), choices, told(lines), lanes)
    yield vector("lanes", "lanes of 20 that are learned from", file)
    file = with_codebook(modeller, book, 700, [2], lambda t, falling: falling[int(t % 29 == 7)])
    yield vector("forgets", "at 66 a lane forgets its entry, at 510 and 680 more, but not what then stands first", file)


def invalid_with_codebook(modeller):
    model = modeller.model
    book = opened(model.width, model.block)
    file = with_codebook(modeller, book, 24, [1])

    def vector(name, description, file, content=book[0]):
        return bad(name, description, file, codebook=content)

    yield vector("header-codebook-cut", "the file ends within Codebook_Hash", file.header()[:-2])
    coded = modeller.file(modeller.coded(24, now_and_then, lanes=ALONE), lanes=named(ALONE, book[0]))
    yield vector("table-codebook-superfluous", "a codebook is named, but no group has chosen", coded)
    yield bad("model-codebook-missing", "the codebook is not given", file)
    yield vector("model-codebook-other", "another codebook", file, codebook_file(model.width, 0.25))
    nan = np.full((3, 2), np.nan, np.float32)
    few = np.array([[40000, 25000, 535], [10000, 50000, 5536]], np.float32)
    broken = {
        "nan": ("a scale that is no number", codebook_file(model.width, mem_scale=nan)),
        "prior": ("priors that add up to too little", codebook_file(model.width, mem_prior=few)),
        "width": ("vectors that are too long", codebook_file(model.width + 1)),
        "another": ("a tensor more", codebook_file(model.width, other=np.zeros(1, np.float32))),
        "cut": ("a byte is missing", book[0][:-1]),
        "longer": ("a byte more", book[0] + b"-"),
    }
    for what, (description, content) in broken.items():
        lanes = named(ALONE, content)
        lanes = replace(file.parameters, codebook=lanes.codebook)
        yield vector(
            f"model-codebook-{what}", f"the codebook has {description}", replace(file, parameters=lanes), content
        )
