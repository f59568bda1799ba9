"""What is compressed already is known by its first bytes, and stored at once; a text that begins so is a text."""

import bz2
import gzip
import io
import lzma
import random
import re
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
from models import ROOT

import cramzip
from cramzip.coding import chunking, encode
from cramzip.coding.chunking import looks_like_text, next_segment
from cramzip.coding.packed import FIRST, FORMATS, packed_format
from cramzip.container import reading
from cramzip.container.records import Kind
from cramzip.lm.tokens import ByteExactTokenizer

TEXT = (ROOT / "examples" / "texts" / "lighthouse.txt").read_bytes()
NOISE = random.Random(0).randbytes(20_000)
CHINESE = "老人每天傍晚坐在河边给孩子们讲没有人相信的故事，灯火一盏一盏地亮起来。\n".encode()


def archive(method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name in ("lighthouse.txt", "another.txt"):
            file.writestr(name, TEXT)
    return out.getvalue()


def png():
    """A picture of noise, 64 by 64."""
    rows = b"".join(b"\0" + NOISE[64 * i : 64 * i + 64] for i in range(64))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pdf():
    stream = zlib.compress(NOISE)
    objects = b"1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n" * 9
    return b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + objects + b"4 0 obj\nstream\n" + stream + b"\nendstream\n%%EOF\n"


PACKED = {
    "gzip": gzip.compress(TEXT),
    "zip": archive(zipfile.ZIP_DEFLATED),
    "png": png(),
    "pdf": pdf(),
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1" + NOISE,
    "xz": lzma.compress(TEXT),
    "zstd": zstandard.compress(TEXT),
    "bzip2": bz2.compress(TEXT, 1),
    "7z": b"7z\xbc\xaf\x27\x1c\0\4" + NOISE,
    "lzma": lzma.compress(TEXT, lzma.FORMAT_ALONE),
    "zlib": zlib.compress(TEXT),
    "cram": b"\x9dCZ\1" + NOISE,
    "gif": b"GIF89a\x80\x02\xe0\x01\xf7\0\0" + NOISE,
    "mp3": b"\xff\xfb\x90\x64\0" + NOISE,
    "mp4": b"\0\0\0\x20ftypisom\0\0\2\0" + NOISE,
    "webp": b"RIFF\x24\x4e\0\0WEBPVP8 " + NOISE,
    "ogg": b"OggS\0\2" + bytes(8) + NOISE,
    "flac": b"fLaC\0\0\0\x22" + NOISE,
}


@pytest.mark.parametrize(("name", "data"), PACKED.items(), ids=PACKED)
def test_what_is_compressed_already_is_known(name, data):
    assert packed_format(data) == name


@pytest.mark.parametrize("data", PACKED.values(), ids=PACKED)
def test_it_is_stored_without_a_look_at_it(data, monkeypatch):
    monkeypatch.setattr(chunking, "looks_like_text", None)
    monkeypatch.setattr(encode, "undressed", None)
    monkeypatch.setattr(ByteExactTokenizer, "encode", None)
    assert next_segment(data, 0, 1000) == (len(data), False)
    blob = cramzip.compress(data, cramzip.load())
    assert {entry.kind for entry in reading.read(blob).entries} <= {Kind.RAW, Kind.ZSTD}
    assert cramzip.decompress(blob) == data


@pytest.mark.parametrize("name", ["gzip", "png", "pdf"])
def test_the_closing_line_says_so(cramzip, name):
    Path("data").write_bytes(PACKED[name])
    told = cramzip("c", "data").stderr
    assert re.search(rf" bits/byte, stored: {name} is compressed already, \d+\.\d s\n", told)


def test_the_closing_line_says_no_such_thing_of_other_data(cramzip):
    Path("data").write_bytes(NOISE)
    assert re.search(r" bits/byte, stored, \d+\.\d s\n", cramzip("c", "data").stderr)


BEGINNINGS = {
    "pdf": b"%PDF-1.4",
    "bzip2": b"BZh91AY&SY",
    "gif": b"GIF89a",
    "zip": b"PK\3\4",
    "zlib": b"x\x9c",
    "jpeg": b"\xff\xd8\xff",
    "mp3": b"\xff\xfb\x90",
    "webp": b"RIFF1234WEBP",
    "lzip": b"LZIP\1",
}


@pytest.mark.parametrize(("name", "begins"), BEGINNINGS.items(), ids=BEGINNINGS)
@pytest.mark.parametrize("text", [TEXT, TEXT * 90, CHINESE * 9, b" is how it begins." * 4])
def test_a_text_that_begins_like_one_is_a_text(name, begins, text):
    assert re.match(FORMATS[name], begins, re.DOTALL)
    data = begins + text
    assert packed_format(data) is None
    assert next_segment(data, 0, len(data)) == (len(data), looks_like_text(data[: 2**16]))


@pytest.mark.parametrize(
    "text", ["PK is short for", "BMW, BM", "GIF89a is a format", "The ftyp box", "7z, BZh9", "Rar!", "ID3", "x", ""]
)
def test_texts_about_formats_are_texts(text):
    assert packed_format(text.encode()) is None


def test_an_archive_of_plain_texts_is_worth_a_look():
    assert packed_format(archive(zipfile.ZIP_STORED) * 9) is None


def test_a_format_is_known_by_its_first_bytes_alone():
    for name, data in PACKED.items():
        assert re.match(FORMATS[name], data[:FIRST], re.DOTALL), name
