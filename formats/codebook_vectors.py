"""The test vectors with chosen groups, for exact_vectors.py. Written from cram.md and exact.md alone."""

from dataclasses import replace

from writer import CHOSEN, CODED, STANDARD_LANES, Group, Lanes, bad, best, now_and_then, ok, raw, tokens_of, told

ALONE = Lanes(limit=1)
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
