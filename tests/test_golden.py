"""Bytes that must never change: what depends on integers alone is the same on every machine, in every version.

A test that fails here has changed the format, or what files the library writes; neither happens by accident. The
values were taken once from a version whose files are in use.
"""

import hashlib
import io

import numpy as np
import pytest
import torch

import cramzip
from cramzip.coding.corrections import TokenDecoder, TokenEncoder
from cramzip.coding.ranks import Step, rank
from cramzip.container import reading, stored, writing
from cramzip.container.records import Coding, Group, Header, Kind
from cramzip.container.vectors import QuantizedMem, pack, unpack
from cramzip.container.wire import pack_varint
from cramzip.exact.vectors import signs
from cramzip.rangecoder import Bit, Decoder, Encoder


def integers(seed, count, below):
    """Numbers that are the same everywhere: a linear congruential generator (Knuth, MMIX)."""
    state, out = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((state >> 33) % below)
    return out


def digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


# ---------------------------------------------------------------- files

NOISE = bytes(integers(1, 40, 256))  # which zstd makes no shorter
RAW_FILES = {
    "no bytes": ((b"",), {}, "9d435a012000e3b0c44298fc1c1400236dd78b"),
    "one byte": ((b"a",), {}, "9d435a012001ca978112ca1bbdca0100673315c961"),
    "one group and a name": (
        (NOISE,),
        {"name": "noise.bin"},
        "9d435a012128d06ab8dd5c1fa7a7096e6f6973652e62696e01009f0e6ea4d659cce65af39af629bafbf27c20ba0c1a1fd4356b8dde623db024a051a09f121cc58e5aca6adc1d",
    ),
    "two groups": (
        (NOISE, b"\r\n"),
        {},
        "9d435a01202ab2c70c1184b457b002002828607e3dd3000202ac85a214cbf9d0e0d659cce65af39af629bafbf27c20ba0c1a1fd4356b8dde623db024a051a09f121cc58e5aca6adc1d0d0a",
    ),
    "three groups, a name and 32 bytes of hash": (
        (b"a", NOISE, b"z"),
        {"name": "é.txt", "hash_size": 32},
        "9d435a01612a3e3fd105c6d585105c7f6c5969812c39bf50f23d7c57fbed740d18fea7cae3f706c3a92e7478740300010143beb7e8002828607e3dd3000101af77d262be68bf9461d659cce65af39af629bafbf27c20ba0c1a1fd4356b8dde623db024a051a09f121cc58e5aca6adc1d7a",
    ),
}
ZSTD_FILE = (  # of one group: 40 times a hyphen
    "9d435a012028d064d859af67e1e70101249c296428b52ffda0280000004301002d"
)


def written(contents, name=None, hash_size=8):
    original = b"".join(contents)
    groups = [group for content in contents for group in stored.stored_groups(content)]
    sink = io.BytesIO()
    writing.write(sink, Header(len(original), hashlib.sha256(original).digest()[:hash_size], name), groups)
    return sink.getvalue()


@pytest.mark.parametrize(("contents", "fields", "expected"), RAW_FILES.values(), ids=RAW_FILES.keys())
def test_files_of_raw_groups(contents, fields, expected):
    blob = written(contents, **fields)
    assert blob.hex() == expected
    assert cramzip.decompress(blob) == b"".join(contents)


def test_a_file_with_a_zstd_frame_is_read_whatever_zstd_would_write_today():
    blob = bytes.fromhex(ZSTD_FILE)
    assert cramzip.decompress(blob) == b"-" * 40
    (entry,) = cramzip.read(blob).entries
    assert entry.kind is Kind.ZSTD
    sink = io.BytesIO()
    file = reading.read(blob)
    writing.write(sink, file.header, [Group(group.entry, bytes(group.payload)) for group in file])
    assert sink.getvalue() == blob


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (2**22, "80808002"), (2**63 - 1, "ffffffffffffffff7f")],
)
def test_varints(value, expected):
    assert pack_varint(value).hex() == expected


# ---------------------------------------------------------------- range coder


def stream(seed, count):
    """What a long stream is made of: decisions with some Bits, plain numbers and numbers without a bound."""
    draws = integers(seed, 3 * count, 2**20)
    return list(zip(draws[::3], draws[1::3], draws[2::3], strict=True))


def fresh_bits():
    return [Bit(probability, count) for probability in (0, 512, 2**15, 2**21, 3 * 2**20, 2**22) for count in (8, 128)]


def coded(seed, count):
    encoder, bits = Encoder(), fresh_bits()
    for which, value, n in stream(seed, count):
        if which % 5 == 0:
            encoder.number(value % 2 ** (n % 20), n % 20)
        elif which % 5 == 1:
            encoder.any_number(value % (n % 1000 + 1))
        else:
            encoder.bit(bits[which % len(bits)], value % 7 < 3)
    return encoder.finish()


STREAMS = {(1, 1): "", (2, 3): "0000955a", (3, 20): "fffd34fcfe28bbd374480f1e8a91114541"}
LONG_STREAMS = {
    (4, 3000): (2101, "a9e9af4e93a352110238b222e2240994"),
    (5, 3001): (2062, "7656a6371362ae8c477d5056f36518a8"),
}


@pytest.mark.parametrize(("what", "expected"), STREAMS.items())
def test_short_streams_of_the_range_coder(what, expected):
    assert coded(*what).hex() == expected


@pytest.mark.parametrize(("what", "expected"), LONG_STREAMS.items())
def test_long_streams_of_the_range_coder(what, expected):
    data = coded(*what)
    assert (len(data), digest(data)) == expected
    decoder, bits = Decoder(data), fresh_bits()
    for which, value, n in stream(*what):
        if which % 5 == 0:
            assert decoder.number(n % 20) == value % 2 ** (n % 20)
        elif which % 5 == 1:
            assert decoder.any_number() == value % (n % 1000 + 1)
        else:
            assert decoder.bit(bits[which % len(bits)]) == (value % 7 < 3)
    decoder.finish()


# ---------------------------------------------------------------- corrections of given logits


def logits_and_tokens(seed, n_tokens, vocabulary_size, spread):
    """Logits in sixteenths, so that they are exact; every seventh row in whole numbers, so that tokens tie."""
    drawn = np.array(integers(seed, n_tokens * vocabulary_size, 16 * spread)).reshape(n_tokens, vocabulary_size)
    logits = drawn / 16
    logits[::7] = np.floor(logits[::7])
    ranks = integers(seed + 1, n_tokens, vocabulary_size * 4)
    order = np.argsort(-logits, axis=1, kind="stable")
    tokens = [
        int(row[rank % min(vocabulary_size, rank // vocabulary_size * 3 + 1)])
        for row, rank in zip(order, ranks, strict=True)
    ]
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(tokens)


CORRECTIONS = {  # vocabulary size, noise exponent, spread of the logits, tokens of each chunk
    (1, 14, 1, (5,)): "c1",
    (2, 14, 8, (1,)): "c1",
    (3, 14, 8, (9,)): "fffff518a1",
    (300, 14, 12, (6, 5)): "c00001e04aac3f16fc6abb96c9c5bcff4afdc74e91c2f4",
    (300, 9, 12, (12,)): "50000c65d8d973e963fd37ab7ba0f9f6d25b",
    (300, 0, 20, (4, 4)): "946c0207821ca51b3d00d040d0",
    (
        5000,
        14,
        14,
        (20,),
    ): "c0000013ddc440d95e40e85dd331915a3a423234946a58732f4fc51b398dee51dc24d5006d783d068b7c27ed6e06c2",
}


@pytest.mark.parametrize(("what", "expected"), CORRECTIONS.items(), ids=lambda value: str(value)[:24])
def test_corrections_of_given_logits(what, expected):
    vocabulary_size, exponent, spread, chunks = what
    logits, tokens = logits_and_tokens(vocabulary_size + exponent, sum(chunks), vocabulary_size, spread)
    bound, begins = 2.0**-exponent, np.cumsum([0, *chunks])
    encoder = TokenEncoder(vocabulary_size, bound)
    for begin, size in zip(begins, chunks, strict=False):
        encoder.chunk(rank(logits[begin : begin + size], tokens[begin : begin + size], bound))
    assert encoder.finish().hex() == expected
    decoder, found = TokenDecoder(bytes.fromhex(expected), vocabulary_size, bound), []
    for begin, size in zip(begins, chunks, strict=False):
        decoder.begin_chunk(size)
        for t in range(size):
            found.append(decoder.token(t, Step(logits[begin + t : begin + t + 1], bound), 0))
    decoder.finish()
    assert found == tokens.tolist()


# ---------------------------------------------------------------- vectors

PACKED = {
    Coding.SIGNS: "8b2205e1d009",
    Coding.TERNARY: "8bd9a411e1a3ef05",
    Coding.TWO_BITS: "8bbf7cb500e1d94f6e03",
    Coding.THREE_BITS: "8ba297a5c265e1d81948970a",
    Coding.FOUR_BITS: "8bd0da3f538a2b04e11bc5a7ec80d206",
    Coding.EIGHT_BITS: "8b47ee751ffcab06e492575792cae18e57b42d65f38d9b48273aadfb",
    Coding.FLOAT16: "5e943f0d31ad915be9b803c9e8bf1438dbf076a60366b3094030"
    "7054dd41a2f9fd73738e2c709f98d86ea17b362632475d3e70c0",
}


def codes_of(coding, n_vectors, width):
    if coding is Coding.FLOAT16:
        patterns = np.array(integers(7, n_vectors * width, 2**16), np.uint16)
        patterns &= np.where(patterns & 0x7C00 == 0x7C00, 0xFBFF, 0xFFFF).astype(np.uint16)  # all of them finite
        return QuantizedMem(coding, patterns.reshape(n_vectors, width), np.zeros(n_vectors, np.uint8))
    codes = np.array(integers(coding, n_vectors * width, coding.levels), np.uint8).reshape(n_vectors, width)
    return QuantizedMem(coding, codes, np.array(integers(9, n_vectors, 256), np.uint8))


@pytest.mark.parametrize(("coding", "expected"), PACKED.items(), ids=lambda value: getattr(value, "name", ""))
def test_codes_of_vectors(coding, expected):
    mem = codes_of(coding, 2, 13)
    assert pack(mem).hex() == expected
    found = unpack(bytes.fromhex(expected), 2, 13, coding)
    assert found.codes.tolist() == mem.codes.tolist()
    assert found.scales.tolist() == mem.scales.tolist()


SIGNS = {
    16384: "ca30c20bb4c8ab97cbc12c4ec6fa2175",
    1: "00",
    7: "33",
    64: "3802d20edfa4db8a",
    576: "646abb6e3d00ce0aaa7f742236d284b9",
}


@pytest.mark.parametrize(("width", "expected"), SIGNS.items())
def test_the_signs_of_the_rotation(width, expected):
    found = np.packbits(signs(width) < 0, bitorder="little").tobytes()
    assert (found.hex() if width <= 64 else digest(found)) == expected
