"""Text in another dress: which filters it gets, what that costs, and that all of it comes back."""

import base64
import json
import random
import re
import struct
import textwrap
import unicodedata
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TINY_MODEL

import cramzip
from cramzip import CramConfig
from cramzip.app.details import description_record, details
from cramzip.coding import encode, laned, undress
from cramzip.coding.chunking import looks_like_text, next_segment
from cramzip.coding.undress import Undressed, redressed
from cramzip.container import opened, reading
from cramzip.container.description import describe
from cramzip.container.records import Kind
from cramzip.container.stored import stored_content, stored_group
from cramzip.container.writing import modelled_group
from cramzip.filters.chain import FILTERS, Chain, extended

ENGLISH = (
    "The harbour master kept two logs: one for the port authority and one, in pencil, for himself.\n"
    "On the ninth of May he wrote that the ferry had come in late, with a broken rail and no lights.\n\n"
    "“Nobody asked me,” he said, “and so I told nobody.” The rail was mended in June, and the lights\n"
    "were left as they were. In the autumn a schooner was lost on the bar; it was then that the second\n"
    "log was found, and read aloud, line by line, in a room above the customs house.\n"
)
ASCII = ENGLISH.replace("“", '"').replace("”", '"')
NARROW = textwrap.fill(ASCII, 24)
FRENCH = (
    "Le garçon était là, près de la fenêtre, à écouter la pluie. « Où êtes-vous allé cet été ? » demanda-t-elle. "
    "Il ne répondit pas tout de suite ; il pensait à la mer, à l'odeur du café brûlé, aux années passées.\n"
)
RUSSIAN = (
    "Сторож запер калитку и долго стоял под дождём. Никто не звал, зачем он ждёт, но каждый вечер всё повторялось. "
    "Дети выросли, дом опустел, а он всё ещё слушал, как скрипит старая дверь.\n"
)

CHINESE = "老人每天傍晚坐在河边给孩子们讲没有人相信的故事，灯火一盏一盏地亮起来。" * 3
JAPANESE = "灯台守は毎晩、海の上に灯をともした。だれも来なかったが、かれは待っていた。" * 3


@pytest.fixture(scope="module")
def lm():
    return cramzip.load()


def compressed(data, lm):
    """-> the size of the file, and the filters of its groups, after it was opened again."""
    blob = cramzip.compress(data, lm)
    assert cramzip.decompress(blob, lm) == data
    return len(blob), [list(names) for names in describe(reading.read(blob)).filters]


# A text in its dress, the text itself, the filters, and how many bytes they may cost: a count, and two for each.
DRESSES = {
    "crlf": (ASCII.replace("\n", "\r\n").encode(), ASCII, ["crlf"], 3),
    "cr": (ASCII.replace("\n", "\r").encode(), ASCII, ["cr"], 3),
    "mark": (b"\xef\xbb\xbf" + ENGLISH.encode(), ENGLISH, ["byte order mark"], 3),
    "mark and crlf": (b"\xef\xbb\xbf" + ASCII.replace("\n", "\r\n").encode(), ASCII, ["byte order mark", "crlf"], 5),
    "utf-16": (ENGLISH.encode("utf-16-le"), ENGLISH, ["utf-16-le"], 3),
    "utf-16 as Windows writes it": (
        b"\xff\xfe" + ENGLISH.replace("\n", "\r\n").encode("utf-16-le"),
        ENGLISH,
        ["utf-16-le", "byte order mark", "crlf"],
        7,
    ),
    "utf-32": (ENGLISH.encode("utf-32-be"), ENGLISH, ["utf-32-be"], 3),
    "windows-1252": (FRENCH.encode("cp1252"), FRENCH, ["windows-1252"], 3),
    "latin-1": (FRENCH.encode("latin-1"), FRENCH, ["windows-1252"], 3),
    "windows-1251": (RUSSIAN.encode("cp1251"), RUSSIAN, ["windows-1251"], 3),
    "koi8-r": (RUSSIAN.encode("koi8-r"), RUSSIAN, ["koi8-r"], 3),
    "mac": (FRENCH.replace("\n", "\r").encode("mac-roman"), FRENCH, ["macintosh", "cr"], 5),
    "gbk": (CHINESE.encode("gbk"), CHINESE, ["gbk"], 3),
    "shift-jis": (JAPANESE.encode("cp932"), JAPANESE, ["cp932"], 3),
    "json": (json.dumps({"a": RUSSIAN}).encode(), json.dumps({"a": RUSSIAN}, ensure_ascii=False), ["escapes"], 4),
    "decomposed": (unicodedata.normalize("NFD", FRENCH).encode(), FRENCH, ["composed letters"], 3),
    "no-break": (ASCII.replace(" ", "\xa0").encode(), ASCII, ["no-break blanks"], 3),
    "blanks": (NARROW.replace("\n", "   \n").encode(), NARROW, ["line blanks"], 4),
    "quoted": (re.sub("^", "# | ", NARROW, flags=re.MULTILINE).encode(), NARROW, ["prefix"], 8),
}


@pytest.mark.parametrize(("dressed", "plain", "filters", "cost"), DRESSES.values(), ids=DRESSES)
def test_a_dress_costs_the_bytes_of_its_filters(lm, dressed, plain, filters, cost):
    (size, found), (usual, none) = compressed(dressed, lm), compressed(plain.encode(), lm)
    assert [[name for name in names if name != "repeats"] for names in found] == [filters]
    assert none in ([], [["repeats"]])
    assert size <= usual + cost + 1  # Original_Size may take a byte more


def test_capitals_cost_little(lm):
    (size, found), (usual, _) = compressed(ASCII.upper().encode(), lm), compressed(ASCII.encode(), lm)
    assert found == [["capitals"]]
    assert size < 1.15 * usual


@pytest.mark.parametrize("text", [ENGLISH, ASCII, FRENCH, RUSSIAN, "Hi.", "See you at 8?\nOK", "NO.\n", "a\tb\n" * 9])
def test_a_text_without_a_dress_gives_the_very_same_file(lm, text, monkeypatch):
    blob = cramzip.compress(text.encode(), lm)
    monkeypatch.setattr(encode, "undressed", lambda method, content: Undressed(content, Chain(())))
    assert cramzip.compress(text.encode(), lm) == blob


CURLED = textwrap.fill(ASCII.replace('"Nobody', "“Nobody").replace("ferry", "café"), 40)


def mixed():
    """UTF-8 with CRLF in one half, French in Latin-1 and bytes that belong to nothing; and what it means."""
    lines = CURLED.splitlines(keepends=True)
    first, second = "".join(lines[:6]), "".join(lines[6:])
    stray = first.encode().replace(b"harbour", b"harb\xffour").replace(b"rail", b"\xd0rail")
    return stray + FRENCH.encode("latin-1") + second.replace("\n", "\r\n").encode(), first + FRENCH + second


def test_what_is_mixed_costs_little(lm):
    dressed, plain = mixed()
    (size, found), (usual, none) = compressed(dressed, lm), compressed(plain.encode(), lm)
    assert (found, none) == ([["stray bytes", "crlf"]], [])
    assert size < usual + 30


def test_a_few_stray_bytes_do_not_make_a_code_page_of_all(lm):
    strays = iter(b"\xff\xa4\xd0\x9d\xc0\xb6\x81\xf8\xfe\xee")
    data = re.sub(rb"(?<=[a-z])[aeo](?=[a-z]{3})", lambda found: found[0] + bytes([next(strays, 97)]), CURLED.encode())
    size, found = compressed(data, lm)
    assert found == [["stray bytes"]]
    assert size < compressed(CURLED.encode(), lm)[0] + 40


def test_passages_that_make_letters_where_they_meet_say_nothing(monkeypatch):
    monkeypatch.setattr(undress, "_sample", lambda content: "é".encode())
    assert undress.undressed(None, b"a\xff") == (b"a\xff", Chain(()))


def test_where_a_chain_would_take_too_much_memory_nothing_is_filtered(lm, monkeypatch):
    monkeypatch.setattr(Chain, "restores", lambda chain, filtered, original: not chain.steps)
    assert compressed(DRESSES["crlf"][0], lm)[1] == []


BLOCK = "".join(f"  File {i * 7919 % 1000}, in step_{i}: {'abcdefgh'[i % 8] * 3}\n" for i in range(8))
LOG = "".join(f"{9 + i}:{i * 7 % 60:02} ERROR worker {i * i % 11} failed\n{BLOCK}" for i in range(12))


def test_long_repeats_cost_next_to_nothing(lm):
    size, found = compressed(LOG.encode(), lm)
    assert found == [["repeats"]]
    assert size < 1.1 * compressed(LOG.replace(BLOCK, "").encode(), lm)[0] + compressed(BLOCK.encode(), lm)[0]


def test_repeats_of_a_text_in_disguise_are_found(lm):
    size, found = compressed(LOG.replace("\n", "\r\n").encode("utf-16-le"), lm)
    assert found == [["utf-16-le", "crlf", "repeats"]]
    assert size <= compressed(LOG.encode(), lm)[0] + 5 + 2


def test_the_model_sees_a_repeat_once(lm, monkeypatch):
    told, config = [], CramConfig(codebook=False)  # a group is coded once then
    cramzip.compress((ENGLISH * 9).encode(), lm, config)  # whatever is looked at once
    monkeypatch.setattr(
        "cramzip.coding.laned.encode_lanes",
        lambda model, ids, *rest, real=laned.encode_lanes: told.append(len(ids)) or real(model, ids, *rest),
    )
    cramzip.compress(ENGLISH.encode(), lm, config)
    cramzip.compress((ENGLISH * 100).encode(), lm, config)
    once, many = told
    assert many <= once + 1


def test_repeats_stay_where_a_group_cannot_hold_the_text(lm, monkeypatch):
    monkeypatch.setattr(laned, "MAX_POSITIONS", 2)
    blob = cramzip.compress(LOG.encode(), lm)
    assert not describe(reading.read(blob)).filters
    assert cramzip.decompress(blob, lm) == LOG.encode()


RNG = random.Random(0)
CASES = {
    "cesu-8": "".join(f"Message {i}: at the pier \U0001f6a2 and the dog \U0001f415! " for i in range(5))
    .encode("utf-16", "surrogatepass")
    .decode("utf-16")
    .encode("utf-8"),
    "surrogates in utf-8": b"Message 0: see you at the pier \xed\xa0\xbd\xed\xba\xa2, and bring the dog!\n" * 4,
    "separated by NULs": b"./src/module_0/file 0.py\0./src/module_1/file 1.py\0" * 6,
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(RNG.randbytes(300)).replace(b"\n", b"\r\n"),
    "emoji": "👩‍👩‍👧‍👦 👨🏽‍🚀 🏴\U000e0067\U000e007f 🇺🇦 ❤️‍🔥 1️⃣ ".encode() * 3,
    "Vietnamese": unicodedata.normalize(
        "NFD", "Tiếng Việt có nhiều dấu: người, nước, được, giữa. Café naïve.\n"
    ).encode(),
    "bidirectional": "‫שלום עולם, זה רק מבחן‬ — ⁧مرحبا بالعالم⁩ ‏(12.5%)‎\n".encode() * 3,
    "Thai": "ผู้เฒ่านั่งอยู่ริมแม่น้ำและเล่าเรื่องที่ไม่มีใครเชื่อ".encode() * 2,
    "Chinese": "老人每天傍晚坐在河边给孩子们讲没有人相信的故事，灯火一盏一盏地亮起来。".encode() * 2,
    "Chinese in UTF-16": "\ufeff老人每天傍晚坐在河边，灯火一盏一盏地亮起来。\r\n".encode("utf-16-le") * 2,
    "colours": b"\x1b[32mINFO\x1b[0m \x1b[2m2026-05-01\x1b[22m step 0\r\x1b[K\n" * 4,
    "binary within text": ASCII.encode()[:200] + RNG.randbytes(200) + ASCII.encode()[200:],
    "mixed ends": b"\xef\xbb\xbfOne line.\r\nAnother line.\nA third line.\r\n\rA fourth line.\r\n",
    "special tokens": b"<|endoftext|> <s>[INST] <<SYS>> be brief <</SYS>> hi [/INST]</s> <|im_start|>user\n",
    "blanks of all kinds": b"def f():\n \tx1 = 1   \n  \t\tx2 = 2      \n\n\n\t\treturn x1  \n",
    "many marks": "".join("the"[i % 3] + "\u0308\u034d\u0324\u033e\u0334"[i % 4 :] for i in range(60)).encode(),
    "one byte": b"x",
    "a mark alone": b"\xef\xbb\xbf",
    "a mark of UTF-16 alone": b"\xff\xfe",
    "a mark and a line end": b"\xef\xbb\xbf\r\n",
    "empty": b"",
    "overlong": ASCII.encode()[:90] + b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf" + ASCII.encode()[90:],
    "cut characters": b"\xe3\x83\x87\xe3\x83\xe3\x82\xbf\xe3\x81\xaf\xe9\x80\x94" * 8,
    "UTF-16, a byte short": ASCII.encode("utf-16-be")[:-1],
    "UTF-16, a lone surrogate": b"\xff\xfe" + ASCII.encode("utf-16-le") + b"\x00\xd8",
    "UTF-32, cut": ASCII[:80].encode("utf-32-le")[:-3],
    "digits": " ".join(str(RNG.randrange(10**9)) for _ in range(30)).encode(),
    "niqqud": "בְּרֵאשִׁ֖ית בָּרָ֣א אֱלֹהִ֑ים אֵ֥ת הַשָּׁמַ֖יִם".encode() * 2,
    "private use": "\ue000\ue001\ue002\U000e0001\U000e0041 text \uf8ff\n".encode() * 4,
    "all bytes": bytes(range(256)),
    "a code page with all bytes": FRENCH.encode("cp1252") + bytes(range(32, 256)),
    "capitals in part": ASCII.encode()[:200] + ASCII.upper().encode()[200:],
    "quoted in part": ASCII.encode() + re.sub("^", "> ", ASCII, flags=re.MULTILINE).encode(),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
def test_what_people_met_elsewhere_comes_back(lm, data):
    compressed(data, lm)


@pytest.mark.parametrize("text", [ASCII, RUSSIAN], ids=["English", "Russian"])
def test_outside_models_get_filters_too(text, never_stored):
    lm = cramzip.load(str(TINY_MODEL))
    for data in (text[:150].encode("utf-16-le"), b"\xef\xbb\xbf" + text[:150].encode()):
        for config in (CramConfig(vectors=0), CramConfig(vectors=0, ranks=True), CramConfig(vectors=1, effort=1)):
            blob = cramzip.compress(data, lm, config)
            file = reading.read(blob)
            assert all(entry.is_filtered for entry in file.entries)
            kinds = {Kind.CODED, Kind.PREDICTED, Kind.CORRECTED, Kind.PROMPTED}
            assert {entry.kind for entry in file.entries} <= kinds
            assert cramzip.decompress(blob, lm) == data


def test_listing_names_the_filters_of_each_group(lm):
    described = describe(reading.read(cramzip.compress(DRESSES["utf-16 as Windows writes it"][0], lm)))
    listed = "\n".join(details(described))
    assert re.search(r"filters +utf-16-le, byte order mark, crlf\n", listed)
    assert re.search(r"in filters +7 bytes", listed)
    record = description_record(described)
    assert (record["filters"], record["filter_bytes"]) == ([["utf-16-le", "byte order mark", "crlf"]], 7)
    parts = ("header_bytes", "filter_bytes", "vector_bytes", "correction_bytes", "stored_bytes")
    assert sum(record[part] for part in parts) == record["file_size"]
    chains = replace(described, filters=(("crlf",), ("crlf",), ("cr",)), entries=described.entries * 4)
    assert "crlf (2 groups); cr (1 group)" in "\n".join(details(chains))


@pytest.mark.parametrize("name", ["utf-16", "windows-1251"])
def test_progress_is_told_of_original_bytes(lm, name, monkeypatch):
    data, told = DRESSES[name][0], []
    cramzip.compress(data, lm, progress=told.append)
    assert sum(told) == len(data)
    monkeypatch.setattr(encode, "redressed", lambda groups, found, original: None if found.chain.steps else groups)
    told.clear()
    cramzip.compress(data, lm, progress=told.append)
    assert sum(told) == len(data)
    assert min(told) >= 0


# ---------------------------------------------------------------- groups of filtered bytes


def cut_groups(content, cuts):
    """Groups of one token for each byte, between cuts."""
    borders = [0, *sorted({cut % len(content) for cut in cuts} - {0}), len(content)]
    parts = [content[a:b] for a, b in pairwise(borders)]
    return [modelled_group(Kind.PREDICTED, part, len(part), 0, b"-") for part in parts], parts


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(DRESSES)), st.lists(st.integers(0, 2000), max_size=4))
def test_each_group_has_its_own_part_of_the_original(name, cuts):
    dressed, plain, names, _ = DRESSES[name]
    by_name = {filter_.name: filter_ for filter_ in FILTERS.values()}
    content, chain = dressed, Chain(())
    for filter_name in names:
        content, chain = extended(chain, content, by_name[filter_name])
    groups, parts = cut_groups(content, cuts)
    done = redressed(groups, Undressed(content, chain), dressed)
    if plain.isascii():
        assert done is not None or name in ("blanks", "quoted")  # a cut within a line has no place
    if done is not None:
        originals = [opened.original(group, part) for group, part in zip(done, parts, strict=True)]
        assert b"".join(originals) == dressed
        assert [group.entry.size for group in done] == list(map(len, originals))


@pytest.mark.parametrize("name", ["json", "decomposed", "gbk", "windows-1251"])
def test_a_group_that_ends_after_any_letter_has_its_part(name):
    dressed, plain, (filter_name,), _ = DRESSES[name]
    by_name = {filter_.name: filter_ for filter_ in FILTERS.values()}
    content, chain = extended(Chain(()), dressed, by_name[filter_name])
    for index in range(1, 80):
        groups, _ = cut_groups(content, [len(plain[:index].encode())])
        done = redressed(groups, Undressed(content, chain), dressed)
        assert done is not None, plain[:index]
        assert sum(group.entry.size for group in done) == len(dressed)


def test_stored_groups_among_filtered_ones_hold_the_original():
    content, chain = extended(Chain(()), b"a\r\nb\r\n", FILTERS[2])
    groups = [stored_group(b"a\n"), modelled_group(Kind.PREDICTED, b"b\n", 2, 0, b"-")]
    stored, filtered = redressed(groups, Undressed(content, chain), b"a\r\nb\r\n")
    assert stored_content(stored) == b"a\r\n"
    assert opened.original(filtered, b"b\n") == b"b\r\n"


def test_where_a_group_has_no_place_nothing_is_filtered(lm, monkeypatch):
    monkeypatch.setattr(encode, "redressed", lambda groups, found, original: None if found.chain.steps else groups)
    assert compressed(DRESSES["crlf"][0], lm)[1] == []


# ---------------------------------------------------------------- what counts as text


@pytest.mark.parametrize(
    "data", [text.encode(codec) for codec in ("utf-16-le", "utf-16", "utf-32") for text in (ASCII, RUSSIAN)]
)
def test_wide_text_is_text(data):
    assert looks_like_text(data)


def test_text_in_a_code_page_is_text():
    assert all(looks_like_text(RUSSIAN.encode(page)) for page in ("cp1251", "koi8-r", "cp866"))
    assert looks_like_text(CHINESE.encode("gbk"))
    assert looks_like_text(JAPANESE.encode("cp932"))
    assert not looks_like_text(random.Random(0).randbytes(4000))
    assert not looks_like_text(struct.pack("<999i", *range(0, 99900, 100)))


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("text", [ASCII * 9, "\U0001f600" * 999], ids=["lines", "pairs"])
def test_segments_of_wide_text_are_cut_between_characters(codec, text):
    data, start = text.encode(codec), 0
    while start < len(data):
        end, _ = next_segment(data, start, 777)
        assert data[start:end].decode(codec)
        start = end


def test_the_model_is_asked_about_no_text_without_signs(monkeypatch):
    monkeypatch.setattr(undress, "_cost", None)
    text = (ENGLISH + FRENCH + RUSSIAN).encode()
    assert undress.undressed(None, text) == (text, Chain(()))
