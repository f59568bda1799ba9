"""A writer of `.cram` files that can lie: what make_vectors.py and exact_vectors.py are made of.

Written from cram.md alone. All that depends on a faulty field, checksums above all, agrees with it.
"""

import hashlib
import zlib
from dataclasses import dataclass, replace

import numpy as np

FILTERED = 0x80  # of Kind
RAW, ZSTD, RECITED, CORRECTED, PREDICTED, CODED, PROMPTED, CHOSEN = range(8)
AFTER_START = 8  # of Vector_Coding


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
class Group:
    """A group: its payload, the bytes that it stands for, its entry. A field other than None is a lie."""

    kind: int
    payload: bytes
    content: bytes
    tokens: int | bytes = 0
    vectors: int | bytes = 0
    size: int | None = None
    payload_size: int | bytes | None = None
    payload_crc: int | None = None
    content_crc: int | None = None

    def __len__(self):
        return honest(self.size, len(self.content))

    def entry(self, is_alone):
        out = bytes([self.kind])
        if not is_alone:
            out += varint(len(self)) + varint(honest(self.payload_size, len(self.payload)))
            out += u32(honest(self.payload_crc, zlib.crc32(self.payload)))
            if self.kind != RAW:
                out += u32(honest(self.content_crc, zlib.crc32(self.content)))
        kind = self.kind & ~FILTERED
        if kind in (RECITED, CORRECTED, PREDICTED, CODED, PROMPTED, CHOSEN) or (kind > CHOSEN and self.tokens):
            out += varint(self.tokens)
        if kind in (RECITED, CORRECTED, PROMPTED):
            out += varint(self.vectors)
        return out


def filtered(group, original, *filters, count=None):
    """A modelled group of filtered bytes as one of `original`; `filters` are Filter_ID and parameters of each."""
    block = bytes([honest(count, len(filters))])
    block += b"".join(bytes([number]) + string(parameters) for number, parameters in filters)
    return replace(group, kind=group.kind | FILTERED, payload=block + group.payload, content=original)


@dataclass(frozen=True)
class Model:
    """The long form of the model block. All fields are given; without Model_ID, the hashes are cut."""

    fingerprint: bytes
    tokenizer_hash: bytes
    model_id: bytes = b"local:tiny"
    revision: bytes = b""

    def __bytes__(self):
        if not self.model_id:
            return string(b"") + self.fingerprint[:4] + self.tokenizer_hash[:4]
        return string(self.model_id) + string(self.revision) + self.fingerprint + self.tokenizer_hash


@dataclass(frozen=True)
class Parameters:
    noise: int = 14
    chunk: int = 768
    context: int = 255
    start: int = 0

    def __bytes__(self):
        return bytes([self.noise]) + varint(self.chunk) + varint(self.context) + varint(self.start)


@dataclass(frozen=True)
class Lanes:
    """The parameters of an exact file: Lane_Tokens, Lane_Limit, Learning, Probe and Codebook_Hash."""

    tokens: int | bytes = 512
    limit: int | bytes = 32
    learning: int = 0
    probe: bytes = b""
    codebook: bytes = b""

    def __bytes__(self):
        return varint(self.tokens) + varint(self.limit) + bytes([self.learning]) + self.probe + self.codebook


STANDARD, STANDARD_LANES = Parameters(), Lanes(learning=1)


@dataclass(frozen=True)
class VectorBlock:
    coding: int
    width: int = 16
    gain: int = 0

    def __bytes__(self):
        return bytes([self.coding]) + varint(self.width) + varint(self.gain)


@dataclass(frozen=True)
class File:
    """A file of some groups, an exact one if its parameters are `Lanes`.

    What may be absent is None; of the fields after `hash_size` all are for lies.
    """

    groups: tuple[Group, ...] = ()
    name: bytes | None = None
    ending: int | bytes = 0  # the number, or what is spelled out
    model: Model | None = None
    digest: bytes | None = None  # in place of model
    parameters: Parameters | Lanes = STANDARD
    vectors: VectorBlock | None = None
    dictionary: bytes | None = None  # Dictionary_Hash
    hash_size: int = 8
    magic: bytes = b"\x9dCZ"
    version: int = 1
    wrong_flags: int = 0
    standard_written: bool = False
    original_size: int | bytes | None = None
    original_hash: bytes | None = None
    group_count: int | None = None
    check: int | None = None

    @property
    def original(self):
        return b"".join(group.content for group in self.groups)

    def header(self):
        has_model = self.model is not None or self.digest is not None
        is_exact = isinstance(self.parameters, Lanes)
        is_standard = self.parameters in (STANDARD, STANDARD_LANES) and not self.standard_written
        flags = (
            (self.name is not None)
            | (has_model and self.dictionary is None) << 1
            | (self.digest is not None) << 2
            | (has_model and is_standard) << 3
            | (self.vectors is not None) << 4
            | (4, 8, 16, 32).index(self.hash_size) << 5
            | (has_model and is_exact) << 7
        )
        number, ending = self.ending, b""
        if not isinstance(number, int):
            number, ending = 15, bytes([len(number)]) + number
        elif number > 14:
            number, ending = 15, bytes([number])
        out = self.magic + bytes([self.version | number << 4, flags ^ self.wrong_flags])
        out += varint(honest(self.original_size, sum(map(len, self.groups))))
        out += honest(self.original_hash, hashlib.sha256(self.original).digest()[: self.hash_size])
        out += ending if self.name is None else string(self.name) + ending
        if has_model:
            out += honest(self.digest, bytes(self.model or b"")) + (self.dictionary or b"")
            out += b"" if is_standard else bytes(self.parameters)
        out += b"" if self.vectors is None else bytes(self.vectors)
        return out + varint(honest(self.group_count, len(self.groups)))

    def table(self):
        return b"".join(group.entry(is_alone=len(self.groups) == 1) for group in self.groups)

    def __bytes__(self):
        checked, payloads = self.header() + self.table(), b"".join(group.payload for group in self.groups)
        if self.dictionary is not None and len(self.groups) == 1:
            return checked + payloads
        check = zlib.crc32(checked + payloads if len(self.groups) == 1 else checked)
        return checked + u32(honest(self.check, check)) + payloads


def raw(content):
    return Group(RAW, content, content)


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
    """A zstd group of `count` times the same byte."""
    return Group(ZSTD, zstd_frame(byte, count, **frame), byte * count)


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
NAIL = Group(
    ZSTD,
    bytes.fromhex(  # zstd 1.5.7, level 19, with a checksum
        "28b52ffd641f0075030012c50f12b0b90100e2bcc29d958c5e2cae408e79122020643a5df3cc7b51b1b61c4d2abb8f9c63c6c5b024c66c"
        "1108cd9be76bc7457c44fd4ca7bf9b7debb5b31d0113208026cc1de314e016047b5fd4acbd2066c0597d6f8c12a0728b07b4e0ea7a11b4"
        "4069a9007801a7433c019a7acb68"
    ),
    NAIL_TEXT,
)


# ---------------------------------------------------------------- vectors, and which tokens to take


def pack(coding, scale, codes):
    """The bytes of one vector with codes."""
    if coding == 2:
        codes = np.pad(codes, (0, -len(codes) % 5)).reshape(-1, 5)
        return bytes([scale, *(codes @ 3 ** np.arange(5))])
    n_bits = {1: 1, 3: 2, 4: 3, 5: 4, 6: 8}[coding]
    number = sum(int(code) << n_bits * i for i, code in enumerate(codes))
    return bytes([scale]) + number.to_bytes(-(-n_bits * len(codes) // 8), "little")


def draw(seed, coding, count=1, width=16, scale=126):
    """The bytes of vectors that look like token embeddings."""
    random = np.random.RandomState(seed)
    if coding == 7:
        return (2 * random.random_sample((count, width)) - 1).astype("<f2").tobytes()
    levels = {1: 2, 2: 3, 3: 4, 4: 8, 5: 16, 6: 256}[coding]
    return b"".join(pack(coding, scale, random.randint(0, levels, width)) for _ in range(count))


def best(t, falling):
    """The token at t, from all tokens in falling order of their logits, as the next two say it, too."""
    return falling[0]


def now_and_then(t, falling):
    return falling[{3: 1, 9: 4, 15: 2}.get(t % 17, 0)]


def told(tokens):
    return lambda t, falling: tokens[t]


def tokens_of(text, table):
    """The longest token at each place: for a reader, any cut will do."""
    ids = {token: i for i, token in enumerate(table) if token is not None}
    lengths = {len(token) for token in ids}
    out = []
    while text:
        token = text[: max(n for n in lengths if text[:n] in ids)]
        out.append(ids[token])
        text = text[len(token) :]
    return out


# ---------------------------------------------------------------- test vectors


@dataclass(frozen=True)
class Vector:
    name: str
    description: str
    blob: bytes
    stage: str | None = None  # the stage that refuses it
    original: bytes | None = None  # or the bytes that it holds
    model: str = "model"  # the folder that it is to be read with
    dictionary: bytes | None = None
    codebook: bytes | None = None


def ok(name, description, file, **fields):
    return Vector(f"ok-{name}", description, bytes(file), original=file.original, **fields)


def bad(name, description, file, **fields):
    return Vector(name, description, bytes(file), stage=name.split("-")[0], **fields)


def describe(vector):
    """What index.json says of a vector."""
    out = {"file": f"{vector.name}.cram", "description": vector.description, "model": vector.model}
    if vector.dictionary is not None:
        out["dictionary"] = vector.dictionary.hex()
    if vector.codebook is not None:
        out["codebook"] = vector.codebook.hex()
    if vector.original is None:
        refusal = "wrong model" if vector.stage == "model" else "damaged"
        return out | {"expect": refusal, "stage": vector.stage}
    out |= {"expect": "ok", "size": len(vector.original), "sha256": hashlib.sha256(vector.original).hexdigest()}
    return out | ({"original": vector.original.hex()} if len(vector.original) <= 64 else {})


class RangeEncoder:
    def __init__(self):
        self.low, self.range, self.multiplications = 0, 2**32 - 1, 0

    def take(self, is_below, bound):
        if is_below:
            self.range = bound
        else:
            self.low, self.range = self.low + bound, self.range - bound
        while self.range < 2**24:
            self.low, self.range = self.low * 256, self.range * 256
            self.multiplications += 1

    def decision(self, bit, yes):
        self.take(yes, self.range * (bit.probability // 64) // 65536)
        bit.learn(yes)

    def number(self, value, n_bits):
        for i in reversed(range(n_bits)):
            self.take(not value >> i & 1, self.range // 2)

    def unbounded(self, value):
        n_bits = (value + 1).bit_length() - 1
        self.number(1, n_bits + 1)
        self.number(value + 1 - (1 << n_bits), n_bits)

    def highest(self):
        """The last number of the interval, with all its bytes."""
        return (self.low + self.range - 1).to_bytes(self.multiplications + 4, "big")

    def shortest(self):
        for unit in (2**32, 2**24):
            number = -(-self.low // unit) * unit
            if number < self.low + self.range:
                return number.to_bytes(self.multiplications + 4, "big").rstrip(b"\0")
