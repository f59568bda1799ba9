"""The test vectors that are exact files, for make_vectors.py. Written from cram.md and exact.md alone."""

import hashlib
from dataclasses import replace

import codebook
import codebook_vectors
import dictionary
import reader
from exact import Model as ExactModel
from exact import Reciter, arrays, chosen, counts, lane_lengths, order, run_lanes
from learner import Learner
from llama import fingerprint, read_config, read_tensors, token_table, tokenizer_hash
from make_model import END
from writer import (
    AFTER_START,
    CHOSEN,
    CODED,
    CORRECTED,
    NAIL,
    PREDICTED,
    PROMPTED,
    RECITED,
    STANDARD_LANES,
    File,
    Group,
    Lanes,
    Model,
    Parameters,
    VectorBlock,
    bad,
    best,
    draw,
    now_and_then,
    ok,
    raw,
    same,
    tokens_of,
    told,
)

WIDTH = 52  # of the model
ALONE, LEARNING = Lanes(), STANDARD_LANES  # the model alone; the usual lanes, which learn
LINES = b'id, name; size|12\t3\nid, name; more|13\t3\n"a, b", "c"\n'
TEXT = "In 1866 – après l’été – the kettle sang: “Привет, 世界!” 🫖\r\n".encode() + b"\xff\xfe\x00\xc3("

SAMPLE = LINES * 3 + b'"c", name; 7|12\t3\n' + TEXT + LINES  # more tokens than the model reads
SHORT = b"id, name; size|12\t3\n"

# found by trying: arguments of vector_bytes, and tokens
NEAR_MOST, BEYOND_MOST = (3, 4, 1, 252), (18, 4, 1, 249)  # the largest number, as a part of 2^16: 0.9993, 1.0021
TIE = (24, 4, 2)  # the first two of the logits are the same now and then
ENDS_IN_ZEROS = (6, lambda t, falling: falling[159 if t == 5 else t])


# ---------------------------------------------------------------- groups of exact files


class Encoder:
    """Section 8 of exact.md."""

    def __init__(self):
        self.low, self.range, self.multiplications = 0, 2**48 - 1, 0

    def encode(self, before, count):
        part = self.range >> 24
        self.low, self.range = self.low + part * before, part * count
        while self.range < 2**40:
            self.low, self.range, self.multiplications = self.low << 8, self.range << 8, self.multiplications + 1

    def written(self, number):
        return number.to_bytes(self.multiplications + 6, "big")

    def shortest(self):
        return self.written(chosen(self.low, self.range)).rstrip(b"\0")

    def highest(self):
        """The last number of the interval, with all its bytes."""
        return self.written(self.low + self.range - 1)

    def with_zero(self):
        return self.shortest() + b"\0"

    def with_byte(self):
        """One byte more than a decoder reads."""
        return self.written(chosen(self.low, self.range)) + b"\1"


class Teller:
    """What the tokens are, as `want` says it, in place of coded tokens; codes them."""

    def __init__(self, want, lengths):
        self.want, self.encoder = want, Encoder()
        following = [sum(lengths[:lane]) for lane in range(len(lengths))]
        self.places = []  # in the text, in the order of the coder
        for lane in order(lengths):
            self.places.append(following[lane])
            following[lane] += 1
        self.places.reverse()

    def token(self, y, t):
        token = int(self.want(self.places.pop(), (-y).argsort(kind="stable")))
        shares = counts(y, t)
        self.encoder.encode(int(shares[:token].sum()), int(shares[token]))
        return token


class LearningTeller(Teller):
    """The same, with a learner beside the model."""

    def __init__(self, want, lengths, learner):
        super().__init__(want, lengths)
        self.learner, self.lanes = learner, order(lengths)

    def token(self, y, t):
        lane, learner = self.lanes.pop(0), self.learner
        token = int(self.want(self.places.pop(), (-y).argsort(kind="stable")))
        shares = learner.counts(y, t)
        self.encoder.encode(*self.interval(lane, shares, token))
        learner.after(lane, token, shares)
        if not self.lanes or self.lanes[0] <= lane:
            learner.end_step()
        return token

    def interval(self, lane, shares, token):
        for first, n, candidate, learn in self.learner.intervals(lane, shares):
            learn(float(candidate == token))
            if candidate == token:
                return first, n
        borders = self.learner.rest()
        return borders[token], borders[token + 1] - borders[token]


class Modeller:
    """Makes modelled groups of exact files."""

    def __init__(self, folder):
        config, tensors = read_config(folder), read_tensors(folder)
        own, others = codebook.parted(arrays(tensors))
        self.model, self.table = ExactModel(config, own), token_table(folder)
        self.codebook = codebook.Codebook(others, self.model.width) if others else None
        self.block = Model(fingerprint(config, tensors), tokenizer_hash(self.table))

    def firsts(self, n_lanes, vectors, coding):
        """-> what stands first in each lane, and M."""
        start = self.model.embed(self.model.start)
        if not vectors:
            return [[start]] * n_lanes, 0
        width = self.model.width
        header = reader.Header(vector_coding=coding & ~AFTER_START, vector_width=width)
        x = reader.exact_vectors(vectors, header).reshape(n_lanes, -1, width)
        return [[start, *own] if coding & AFTER_START else own for own in x], x.shape[1]

    def group(self, kind, payload, tokens, n_vectors):
        content = b"".join(self.table[token] or b"" for token in tokens if token < len(self.table))
        return Group(kind, payload, content, len(tokens), n_vectors)

    def coded(self, count, want, vectors=b"", coding=4, lanes=ALONE, end=Encoder.shortest):
        """A group of coded tokens; `vectors` are the bytes of all lanes' vectors."""
        n_lanes = min(lanes.limit, -(-count // lanes.tokens))
        firsts, m = self.firsts(n_lanes, vectors, coding)
        lengths = lane_lengths(count, n_lanes)
        teller, said = Teller(want, lengths), None
        if lanes.learning in (1, 2):
            model = self.model if lanes.learning == 2 and count >= 1024 else None
            learner = Learner(self.table, self.model.vocabulary_size, n_lanes, model)
            teller, said = LearningTeller(want, lengths, learner), model and learner.adapter.said
        tokens = run_lanes(self.model, firsts, count, teller, said=said)
        return self.group(PROMPTED if vectors else CODED, vectors + end(teller.encoder), tokens, m)

    def chosen(self, count, want, choices, lanes=ALONE, book=None):
        """A group of coded tokens after these entries of a codebook, or of the model's own, one for each lane."""
        book = book or self.codebook
        lengths = lane_lengths(count, len(choices))
        learner = Learner(self.table, self.model.vocabulary_size, len(choices)) if lanes.learning else None
        teller = LearningTeller(want, lengths, learner) if learner else Teller(want, lengths)
        for lane, choice in enumerate(choices):
            begins = book.intervals(choices[:lane])
            teller.encoder.encode(begins[choice], begins[choice + 1] - begins[choice])
        start = self.model.embed(self.model.start)
        firsts = [[start, *book.vectors[choice]] for choice in choices]
        tokens = run_lanes(self.model, firsts, count, teller, entry=len(book.vectors[0]))
        return self.group(CHOSEN, b"", tokens, 0), teller.encoder

    def begin(self, sample):
        """Where lanes begin after a dictionary."""
        tokens = dictionary.cut(sample, self.table, self.model.vocabulary_size)
        return dictionary.Start(self.model, tokens, Learner(self.table, self.model.vocabulary_size, 1))

    def continued(self, begin, count, want, lanes=LEARNING):
        """A group of coded tokens after a dictionary."""
        n_lanes = min(lanes.limit, -(-count // lanes.tokens))
        teller = LearningTeller(want, lane_lengths(count, n_lanes), begin.learner_of(n_lanes))
        firsts = [[self.model.embed(begin.last)]] * n_lanes
        tokens = run_lanes(self.model, firsts, count, teller, begin.sequence)
        return self.group(CODED, teller.encoder.shortest(), tokens, 0)

    def dictionary_hash(self, sample, size=8):
        return hashlib.sha256(b"cramzip-dictionary-1" + self.block.fingerprint + sample).digest()[:size]

    def after(self, sample, *groups, lanes=LEARNING, size=8, **fields):
        """A file with a dictionary."""
        fields = {"hash_size": size, "dictionary": self.dictionary_hash(sample, min(size, 8))} | fields
        return self.file(*groups, lanes=lanes, **fields)

    def recited(self, vectors, count, coding=4):
        firsts, m = self.firsts(1, vectors, coding)
        return self.group(RECITED, vectors, run_lanes(self.model, firsts, count, Reciter()), m)

    def file(self, *groups, coding=4, lanes=ALONE, **fields):
        """A file with modelled groups, and with a vector block if one of them needs it."""
        has_vectors = any(g.kind in (RECITED, CORRECTED, PROMPTED) for g in groups)
        block = VectorBlock(coding, self.model.width) if has_vectors else None
        return File(groups, **{"model": self.block, "vectors": block, "parameters": lanes} | fields)


def last_that_stands_for_bytes(falling, table):
    return next(token for token in falling[::-1] if token < len(table) and table[token] is not None)


def vector_bytes(seed, coding, count=1, scale=126):
    return draw(seed, coding & ~AFTER_START, count, WIDTH, scale)


# ---------------------------------------------------------------- files that a reader must decode


def valid_coded(modeller):
    def coded(count, want=now_and_then, lanes=ALONE):
        return modeller.file(modeller.coded(count, want, lanes=lanes), lanes=lanes)

    yield ok("coded", "an exact file: 24 coded tokens", coded(24))
    yield ok("coded-one-token", "one coded token", coded(1, best))
    text = tokens_of(TEXT, modeller.table)
    yield ok("coded-text", "coded text, beyond ASCII, and bytes that are no UTF-8", coded(len(text), told(text)))
    yield ok("learned-text", "coded text, learned from", coded(len(text), told(text), LEARNING))
    often = (tokens_of(LINES, modeller.table) * 3)[:260]
    yield ok("learned-lines", "lines with fields, three times", coded(len(often), told(often), Lanes(2**16, 1, 1)))
    yield ok("learned-lanes", "the same in lanes of 20", coded(len(often), told(often), Lanes(20, 1024, 1)))
    many = often * (-(-1024 // len(often)))
    adapted = Lanes(100, 1024, 2)
    yield ok("adapted-lanes", "1,024 tokens in lanes of 100, with an adapter", coded(1024, told(many), adapted))
    yield ok("adapted-short", "1,023 tokens, too few for an adapter", coded(1023, told(many), adapted))
    yield ok("learned-one-token", "one token, learned from", coded(1, best, LEARNING))
    repeated = coded(700, lambda t, falling: falling[int(t % 3 == 0)], Lanes(2**16, 1, 1))
    yield ok("learned-repeats", "700 tokens that repeat themselves, so that counts are halved", repeated)
    every = [token for token, content in enumerate(modeller.table) if content is not None]
    yield ok("coded-every-token", "every token that stands for bytes, coded once", coded(len(every), told(every)))
    unlikely = coded(30, lambda t, falling: last_that_stands_for_bytes(falling, modeller.table))
    yield ok("coded-unlikely", "30 tokens that the model finds as unlikely as can be", unlikely)
    zeros = coded(*ENDS_IN_ZEROS)
    yield ok("coded-ends-in-zeros", "the last seven bytes that a decoder asks for are zeros, left out", zeros)
    for what, description, count, lanes in [
        ("lanes", "10 tokens in lanes of 4, 3 and 3", 10, Lanes(tokens=4)),
        ("lanes-equal", "12 tokens in three lanes of four", 12, Lanes(tokens=4)),
        ("lanes-one-more", "13 tokens, one more than three lanes are for: four lanes", 13, Lanes(tokens=4)),
        ("lanes-limited", "Lane_Limit is 2: 11 tokens in lanes of 6 and 5", 11, Lanes(tokens=3, limit=2)),
        ("lanes-of-one-token", "Lane_Tokens is 1: nine lanes", 9, Lanes(tokens=1)),
        ("lane-limit-1", "Lane_Limit is 1", 30, Lanes(tokens=1, limit=1)),
        ("lanes-largest", "Lane_Tokens is 2^16 and Lane_Limit 1024", 24, Lanes(2**16, 1024)),
    ]:
        yield ok(f"coded-{what}", description, coded(count, lanes=lanes))
    yield ok("coded-lane-tokens", "512 tokens in one lane", coded(512, best))
    yield ok("coded-lane-tokens-and-one", "513 tokens in lanes of 257 and 256", coded(513, best))
    yield ok("coded-most-lanes", "1025 tokens in 1024 lanes", coded(1025, best, Lanes(1, 1024)))
    yield ok(
        "coded-forgets",
        "a lane of 1040 positions: at 768 and at 1024 it forgets the first 256 that it sees",
        coded(1040, lambda t, falling: falling[int(t % 29 == 7)], Lanes(limit=1)),
    )
    groups = modeller.coded(24, now_and_then), modeller.coded(9, now_and_then)
    yield ok(
        "coded-two-groups",
        "two coded groups: the second sees nothing of the first",
        modeller.file(*groups, hash_size=32),
    )
    hub = replace(modeller.block, model_id=b"hf:example/tiny", revision=b"0123456789abcdef0123456789abcdef01234567")
    file = modeller.file(groups[0], model=hub, name=b"kettle.txt", hash_size=4)
    yield ok("coded-hub", "an exact file with a name, of a model of the Hugging Face Hub", file)


def valid_with_dictionary(modeller):
    begin, brief = modeller.begin(SAMPLE), modeller.begin(SHORT)
    assert len(SHORT) < dictionary.READ < len(tokens_of(SAMPLE, modeller.table)) - 50
    lines = tokens_of(LINES, modeller.table)
    often = (lines * 3)[:180]

    def vector(name, description, sample, file):
        return ok(f"dictionary-{name}", description, file, dictionary=sample)

    group = modeller.continued(begin, len(lines), told(lines))
    for size in (4, 8, 16, 32):
        file = modeller.after(SAMPLE, group, size=size)
        yield vector(f"hash-{size}", f"lines after a dictionary; {size} bytes of Original_Hash", SAMPLE, file)
    group = modeller.continued(brief, len(lines), told(lines))
    yield vector("short", "a dictionary of fewer tokens than the model reads", SHORT, modeller.after(SHORT, group))
    byte = modeller.continued(modeller.begin(b"\n"), 9, now_and_then)
    yield vector("byte", "a dictionary of one byte", b"\n", modeller.after(b"\n", byte))
    one = modeller.continued(begin, 1, told([lines[0] + 1]))
    yield vector("one-token", "one token after a dictionary", SAMPLE, modeller.after(SAMPLE, one))
    text = tokens_of(TEXT, modeller.table)
    group = modeller.continued(begin, len(text), told(text))
    yield vector("text", "text after a dictionary in which it stands", SAMPLE, modeller.after(SAMPLE, group))
    lanes = Lanes(50, 3, 1)
    group = modeller.continued(begin, len(often), told(often), lanes)
    yield vector("lanes", "three lanes, all after the same", SAMPLE, modeller.after(SAMPLE, group, lanes=lanes))
    groups = [modeller.continued(begin, 24, told(part)) for part in (often[:24], often[24:48])]
    description = "two groups, of which each begins after the dictionary, and a stored one; there is a Check"
    yield vector("groups", description, SAMPLE, modeller.after(SAMPLE, groups[0], raw(b"-"), groups[1]))


def invalid_with_dictionary(modeller):
    begin = modeller.begin(SHORT)
    group = modeller.continued(begin, 24, now_and_then)
    file = modeller.after(SHORT, group)

    def vector(name, description, file, sample=SHORT):
        return bad(name, description, file, dictionary=sample)

    for bit, what in [(0, "name"), (4, "vectors")]:
        description = f"flag bit {bit} is set, reserved in a file with a dictionary"
        yield vector(f"header-dictionary-{what}", description, replace(file, wrong_flags=1 << bit))
    alone = modeller.after(SHORT, group, lanes=ALONE)
    yield vector("header-dictionary-learning-0", "Learning is 0 in a file with a dictionary", alone)
    named = codebook_vectors.named(LEARNING, b"-")
    file_with_both = modeller.after(SHORT, group, lanes=named)
    yield vector("header-dictionary-codebook", "a file with a dictionary names a codebook", file_with_both)
    header = file.header()
    yield vector("header-dictionary-cut", "the file ends within Dictionary_Hash", header[:-2])
    yield vector(
        "header-dictionary-alone", "flag bit 7 alone, but no model block", File((raw(b"one"),), wrong_flags=128)
    )
    several = modeller.after(SHORT, group, raw(b"-"))
    yield vector("table-dictionary-check", "Check differs, in a file of several groups", replace(several, check=0))
    stored = modeller.after(SHORT, raw(b"one"))
    yield vector("table-dictionary-superfluous", "a dictionary, but stored groups alone", stored)
    chosen = modeller.after(SHORT, replace(group, kind=CHOSEN))
    yield vector("table-dictionary-chosen", "a chosen group in a file with a dictionary", chosen)
    predicted = modeller.after(SHORT, replace(group, kind=PREDICTED))
    yield vector("table-dictionary-predicted", "a predicted group in a file with a dictionary", predicted)
    yield vector("table-dictionary-cut", "the file ends within the entry", bytes(file)[: len(header) + 1])
    lanes = Lanes(2**16, 1024, 1)
    long = Group(CODED, b"\xc0" * 17, b"-" * 65282, 65282)
    long = modeller.after(SHORT, long, lanes=lanes)
    yield vector("table-dictionary-positions", "a lane of 65,282 tokens after a dictionary: one too many", long)
    yield vector("model-dictionary-missing", "a file with a dictionary, which is not given", file, None)
    yield vector("model-dictionary-other", "another dictionary", file, SHORT[:-1])
    flipped_hash = flipped(modeller.dictionary_hash(SHORT))
    yield vector("model-dictionary-hash", "Dictionary_Hash differs", replace(file, dictionary=flipped_hash))
    without = modeller.coded(24, now_and_then, lanes=LEARNING)
    yield vector("content-dictionary-none", "coded without the dictionary", modeller.after(SHORT, without))
    wrong = flipped(hashlib.sha256(group.content).digest()[:8])
    yield vector("content-dictionary-hash", "Original_Hash differs", replace(file, original_hash=wrong))
    broken = replace(group, payload=group.payload[:-1] + flipped(group.payload[-1:]))
    yield vector("content-dictionary-last-byte", "the last byte differs", modeller.after(SHORT, broken))
    many = modeller.after(SHORT, Group(CODED, b"", b"-" * 4097, 4097), lanes=Lanes(2**16, 1, 1))
    yield vector("content-dictionary-too-few", "4097 tokens, and no bytes", many)
    yield vector("content-dictionary-left-over", "a byte more than the decoder reads", bytes(file) + b"\1")


def valid_with_vectors(modeller):
    for coding in range(1, 8):
        group = modeller.coded(12, now_and_then, vector_bytes(coding, coding), coding)
        description = f"one vector of coding {coding}, and 12 coded tokens"
        yield ok(f"prompted-coding-{coding}", description, modeller.file(group, coding=coding))
    for coding in (2, 7):
        code = coding | AFTER_START
        group = modeller.coded(12, now_and_then, vector_bytes(coding, coding), code)
        description = f"the start token before a vector of coding {coding}, and 12 coded tokens"
        yield ok(f"prompted-after-start-{coding}", description, modeller.file(group, coding=code))
    group = modeller.coded(12, now_and_then, vector_bytes(8, 1, 5), 1)
    yield ok("prompted-five-vectors", "five vectors, and 12 coded tokens", modeller.file(group, coding=1))
    lanes = Lanes(tokens=4)
    for what, description, coding in [
        ("lanes", "two vectors for each of the lanes of 4, 3 and 3 tokens", 2),
        ("lanes-after-start", "the start token, then two vectors, in each of three lanes", 2 | AFTER_START),
    ]:
        group = modeller.coded(10, now_and_then, vector_bytes(9, 2, 6), coding, lanes)
        yield ok(f"prompted-{what}", description, modeller.file(group, coding=coding, lanes=lanes))
    for scale in (0, 120, 121, 122, 123, 124, 125, 126, 127, 239):
        group = modeller.coded(6, now_and_then, vector_bytes(10, 4, scale=scale))
        yield ok(f"prompted-scale-{scale}", f"Scale is {scale}", modeller.file(group))
    group = modeller.coded(6, now_and_then, vector_bytes(*NEAR_MOST))
    description = "the largest number of a vector is within a thousandth of 2^16"
    yield ok("prompted-largest", description, modeller.file(group))

    for coding in (2, 4, 7, 4 | AFTER_START):
        group = modeller.recited(vector_bytes(11, coding, 2), 24, coding)
        start = ", after the start token" if coding & AFTER_START else ""
        description = f"24 recited tokens of an exact file, from two vectors of coding {coding & ~AFTER_START}{start}"
        yield ok(f"exact-recited-{coding}", description, modeller.file(group, coding=coding))
    group = modeller.recited(vector_bytes(12, 1, 2), 24, 1)
    description = "recited tokens are in one lane, whatever Lane_Tokens is"
    yield ok("exact-recited-one-lane", description, modeller.file(group, coding=1, lanes=Lanes(tokens=4)))
    group = modeller.recited(vector_bytes(*TIE), 24)
    yield ok("exact-recited-tie", "two tokens are equally likely, and the lower one is recited", modeller.file(group))

    mixed = [
        raw(b"1: "),
        modeller.recited(vector_bytes(11, 4, 2), 24),
        NAIL,
        modeller.coded(24, now_and_then),
        raw(b"\n"),
        modeller.coded(12, now_and_then, vector_bytes(4, 4)),
        same(b"!", 99),
    ]
    yield ok("exact-every-kind", "groups of all kinds of an exact file, and a name", modeller.file(*mixed, name=b"all"))


# ---------------------------------------------------------------- files that a reader must refuse


def invalid_header(modeller):
    coded = modeller.file(modeller.coded(24, now_and_then))
    for what, description, lanes in [
        ("tokens-0", "Lane_Tokens is 0", Lanes(tokens=0)),
        ("tokens-too-big", "Lane_Tokens is 2^16 + 1", Lanes(tokens=2**16 + 1)),
        ("tokens-not-shortest", "Lane_Tokens 256 is written in three bytes", Lanes(tokens=b"\x80\x82\x00")),
        ("limit-0", "Lane_Limit is 0", Lanes(limit=0)),
        ("limit-too-big", "Lane_Limit is 1025", Lanes(limit=1025)),
        ("learning-3", "Learning is 3", Lanes(learning=3)),
    ]:
        yield bad(f"header-lane-{what}", description, replace(coded, parameters=lanes))
    standard = replace(coded, parameters=STANDARD_LANES, standard_written=True)
    yield bad("header-lanes-standard", "the parameters of an exact file are the standard ones, written out", standard)
    header = replace(coded, parameters=Lanes(300, 2)).header()
    yield bad("header-ends-in-lanes", "the file ends within the parameters of an exact file", header[:-3])


def invalid_table(modeller):
    coded, other = modeller.coded(24, now_and_then), Parameters(10)
    prompted = modeller.coded(12, now_and_then, vector_bytes(4, 4))
    recited = modeller.recited(vector_bytes(11, 4, 2), 24)
    size = len(vector_bytes(4, 4))

    def beside(group, **fields):
        """A file of a group and a stored one."""
        return modeller.file(group, raw(b"\n"), **fields)

    yield bad("table-exact-kind-8-reserved", "Kind 8 in an exact file", beside(replace(coded, kind=8)))
    for what, description, group in [
        ("corrected", "a corrected group", replace(prompted, kind=CORRECTED)),
        ("predicted", "a predicted group", replace(coded, kind=PREDICTED)),
    ]:
        yield bad(f"table-exact-{what}", f"{description} in an exact file", modeller.file(group))
        yield bad(f"table-exact-{what}-too", f"{description} beside a coded one", modeller.file(coded, group))
    for what, group in [("coded", coded), ("prompted", prompted)]:
        file = modeller.file(group, parameters=other)
        yield bad(f"table-{what}-not-exact", f"a {what} group in a file that is not exact", file)

    for what, description, lies in [
        ("tokens-0", "Token_Count is 0", {"tokens": 0}),
        ("tokens-beyond-size", "Token_Count is Size + 1", {"tokens": len(coded.content) + 1}),
        (
            "tokens-too-many",
            "Token_Count is 2^22 + 1, and Size is 2^22",
            {"tokens": 2**22 + 1, "content": b"-" * 2**22, "payload": coded.payload.ljust(1025, b"-")},
        ),
    ]:
        yield bad(f"table-coded-{what}", description, beside(replace(coded, **lies), lanes=Lanes(limit=1024)))
    many = replace(recited, tokens=2**16 + 1, content=b"-" * 2**17)
    yield bad("table-exact-recited-tokens-too-many", "Token_Count of a recited group is 2^16 + 1", modeller.file(many))
    yield bad("table-prompted-vector-count-0", "Vector_Count is 0", beside(replace(prompted, vectors=0)))
    many = replace(prompted, vectors=2**12 + 1, payload=bytes(2 * (2**12 + 1)) + b"-")
    file = beside(many, vectors=VectorBlock(1, width=1))
    yield bad("table-prompted-vector-count-too-big", "Vector_Count is 2^12 + 1, with vectors of width 1", file)

    yield bad("table-prompted-without-vector-block", "no vector block", beside(prompted, vectors=None))
    file = beside(coded, vectors=VectorBlock(4, WIDTH))
    yield bad("table-coded-with-vector-block", "a vector block, but coded groups alone", file)
    file = modeller.file(raw(b"left"), raw(b"right"))
    yield bad("table-exact-without-modelled-group", "an exact file with stored groups alone", file)

    lanes = Lanes(tokens=4)
    two = modeller.coded(10, now_and_then, vector_bytes(9, 4, 3), lanes=lanes)
    for what, description, group in [
        ("prompted-payload-short", "the payload is shorter than the vectors", (prompted, prompted.payload[: size - 1])),
        ("prompted-payload-of-one-lane", "three lanes, and vectors for one", (two, two.payload[: 2 * size])),
        ("exact-recited-payload-long", "a byte follows the vectors", (recited, recited.payload + b"\1")),
    ]:
        file = beside(replace(group[0], payload=group[1]), lanes=lanes)
        yield bad(f"table-{what}", description, file)
    many = replace(recited, payload=vector_bytes(11, 4, 12))
    file = modeller.file(many, lanes=lanes)
    yield bad("table-exact-recited-lanes", "a recited group with vectors for six lanes", file)

    for what, description, group, lanes, coding in positions(one_too_many=1):
        file = modeller.file(group, lanes=lanes, coding=coding)
        yield bad(f"table-positions-{what}", f"65,537 positions: {description}", file)
    wrong = replace(coded, payload_crc=0)
    yield bad("payload-crc-coded", "Payload_CRC of a coded group differs", beside(wrong))


def positions(one_too_many):
    """-> name, description, group, lanes, coding of files whose lanes take 65,536 positions and one too many, or not.

    Their payloads are as long as they have to be, and no more.
    """
    most = 2**16 + one_too_many
    for what, description, kind, n_lanes, m, n_tokens, coding in [
        ("coded", "the start token, and the tokens but the last", CODED, 1, 0, most, 4),
        ("coded-lanes", "in the longer one of two lanes", CODED, 2, 0, 2 * most - 1, 4),
        ("prompted", "three vectors, and the tokens but the last", PROMPTED, 1, 3, most - 2, 4),
        ("prompted-after-start", "the start token and three vectors", PROMPTED, 1, 3, most - 3, 4 | AFTER_START),
        ("recited", "two vectors, and recited tokens", RECITED, 1, 2, most - 1, 4),
        (
            "recited-after-start",
            "the start token, a vector, and recited tokens",
            RECITED,
            1,
            1,
            most - 1,
            4 | AFTER_START,
        ),
    ]:
        payload = vector_bytes(0, 4, m * n_lanes) + b"-" * (0 if kind == RECITED else -(-n_tokens // 2**12))
        yield what, description, Group(kind, payload, b"-" * n_tokens, n_tokens, m), Lanes(limit=n_lanes), coding


def invalid_vectors(modeller):
    prompted = modeller.coded(12, now_and_then, vector_bytes(4, 4))
    last = len(vector_bytes(4, 4)) - 1
    filled = prompted.payload[:last] + bytes([prompted.payload[last] | 0x80]) + prompted.payload[last + 1 :]
    file = modeller.file(replace(prompted, payload=filled))
    yield bad("vectors-prompted-filled", "bit 7 after the last code of a vector is set", file)
    recited = modeller.recited(vector_bytes(7, 7, 2), 12, 7)
    file = modeller.file(replace(recited, payload=recited.payload[:-2] + b"\x00\x7c"), coding=7)
    yield bad("vectors-exact-infinite", "the last value of the second vector is infinite", file)


def invalid_model(modeller, other_folder):
    coded, block = modeller.coded(24, now_and_then), modeller.block
    file = modeller.file(coded)
    for what, description, lies in [
        ("fingerprint", "one bit of Model_Fingerprint differs", {"fingerprint": flipped(block.fingerprint)}),
        ("tokenizer", "one bit of Tokenizer_Hash differs", {"tokenizer_hash": flipped(block.tokenizer_hash)}),
    ]:
        yield bad(f"model-exact-other-{what}", description, replace(file, model=replace(block, **lies)))
    unknown = {"model": None, "digest": b"\0\1\2\3"}
    yield bad("model-exact-digest-unknown", "a built-in model that no program has", replace(file, **unknown))
    config, tensors = read_config(other_folder), read_tensors(other_folder)
    other = Model(fingerprint(config, tensors), tokenizer_hash(token_table(other_folder)))
    file = replace(file, model=other)
    yield bad("model-not-exact", "an exact file of a model that is none for exact arithmetic", file, model="model")
    narrow = replace(modeller.recited(vector_bytes(11, 4), 12), payload=draw(11, 4, width=8))
    file = replace(modeller.file(narrow), vectors=VectorBlock(4, width=8))
    yield bad("model-exact-other-width", "Vector_Width is 8, and the model's is 52", file)
    many = Group(CODED, b"-" * 2**10, b"-" * 2**22, 2**22)
    file = modeller.file(many, lanes=Lanes(2**12, 1024), **unknown)
    yield bad("model-exact-largest-token-count", "Token_Count is 2^22, in 1024 lanes", file)
    for what, description, group, lanes, coding in positions(one_too_many=0):
        file = modeller.file(group, lanes=lanes, coding=coding, **unknown)
        yield bad(f"model-exact-positions-{what}", f"65,536 positions: {description}", file)


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


def invalid_content(modeller):
    coded, file = modeller.coded(24, now_and_then), modeller.file
    for what, description, end in [
        ("byte-left-over", "a byte more than the decoder reads", Encoder.with_byte),
        ("last-byte-zero", "the last byte is zero", Encoder.with_zero),
        ("other-number", "the last number of the interval, which decodes to the same", Encoder.highest),
        ("cut", "the last byte is missing", lambda encoder: encoder.shortest()[:-1]),
        ("first-bit", "a bit of the first byte differs", lambda encoder: flipped(encoder.shortest())),
        ("target", "six bytes FF, which are the code of no token", lambda encoder: b"\xff" * 6),
    ]:
        yield bad(f"content-coded-{what}", description, file(modeller.coded(24, now_and_then, end=end)))
    many = Group(CODED, b"\xc0", b"-" * 4097, 4097)
    description = "4097 tokens and one byte: refused before a token is decoded"
    yield bad("content-coded-too-few", description, file(many, lanes=Lanes(2**16)))
    zero = modeller.coded(1, told([0]))
    assert not zero.payload
    yield bad("content-coded-empty", "one token, the first, is coded with no bytes: too few", file(zero))
    prompted = modeller.coded(1, told([0]), vector_bytes(4, 4))
    yield bad("content-prompted-empty", "a vector, and no bytes of coded tokens", file(prompted))
    group = modeller.coded(10, now_and_then, lanes=Lanes(tokens=4))
    yield bad("content-coded-other-lanes", "tokens that are coded in three lanes, where one is stated", file(group))

    beyond = vector_bytes(*BEYOND_MOST)
    prompted, recited = modeller.coded(6, now_and_then, beyond), modeller.recited(beyond, 6)
    description = "a number of the vector is beyond 2^16"
    yield bad("content-prompted-vector-too-large", description, file(prompted))
    yield bad("content-exact-recited-vector-too-large", description, file(recited))

    prompted = modeller.coded(12, now_and_then, vector_bytes(4, 4))
    after_start = 4 | AFTER_START
    yield bad(
        "content-prompted-no-start", "made without the start token, which is stated", file(prompted, coding=after_start)
    )
    recited = modeller.recited(vector_bytes(11, 4, 2), 24)
    payload = recited.payload[:1] + flipped(recited.payload[1:])
    yield bad("content-exact-other-vector", "a code of a vector is another", file(replace(recited, payload=payload)))

    for what, group in [("coded", coded), ("prompted", prompted)]:
        wrong = replace(group, content_crc=0)
        yield bad(f"content-crc-{what}", f"Content_CRC of a {what} group differs", file(wrong, raw(b"\n")))
    wrong = flipped(hashlib.sha256(coded.content).digest()[:8])
    yield bad("content-hash-coded", "Original_Hash of a coded group differs", file(coded, original_hash=wrong))
    text = tokens_of(TEXT, modeller.table)
    text = modeller.coded(len(text), told(text))
    for what, content in [("more", text.content[:-1]), ("less", text.content + b"-")]:
        wrong = replace(text, content=content)
        yield bad(
            f"content-coded-size-and-{what}", f"the tokens have one byte {what} than Size", file(wrong, raw(b"\n"))
        )
    for what, token in [("special", END), ("beyond-tokenizer", len(modeller.table)), ("highest", 276)]:
        group = modeller.coded(24, lambda t, falling, token=token: token if t == 23 else falling[0])
        description = f"the last token is {token}, which stands for nothing"
        yield bad(f"content-coded-token-{what}", description, file(group))


def all_vectors(folder, other_folder):
    """The vectors that are read with the model in `folder`; `other_folder` has one that is none for exact files."""
    modeller = Modeller(folder)
    with_dictionary = valid_with_dictionary, invalid_with_dictionary
    with_codebook = codebook_vectors.valid_chosen, codebook_vectors.invalid_chosen
    own = valid_coded, valid_with_vectors, invalid_header, invalid_table, invalid_vectors
    for makers in (*own, *with_dictionary, *with_codebook):
        for vector in makers(modeller):
            yield replace(vector, model=folder.name)
    for vector in codebook_vectors.with_own_codebook(modeller, WIDTH):
        yield replace(vector, model=folder.name)
    for vector in invalid_model(modeller, other_folder):
        yield replace(vector, model=other_folder.name if vector.name == "model-not-exact" else folder.name)
    for vector in invalid_content(modeller):
        yield replace(vector, model=folder.name)
