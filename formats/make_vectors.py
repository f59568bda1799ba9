#!/usr/bin/env python3
"""Makes the test vectors of the `.cram` format: files that a reader must decode, and files that it must refuse.

    python formats/make_vectors.py [FOLDER]        (without FOLDER: formats/vectors)

Written from cram.md alone; it shares the model of reader.py, but no code with the library. Every invalid file
has one fault, and everything that depends on the faulty field (CRCs above all) agrees with it, so that only the
check in question can refuse the file. The same files come out on every machine.
"""

import hashlib
import json
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from llama import Llama, fingerprint, read_config, read_tensors, token_table, tokenizer_hash
from make_model import CITIES_TEXT, END

HERE = Path(__file__).parent
RAW, ZSTD, CRAMMED = 0, 1, 2
NOISE_EXPONENT = 8
CLOSE = 2**-11  # several times what the logits of two machines differ by


# ---------------------------------------------------------------- a writer that can lie


def varint(value):
    """A value given as bytes is written as it is: so are encodings made that no writer makes."""
    if isinstance(value, bytes):
        return value
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def u32(value):
    return value.to_bytes(4, "little")


def string(content):
    return varint(len(content)) + content


def honest(lie, truth):
    return truth if lie is None else lie


@dataclass(frozen=True)
class Part:
    """A chunk: its payload, the bytes that it stands for, its entry. A field other than None is a lie."""

    kind: int
    payload: bytes
    content: bytes
    tokens: int = 0
    vectors: int = 0
    size: int | None = None
    payload_size: int | bytes | None = None
    payload_crc: int | None = None
    content_crc: int | None = None

    def __len__(self):
        return honest(self.size, len(self.content))

    def entry(self):
        out = bytes([self.kind]) + varint(len(self))
        out += varint(honest(self.payload_size, len(self.payload)))
        out += u32(honest(self.payload_crc, zlib.crc32(self.payload)))
        if self.kind != RAW:
            out += u32(honest(self.content_crc, zlib.crc32(self.content)))
        if self.kind == CRAMMED:
            out += varint(self.tokens) + varint(self.vectors)
        return out


@dataclass(frozen=True)
class Block:
    """The model block. All fields are given."""

    fingerprint: bytes
    tokenizer_hash: bytes
    vocabulary: int
    width: int
    model_id: bytes = b"local:tiny"
    revision: bytes = b""
    compute: int = 0
    noise: int = NOISE_EXPONENT
    vector_coding: int = 1
    correction_coding: int = 1

    def __bytes__(self):
        return (
            string(self.model_id)
            + string(self.revision)
            + self.fingerprint
            + self.tokenizer_hash
            + varint(self.vocabulary)
            + varint(self.width)
            + bytes([self.compute, self.noise, self.vector_coding, self.correction_coding])
        )


@dataclass(frozen=True)
class File:
    """A file of some parts. A field other than None is a lie, but for name and model, which may be absent."""

    parts: tuple[Part, ...] = ()
    name: bytes | None = None
    model: Block | None = None
    magic: bytes = b"\x9dCZ\n"
    version: int = 1
    flags: int = 0  # besides those for name and model
    original_size: int | bytes | None = None
    original_sha256: bytes | None = None
    chunk_count: int | None = None
    table: bytes | None = None
    table_size: int | None = None
    header_crc: int | None = None
    table_crc: int | None = None

    @property
    def original(self):
        return b"".join(part.content for part in self.parts)

    def header(self):
        out = self.magic + bytes([self.version])
        out += bytes([self.flags | (self.name is not None) | (self.model is not None) << 1])
        out += varint(honest(self.original_size, sum(map(len, self.parts))))
        out += honest(self.original_sha256, hashlib.sha256(self.original).digest())
        out += varint(honest(self.chunk_count, len(self.parts)))
        out += varint(honest(self.table_size, len(self.entries())))
        out += b"" if self.name is None else string(self.name)
        out += b"" if self.model is None else bytes(self.model)
        return out + u32(honest(self.header_crc, zlib.crc32(out)))

    def entries(self):
        return honest(self.table, b"".join(part.entry() for part in self.parts))

    def __bytes__(self):
        table = self.entries() + u32(honest(self.table_crc, zlib.crc32(self.entries())))
        return self.header() + table + b"".join(part.payload for part in self.parts)


def raw(content):
    return Part(RAW, content, content)


def zstd_frame(byte, count, stated=None, window=None, dictionary=b""):
    """A frame (RFC 8878, section 3.1.1) of `count` times the same byte, in RLE blocks.

    `stated` is the content size in its header, or -1 for none; `window` the window descriptor, without
    which the frame is a single segment.
    """
    stated = count if stated is None else stated
    descriptor = (2 if stated >= 0 else 0) << 6 | (window is None) << 5 | {0: 0, 1: 1}[len(dictionary)]
    out = b"\x28\xb5\x2f\xfd" + bytes([descriptor])
    out += (b"" if window is None else bytes([window])) + dictionary
    out += u32(stated) if stated >= 0 else b""
    while count:
        size = min(count, 2**17)
        count -= size
        out += (size << 3 | 1 << 1 | (count == 0)).to_bytes(3, "little") + byte
    return out


def same(byte, count, **frame):
    """A zstd chunk of `count` times the same byte."""
    return Part(ZSTD, zstd_frame(byte, count, **frame), byte * count)


NAIL_TEXT = (
    b"".join(
        b"For want of a %s the %s was lost.\n" % pair
        for pair in [
            (b"nail", b"shoe"),
            (b"shoe", b"horse"),
            (b"horse", b"rider"),
            (b"rider", b"message"),
            (b"message", b"battle"),
            (b"battle", b"kingdom"),
        ]
    )
    + b"And all for the want of a horseshoe nail.\n"
)
NAIL = Part(
    ZSTD,
    bytes.fromhex(  # zstd 1.5.7, level 19, with a checksum
        "28b52ffd641f0075030012c50f12b0b90100e2bcc29d958c5e2cae408e79122020643a5df3cc7b51b1b61c4d2abb8f9c63c6c5b024c66c"
        "1108cd9be76bc7457c44fd4ca7bf9b7debb5b31d0113208026cc1de314e016047b5fd4acbd2066c0597d6f8c12a0728b07b4e0ea7a11b4"
        "4069a9007801a7433c019a7acb68"
    ),
    NAIL_TEXT,
)


# ---------------------------------------------------------------- crammed chunks


class Crammer:
    """Makes crammed chunks with the tiny model."""

    def __init__(self, folder):
        config, tensors = read_config(folder), read_tensors(folder)
        self.model, self.table = Llama(config, tensors), token_table(folder)
        self.block = Block(
            fingerprint(config, tensors), tokenizer_hash(self.table), self.model.vocabulary_size, self.model.width
        )

    def tokens_of(self, text):
        """The longest token at each place: for a reader, any cut will do."""
        ids = {token: i for i, token in enumerate(self.table) if token is not None}
        lengths = {len(token) for token in ids}
        out = []
        while text:
            token = text[: max(n for n in lengths if text[:n] in ids)]
            out.append(ids[token])
            text = text[len(token) :]
        return out

    def cram(self, vectors, count, want=lambda t, best: best, noise=NOISE_EXPONENT):
        """A chunk of `count` tokens, decoded from float16 vectors, (M, D).

        `want(t, best)` is the token at t, where the model would take `best`; there is a correction wherever the
        two differ or the margin is too small. No decision is so close that another machine might take another.
        """
        x, tokens, corrections = list(vectors.astype(np.float32)), [], {}
        cache = self.model.empty_cache(len(vectors) + count)
        for position in range(len(vectors) + count - 1):
            logits = self.model.logits(x[position], position, cache)
            t = position - len(vectors) + 1
            if t < 0:
                continue
            best, (second, first) = int(logits.argmax()), np.sort(logits)[-2:]
            token = want(t, best)
            if token == best:
                assert first - second > CLOSE, f"{first - second} at {t}: take another seed"
                assert abs(first - second - 2 * 2.0**-noise) > CLOSE, f"{first - second} at {t}: take another seed"
            if token != best or first - second < 2 * 2.0**-noise:
                corrections[t] = token
            tokens.append(token)
            x.append(self.model.embedding[token])
        return self.part(vectors, tokens, corrections)

    def recite(self, vectors, count):
        """A chunk of what the model says from the vectors, without corrections."""
        part = self.cram(vectors, count)
        assert part.payload[-1] == 0, "a margin is small: take another seed"
        return part

    def force(self, vectors, text, noise=NOISE_EXPONENT):
        """A chunk of the given text, with the corrections that this needs."""
        tokens = self.tokens_of(text)
        return self.cram(vectors, len(tokens), lambda t, best: tokens[t], noise)

    def part(self, vectors, tokens, corrections):
        content = b"".join(self.table[token] or b"" for token in tokens if token < len(self.table))
        payload = vectors.astype("<f2").tobytes() + listed(corrections)
        return Part(CRAMMED, payload, content, len(tokens), len(vectors))


def listed(corrections):
    out, previous = varint(len(corrections)), -1
    for position, token in sorted(corrections.items()):
        out += varint(position - previous - 1) + varint(token)
        previous = position
    return out


def draw(seed, count, width=16):
    """Vectors that look like token embeddings: (count, width) float16."""
    return (2 * np.random.RandomState(seed).random_sample((count, width)) - 1).astype(np.float16)


# ---------------------------------------------------------------- the vectors


@dataclass(frozen=True)
class Vector:
    name: str
    description: str
    blob: bytes
    stage: str | None = None  # the stage that refuses it
    original: bytes | None = None  # or the bytes that it holds


def valid_vectors(crammer):
    block = crammer.block

    def ok(name, description, file):
        return Vector(f"ok-{name}", description, bytes(file), original=file.original)

    def crammed(*parts, **fields):
        return File(parts, model=replace(block, **fields))

    english = b"The rain of the other morning was in the water and on the hat of an engineer."
    every_byte = bytes(range(256))
    recital = crammer.recite(draw(1, 1), 40)
    extreme = draw(2, 2)
    extreme[0, :4] = [65504, -65504, 2**-24, -0.0]

    yield ok("empty", "the empty original: no chunk", File())
    yield ok("raw-one-byte", "one byte", File((raw(b"a"),)))
    yield ok(
        "raw-many",
        "300 raw chunks of one byte: two-byte varints in the header",
        File(tuple(raw(bytes([i % 256])) for i in range(300))),
    )
    yield ok("zstd", "one chunk from zstd itself, with a checksum in the frame", File((NAIL,)))
    yield ok("zstd-largest-chunk", "Size is 2^22", File((same(b"\0", 2**22),)))
    yield ok("zstd-largest-window", "the frame has a window of 2^23 bytes", File((same(b"z", 1000, window=13 << 3),)))
    yield ok("zstd-one-byte-saved", "Payload_Size is Size - 1", File((same(b"-", 14),)))
    yield ok(
        "raw-and-zstd-with-name",
        "four stored chunks and a name",
        File((raw(b"\x00\xff\n"), NAIL, raw(b"\r\n"), same(b"=", 72)), name=b"nail.txt"),
    )
    yield ok("name-one-byte", "the shortest name", File((raw(b"a"),), name=b"n"))
    yield ok("name-255-bytes", "the longest name: 85 times U+20AC", File((raw(b"a"),), name="€".encode() * 85))
    yield ok(
        "name-odd",
        "a name that only looks forbidden: dots, spaces, a colon, U+0080, no more than that",
        File((raw(b"a"),), name="... C: \x80.cram".encode()),
    )
    yield ok("flag-2-unused", "unused flag bit 2 is set", File((raw(b"a"),), flags=0x04))
    yield ok("flag-3-unused", "unused flag bit 3 is set", File((raw(b"a"),), flags=0x08))
    yield ok(
        "flags-2-and-3-unused",
        "both unused flag bits are set, in a file with name and model",
        replace(crammed(recital), name=b"recital", flags=0x0C),
    )

    yield ok("crammed-recital", "one vector, 40 tokens, no corrections", crammed(recital))
    yield ok(
        "crammed-one-token", "the smallest crammed chunk: one vector, one token", crammed(crammer.recite(draw(3, 1), 1))
    )
    yield ok(
        "crammed-sentence",
        "two vectors and a sentence of which the model knows little",
        crammed(crammer.force(draw(4, 2), english)),
    )
    yield ok(
        "crammed-one-correction",
        "a recital that one correction turns",
        crammed(crammer.cram(draw(1, 1), 40, lambda t, best: ord("&") if t == 5 else best)),
    )
    yield ok(
        "crammed-first-and-last-corrected",
        "corrections at the first and the last position",
        crammed(crammer.cram(draw(13, 1), 12, lambda t, best: {0: ord("<"), 11: ord(">")}.get(t, best))),
    )
    yield ok(
        "crammed-superfluous-corrections",
        "corrections to the tokens that the model would have taken anyway",
        crammed(crammer.cram(draw(1, 1), 40, noise=-10)),
    )
    yield ok(
        "crammed-all-corrected",
        "all 256 bytes, none of them left to the model; no valid UTF-8",
        crammed(crammer.part(draw(5, 1), list(every_byte), dict(enumerate(every_byte)))),
    )
    yield ok(
        "crammed-not-utf8",
        "bytes that are no valid UTF-8, amid text",
        crammed(crammer.force(draw(6, 3), b"on the \xff\xfe\xc3( of the\x80 \xed\xa0\x80 water")),
    )
    yield ok(
        "crammed-long-token",
        "an added token that is not special stands for its content",
        crammed(crammer.force(draw(7, 1), b"A tale: " + CITIES_TEXT.encode() + b"\n")),
    )
    yield ok(
        "crammed-extreme-vectors",
        "the largest and smallest binary16 values and -0",
        crammed(crammer.recite(extreme, 20)),
    )
    yield ok(
        "crammed-whole-context",
        "M + T is the context of the model: 12 + 500 positions",
        crammed(crammer.cram(draw(8, 12), 500)),
    )
    yield ok(
        "crammed-several",
        "three crammed chunks with different M and T, stored ones between, and a name",
        replace(
            crammed(
                raw(b"1: "),
                crammer.recite(draw(9, 1), 8),
                raw(b"\n2: "),
                NAIL,
                crammer.recite(draw(10, 7), 100),
                crammer.force(draw(11, 2), b" in the end"),
                same(b"!", 99),
            ),
            name=b"several.txt",
        ),
    )
    yield ok(
        "noise-exponent-0",
        "noise bound 1: only margins above 2 go without correction",
        crammed(crammer.force(draw(12, 1), b"the inner one", noise=0), noise=0),
    )
    yield ok("noise-exponent-63", "the smallest noise bound", crammed(recital, noise=63))
    yield ok(
        "model-id-hub",
        "a model of the Hugging Face Hub, with its commit",
        crammed(recital, model_id=b"hf:example/tiny", revision=b"0123456789abcdef0123456789abcdef01234567"),
    )
    yield ok("model-id-builtin", "a built-in model", crammed(recital, model_id=b"builtin:tiny"))
    yield ok(
        "model-id-like-a-path",
        "Model_ID looks like a path, which a reader must not follow",
        crammed(recital, model_id=b"local:../../etc/passwd"),
    )
    yield ok(
        "model-id-255-bytes",
        "the longest Model_ID and Revision",
        crammed(recital, model_id=b"hf:" + b"m" * 252, revision=b"r" * 255),
    )


def invalid_vectors(crammer):
    stored = File((raw(b"left "), same(b"-", 40), raw(b" right")), name=b"dash.txt")
    recital = crammer.recite(draw(1, 1), 40)
    crammed = File((recital,), model=crammer.block)
    one = File((raw(b"a"),))
    blob = bytes(stored)
    header_size = len(stored.header())

    def bad(name, description, file):
        return Vector(name, description, bytes(file), stage=name.split("-")[0])

    def part(**lies):
        """The recital with lies in its entry."""
        return replace(crammed, parts=(replace(recital, **lies),))

    def model(file=crammed, **lies):
        return replace(file, model=replace(file.model, **lies))

    # magic, version
    yield bad("magic-empty-file", "no bytes at all", b"")
    yield bad("magic-short", "three bytes of the magic", blob[:3])
    yield bad("magic-genomics", "the magic of the genomics format CRAM", b"CRAM\x03\x00" + bytes(20))
    yield bad("magic-first-bit-lost", "bit 7 of the first byte is lost", replace(stored, magic=b"\x1dCZ\n"))
    yield bad("magic-line-ending", "LF has become CR LF", replace(stored, magic=b"\x9dCZ\r\n"))
    yield bad("version-missing", "the file ends after the magic", blob[:4])
    yield bad("version-0", "version 0", replace(stored, version=0))
    yield bad("version-2", "version 2", replace(stored, version=2))

    # header
    for name, length in [("flags", 5), ("size", 6), ("sha256", 30), ("name", 45), ("crc", header_size - 1)]:
        yield bad(f"header-ends-in-{name}", f"the file ends after {length} bytes", blob[:length])
    yield bad("header-crc", "Header_CRC differs", replace(stored, header_crc=0))
    for bit in range(4, 8):
        yield bad(f"header-flag-{bit}-reserved", f"reserved flag bit {bit} is set", replace(stored, flags=1 << bit))
    yield bad(
        "header-varint-not-shortest", "Original_Size 1 is written in two bytes", replace(one, original_size=b"\x81\x00")
    )
    yield bad(
        "header-varint-zero-not-shortest",
        "Original_Size 0 is written in two bytes",
        replace(File(), original_size=b"\x80\x00"),
    )
    yield bad(
        "header-varint-too-long",
        "Original_Size is written in ten bytes, with a value of 2^63",
        replace(one, original_size=b"\x80" * 9 + b"\x01"),
    )
    yield bad("header-no-chunks-for-one-byte", "Original_Size 1, Chunk_Count 0", File(original_size=1))
    yield bad("header-chunk-for-no-bytes", "Original_Size 0, Chunk_Count 1", replace(one, original_size=0))

    controls = [("nul", b"\0"), ("newline", b"\n"), ("unit-separator", b"\x1f"), ("delete", b"\x7f")]
    broken = [
        ("latin-1", b"\xe9"),
        ("overlong", b"\xc0\xaf"),
        ("surrogate", b"\xed\xa0\x80"),
        ("beyond-unicode", b"\xf4\x90\x80\x80"),
        ("cut", b"\xe2\x82"),
    ]
    for what, bytes_ in controls + broken:
        yield bad(f"header-name-{what}", f"Name holds {bytes_.hex(' ')}", replace(stored, name=b"a" + bytes_))
    for what, name in [
        ("empty", b""),
        ("dot", b"."),
        ("dot-dot", b".."),
        ("slash", b"a/b"),
        ("backslash", b"a\\b"),
        ("256-bytes", b"n" * 256),
    ]:
        yield bad(f"header-name-{what}", "Name is no base name of 1 to 255 bytes", replace(stored, name=name))
    beyond = stored.header()[:-4].replace(b"\x08dash.txt", varint(2**62) + b"dash.txt")
    yield bad(
        "header-name-beyond-file", "Name is 2^62 bytes long", beyond + u32(zlib.crc32(beyond)) + blob[header_size:]
    )

    hub = {"model_id": b"hf:example/tiny"}
    for what, description, lies in [
        ("id-empty", "Model_ID is empty", {"model_id": b""}),
        ("id-256-bytes", "Model_ID has 256 bytes", {"model_id": b"local:" + b"m" * 250}),
        ("id-latin-1", "Model_ID is not UTF-8", {"model_id": b"local:\xe9"}),
        ("id-without-kind", "Model_ID does not say where the model was", {"model_id": b"tiny"}),
        ("id-unknown-kind", "Model_ID is of an unknown kind", {"model_id": b"path:tiny"}),
        ("id-without-name", "Model_ID names nothing", {"model_id": b"hf:"}),
        ("id-newline", "Model_ID holds a line feed", {"model_id": b"local:a\nb"}),
        ("revision-256-bytes", "Revision has 256 bytes", {**hub, "revision": b"r" * 256}),
        ("revision-latin-1", "Revision is not UTF-8", {**hub, "revision": b"\xe9"}),
        ("revision-escape", "Revision holds an escape sequence", {**hub, "revision": b"\x1b[2J"}),
        ("vocabulary-0", "Vocabulary_Size is 0", {"vocabulary": 0}),
        ("vocabulary-too-big", "Vocabulary_Size is 2^24 + 1", {"vocabulary": 2**24 + 1}),
        ("width-0", "Vector_Width is 0", {"width": 0}),
        ("compute-1-reserved", "Compute_Type is 1", {"compute": 1}),
        ("compute-255-reserved", "Compute_Type is 255", {"compute": 255}),
        ("noise-64-reserved", "Noise_Exponent is 64", {"noise": 64}),
        ("noise-255-reserved", "Noise_Exponent is 255", {"noise": 255}),
        ("vector-coding-0-reserved", "Vector_Coding is 0", {"vector_coding": 0}),
        ("vector-coding-2-reserved", "Vector_Coding is 2", {"vector_coding": 2}),
        ("correction-coding-0-reserved", "Correction_Coding is 0", {"correction_coding": 0}),
        ("correction-coding-2-reserved", "Correction_Coding is 2", {"correction_coding": 2}),
    ]:
        yield bad(f"header-model-{what}", description, model(**lies))
    yield bad(
        "header-model-width-too-big",
        "Vector_Width is 2^16 + 1 (and the payload of 131075 bytes is left out)",
        model(part(payload=b"", payload_size=2 * (2**16 + 1) + 1), width=2**16 + 1),
    )

    # table
    table = stored.entries()
    yield bad("table-size-beyond-file", "Table_Size is 2^62", replace(stored, table_size=2**62))
    yield bad("table-ends-in-entries", "the file ends within the entries", blob[: header_size + 10])
    yield bad("table-ends-in-crc", "the file ends within Table_CRC", blob[: header_size + len(table) + 3])
    yield bad(
        "table-count-too-big", "Chunk_Count is 2^62, more than the table can hold", replace(stored, chunk_count=2**62)
    )
    yield bad(
        "table-count-one-too-many",
        "Chunk_Count is 2, and there is one entry, though long enough for two",
        replace(crammed, parts=(crammer.cram(draw(8, 12), 200),), chunk_count=2),
    )
    yield bad("table-count-one-too-few", "an entry is left over", replace(stored, chunk_count=2, original_size=45))
    yield bad("table-byte-left-over", "a byte is left over behind the last entry", replace(stored, table=table + b"\0"))
    yield bad("table-entry-cut", "the table ends one byte before its last entry", replace(stored, table=table[:-1]))
    yield bad("table-crc", "Table_CRC differs", replace(stored, table_crc=0))
    yield bad("table-kind-3-reserved", "Kind 3", replace(one, parts=(replace(one.parts[0], kind=3),)))
    yield bad("table-kind-255-reserved", "Kind 255", replace(one, parts=(replace(one.parts[0], kind=255),)))
    yield bad("table-sizes-short", "Original_Size is one more than the Sizes", replace(stored, original_size=52))
    yield bad("table-sizes-long", "Original_Size is one less than the Sizes", replace(stored, original_size=50))
    yield bad(
        "table-size-0", "Size of a crammed chunk is 0", replace(crammed, parts=(raw(b"a"), replace(recital, size=0)))
    )
    yield bad("table-size-too-big", "Size is 2^22 + 1", File((same(b"\0", 2**22 + 1),)))
    yield bad("table-payload-size-0", "Payload_Size of a zstd chunk is 0", File((Part(ZSTD, b"", b"-" * 40),)))
    yield bad(
        "table-payload-size-not-shortest",
        "Payload_Size 1 is written in two bytes",
        File((replace(raw(b"a"), payload_size=b"\x81\x00"),)),
    )
    yield bad("table-raw-payload-longer", "Payload_Size of a raw chunk is Size + 1", File((Part(RAW, b"ab", b"a"),)))
    yield bad("table-raw-payload-shorter", "Payload_Size of a raw chunk is Size - 1", File((Part(RAW, b"a", b"ab"),)))
    yield bad("table-zstd-payload-as-long", "Payload_Size of a zstd chunk is Size", File((same(b"-", 13),)))
    yield bad("table-zstd-payload-longer", "Payload_Size of a zstd chunk is Size + 1", File((same(b"-", 12),)))
    yield bad("table-model-missing", "a crammed chunk, but no model block", replace(crammed, model=None))
    yield bad("table-model-superfluous", "a model block, but no crammed chunk", replace(one, model=crammer.block))
    yield bad("table-model-without-chunks", "a model block in an empty file", File(model=crammer.block))
    yield bad("table-token-count-0", "Token_Count is 0", part(tokens=0))
    yield bad("table-token-count-too-big", "Token_Count is 2^16 + 1", part(tokens=2**16 + 1, content=b"-" * 2**17))
    yield bad("table-token-count-beyond-size", "Token_Count is Size + 1", part(tokens=len(recital.content) + 1))
    yield bad("table-vector-count-0", "Vector_Count is 0", part(vectors=0))
    yield bad(
        "table-vector-count-too-big",
        "Vector_Count is 2^12 + 1, with vectors of width 1",
        model(part(vectors=2**12 + 1, payload=bytes(2 * (2**12 + 1) + 1)), width=1),
    )
    yield bad(
        "table-crammed-payload-too-small",
        "the payload holds the vectors, but no byte of corrections",
        part(payload=recital.payload[:32]),
    )

    # length, payload
    yield bad("length-byte-missing", "the last byte is missing", blob[:-1])
    yield bad("length-byte-trailing", "a byte follows the last payload", blob + b"\0")
    yield bad("length-no-payloads", "the file ends with the table", blob[: header_size + len(table) + 4])
    yield bad("length-empty-with-trailing-byte", "a byte follows the table of an empty file", bytes(File()) + b"\0")
    yield bad("length-payload-beyond-file", "Payload_Size of a crammed chunk is 2^62", part(payload_size=2**62))
    yield bad("payload-crc-raw", "Payload_CRC of a raw chunk differs", File((replace(raw(b"a"), payload_crc=0),)))
    yield bad(
        "payload-crc-last",
        "Payload_CRC of the last of two zstd chunks differs",
        File((NAIL, replace(NAIL, payload_crc=0))),
    )
    yield bad("payload-crc-crammed", "Payload_CRC of a crammed chunk differs", part(payload_crc=0))

    # vectors, corrections
    for what, value in [
        ("infinite", b"\x00\x7c"),
        ("minus-infinite", b"\x00\xfc"),
        ("nan", b"\x00\x7e"),
        ("signalling-nan", b"\x01\xfc"),
    ]:
        yield bad(
            f"vectors-{what}",
            f"the last value of the vector is {value[::-1].hex()}",
            part(payload=recital.payload[:30] + value + recital.payload[32:]),
        )
    for what, description, data in [
        ("count-too-big", "41 corrections in 40 tokens", listed(dict.fromkeys(range(41), 97))),
        ("count-huge", "Count is 2^62, and the payload ends", varint(2**62)),
        ("count-not-shortest", "Count 0 is written in two bytes", b"\x80\x00"),
        ("count-too-long", "Count is written in ten bytes", b"\x80" * 9 + b"\x01"),
        ("gap-past-end", "a correction at position 40 of 40 tokens", listed({40: 97})),
        ("gaps-past-end", "corrections at positions 39 and 40 of 40 tokens", listed({39: 97, 40: 97})),
        ("gap-huge", "Gap is 2^63 - 1", listed({2**63 - 1: 97})),
        ("gap-missing", "the payload ends before Gap", b"\x01"),
        ("token-missing", "the payload ends before Token", b"\x01\x00"),
        ("token-cut", "the payload ends within Token", b"\x01\x00\x80"),
        ("token-not-shortest", "token 97 is written in two bytes", b"\x01\x00\xe1\x00"),
        ("token-too-big", "Token is V", listed({0: 288})),
        ("byte-left-over", "a byte is left over behind the corrections", b"\x00\x00"),
    ]:
        yield bad(f"corrections-{what}", description, part(payload=recital.payload[:32] + data))

    # model
    block = crammer.block
    yield bad(
        "model-other-fingerprint",
        "one bit of Model_Fingerprint differs",
        model(fingerprint=bytes([block.fingerprint[0] ^ 1]) + block.fingerprint[1:]),
    )
    yield bad(
        "model-other-tokenizer",
        "one bit of Tokenizer_Hash differs",
        model(tokenizer_hash=block.tokenizer_hash[:-1] + bytes([block.tokenizer_hash[-1] ^ 1])),
    )
    yield bad(
        "model-other-vocabulary",
        "Vocabulary_Size is that of the tokenizer, not of the logits",
        model(vocabulary=len(crammer.table)),
    )
    yield bad("model-smallest-vocabulary", "Vocabulary_Size is 1", model(vocabulary=1))
    yield bad("model-largest-vocabulary", "Vocabulary_Size is 2^24", model(vocabulary=2**24))
    yield bad("model-largest-token-count", "Token_Count is 2^16", part(tokens=2**16, content=b"-" * 2**16))
    yield bad(
        "model-largest-vector-count",
        "Vector_Count is 2^12, with vectors of width 1",
        model(part(vectors=2**12, payload=bytes(2 * 2**12 + 1)), width=1),
    )
    yield bad(
        "model-other-width",
        "Vector_Width is half of the model's",
        model(part(payload=recital.payload[:16] + b"\0"), width=8),
    )
    yield bad(
        "model-context-exceeded",
        "M + T is 513, and the model has 512 positions",
        replace(crammed, parts=(crammer.cram(draw(14, 13), 500),)),
    )

    # content
    dash = stored.parts[1]

    def frame(payload, **lies):
        return File((replace(dash, payload=payload, **lies),))

    for what, description, payload in [
        ("no-frame", "the payload is no zstd frame", b"-" * 13),
        ("frame-cut", "the frame ends early", dash.payload[:-1]),
        (
            "frame-block-reserved",
            "the frame has a block of the reserved type 3",
            dash.payload[:9] + bytes([dash.payload[9] | 6]) + dash.payload[10:],
        ),
        ("trailing-byte", "a byte follows the frame", dash.payload + b"\0"),
        ("two-frames", "two frames of 20 bytes", zstd_frame(b"-", 20) + zstd_frame(b"-", 20)),
        ("empty-frame-after", "a frame without content follows", dash.payload + bytes.fromhex("28b52ffd2000010000")),
        (
            "skippable-frame-before",
            "a skippable frame comes first",
            b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + dash.payload,
        ),
        ("skippable-frame-after", "a skippable frame follows", dash.payload + b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"),
        ("no-content-size", "the frame does not state its content size", zstd_frame(b"-", 40, stated=-1, window=0)),
        ("content-size-too-big", "the frame states 41 bytes and has 40", zstd_frame(b"-", 40, stated=41)),
        ("content-size-too-small", "the frame states 39 bytes and has 40", zstd_frame(b"-", 40, stated=39, window=0)),
        ("window-too-big", "the frame has a window of 2^23 + 2^20 bytes", zstd_frame(b"-", 40, window=13 << 3 | 1)),
        ("dictionary", "the frame names a dictionary", zstd_frame(b"-", 40, dictionary=b"\x01")),
    ]:
        yield bad(f"content-zstd-{what}", description, frame(payload))
    yield bad(
        "content-zstd-size-differs", "the frame states and has 40 bytes, Size is 41", frame(dash.payload, size=41)
    )
    yield bad(
        "content-zstd-too-short",
        "the frame states 41 bytes and has 40, Size is 41",
        frame(zstd_frame(b"-", 40, stated=41), size=41),
    )
    yield bad(
        "content-zstd-bomb",
        "the frame states 1000 bytes and has 25 MiB",
        File((Part(ZSTD, zstd_frame(b"-", 200 * 2**17, stated=1000, window=7 << 3), b"-" * 1000),)),
    )
    yield bad(
        "content-zstd-checksum",
        "the checksum in the frame is wrong",
        File((replace(NAIL, payload=NAIL.payload[:-1] + b"\x00"),)),
    )
    yield bad("content-crc-zstd", "Content_CRC of a zstd chunk differs", frame(dash.payload, content_crc=0))
    yield bad("content-crc-crammed", "Content_CRC of a crammed chunk differs", part(content_crc=0))
    yield bad("content-sha256", "Original_SHA256 differs", replace(stored, original_sha256=bytes(32)))
    yield bad("content-sha256-empty", "Original_SHA256 of an empty file differs", File(original_sha256=bytes(32)))
    yield bad(
        "content-sha256-crammed",
        "Original_SHA256 differs in a file with a crammed chunk",
        replace(crammed, original_sha256=bytes(32)),
    )
    yield bad(
        "content-chunks-swapped",
        "two raw chunks stand in the wrong order",
        replace(File((raw(b"left"), raw(b"right"))), original_sha256=hashlib.sha256(b"rightleft").digest()),
    )
    yield bad("content-crammed-too-long", "the tokens have one byte more than Size", part(size=len(recital) - 1))
    yield bad("content-crammed-too-short", "the tokens have one byte less than Size", part(size=len(recital) + 1))
    yield bad(
        "content-other-vector",
        "the first value of the vector has the other sign",
        part(payload=recital.payload[:1] + bytes([recital.payload[1] ^ 0x80]) + recital.payload[2:]),
    )
    for what, token in [("special", END), ("beyond-tokenizer", len(crammer.table)), ("highest", block.vocabulary - 1)]:
        chunk = crammer.cram(draw(1, 1), 40, lambda t, best, token=token: token if t == 39 else best)
        yield bad(
            f"content-token-{what}",
            f"the last token is corrected to {token}, which stands for nothing",
            replace(crammed, parts=(chunk,)),
        )


def describe(vector):
    """What index.json says of a vector."""
    out = {"file": f"{vector.name}.cram", "description": vector.description}
    if vector.original is None:
        refusal = "wrong model" if vector.stage == "model" else "damaged"
        return out | {"expect": refusal, "stage": vector.stage}
    out |= {"expect": "ok", "size": len(vector.original), "sha256": hashlib.sha256(vector.original).hexdigest()}
    return out | ({"original": vector.original.hex()} if len(vector.original) <= 64 else {})


def write_vectors(folder):
    crammer = Crammer(HERE / "model")
    vectors = [*valid_vectors(crammer), *invalid_vectors(crammer)]
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.cram"):
        stale.unlink()
    for vector in vectors:
        (folder / f"{vector.name}.cram").write_bytes(vector.blob)
    index = {"model": "../model", "vectors": [describe(vector) for vector in vectors]}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write_vectors(Path(sys.argv[1]) if sys.argv[1:] else HERE / "vectors")
