#!/usr/bin/env python3
"""Makes the test vectors of the `.cram` format: files that a reader must decode, and files that it must refuse.

    python formats/make_vectors.py [FOLDER]        (without FOLDER: formats/vectors)

Written from cram.md alone; it shares the model of reader.py, but no code with the library. The vectors that are exact
files are in exact_vectors.py, what both are made of in writer.py. Every invalid file has one fault, and everything that
depends on the faulty field (checksums above all) agrees with it, so that only the check in question can refuse the
file. The same files come out on every machine.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import exact_vectors
import filter_vectors
import numpy as np
import reader
import wide_vectors
from candidates import Expectations, odds
from corrections import Confidences, index_bits
from llama import Llama, fingerprint, read_config, read_tensors, token_table, tokenizer_hash
from make_model import CITIES_TEXT, END, TWINS
from writer import (
    AFTER_START,
    CORRECTED,
    NAIL,
    PREDICTED,
    RAW,
    RECITED,
    STANDARD,
    ZSTD,
    File,
    Group,
    Model,
    Parameters,
    RangeEncoder,
    VectorBlock,
    bad,
    best,
    describe,
    draw,
    honest,
    now_and_then,
    ok,
    pack,
    raw,
    same,
    tokens_of,
    told,
    zstd_frame,
)

HERE = Path(__file__).parent
CLOSE = 2**-12  # ten times what the logits of two machines differ by on average, and as much as they ever do


# ---------------------------------------------------------------- vectors and corrections


def clear(distances, limit):
    """Which distances are within the limit. None is so close to it that another machine might disagree."""
    assert (np.abs(distances - limit) > CLOSE).all(), "a decision is close: take another seed or shift"
    return distances <= limit


class Writer:
    """The corrections of one group of `count` tokens; with a `table` of what tokens stand for, it learns."""

    def __init__(self, vocabulary_size, noise, count=0, table=None):
        self.coder, self.noise = RangeEncoder(), noise
        self.known = Confidences(vocabulary_size, noise)
        # Exceptions are known before the first token is coded: another one finds out what will be asked for.
        self.ahead, self.expectations = (table and Expectations(table, vocabulary_size) for _ in range(2))
        if count >= 256:
            self.coder.number(int(bool(table)), 1)

    def chunk(self, steps, shift, spelt=(), near=None, says=None):
        """Codes a chunk: for each of its `steps` the token and the logits.

        Tokens at the positions `spelt` become exceptions without need; `near` gives for positions the n of tokens
        that are said to be near without need. `says` is a lie: Shift, Exception_Count and Positions.
        """
        self.known.set_shift(shift)
        exceptions = [t for t, step in enumerate(steps) if self.is_exception(*step, t in spelt)]
        shift, count, *positions = honest(says, [shift, len(exceptions), *exceptions])
        self.coder.unbounded(shift)
        self.coder.unbounded(count)
        for position in positions:
            self.coder.number(position, (len(steps) - 1).bit_length())
        for t, (token, logits) in enumerate(steps):
            found = None
            if self.expectations and t not in exceptions:
                found, logits = self.expectations.follow(self.known, logits, self.decider(token))
            if t in exceptions:
                self.coder.number(token, self.known.id_bits)
            elif found is None:
                self.token(token, logits, (near or {}).get(t))
            if self.expectations:
                self.expectations.after(token)

    def decider(self, token):
        """Codes the decisions whether candidates are the token."""

        def decide(v, bit):
            self.coder.decision(bit, v == token)
            return v == token

        return decide

    def place(self, token, logits):
        """-> rank, rank class, the confidences that are asked for."""
        clear(np.abs(logits - logits[token]), 2 * CLOSE)
        rank = int((logits - logits[token] > 2 * CLOSE).sum())
        g = int(np.searchsorted(self.known.first_ranks, rank, side="right")) - 1
        return rank, g, self.known.confidences(np.sort(logits)[::-1])[: g + 1]

    def is_exception(self, token, logits, is_spelt):
        candidates = self.ahead.candidates() if self.ahead else []
        if self.ahead:
            self.ahead.after(token)
        if is_spelt:
            return True
        asked, logits = [], logits.copy()
        for v in candidates:
            asked.append(odds(logits, v))
            if v == token:
                break
            logits[v] = -1e9
        else:
            asked += list(self.place(token, logits)[2])
        return clear(self.to_borders(np.array(asked)), 2.1 * 2.0**-self.noise).any()

    def to_borders(self, asked):
        """How far confidences are from all borders of buckets."""
        half = int(12 / self.known.width)
        borders = np.arange(1 - half, half) * self.known.width + self.known.shift
        return np.abs(asked[:, None] - borders)

    def token(self, token, logits, n=None):
        rank, g, asked = self.place(token, logits)
        self.rank_class(g, asked)
        self.coder.number(rank - int(self.known.first_ranks[g]), index_bits(g))
        distances = np.abs(np.delete(logits, token) - logits[token])
        is_near = n is not None or bool(clear(distances, 2.1 * 2.0**-self.noise).any())
        self.coder.decision(self.known.nearness(g), is_near)
        if is_near:
            others = np.delete(np.arange(len(logits)), token)[clear(distances, 4.2 * 2.0**-self.noise)]
            n = n or next(n for n in range(1, 10) if not ((others ^ token) % 2**n == 0).any())
            self.coder.unbounded(n - 1)
            self.coder.number(token % 2**n, n)

    def rank_class(self, g, asked):
        clear(self.to_borders(asked), 0)
        for i, confidence in enumerate(asked):
            self.coder.decision(self.known.membership(i, self.known.bucket(confidence)), i == g)


# ---------------------------------------------------------------- modelled groups


class Teller:
    """What the tokens are, as `want` says it, in place of corrections; keeps the logits of every chunk."""

    def __init__(self, want):
        self.want, self.chunks, self.t = want, [], 0

    def begin_chunk(self, token_count):
        self.chunks.append([])

    def token(self, logits):
        logits = np.float64(logits)
        token = int(self.want(self.t, np.argsort(-logits)))
        self.chunks[-1].append((token, logits))
        self.t += 1
        return token


class Modeller:
    """Makes modelled groups with the tiny model."""

    def __init__(self, folder):
        config, tensors = read_config(folder), read_tensors(folder)
        self.model, self.table = Llama(config, tensors), token_table(folder)
        self.block = Model(fingerprint(config, tensors), tokenizer_hash(self.table))

    def tokens_of(self, text):
        return tokens_of(text, self.table)

    def follow(self, kind, count, want, vectors=b"", coding=None, parameters=STANDARD):
        """-> (token, logits) of each token of each chunk, and M. `vectors` are the bytes of all chunks' vectors."""
        header = reader.Header(
            chunk_tokens=parameters.chunk,
            context_tokens=parameters.context,
            start_token=parameters.start,
            vectors_after_start=bool(vectors and coding & AFTER_START),
        )
        group, x = reader.Group(kind, token_count=count), None
        chunks = -(-count // parameters.chunk)
        if vectors:
            numbers = reader.parse_vectors(vectors, coding & ~AFTER_START, self.model.width)
            x = numbers if coding & ~AFTER_START == 7 else reader.transform(numbers)
            x = x.reshape(chunks, -1, self.model.width)
        teller = Teller(want)
        reader.decode_tokens(self.model, header, group, x, teller)
        return teller.chunks, 0 if x is None else x.shape[1]

    def group(self, kind, payload, steps, vector_count):
        tokens = [token for chunk in steps for token, _ in chunk]
        content = b"".join(self.table[token] or b"" for token in tokens if token < len(self.table))
        return Group(kind, payload, content, len(tokens), vector_count)

    def recited(self, vectors, count, coding=4, parameters=STANDARD):
        """A group of what the model says from the vectors."""
        chunks, m = self.follow(RECITED, count, best, vectors, coding, parameters)
        for _, logits in (step for chunk in chunks for step in chunk):
            second, first = np.sort(logits)[-2:]
            assert first - second > 2 * 2.0**-parameters.noise + CLOSE, "a lead is small: take another seed"
        return self.group(RECITED, vectors, chunks, m)

    def corrected(self, vectors, count, want, coding=4, parameters=STANDARD, **how):
        """A group of vectors (or none) and corrections; for `how` see `corrections`."""
        kind = CORRECTED if vectors else PREDICTED
        chunks, m = self.follow(kind, count, want, vectors, coding, parameters)
        return self.group(kind, vectors + self.corrections(chunks, parameters, **how), chunks, m)

    def predicted(self, count, want, parameters=STANDARD, **how):
        return self.corrected(b"", count, want, None, parameters, **how)

    def corrections(self, chunks, parameters, shifts=(0,), end=RangeEncoder.shortest, learns=False, **lies):
        """`shifts` are those of the chunks, by turns; `spelt`, `near` and `says` as in Writer, in every chunk."""
        count = sum(map(len, chunks))
        writer = Writer(self.model.vocabulary_size, parameters.noise, count, self.table if learns else None)
        for i, steps in enumerate(chunks):
            writer.chunk(steps, shifts[i % len(shifts)], **lies)
        return end(writer.coder)

    def file(self, *groups, coding=4, gain=0, **fields):
        """A file with modelled groups, and with a vector block if one of them needs it."""
        block = VectorBlock(coding, gain=gain) if any(g.kind in (RECITED, CORRECTED) for g in groups) else None
        return File(groups, **{"model": self.block, "vectors": block} | fields)


# ---------------------------------------------------------------- the vectors


ENGLISH = b"The rain of the other morning was in the water and on the hat of an engineer."


STEERING = {
    "next-line": "\x85",
    "joiner": "\u200d",
    "override": "\u202e",
    "line-separator": "\u2028",
    "tag": "\U000e0041",
}


def steering(file, character):
    return replace(file, name=f"a{character}b".encode())


def valid_stored():
    one = File((raw(b"a"),))
    yield ok("empty", "the empty original: no group", File(hash_size=4))
    yield ok("raw-one-byte", "one byte", one)
    yield ok(
        "raw-many",
        "300 raw groups of one byte: two-byte varints in the header",
        File(tuple(raw(bytes([i % 256])) for i in range(300))),
    )
    yield ok("zstd", "one group from zstd itself, with a checksum in the frame", File((NAIL,)))
    yield ok("zstd-largest-group", "a file of one group of 2^22 bytes", File((same(b"\0", 2**22),)))
    yield ok("zstd-largest-window", "the frame has a window of 2^23 bytes", File((same(b"z", 1000, window=13 << 3),)))
    yield ok("zstd-one-byte-saved", "Payload_Size is Size - 1", File((same(b"-", 14), raw(b"\n"))))
    yield ok(
        "raw-and-zstd-with-name",
        "four stored groups and a name",
        File((raw(b"\x00\xff\n"), NAIL, raw(b"\r\n"), same(b"=", 72)), name=b"nail.txt"),
    )
    yield ok("name-255-bytes", "the longest name: 85 times U+20AC", replace(one, name="€".encode() * 85))
    yield ok(
        "name-odd",
        "a name that only looks forbidden: dots, spaces, a colon, U+0080, no more than that",
        replace(one, name="... C: \x80.cram".encode()),
    )
    for what, character in STEERING.items():
        yield ok(
            f"name-{what}",
            f"Name holds U+{ord(character):04X}, which is not for showing as it is",
            steering(one, character),
        )
    for what, ending in [
        ("first", 1),
        ("14", 14),
        ("15", 15),
        ("last", 74),
        ("one-letter", b"z"),
        ("spelled", b"7zipArchive002"),
    ]:
        yield ok(f"ending-{what}", f"an ending: {ending}", replace(one, ending=ending))
    for size in (4, 16, 32):
        yield ok(f"hash-{size}", f"{size} bytes of Original_Hash", File((raw(b"hash"), NAIL), hash_size=size))


def valid_recited(modeller):
    for coding in (2, 4, 7):
        group = modeller.recited(draw(0, coding, 2), 24, coding)
        yield ok(f"recited-coding-{coding}", f"two vectors of coding {coding}", modeller.file(group, coding=coding))
    yield ok("recited-one-token", "one vector, one token", modeller.file(modeller.recited(draw(3, 4), 1)))
    for scale in (0, 255):
        group = modeller.recited(draw(1, 4, scale=scale), 12)
        yield ok(f"recited-scale-{scale}", f"Scale is {scale}", modeller.file(group))
    extreme = np.frombuffer(draw(2, 7, 2), "<f2").copy()
    extreme[:4] = [65504, -65504, 2**-24, -0.0]
    yield ok(
        "recited-extreme-binary16",
        "the largest and smallest binary16 values and -0",
        modeller.file(modeller.recited(extreme.tobytes(), 12, 7), coding=7),
    )
    yield ok(
        "recited-many-vectors",
        "130 vectors: a two-byte Vector_Count",
        modeller.file(modeller.recited(draw(4, 1, 130), 9, 1), coding=1),
    )
    yield ok(
        "recited-whole-context",
        "M + T is the context of the model: 412 + 100 positions",
        modeller.file(modeller.recited(draw(8, 1, 412), 100, 1), coding=1),
    )
    yield ok(
        "recited-after-start-whole-context",
        "1 + M + T is the context of the model: the start token, 411 vectors and 100 tokens",
        modeller.file(modeller.recited(draw(8, 1, 411), 100, 1 | AFTER_START), coding=1 | AFTER_START),
    )
    for start in (0, 40):
        parameters = Parameters(10, 16, 0, start)
        group = modeller.recited(draw(0, 4, 4), 24, 4 | AFTER_START, parameters)
        file = modeller.file(group, coding=4 | AFTER_START, parameters=parameters)
        yield ok(f"recited-after-start-{start}", f"token {start} stands before two vectors of each chunk", file)
    for what, description, context in [
        ("without-context", "three chunks, each from its own vector alone", 0),
        ("context", "three chunks that see five tokens before them", 5),
    ]:
        parameters = Parameters(10, 8, context)
        group = modeller.recited(draw(5, 3, 3), 20, 3, parameters)
        yield ok(f"recited-{what}", description, modeller.file(group, coding=3, parameters=parameters))


def valid_corrected(modeller):
    for coding in range(1, 8):
        group = modeller.corrected(draw(1, coding), 20, now_and_then, coding, shifts=(coding,))
        yield ok(
            f"corrected-coding-{coding}",
            f"one vector of coding {coding}, and corrections",
            modeller.file(group, coding=coding),
        )
    group = modeller.corrected(draw(2, 2, 3), 20, now_and_then, 2)
    yield ok("corrected-three-vectors", "three vectors, and corrections", modeller.file(group, coding=2))
    parameters = Parameters(10, 8, 6)
    group = modeller.corrected(draw(3, 4, 6), 20, now_and_then, parameters=parameters, shifts=(0, 512, 3))
    yield ok(
        "corrected-chunks",
        "three chunks of two vectors each, with six tokens of context",
        modeller.file(group, parameters=parameters),
    )
    group = modeller.corrected(draw(3, 4, 3), 20, now_and_then, 4 | AFTER_START, parameters)
    yield ok(
        "corrected-after-start",
        "three chunks, the start token before the vector of each, and six tokens of context after it",
        modeller.file(group, coding=4 | AFTER_START, parameters=parameters),
    )
    group = modeller.corrected(draw(4, 4), 20, now_and_then)
    yield ok("vector-gain-largest", "Vector_Gain is 2^48 + 1", modeller.file(group, gain=2**48 + 1))


def valid_predicted(modeller):
    def predicted(count, want, parameters=STANDARD, **how):
        return modeller.file(modeller.predicted(count, want, parameters, **how), parameters=parameters)

    yield ok("predicted", "no vectors: the corrections of 24 tokens", predicted(24, now_and_then))
    yield ok("predicted-one-token", "one token", predicted(1, best))
    sentence = modeller.tokens_of(ENGLISH)
    for noise, shift, spelt in [(0, 2, ()), (4, 1, ()), (8, 3, ()), (12, 1, ()), (13, 11, (0, 23)), (15, 4, (0, 23))]:
        file = predicted(len(sentence), told(sentence), Parameters(noise), shifts=(shift,), spelt=spelt)
        yield ok(f"noise-exponent-{noise}", f"a sentence of which the model knows little, with k = {noise}", file)
    every = [1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 19, 20, 27, 28, 35, 36, 51, 52, 67, 68, 99, 100]
    every += [131, 132, 195, 196, 259, 260, 287]
    yield ok(
        "predicted-every-rank-class",
        "the first and the last rank of every rank class",
        predicted(len(every), lambda t, falling: falling[every[t]], Parameters(15), shifts=(1,)),
    )
    unlikely = predicted(140, lambda t, falling: falling[-2], Parameters(12))
    yield ok("predicted-unlikely", "140 tokens of rank 286: a Bit is learnt from more than a thousand times", unlikely)
    not_utf8 = modeller.tokens_of(b"on the \xff\xfe\xc3( of the\x80 \xed\xa0\x80 water")
    yield ok(
        "predicted-not-utf8",
        "bytes that are no valid UTF-8, amid text",
        predicted(len(not_utf8), told(not_utf8), shifts=(1,), spelt=(1,)),
    )
    long = modeller.tokens_of(b"A tale: " + CITIES_TEXT.encode())
    yield ok(
        "predicted-long-token",
        "an added token that is not special stands for its content",
        predicted(len(long), told(long)),
    )
    yield ok(
        "predicted-whole-context",
        "1 + T is the context of the model: 512 positions",
        predicted(511, best, spelt=range(511)),
    )

    for start in (END, 287):
        file = predicted(24, now_and_then, Parameters(start=start))
        yield ok(f"start-token-{start}", f"Start_Token is {start}, which stands for nothing", file)
    for shift in (1, 1023):
        yield ok(f"shift-{shift}", f"Shift is {shift}", predicted(24, now_and_then, shifts=(shift,)))
    yield ok("exceptions-all", "all 24 tokens are exceptions", predicted(24, now_and_then, spelt=range(24)))
    yield ok(
        "exceptions-first-and-last",
        "the first and the last of 24 tokens are exceptions",
        predicted(24, now_and_then, spelt=(0, 23)),
    )
    yield ok(
        "exceptions-of-one-token",
        "an exception in a chunk of one token: a Position of no bits",
        predicted(1, best, spelt=(0,)),
    )
    yield ok(
        "exceptions-of-16-tokens",
        "exceptions in a chunk of 16 tokens: a Position of four bits",
        predicted(16, now_and_then, spelt=(7, 15)),
    )
    twins = told([*b"a", *TWINS, *b"b", *TWINS, *b"cd"])
    yield ok("near-tie", "two tokens whose logits tie", predicted(8, twins, Parameters(9)))
    yield ok(
        "near-alone",
        "Near without another token that is near, n from 1 to 9",
        predicted(18, now_and_then, near={2 * i: i + 1 for i in range(9)}),
    )
    yield ok(
        "corrections-longest",
        "of all sequences of bytes that decode to the corrections, the last: four bytes or more too long",
        predicted(24, now_and_then, end=RangeEncoder.highest),
    )
    for what, description, count, parameters in [
        ("one-token", "chunks of one token, with three of context", 10, Parameters(10, 1, 3)),
        ("without-context", "chunks that see nothing before them", 20, Parameters(10, 8, 0)),
        ("context", "chunks that see five tokens before them", 20, Parameters(10, 8, 5)),
        ("context-of-all", "chunks that see all tokens before them", 20, Parameters(10, 8, 300)),
        ("full", "the last chunk is not shorter", 24, Parameters(10, 8, 7)),
        ("largest", "Chunk_Tokens and Context_Tokens are 2^16", 20, Parameters(14, 2**16, 2**16)),
    ]:
        yield ok(f"chunks-{what}", description, predicted(count, now_and_then, parameters, shifts=(0, 700, 5)))
    parameters = Parameters(10, 6, 6)
    yield ok(
        "chunks-exceptions",
        "exceptions in every chunk",
        predicted(17, now_and_then, parameters, shifts=(1, 0), spelt=(1, 4)),
    )


def valid_learning(modeller):
    """What is long enough that candidates may come before ranks."""
    lines = b"".join(b"%d, the rain, %d\n" % (n, n * n) for n in range(40)) + b"the rain, the rain\n" * 4
    tokens = modeller.tokens_of(lines)
    for what, description, count, parameters, how in [
        ("least", "256 tokens: the fewest that learn", 256, STANDARD, {"shifts": (5,)}),
        ("and-exceptions", "some exceptions amid candidates", 300, STANDARD, {"shifts": (5,), "spelt": (7, 250)}),
        (
            "in-chunks",
            "candidates go on from chunk to chunk, with wide buckets",
            300,
            Parameters(10, 90, 20),
            {"shifts": (7, 0, 22, 1)},
        ),
    ]:
        group = modeller.predicted(count, told(tokens[:count]), parameters, learns=True, **how)
        yield ok(f"learning-{what}", description, modeller.file(group, parameters=parameters))
    group = modeller.predicted(256, now_and_then, shifts=(0,))
    yield ok("learning-not", "256 tokens, and no candidates", modeller.file(group))


def valid_mixed(modeller):
    corrected = modeller.corrected(draw(4, 4), 20, now_and_then)
    recited = modeller.recited(draw(0, 4, 2), 24)
    predicted = modeller.predicted(24, now_and_then)
    yield ok(
        "every-kind",
        "groups of all kinds, and a name",
        modeller.file(raw(b"1: "), recited, NAIL, predicted, raw(b"\n"), corrected, same(b"!", 99), name=b"all.txt"),
    )
    yield ok(
        "two-predicted",
        "two groups: the second sees nothing of the first, and its probabilities begin anew",
        modeller.file(predicted, modeller.predicted(9, now_and_then), hash_size=32),
    )
    file = modeller.file(predicted)
    for what, description, fields in [
        (
            "hub",
            "a model of the Hugging Face Hub, with its commit",
            {"model_id": b"hf:example/tiny", "revision": b"0123456789abcdef0123456789abcdef01234567"},
        ),
        ("local-revision", "a local model with Revision, a hint that is worth nothing", {"revision": b"1"}),
        (
            "like-a-path",
            "Model_ID looks like a path, which a reader must not follow",
            {"model_id": b"local:../../etc/passwd"},
        ),
        (
            "steering",
            "Model_ID and Revision hold characters that are not for showing as they are",
            {"model_id": f"local:{''.join(STEERING.values())}".encode(), "revision": "\u202e1".encode()},
        ),
        (
            "255-bytes",
            "the longest Model_ID and Revision",
            {"model_id": b"hf:" + b"m" * 252, "revision": b"r" * 255},
        ),
    ]:
        yield ok(f"model-id-{what}", description, replace(file, model=replace(file.model, **fields)))
    nameless = replace(file, model=replace(file.model, model_id=b""))
    yield ok("model-id-empty", "Model_ID is empty, and both hashes have 4 bytes", nameless)


def invalid_header(modeller):
    stored = File((raw(b"left "), same(b"-", 40), raw(b" right")), name=b"dash.txt")
    one, blob = File((raw(b"a"),)), bytes(stored)
    yield bad("magic-empty-file", "no bytes at all", b"")
    yield bad("magic-genomics", "the magic of the genomics format CRAM", b"CRAM\x03\x00" + bytes(20))
    yield bad("magic-first-bit-lost", "bit 7 of the first byte is lost", replace(stored, magic=b"\x1dCZ"))
    yield bad("version-missing", "the file ends after the magic", blob[:3])
    yield bad("version-0", "version 0", replace(stored, version=0))
    yield bad("version-2", "version 2", replace(stored, version=2))
    yield bad("version-2-ending", "version 2, and an ending", replace(one, version=2, ending=1))

    for bit in (2, 3, 4):
        description = f"flag bit {bit} is set, reserved without a model block"
        yield bad(f"header-flag-{bit}-reserved", description, replace(stored, wrong_flags=1 << bit))
    for what, description, size in [
        ("not-shortest", "Original_Size 1 is written in two bytes", b"\x81\x00"),
        ("too-long", "Original_Size is written in ten bytes, with a value of 2^63", b"\x80" * 9 + b"\x01"),
    ]:
        yield bad(f"header-varint-{what}", description, replace(one, original_size=size))

    controls = [("nul", b"\0"), ("newline", b"\n"), ("delete", b"\x7f")]
    broken = [("latin-1", b"\xe9"), ("surrogate", b"\xed\xa0\x80"), ("cut", b"\xe2\x82")]
    for what, bytes_ in controls + broken:
        yield bad(f"header-name-{what}", f"Name holds {bytes_.hex(' ')}", replace(stored, name=b"a" + bytes_))
    for what, name in [
        ("empty", b""),
        ("dot-dot", b".."),
        ("slash", b"a/b"),
        ("backslash", b"a\\b"),
        ("256-bytes", b"n" * 256),
    ]:
        yield bad(f"header-name-{what}", "Name is no base name of 1 to 255 bytes", replace(stored, name=name))
    yield bad(
        "header-name-beyond-file", "Name is longer than the file", blob.replace(b"\x08dash.txt", b"\xff\x01dash.txt")
    )

    yield bad("header-ending-and-name", "an ending beside a name", replace(stored, ending=1))
    for what, ending in [
        ("reserved", 75),
        ("255", 255),
        ("empty", b""),
        ("digits", b"1897"),
        ("dot", b"tar.gz"),
        ("slash", b"a/b"),
        ("latin-1", b"caf\xe9"),
        ("nul", b"a\0"),
        ("of-the-table", b"txt"),
    ]:
        yield bad(f"header-ending-{what}", f"Ending is {ending}", replace(one, ending=ending))
    spelled = replace(one, ending=b"beyond")
    yield bad("header-ends-in-ending", "the file ends within Ending", spelled.header().partition(b"yond")[0])

    parameters = Parameters(10, 300, 200)
    corrected = modeller.corrected(draw(4, 4), 20, now_and_then, parameters=parameters)
    corrected = modeller.file(corrected, name=b"cut.txt", parameters=parameters)
    whole = replace(corrected, model=replace(modeller.block, model_id=b"hf:example/tiny", revision=b"1234"))
    header = whole.header()
    for what, length in [
        ("flags", 4),
        ("hash", header.index(b"\x07cut.txt") - 1),
        ("name", header.index(b"cut.txt") + 6),
        ("model-id", header.index(b"hf:example/tiny") + 3),
        ("fingerprint", header.index(whole.model.fingerprint) + 31),
        ("parameters", header.index(bytes(whole.parameters)) + 4),
        ("vector-block", len(header) - 3),
        ("group-count", len(header) - 1),
    ]:
        yield bad(f"header-ends-in-{what}", f"the file ends after {length} bytes", header[:length])

    hub = {"model_id": b"hf:example/tiny"}
    for what, description, lies in [
        ("id-256-bytes", "Model_ID has 256 bytes", {"model_id": b"local:" + b"m" * 250}),
        ("id-latin-1", "Model_ID is not UTF-8", {"model_id": b"local:\xe9"}),
        ("id-unknown-kind", "Model_ID is of an unknown kind", {"model_id": b"builtin:tiny"}),
        ("id-without-name", "Model_ID names nothing", {"model_id": b"hf:"}),
        ("revision-256-bytes", "Revision has 256 bytes", {**hub, "revision": b"r" * 256}),
        ("revision-escape", "Revision holds an escape sequence", {**hub, "revision": b"\x1b[2J"}),
    ]:
        yield bad(f"header-model-{what}", description, replace(corrected, model=replace(modeller.block, **lies)))
    for what, description, lies in [
        ("noise-16", "Noise_Exponent is 16", Parameters(noise=16)),
        ("chunk-0", "Chunk_Tokens is 0", Parameters(chunk=0)),
        ("chunk-too-big", "Chunk_Tokens is 2^16 + 1", Parameters(chunk=2**16 + 1)),
        ("chunk-not-shortest", "Chunk_Tokens 512 is written in three bytes", Parameters(chunk=b"\x80\x84\x00")),
        ("context-too-big", "Context_Tokens is 2^16 + 1", Parameters(context=2**16 + 1)),
        ("start-too-big", "Start_Token is 2^24", Parameters(start=2**24)),
    ]:
        yield bad(f"header-parameters-{what}", description, replace(corrected, parameters=lies))
    predicted = modeller.file(modeller.predicted(20, now_and_then))
    for what, file in [("standard", predicted), ("standard-with-vectors", corrected)]:
        yield bad(
            f"header-parameters-{what}",
            "the parameters are the standard ones, and written out",
            replace(file, parameters=Parameters(), standard_written=True),
        )
    for what, description, lies in [
        ("coding-0-reserved", "Vector_Coding is 0", {"coding": 0}),
        ("coding-8-reserved", "Vector_Coding is 8", {"coding": 8}),
        ("coding-16-reserved", "Vector_Coding is 16 + 4", {"coding": 16 + 4}),
        ("width-0", "Vector_Width is 0", {"width": 0}),
        ("width-too-big", "Vector_Width is 2^14 + 1 (and the payload is not that long)", {"width": 2**14 + 1}),
        ("gain-too-big", "Vector_Gain is 2^48 + 2", {"gain": 2**48 + 2}),
    ]:
        yield bad(f"header-vectors-{what}", description, replace(corrected, vectors=replace(corrected.vectors, **lies)))


def invalid_table(modeller):
    stored = File((raw(b"left "), same(b"-", 40), raw(b" right")), name=b"dash.txt")
    left, dash, right = stored.groups
    one, blob = File((raw(b"a"),)), bytes(stored)
    before_payloads = len(stored.header()) + len(stored.table()) + 4
    recited = modeller.recited(draw(0, 4, 2), 24)
    corrected = modeller.corrected(draw(4, 4), 20, now_and_then)
    predicted = modeller.predicted(24, now_and_then)

    def beside(group, **fields):
        """A file of a group and a stored one."""
        return modeller.file(group, raw(b"\n"), **fields)

    yield bad(
        "table-count-huge", "Group_Count is 2^62, more than the file can hold", replace(stored, group_count=2**62)
    )
    yield bad(
        "table-count-beyond-file",
        "Group_Count is one more than the number of seven-byte entries that fit",
        replace(stored, group_count=(len(blob) - len(stored.header())) // 7 + 1),
    )
    yield bad(
        "table-count-one-too-few", "Group_Count is 2, and there are three entries", replace(stored, group_count=2)
    )
    yield bad(
        "table-count-one-too-many", "Group_Count is 4, and there are three entries", replace(stored, group_count=4)
    )
    yield bad("table-no-group-for-one-byte", "Original_Size is 1, Group_Count 0", File(original_size=1))
    yield bad("table-group-for-no-bytes", "Original_Size is 0, Group_Count 1", replace(one, original_size=0))
    yield bad("table-groups-for-no-bytes", "Original_Size is 0, Group_Count 3", replace(stored, original_size=0))
    yield bad("table-ends-in-entries", "the file ends within the entries", blob[: before_payloads - 5])
    yield bad("table-ends-in-check", "the file ends within Check", blob[: before_payloads - 1])
    yield bad("table-check-empty", "Check of an empty file differs", File(check=0))
    yield bad("table-check-one-group", "Check of a file of one group differs", File((NAIL,), check=0))
    yield bad("table-check-several-groups", "Check of a file of three groups differs", replace(stored, check=0))
    only = bytes(modeller.file(corrected))
    yield bad(
        "table-only-group-payload-bit",
        "a bit of the payload of the only group differs",
        only[:-1] + bytes([only[-1] ^ 64]),
    )
    yield bad("table-only-group-byte-missing", "the last byte of a file of one group is missing", only[:-1])
    yield bad("table-only-group-byte-trailing", "a byte follows the file of one group", only + b"\1")
    yield bad("table-only-group-no-check", "a file of one group ends after Kind", bytes(one)[:-5])
    yield bad("table-kind-8-reserved", "Kind 8", replace(one, groups=(replace(left, kind=8), right)))
    yield bad(
        "table-only-group-kind-8-reserved",
        "Kind 8 in a file of one group",
        replace(one, groups=(replace(left, kind=8),)),
    )
    yield bad("table-sizes-short", "Original_Size is one more than the Sizes", replace(stored, original_size=52))
    yield bad("table-sizes-long", "Original_Size is one less than the Sizes", replace(stored, original_size=50))
    yield bad("table-size-0", "Size of a raw group is 0", File((raw(b"a"), raw(b""))))
    yield bad("table-size-too-big", "Size is 2^22 + 1", File((same(b"\0", 2**22 + 1), raw(b"a"))))
    yield bad("table-only-group-too-big", "the only group has 2^22 + 1 bytes", File((same(b"\0", 2**22 + 1),)))
    yield bad(
        "table-payload-size-not-shortest",
        "Payload_Size 1 is written in two bytes",
        File((replace(raw(b"a"), payload_size=b"\x81\x00"), raw(b"b"))),
    )
    for what, description, group in [
        ("raw-payload-longer", "Payload_Size of a raw group is Size + 1", Group(RAW, b"ab", b"a")),
        ("zstd-payload-0", "Payload_Size of a zstd group is 0", Group(ZSTD, b"", b"-" * 40)),
        ("zstd-payload-as-long", "Payload_Size of a zstd group is Size", same(b"-", 13)),
    ]:
        yield bad(f"table-{what}", description, File((group, raw(b"a"))))
    yield bad(
        "table-only-group-raw-shorter",
        "the only group is raw, with a byte less than the original",
        File((Group(RAW, b"a", b"ab"),)),
    )
    yield bad(
        "table-only-group-zstd-as-long",
        "the payload of the only group, a zstd one, is as long as the original",
        File((same(b"-", 13),)),
    )

    yield bad("table-model-missing", "a predicted group, but no model block", replace(beside(predicted), model=None))
    yield bad(
        "table-model-superfluous", "a model block, but stored groups alone", replace(stored, model=modeller.block)
    )
    yield bad("table-vectors-missing", "a recited group, but no vector block", replace(beside(recited), vectors=None))
    yield bad(
        "table-vectors-superfluous",
        "a vector block, but predicted groups alone",
        replace(beside(predicted), vectors=VectorBlock(4)),
    )
    for what, description, lies in [
        ("tokens-0", "Token_Count is 0", {"tokens": 0}),
        ("tokens-too-many", "Token_Count is 2^16 + 1", {"tokens": 2**16 + 1, "content": b"-" * 2**17}),
        ("tokens-beyond-size", "Token_Count is Size + 1", {"tokens": len(predicted.content) + 1}),
    ]:
        yield bad(f"table-{what}", description, beside(replace(predicted, **lies)))
    beyond = replace(predicted, tokens=len(predicted.content) + 1)
    yield bad(
        "table-only-group-tokens-beyond-size",
        "Token_Count of the only group is Original_Size + 1",
        modeller.file(beyond),
    )
    yield bad("table-vector-count-0", "Vector_Count is 0", beside(replace(corrected, vectors=0)))
    many = replace(recited, vectors=2**12 + 1, payload=bytes(2 * (2**12 + 1)))
    file = replace(beside(many), vectors=VectorBlock(1, width=1))
    yield bad("table-vector-count-too-big", "Vector_Count is 2^12 + 1, with vectors of width 1", file)
    for what, group, payload in [
        ("recited-payload-long", recited, recited.payload + b"\1"),
        ("corrected-payload-short", corrected, corrected.payload[:6]),
    ]:
        description = f"the payload has {len(payload)} bytes, and the vectors take {7 * group.vectors}"
        yield bad(f"table-{what}", description, beside(replace(group, payload=payload)))
        if group is recited:
            description += ", in a file of one group"
            yield bad(f"table-only-group-{what}", description, modeller.file(replace(group, payload=payload)))
    parameters = Parameters(chunk=8)
    yield bad(
        "table-recited-chunks-without-vectors",
        "three chunks, and vectors for one",
        beside(recited, parameters=parameters),
    )

    yield bad("length-byte-missing", "the last byte is missing", blob[:-1])
    yield bad("length-byte-trailing", "a byte follows the last payload", blob + b"\0")
    yield bad("length-no-payloads", "the file ends with Check", blob[:before_payloads])
    yield bad("length-empty-with-trailing-byte", "a byte follows an empty file", bytes(File()) + b"\0")
    yield bad(
        "length-payload-beyond-file",
        "Payload_Size of a predicted group is 2^62",
        beside(replace(predicted, payload_size=2**62)),
    )
    for what, group in [("raw", left), ("zstd", dash), ("corrected", corrected)]:
        groups = (right, replace(group, payload_crc=0))
        file = modeller.file(*groups) if group.tokens else File(groups)
        yield bad(f"payload-crc-{what}", f"Payload_CRC of a {what} group differs", file)


def invalid_vectors(modeller):
    recited = modeller.recited(draw(2, 7, 2), 12, 7)
    for what, value in [("infinite", b"\x00\x7c"), ("nan", b"\x01\xfc")]:
        file = modeller.file(replace(recited, payload=recited.payload[:-2] + value), coding=7)
        yield bad(f"vectors-{what}", f"the last value of the second vector is {value[::-1].hex()}", file)

    def of_width_17(coding, payload):
        """A file with two vectors, of a width that leaves bits over in every coding."""
        file = modeller.file(replace(recited, payload=payload))
        return replace(file, vectors=VectorBlock(coding, width=17))

    codes = np.zeros(17, int)
    for coding, description, last in [
        (1, "bit 1 of the last byte, after the last code, is set", 0x02),
        (2, "the third code of the last byte, after the last code, is 1", 9),
        (3, "bit 7 of the last byte, after the last code, is set", 0x80),
        (4, "bit 3 of the last byte, after the last code, is set", 0x08),
        (5, "bit 7 of the last byte, after the last code, is set", 0x80),
    ]:
        vector = pack(coding, 128, codes)
        yield bad(
            f"vectors-coding-{coding}-filled", description, of_width_17(coding, vector + vector[:-1] + bytes([last]))
        )
    vector = bytes([128, 0, 243, 0, 0])
    yield bad("vectors-byte-243", "a byte of coding 2 is 243", of_width_17(2, vector + vector))


def invalid_model(modeller):
    recited, predicted = modeller.recited(draw(0, 4, 2), 24), modeller.predicted(24, now_and_then)
    file, block = modeller.file(predicted), modeller.block
    flipped = bytes([block.fingerprint[0] ^ 1]) + block.fingerprint[1:]
    yield bad(
        "model-other-fingerprint",
        "one bit of Model_Fingerprint differs",
        replace(file, model=replace(block, fingerprint=flipped)),
    )
    flipped = block.tokenizer_hash[:-1] + bytes([block.tokenizer_hash[-1] ^ 1])
    yield bad(
        "model-other-tokenizer",
        "one bit of Tokenizer_Hash differs",
        replace(file, model=replace(block, tokenizer_hash=flipped)),
    )
    for field in ("fingerprint", "tokenizer_hash"):
        brief = getattr(block, field)[:3] + bytes([getattr(block, field)[3] ^ 1])
        lie = replace(block, model_id=b"", **{field: brief})
        yield bad(
            f"model-other-brief-{field.replace('_', '-')}",
            f"one bit of 4 bytes of {field} differs",
            replace(file, model=lie),
        )
    unknown = {"model": None, "digest": b"\0\1\2\3"}
    yield bad("model-digest-unknown", "a built-in model that no program has", replace(file, **unknown))
    yield bad(
        "model-digest-unknown-and-all",
        "a built-in model that no program has, and all else that a header can hold",
        modeller.file(recited, predicted, name=b"all.txt", hash_size=32, parameters=Parameters(0, 2**16, 0), **unknown),
    )
    narrow = replace(modeller.file(replace(recited, payload=recited.payload[:8])), vectors=VectorBlock(4, width=8))
    yield bad("model-other-width", "Vector_Width is half of the model's", narrow)
    wide = replace(modeller.file(Group(RECITED, bytes(1 + 2**11), b"-", 1, 1)), vectors=VectorBlock(1, width=2**14))
    yield bad("model-largest-width", "Vector_Width is 2^14", wide)
    for what, description, group, start in [
        ("v", "V", predicted, 288),
        ("v-and-vectors", "V, and no group begins with it", recited, 288),
    ]:
        file = modeller.file(group, parameters=Parameters(start=start))
        yield bad(f"model-start-token-{what}", f"Start_Token is {description}", file)
    many = replace(modeller.file(Group(RECITED, bytes(2**13), b"-", 1, 2**12)), vectors=VectorBlock(1, width=1))
    yield bad("model-largest-vector-count", "Vector_Count is 2^12, with vectors of width 1", many)
    many = Group(PREDICTED, predicted.payload, b"-" * 2**16, 2**16)
    yield bad("model-largest-token-count", "Token_Count is 2^16", modeller.file(many))

    def of_tokens(count, parameters):
        return modeller.file(Group(PREDICTED, predicted.payload, b"-" * count, count), parameters=parameters)

    yield bad("model-context-exceeded", "1 + T is 513, and the model has 512 positions", of_tokens(512, Parameters()))
    yield bad(
        "model-context-exceeded-by-chunks",
        "256 tokens of context, a chunk of 256 and the start token",
        of_tokens(512, Parameters(14, 256, 256)),
    )
    many = Group(RECITED, draw(8, 1, 413), b"-" * 100, 100, 413)
    yield bad("model-context-exceeded-by-vectors", "413 vectors and 100 tokens", modeller.file(many, coding=1))
    many = Group(RECITED, draw(8, 1, 412), b"-" * 100, 100, 412)
    yield bad(
        "model-context-exceeded-by-start",
        "the start token, 412 vectors and 100 tokens",
        modeller.file(many, coding=1 | AFTER_START),
    )


def invalid_zstd():
    dash = same(b"-", 40)

    def changed(data, place, bits):
        return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]

    frame, skippable = dash.payload, b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    for what, description, payload in [
        ("no-frame", "the payload is no zstd frame", b"-" * 13),
        ("frame-cut", "the frame ends early", frame[:-1]),
        ("trailing-byte", "a byte follows the frame", frame + b"\0"),
        ("two-frames", "two frames of 20 bytes", zstd_frame(b"-", 20) + zstd_frame(b"-", 20)),
        ("empty-frame-after", "a frame without content follows", frame + bytes.fromhex("28b52ffd2000010000")),
        ("skippable-frame-before", "a skippable frame comes first", skippable + frame),
        ("no-content-size", "the frame does not state its content size", zstd_frame(b"-", 40, stated=-1, window=0)),
        ("content-size-too-big", "the frame states 41 bytes and has 40", zstd_frame(b"-", 40, stated=41)),
        ("content-size-too-small", "the frame states 39 bytes and has 40", zstd_frame(b"-", 40, stated=39, window=0)),
        ("window-too-big", "the frame has a window of 2^23 + 2^20 bytes", zstd_frame(b"-", 40, window=13 << 3 | 1)),
        ("dictionary", "the frame names a dictionary", zstd_frame(b"-", 40, dictionary=b"\x01")),
        ("dictionary-0", "the frame names the dictionary 0, which is none", zstd_frame(b"-", 40, dictionary=b"\x00")),
        ("reserved-bit", "bit 3 of the descriptor of the frame is set", changed(frame, 4, 1 << 3)),
        ("unused-bit", "bit 4 of the descriptor of the frame is set", changed(frame, 4, 1 << 4)),
        ("reserved-block", "the block of the frame is of the reserved type 3", changed(frame, 9, 1 << 2)),
        (
            "single-segment-huge",
            "a frame of a single segment states 2^40 bytes, which are its window too",
            b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + frame[9:],
        ),
    ]:
        yield bad(f"content-zstd-{what}", description, File((replace(dash, payload=payload),)))
    long = Group(ZSTD, frame, b"-" * 41)
    yield bad("content-zstd-size-differs", "the frame states and has 40 bytes, Size is 41", File((long,)))
    bomb = Group(ZSTD, zstd_frame(b"-", 200 * 2**17, stated=1000, window=7 << 3), b"-" * 1000)
    yield bad("content-zstd-bomb", "the frame states 1000 bytes and has 25 MiB", File((bomb,)))
    wrong = replace(NAIL, payload=NAIL.payload[:-1] + b"\0")
    yield bad("content-zstd-checksum", "the checksum in the frame is wrong", File((wrong,)))
    modes = replace(NAIL, payload=changed(NAIL.payload, 77, 1))  # after a block header, literals, a number of sequences
    yield bad("content-zstd-reserved-modes", "a reserved bit of Symbol_Compression_Modes is set", File((modes,)))


def invalid_corrections(modeller):
    predicted = modeller.predicted(24, now_and_then)
    (steps,), _ = modeller.follow(PREDICTED, 24, now_and_then)
    token, logits = steps[0]

    def first_token(g, index, near=(), noise=14):
        """Corrections that end after the first token: of this rank class, with this Index, Bits and Low_ID."""
        writer = Writer(len(logits), noise)
        writer.known.set_shift(0)
        writer.coder.unbounded(0)
        writer.coder.unbounded(0)
        writer.rank_class(g, writer.known.confidences(np.sort(logits)[::-1])[: g + 1])
        writer.coder.number(index, index_bits(g))
        if near:
            n, low_id = near
            writer.coder.decision(writer.known.nearness(g), True)
            writer.coder.unbounded(n - 1)
            writer.coder.number(low_id, n)
        return writer.coder.shortest()

    zeros, exception = RangeEncoder(), RangeEncoder()
    zeros.unbounded(2**33)
    for value, n_bits in [(1, 1), (0b010, 3), (0, 5), (len(logits), 9)]:  # Shift 0, Exception_Count 1, Position 0
        exception.number(value, n_bits)
    for what, description, data in [
        ("empty", "no bytes: 33 bits 0 and more where Shift should be", b""),
        ("33-zeros", "Shift is an unbounded number that begins with 33 bits 0", zeros.shortest()),
        ("exception-too-big", "the id of an exception is V", exception.shortest()),
        ("rank-too-big", "a rank is V: Index 28 in the last rank class, which has 28 ranks", first_token(20, 28)),
        ("near-none", "Near, and no token that is near has this Low_ID", first_token(0, 0, (9, token ^ 1))),
    ]:
        yield bad(f"content-corrections-{what}", description, modeller.file(replace(predicted, payload=data)))
    for what, description, lies in [
        ("shift-1024", "Shift is 1024", {"says": [1024, 0]}),
        ("count-too-big", "25 exceptions in 24 tokens", {"says": [0, 25, *range(24), 23], "spelt": range(24)}),
        ("position-too-big", "the exception is at position 24 of 24 tokens", {"says": [0, 1, 24]}),
        ("position-twice", "two exceptions at position 3", {"says": [0, 2, 3, 3], "spelt": [3]}),
        ("position-falling", "exceptions at positions 7 and 3", {"says": [0, 2, 7, 3], "spelt": [3, 7]}),
        ("bits-too-many", "Near with 10 bits of an id, and the ids have nine", {"near": {4: 10}}),
    ]:
        file = modeller.file(modeller.predicted(24, now_and_then, **lies))
        yield bad(f"content-corrections-{what}", description, file)
    data = first_token(0, 0, (1, token % 2), noise=0)
    file = modeller.file(replace(predicted, payload=data), parameters=Parameters(noise=0))
    yield bad("content-corrections-near-two", "Near, and several tokens that are near have this Low_ID", file)

    longest = modeller.predicted(24, now_and_then, end=RangeEncoder.highest).payload
    for what, description, payload in [
        ("byte-left-over", "a byte more than the decoder asks for", longest + b"\1"),
        ("last-byte-zero", "the last byte is zero", predicted.payload + b"\0"),
        ("cut", "the last two bytes are missing", predicted.payload[:-2]),
        ("first-bit", "a bit of the first byte differs", bytes([predicted.payload[0] ^ 1]) + predicted.payload[1:]),
    ]:
        yield bad(f"content-corrections-{what}", description, modeller.file(replace(predicted, payload=payload)))
    many = Group(PREDICTED, b"\xc0", b"-" * 4097, 4097)
    yield bad(
        "content-corrections-too-few",
        "4097 tokens and one byte of corrections: refused before a token is decoded",
        modeller.file(many, parameters=Parameters(chunk=64, context=0)),
    )
    parameters = Parameters(10, 8, 5)
    writer = Writer(len(logits), parameters.noise)
    (steps, *_), _ = modeller.follow(PREDICTED, 20, now_and_then, parameters=parameters)
    writer.chunk(steps, 0)
    writer.coder.unbounded(1024)
    group = replace(modeller.predicted(20, now_and_then, parameters), payload=writer.coder.shortest())
    file = modeller.file(group, parameters=parameters)
    yield bad("content-corrections-second-shift-1024", "Shift of the second chunk is 1024", file)


def invalid_content(modeller):
    recited = modeller.recited(draw(0, 4, 2), 24)
    corrected = modeller.corrected(draw(4, 4), 20, now_and_then)
    predicted = modeller.predicted(24, now_and_then)
    dash = same(b"-", 40)
    for what, group in [("zstd", dash), ("recited", recited), ("predicted", predicted)]:
        groups = (replace(group, content_crc=0), raw(b"\n"))
        file = modeller.file(*groups) if group.tokens else File(groups)
        yield bad(f"content-crc-{what}", f"Content_CRC of a {what} group differs", file)
    for size in (4, 8, 16, 32):
        stored = File((dash, raw(b"\n")), hash_size=size)
        wrong = bytearray(hashlib.sha256(stored.original).digest()[:size])
        wrong[-1] ^= 1
        description = f"the last of {size} bytes of Original_Hash differs"
        yield bad(f"content-hash-{size}", description, replace(stored, original_hash=bytes(wrong)))
    yield bad("content-hash-empty", "Original_Hash of an empty file differs", File(original_hash=bytes(8)))
    file = modeller.file(corrected, original_hash=bytes(8))
    yield bad("content-hash-corrected", "Original_Hash of a corrected group differs", file)
    yield bad(
        "content-groups-swapped",
        "two raw groups stand in the wrong order",
        File((raw(b"left"), raw(b"right")), original_hash=hashlib.sha256(b"rightleft").digest()[:8]),
    )
    for what, content in [("more", predicted.content[:-1]), ("less", predicted.content + b"-")]:
        file = modeller.file(replace(predicted, content=content), raw(b"\n"))
        yield bad(f"content-size-and-{what}", f"the tokens have one byte {what} than Size", file)
    other = recited.payload[:1] + bytes([recited.payload[1] ^ 7]) + recited.payload[2:]
    yield bad(
        "content-other-vector",
        "the first code of the first vector is another",
        modeller.file(replace(recited, payload=other)),
    )
    for what, token in [("special", END), ("beyond-tokenizer", len(modeller.table)), ("highest", 287)]:
        spelt = (23,) if what == "highest" else ()
        group = modeller.predicted(24, lambda t, falling, token=token: token if t == 23 else falling[0], spelt=spelt)
        description = f"the last token{', an exception,' if spelt else ''} is {token}, which stands for nothing"
        yield bad(f"content-token-{what}", description, modeller.file(group))


def all_vectors():
    modeller = Modeller(HERE / "model")
    yield from valid_stored()
    for makers in (valid_recited, valid_corrected, valid_predicted, valid_learning, valid_mixed):
        yield from makers(modeller)
    yield from invalid_header(modeller)
    yield from invalid_table(modeller)
    yield from invalid_vectors(modeller)
    yield from invalid_model(modeller)
    yield from invalid_zstd()
    yield from invalid_corrections(modeller)
    yield from invalid_content(modeller)
    yield from exact_vectors.all_vectors(HERE / "exact_model", HERE / "model")
    yield from wide_vectors.all_vectors(HERE / "model")
    yield from filter_vectors.all_vectors(HERE / "exact_model", modeller)
    for_floats = Modeller(HERE / "exact_model")
    yield ok(
        "int8-weights",
        "a predicted group of the model for exact arithmetic, in floats",
        for_floats.file(for_floats.predicted(24, now_and_then)),
        model="exact_model",
    )


def write_vectors(folder):
    vectors = list(all_vectors())
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.cram"):
        stale.unlink()
    for vector in vectors:
        (folder / f"{vector.name}.cram").write_bytes(vector.blob)
    index = {"vectors": [describe(vector) for vector in vectors]}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write_vectors(Path(sys.argv[1]) if sys.argv[1:] else HERE / "vectors")
