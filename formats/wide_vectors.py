"""The test vectors that are exact files of a model with float weights. Written from cram.md and exact.md alone."""

from dataclasses import replace

import wide
from codebook_vectors import invalid_with_codebook, valid_with_codebook
from exact_vectors import ALONE, LEARNING, LINES, SHORT, TEXT, Modeller, flipped
from llama import fingerprint, read_config, read_tensors, token_table, tokenizer_hash
from writer import AFTER_START, STANDARD_LANES, Lanes, Model, bad, draw, now_and_then, ok, tokens_of, told

WIDE = 0x80  # of Learning


class WideModeller(Modeller):
    """Makes exact files of a model with float weights."""

    def __init__(self, folder):
        config, tensors = read_config(folder), read_tensors(folder)
        self.model, self.table = wide.Model(config, tensors), token_table(folder)
        self.block = Model(fingerprint(config, tensors), tokenizer_hash(self.table))
        self.probe = wide.probe(self.model)[:4]

    def drawn(self, seed, coding, count=1):
        """The bytes of some vectors."""
        return draw(seed, coding & ~AFTER_START, count, self.model.width, 126)

    def file(self, *groups, lanes=ALONE, probe=None, **fields):
        lanes = replace(lanes, learning=lanes.learning | WIDE, probe=self.probe if probe is None else probe)
        return super().file(*groups, lanes=lanes, **fields)


def valid(modeller):
    def coded(count, want=now_and_then, lanes=ALONE, **fields):
        return modeller.file(modeller.coded(count, want, lanes=lanes), lanes=lanes, **fields)

    yield ok("wide-coded", "an exact file of a model with float weights: 24 coded tokens", coded(24))
    text = tokens_of(TEXT, modeller.table)
    yield ok("wide-text", "coded text, learned from, with the standard lanes", coded(len(text), told(text), LEARNING))
    often = tokens_of(LINES, modeller.table) * 99
    yield ok("wide-lanes", "260 tokens in lanes of 20", coded(260, told(often), Lanes(20, 1024, 1)))
    yield ok(
        "wide-adapted", "1,024 tokens in lanes of 100, with an adapter", coded(1024, told(often), Lanes(100, 99, 2))
    )
    forgets = coded(700, lambda t, falling: falling[int(t % 29 == 7)], Lanes(limit=1))
    yield ok("wide-forgets", "a lane of 700 positions: at 510 and at 680 it forgets some that it sees", forgets)
    group = modeller.continued(modeller.begin(SHORT), 24, now_and_then)
    file = modeller.after(SHORT, group)
    yield ok("wide-dictionary", "24 tokens after a dictionary", file, dictionary=SHORT)
    for coding, name in ((1, "signs"), (4 | AFTER_START, "after-start"), (7, "floats")):
        vectors, lanes = modeller.drawn(5, coding, 3), Lanes(8, 1024, 1)
        group = modeller.coded(24, now_and_then, vectors, coding, lanes)
        yield ok(
            f"wide-prompted-{name}",
            f"three lanes after a vector each, of coding {coding & ~AFTER_START}",
            modeller.file(group, coding=coding, lanes=lanes),
        )
    for coding, name in ((3, "recited"), (7 | AFTER_START, "recited-after-start")):
        group = modeller.recited(modeller.drawn(6, coding, 2), 9, coding)
        yield ok(f"wide-{name}", "9 tokens, recited after two vectors", modeller.file(group, coding=coding))
    brief = replace(modeller.block, model_id=b"")
    yield ok("wide-brief", "a model without a name, whose hashes are cut", coded(24, hash_size=4, model=brief))


def invalid(modeller):
    file = modeller.file(modeller.coded(24, now_and_then, lanes=LEARNING), lanes=LEARNING)
    for value in (3, 0x7F):
        parameters = replace(file.parameters, learning=value | WIDE)
        yield bad(f"header-wide-learning-{value}", f"Learning is 128 + {value}", replace(file, parameters=parameters))
    builtin = replace(file, model=None, digest=modeller.block.fingerprint[:4])
    yield bad("header-wide-builtin", "bit 7 of Learning in a file of a built-in model", builtin)
    yield bad("header-wide-cut", "the file ends within Probe", file.header()[:-3])
    other = modeller.file(*file.groups, lanes=LEARNING, probe=flipped(modeller.probe))
    yield bad("model-wide-probe", "Probe differs", other)
    integers = replace(file, parameters=STANDARD_LANES)
    yield bad("model-wide-missing", "an exact file without Probe, and a model with float weights", integers)


def all_vectors(folder):
    modeller = WideModeller(folder)
    yield from valid(modeller)
    yield from invalid(modeller)
    yield from valid_with_codebook(modeller)
    yield from invalid_with_codebook(modeller)
