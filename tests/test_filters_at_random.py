"""Filters at random: mixtures of any dress come back, and damaged files with filters never give other bytes.

CRAMZIP_TEST_MIXTURES and CRAMZIP_TEST_DAMAGED say how many are tried:

    CRAMZIP_TEST_MIXTURES=100000 python -m pytest tests/test_filters_at_random.py -k mixtures --timeout 0
    CRAMZIP_TEST_DAMAGED=10000 python -m pytest tests/test_filters_at_random.py -k damage --timeout 0
"""

import io
import os
import random
import unicodedata
from collections import Counter

import pytest
from models import ROOT

import cramzip
from cramzip.coding import encode
from cramzip.coding.undress import Undressed
from cramzip.container import opened, reading, writing
from cramzip.container.records import Group
from cramzip.errors import CramError, DamagedFileError
from cramzip.filters.chain import FILTERS, MOST_GROWTH, Chain, extended, parse
from cramzip.filters.encodings import WIDE

N_MIXTURES = int(os.environ.get("CRAMZIP_TEST_MIXTURES", "500"))
N_DAMAGED = int(os.environ.get("CRAMZIP_TEST_DAMAGED", "40"))

WORDS = "the harbour Master kept TWO LOGS; ONE I’m “no” café là Œuvre der Straße дождь ЖДЁТ и\u0306 각 がぎ e\u0301"
PARTS = [word.encode() for word in WORDS.split()]
PARTS += [
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n",
    b" ",
    b"  ",
    b" \n",
    b" \r\n",
    b"\xc2\xa0",
    b"> ",
    b">",
    b"    ",
    b"\t",
    b"\0",
]
PARTS += [b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\x81", b"\xff", b"\xed\xa0\x80", b"\xed\xb0\x80", "😀".encode()]
PARTS += [b"\\u00e9", b"\\u0434", b"\\ud83d\\ude00", b"\\u00FF"]
SETTINGS = {
    16: [b"\0", b"\1"],
    11: [bytes([page]) for page in (0, 32, 34, 40)],
    12: [b"\2", b"\5"],
    13: [b"\5> ", b"\x0c  \t> -"],
}
CODECS = [wide.codec for wide in WIDE] + ["cp1252", "cp1251", "koi8-r", "mac-roman", "cp437", "gbk", "cp932"]


def decomposed(data, draw):
    return unicodedata.normalize("NFD", data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def recoded(data, draw):
    return data.decode("utf-8", "replace").encode(draw.choice(CODECS), "ignore")


def broken(data, draw):
    """Some bytes in the middle left out, and others put in."""
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.randrange(3)) + data[draw.randint(at, len(data)) :]


DRESSES = [
    lambda data, draw: data.replace(b"\n", draw.choice([b"\r\n", b"\r", b" \n", b"\n> "])),
    lambda data, draw: data.replace(b" ", draw.choice([b"\xc2\xa0", b"  "])),
    lambda data, draw: data.upper(),
    lambda data, draw: draw.choice([b"\xef\xbb\xbf", b"\xff\xfe", b""]) + data,
    decomposed,
    recoded,
    broken,
]


def mixture(draw):
    """Pieces of text and of no text, in any dress, put together."""
    out = b""
    for _ in range(draw.randint(1, 4)):
        part = b"".join(draw.choices(PARTS, k=draw.randrange(24)))
        for dress in draw.sample(DRESSES, draw.randrange(3)):
            part = dress(part, draw)
        out += part
    return out


def likes(draw, filter_):
    """No settings, or some that a filter may be given."""
    return draw.choice([None, *SETTINGS.get(filter_.id, [b""])])


def test_random_mixtures_come_back():
    used, too_long = Counter(), 0
    for seed in range(N_MIXTURES):
        draw = random.Random(seed)
        data = mixture(draw)
        current, chain = data, Chain(())
        for filter_ in draw.choices(list(FILTERS.values()), k=draw.randint(1, 6)):
            like = likes(draw, filter_)
            change = filter_.apply(current, like)
            if change is None:
                continue
            assert filter_.invert(change.changed, change.parameters, MOST_GROWTH * len(current) + 9) == current
            more = extended(chain, current, filter_, like)
            current, chain = more or (current, chain)
        used.update(chain.names)
        if chain.steps and len(current) <= MOST_GROWTH * len(data):
            packed = chain.pack()
            assert parse(packed) == (chain, len(packed))
            try:
                assert chain.invert(current, len(data)) == data
                assert chain.restores(current, data)
            except DamagedFileError as error:
                assert "are allowed" in error.message  # noqa: PT017
                assert not chain.restores(current, data)
                too_long += 1
    assert len(used) > 0.8 * len(FILTERS)
    assert too_long <= 0.001 * N_MIXTURES


TEXT = "The old man\nhad lived by — “the river” —\n\nfor a long café time.\n"
QUOTED = TEXT.replace("\n", "\n> ")
CHAINS = {
    "windows": (("\ufeff" + TEXT.replace("\n", "\r\n")).encode("utf-16-le"), [(4, None), (1, None), (2, None)]),
    "strays": (TEXT.encode().replace(b"old", b"o\xffld") + b"d\xe9j\xe0 vu\r\n", [(11, b"\x20"), (2, b"")]),
    "quoted": (QUOTED.upper().encode(), [(13, b"\5> "), (10, b"")]),
    "page": (unicodedata.normalize("NFC", TEXT).replace(" ", "\xa0").encode("cp1252"), [(32, None), (9, None)]),
    "blanks": (unicodedata.normalize("NFD", TEXT).replace("\n", " \r").encode(), [(8, None), (3, None), (12, b"\2")]),
}


@pytest.fixture
def lm():
    return cramzip.load(str(ROOT / "formats" / "exact_model"))


@pytest.fixture
def blobs(lm, never_stored, monkeypatch):
    """The text of each chain, and a file in which it went through the chain."""
    made = []
    for data, steps in CHAINS.values():
        content, chain = data, Chain(())
        for number, like in steps:
            content, chain = extended(chain, content, FILTERS[number], like)
        found = Undressed(content, chain)
        monkeypatch.setattr(encode, "undressed", lambda method, _, found=found: found)
        blob = cramzip.compress(data, lm)
        assert [entry.is_filtered for entry in reading.read(blob).entries] == [True]
        assert cramzip.decompress(blob, lm) == data
        made.append((data, blob))
    return made


def damaged(blob, draw):
    """Bytes changed, cut off, left out or put in."""
    changed, at = bytearray(blob), draw.randrange(len(blob))
    match draw.randrange(4):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            del changed[at : at + draw.randint(1, 9)]
        case 3:
            changed[at:at] = draw.randbytes(draw.randint(1, 9))
    return bytes(changed)


def test_damage_of_a_filtered_file_is_refused(lm, blobs):
    for seed in range(N_DAMAGED):
        draw = random.Random(seed)
        _, blob = draw.choice(blobs)
        if (other := damaged(blob, draw)) != blob:
            with pytest.raises(CramError):
                cramzip.decompress(other, lm)


def test_damage_of_filters_behind_right_checksums_gives_an_error_or_the_same_bytes(lm, blobs):
    """Runs may be written in two ways, so that another payload may stand for the same text; for no other."""
    refused = 0
    for seed in range(N_DAMAGED):
        draw = random.Random(seed)
        data, blob = draw.choice(blobs)
        file = reading.read(blob)
        (group,) = file
        _, size = opened.filters(group)
        payload = damaged(group.payload[:size], draw) + bytes(group.payload[size:])
        if payload == group.payload:
            continue
        sink = io.BytesIO()
        writing.write(sink, file.header, [Group(group.entry, payload)])
        try:
            assert cramzip.decompress(sink.getvalue(), lm) == data
        except DamagedFileError:
            refused += 1
    assert refused > 0.9 * N_DAMAGED
