"""Texts of many kinds, of those that other compressors, tokenizers and terminals have stumbled over.

Each comes back byte for byte, as it is and where 120 bytes of it are forced through a model.
"""

import base64
import json
import random
import unicodedata

import pytest
from models import TINY_MODEL
from test_tokens import TOKENIZERS, byte_exact

import cramzip
from cramzip import CramConfig
from cramzip.container.records import Kind
from cramzip.lm.frozen import FrozenLM

FORCED = 120  # bytes
DRAW = random.Random(30)
ENGLISH = (
    "She didn't look up when the train came in. 'It is late,' she said, 'and there's nobody left to ask.' The guard "
    "raised his lamp; two pigeons rose, and the rain went on falling upon the roof of the station.\n"
)
RUSSIAN = "Поезд опоздал на сорок минут, и на платформе почти никого не осталось. Дождь всё шёл.\n"
FRENCH = "Le train était en retard : « À bientôt », écrivait-elle déjà, l’été où le garçon naïf s’en alla. Cœur ! 5 €\n"
THAI = "รถไฟมาถึงช้ากว่ากำหนดและฝนยังคงตกอยู่บนหลังคาสถานีไม่มีใครอยู่ที่ชานชาลา"
CHINESE = "火车晚点了四十分钟，站台上几乎没有人。雨还在下，落在车站的屋顶上，她没有抬头。"
ARABIC = "تأخر القطار أربعين دقيقة"
HEBREW = "הרכבת איחרה בארבעים דקות"
POINTED = "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ "  # Genesis 1:1
FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}\u200d\N{BOY}"
FLAGS = "\N{WAVING WHITE FLAG}\ufe0f\u200d\N{RAINBOW} \U0001f1e8\U0001f1ed"
BLANKS = (0xA0, 0x1680, *range(0x2000, 0x2010), 0x202F, 0x205F, 0x3000)
NOT_FOR_TEXT = (0xE000, 0xF8FF, 0xE0041, 0xE007F, 0xFFFE, 0x10FFFF, 0xFDD0)
MARKS = [chr(code) for code in range(0x300, 0x370)]


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def cesu_8(text):
    """UTF-8 of the surrogates of UTF-16, as some databases keep what lies beyond U+FFFF."""
    halves = text.encode("utf-16-be")
    units = (int.from_bytes(halves[i : i + 2], "big") for i in range(0, len(halves), 2))
    return b"".join(chr(unit).encode("utf-8", "surrogatepass") for unit in units)


def overlong(text):
    """UTF-8 in more bytes than it needs, which no decoder may accept."""
    two = (bytes([0xC0 | ord(c) >> 6, 0x80 | ord(c) & 0x3F]) for c in text)
    return b"".join(two) + b"".join(bytes([0xE0, 0x80 | ord(c) >> 6, 0x80 | ord(c) & 0x3F]) for c in text)


def ends_within(text, n):
    """Lines of text that each end within a character."""
    encoded = text.encode()
    return b"".join(encoded[: 40 + i] + b"\n" for i in range(n))


def log(n):
    return "".join(
        f"\x1b[{31 + i % 6}mINFO\x1b[0m \x1b[2m2031-03-{i % 28 + 1:02}T08:{i % 60:02}:00Z\x1b[22m job {i * 37 % 101} "
        f"\x1b]8;;http://example.net/{i}\asee\x1b]8;;\a\r\x1b[K\n"
        for i in range(n)
    )


TEXTS = {
    "UTF-16 with a byte order mark": "\ufeff".encode("utf-16-le") + (ENGLISH + FRENCH).encode("utf-16-le") * 3,
    "UTF-16, the other byte order, without a mark": (ENGLISH + FRENCH).encode("utf-16-be") * 3,
    "UTF-32": (ENGLISH + RUSSIAN).encode("utf-32-be"),
    "Windows-1252": FRENCH.encode("cp1252") * 12,
    "Windows-1251": RUSSIAN.encode("cp1251") * 12,
    "Shift JIS": "電車が遅れて、ホームには誰もいなかった。雨が降っている。\r\n".encode("shift_jis") * 12,
    "CESU-8": cesu_8(f"{FAMILY} and \N{ROCKET}, twice: \N{ROCKET}\n") * 9,
    "paths parted by NUL": b"\0".join(b"./src/part %d/file %d.py" % (i % 7, i) for i in range(80)) + b"\0",
    "base64 in lines": base64.encodebytes(DRAW.randbytes(2000)),
    "base64 in one line": base64.b64encode(DRAW.randbytes(2000)),
    "emoji of several code points": f"{FAMILY} {FLAGS} 1\ufe0f\u20e3\n".encode() * 30,
    "skin tones": "".join(f"\N{WAVING HAND SIGN}{chr(0x1F3FB + i % 5)} " for i in range(90)).encode(),
    "composed accents": (FRENCH * 9).encode(),
    "decomposed accents": decomposed(FRENCH * 9).encode(),
    "composed and decomposed, side by side": (FRENCH + decomposed(FRENCH)).encode() * 5,
    "Hangul, whole and in parts": ("기차가 늦었다. " + decomposed("기차가 늦었다. ")).encode() * 12,
    "right to left, with overrides": f"\u202b{ARABIC}\u202c 7 \u2067{HEBREW}\u2069 \u202etxt.exe\u202c\u200f\n".encode()
    * 15,
    "Thai without spaces": (THAI * 9).encode(),
    "Chinese without spaces": (CHINESE * 14).encode(),
    "points on Hebrew": (POINTED * 14).encode(),
    "a terminal's log": log(40).encode(),
    "overstrikes": "".join(f"{c}\b{c}" for c in ENGLISH * 2).encode(),
    "binary amid text": b"".join(ENGLISH[i * 9 :][:60].encode() + DRAW.randbytes(24) for i in range(12)),
    "all ends of lines": "\ufeffone\r\ntwo\rthree\n\rfour\n\n\vfive\f\x85six\u2028seven\r".encode() * 9,
    "special tokens": "<s>[INST] </s><|endoftext|><|im_start|>user<|end|><pad><unk>[CLS]<0x0A>\u2581<mask> ".encode()
    * 9,
    "runs of blanks": "".join(
        " " * (i % 70) + "\t" * (i % 9) + f"x{'  ' * (i % 4)}= {i}\n" for i in range(90)
    ).encode(),
    "blanks of all kinds": "".join(f"a{chr(c)}b" for c in BLANKS).encode() * 8,
    "spaces before marks": b"I do n't know , she said . It ' s late ! is n't it ? ( yes ) [ no ] `` so ''\n" * 9,
    "many marks on one letter": "".join("a" + "".join(DRAW.choices(MARKS, k=12)) for _ in range(70)).encode(),
    "one byte": b"\n",
    "no bytes": b"",
    "overlong UTF-8": overlong("../etc/passwd ") * 9,
    "characters cut off": ends_within(RUSSIAN + CHINESE + FAMILY, 30),
    "digits": b"".join(b"%d %d %.9f\n" % (i * 7919, 10**i, i / 7) for i in range(40)),
    "digits of other scripts": "٠١٢٣٤٥٦٧٨٩ ०१२३४५६७८९ ０１２３ ¼ ² ⅷ 𝟘𝟙𝟚\n".encode() * 9,
    "private use, tags and noncharacters": "".join(map(chr, NOT_FOR_TEXT)).encode() * 20,
    "surrogates in JSON": json.dumps({"a": "\ud800", "b": FAMILY, "c": "\udfff\ud800"}).encode() * 9,
    "letters that change their number with their case": "İıſßẞŉǰΐﬁﬃ ΣΑΣ Ǆǅǆ KÅ\n".encode() * 15,
    "every byte": bytes(range(256)) * 3,
    "every byte, doubled and reversed": bytes(255 - i // 2 for i in range(512)),
    "one letter": b"z" * 700,
    "a line without blanks": "".join(DRAW.choices(["stone", "river", "lamp", "letter", "window"], k=200)).encode(),
}
every_text = pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS.keys())


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@every_text
def test_a_text_comes_back(data, lm):
    blob = cramzip.compress(data, lm, CramConfig(vectors=0), name="text")
    assert cramzip.decompress(blob, lm) == data
    assert len(blob) <= len(data) + 40


@every_text
def test_120_bytes_of_a_text_come_back_from_a_model(data, lm, never_stored, monkeypatch):
    monkeypatch.setattr("cramzip.coding.chunking.looks_like_text", lambda sample: True)
    part = data[len(data) // 3 :][:FORCED]  # which may well begin and end within a character
    blob = cramzip.compress(part, lm, CramConfig(vectors=0))
    assert cramzip.decompress(blob, lm) == part
    assert all(entry.kind is Kind.PREDICTED for entry in cramzip.read(blob).entries)


@pytest.mark.parametrize("backend", TOKENIZERS.values(), ids=TOKENIZERS.keys())
@every_text
def test_a_text_comes_back_from_tokens_of_every_kind(data, backend):
    tokenizer = byte_exact(backend)
    pieces = tokenizer.encode(data)
    assert b"".join(piece.content for piece in pieces) == data
    assert all(tokenizer.decode(piece.ids) == piece.content for piece in pieces if piece.ids is not None)
    if backend.get_vocab_size() > 255:
        assert all(piece.ids is not None for piece in pieces)
