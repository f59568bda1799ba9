"""Filters: what they change comes back, whatever the bytes; what no filter makes is damage."""

import json
import random
import re
import sys
import tracemalloc
import unicodedata
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import ROOT

from cramzip.errors import DamagedFileError
from cramzip.filters import base, chain, encodings, letters, repeats
from cramzip.filters.chain import CERTAIN, DOUBTFUL, FILTERS, MOST_GROWTH, Chain, Step, extended, parse
from cramzip.filters.double_byte import DOUBLE_BYTE, double_byte_encoding
from cramzip.filters.encodings import CODE_PAGES, WIDE, has_blanks_like_text, wide_encoding

sys.path.insert(0, str(ROOT / "formats"))

import filters as reference

FILTERS_BY_NAME = {filter_.name: filter_.id for filter_ in FILTERS.values()}
SPECIFICATION = (ROOT / "formats" / "cram.md").read_text("utf-8")
ENGLISH = "The harbour master kept two logs:\none for the port authority, and one, in pencil, for himself.\n\n" * 9
FRENCH = "Le garçon était là, près de la fenêtre, à écouter la pluie.\n" * 20
RANDOM = random.Random(0).randbytes(200)
RUSSIAN = "Сторож запер калитку и долго стоял под дождём.\n" * 20
VIETNAMESE = "Tiếng Việt có nhiều dấu: người, nước, được.\n" * 20
KOREAN = "각 나라의 말은 서로 다르다. がぎぐげご\n" * 20

# What dresses are made of, so that mixtures of all of them are tried.
BITS = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b" ",
        b"  ",
        b"\xc2\xa0",
        b"> ",
        b">",
        b"    ",
        b"a",
        b"Word",
        b"WORD IN CAPITALS ",
        b"a line that is long enough to be copied\n",
        b"-" * 40,
    ]
    + [b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\xe9", b"\x81", b"\xed\xa0\x80", b"\xed\xb0\x80", "\U0001f600".encode()]
    + [
        text.encode()
        for text in (
            "e\u0301",
            "é",
            "u\u0308\u0304",
            "и\u0306",
            "\u1100\u1161\u11a8",
            "각",
            "ß",
            "İ",
            "ÿ",
            "Ÿ",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\ud83d",
        )
    ]
)
MIXTURES = st.one_of(st.lists(BITS, max_size=40).map(b"".join), st.binary(max_size=200))
every_filter = pytest.mark.parametrize("filter_", FILTERS.values(), ids=lambda filter_: filter_.name)


def settings_of(filter_):
    """Parameters whose settings a filter takes, so that it changes whatever it can."""
    return {11: b"\x20", 12: b"\3", 13: b"\5> ", 16: b"\0"}.get(filter_.id, b"")


@every_filter
@settings(deadline=None)  # tables are made when they are first needed
@given(MIXTURES)
def test_what_a_filter_changes_comes_back(filter_, data):
    for like in (None, settings_of(filter_)):
        if (change := filter_.apply(data, like)) is not None:
            assert filter_.invert(change.changed, change.parameters, MOST_GROWTH * max(1, len(data))) == data


@every_filter
@settings(deadline=None)  # tables are made when they are first needed
@given(MIXTURES)
def test_the_reference_reader_inverts_them_alike(filter_, data):
    if (change := filter_.apply(data, settings_of(filter_))) is not None:
        steps = [(filter_.id, change.parameters)]
        if len(change.changed) <= MOST_GROWTH * len(data):
            assert reference.invert(steps, change.changed, len(data)) == data


@given(st.lists(st.sampled_from(list(FILTERS.values())), min_size=1, max_size=4), MIXTURES)
def test_chains_come_back(filters, data):
    current, done = data, Chain(())
    for filter_ in filters:
        if (more := extended(done, current, filter_)) is not None:
            current, done = more
    if done.steps and len(current) <= MOST_GROWTH * len(data):
        packed = done.pack()
        found, size = parse(packed + b"behind")
        assert (found, size) == (done, len(packed))
        assert found.invert(current, len(data)) == data
        assert reference.parse(packed + b"behind")[1] == b"behind"


@every_filter
@settings(deadline=None)  # tables are made when they are first needed
@given(MIXTURES, st.binary(max_size=12))
def test_hostile_parameters_are_damage_or_give_bytes_within_the_limit(filter_, changed, parameters):
    limit = len(changed) + 8
    try:
        made = Chain((Step(filter_, parameters),)).invert(changed, limit)
    except DamagedFileError as error:
        assert error.stage == "content"  # noqa: PT017
        with pytest.raises(reference.Malformed):
            reference.invert([(filter_.id, parameters)], changed, limit)
    else:
        assert len(made) <= MOST_GROWTH * limit
        assert reference.invert([(filter_.id, parameters)], changed, limit) == made


@given(st.binary(max_size=40))
def test_hostile_blocks_are_damage_of_the_payload(payload):
    try:
        found, size = parse(payload)
    except DamagedFileError as error:
        assert error.stage == "payload"  # noqa: PT017
        with pytest.raises(reference.Malformed):
            reference.parse(payload)
    else:
        assert payload.startswith(found.pack())
        assert reference.parse(payload)[1] == payload[size:]


def test_a_short_payload_cannot_ask_for_much_memory():
    lines = b"a\n" * 1000
    for filter_, parameters in [(FILTERS[12], b"\x80\1"), (FILTERS[13], b"\x80\1" + b"-" * 64)]:
        with pytest.raises(DamagedFileError, match="allowed"):
            filter_.invert(lines, parameters, 10_000)
    with pytest.raises(DamagedFileError, match="allowed"):
        FILTERS[2].invert(b"\n" * 1000, b"", 1999)
    with pytest.raises(DamagedFileError, match="allowed"):
        FILTERS[9].invert(b" " * 1000, b"", 1999)


# ---------------------------------------------------------------- what is changed, and what is left alone


def applied(filter_, text):
    change = FILTERS[filter_].apply(text.encode() if isinstance(text, str) else text)
    return change and (change.changed.decode(), change.parameters)


DRESSES = {
    "crlf": (2, ENGLISH.replace("\n", "\r\n"), ENGLISH),
    "cr": (3, ENGLISH.replace("\n", "\r"), ENGLISH),
    "mark": (1, "\ufeff" + ENGLISH, ENGLISH),
    "utf-16-le": (4, ENGLISH.encode("utf-16-le"), ENGLISH),
    "utf-16-be, marked": (5, "\ufeff一Chinese".encode("utf-16-be"), "\ufeff一Chinese"),
    "utf-32-le": (6, RUSSIAN.encode("utf-32-le"), RUSSIAN),
    "utf-32-be": (7, ENGLISH.encode("utf-32-be"), ENGLISH),
    "French, decomposed": (8, unicodedata.normalize("NFD", FRENCH), FRENCH),
    "Vietnamese, decomposed": (8, unicodedata.normalize("NFD", VIETNAMESE), VIETNAMESE),
    "Russian, decomposed": (8, unicodedata.normalize("NFD", RUSSIAN.replace("ё", "й")), RUSSIAN.replace("ё", "й")),
    "Korean, decomposed": (8, unicodedata.normalize("NFD", KOREAN), KOREAN),
    "no-break blanks": (9, ENGLISH.replace(" ", "\xa0"), ENGLISH),
}


@pytest.mark.parametrize(("filter_", "dressed", "plain"), DRESSES.values(), ids=DRESSES)
def test_a_dress_goes_without_parameters(filter_, dressed, plain):
    assert applied(filter_, dressed) == (plain, b"")


@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda page: page.name)
def test_a_code_page_has_a_character_for_every_byte(page):
    every = bytes(range(256))
    changed = page.apply(every).changed
    assert changed == page.table.encode()
    assert page.invert(changed, b"", 999) == every


def test_blanks_at_the_ends_of_lines_go():
    for trailing in (ENGLISH.replace("\n", " \n"), re.sub(r"(?<=.)\n", " \n", ENGLISH)):
        changed, parameters = applied(12, trailing)
        assert (changed, len(parameters)) == (ENGLISH, 1)
    changed, parameters = applied(12, ENGLISH.replace("\n", "  \n", 20).replace("  \n", " \n", 1))
    assert changed.count(" \n") == 1
    assert len(parameters) <= 4


def test_what_all_lines_begin_with_goes():
    quoted = re.sub("^", "> ", ENGLISH.rstrip("\n"), flags=re.MULTILINE)
    for dressed in (quoted, quoted.replace("> \n", ">\n")):
        changed, parameters = applied(13, dressed)
        assert (changed, parameters[1:]) == (ENGLISH.rstrip("\n"), b"> ")
    indented = re.sub("^(?=.)", "    ", ENGLISH, flags=re.MULTILINE)
    assert applied(13, "Title\n" + indented)[0] == "Title\n" + ENGLISH


def test_capitals_become_sentences():
    text = "Here is the harbour. It is old! Was I there?\n\n“Yes, “ said i'm not sure who.\n"
    changed, parameters = applied(10, text.upper())
    assert changed == text.replace("i'm", "I'm").replace("“ said", "“ said")
    assert parameters == b""
    changed, parameters = applied(10, "In this part all is small as ever.\n\nBUT HERE EVERYTHING IS IN CAPITALS.\n")
    assert changed == "In this part all is small as ever.\n\nBut here everything is in capitals.\n"
    assert parameters == bytes([0, 8])


@pytest.mark.parametrize(
    "text", [ENGLISH, FRENCH, RUSSIAN, VIETNAMESE, KOREAN, "A", "", "I am. WHO says NO to BBC?\n" * 9]
)
def test_a_text_without_a_dress_is_left_alone(text):
    data = text.encode()
    assert wide_encoding(data) is None
    is_uniform = len(set(data.split(b"\n"))) <= 2  # all lines begin alike
    tried = (*WIDE, *CODE_PAGES, *CERTAIN, *(filter_ for filter_ in DOUBTFUL if filter_.id != 13 or not is_uniform))
    assert [filter_.name for filter_ in tried if filter_.apply(data)] == []


@pytest.mark.parametrize(
    "data",
    [
        b"./src/module_0\0./src/module_1\0" * 50,
        b"bush hid the facts\0bush hid the facts" * 20,
        random.Random(1).randbytes(4000),
        bytes(4000),
        bytes(range(256)) * 16,
        ENGLISH.encode("cp1252"),
        VIETNAMESE.encode(),
        b"\xff\xfe",
        b"",
    ],
)
def test_other_data_is_no_wide_text(data):
    assert wide_encoding(data) is None or data == b"\xff\xfe"


CHINESE = "经济学家约瑟夫一世在第一章，\n莱茵河中游在宾根与波恩之间穿过了莱茵。" * 20


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [ENGLISH, FRENCH, RUSSIAN, KOREAN, CHINESE], ids=["en", "fr", "ru", "ko", "zh"])
def test_wide_text_is_recognised_without_a_mark(text, codec):
    assert wide_encoding(text.encode(codec)).codec == codec


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_is_cut_between_characters(codec):
    wide = wide_encoding(ENGLISH.encode(codec))
    data = ENGLISH.encode(codec)
    for size in range(400, 440):
        end = wide.end(data[:size])
        assert data[:end].decode(codec).endswith("\n")
    pairs = ("\U0001f600" * 100).encode(codec)
    for size in range(50, 60):
        end = wide.end(pairs[:size])
        assert size - 6 < end <= size
        assert set(pairs[:end].decode(codec)) == {"\U0001f600"}
    assert wide.end(("\u0a0a\u0a20" * 30).encode(codec)) == len(("\u0a0a\u0a20" * 30).encode(codec))


def test_blanks_tell_text_in_a_code_page_from_other_data():
    assert has_blanks_like_text(RUSSIAN.encode("cp1251"))
    assert not has_blanks_like_text(bytes(range(100, 200)) * 9)
    assert not has_blanks_like_text(b" " * 99)


# ---------------------------------------------------------------- as the specification says


def test_the_tables_are_those_of_the_specification():
    found = letters.decompositions()
    assert found == reference.decompositions()
    listed = "".join(letter + parts + "\n" for letter, parts in sorted(found.items()))
    assert f"{len(found):,} of them" in SPECIFICATION
    assert f"{zlib.crc32(listed.encode()):08x}" in SPECIFICATION
    assert all(unicodedata.normalize("NFD", letter) == parts for letter, parts in found.items())
    assert all(unicodedata.normalize("NFC", parts) == letter for letter, parts in found.items())
    small = {chr(code): chr(large) for code, large in letters.capitals().items()}
    assert small == reference.capitals()
    assert all(letter.upper() == large and large.lower() == letter for letter, large in small.items())
    assert all(len(letter.encode()) == len(large.encode()) for letter, large in small.items())


@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda page: page.name)
def test_code_pages_are_those_of_the_specification(page):
    (row,) = re.findall(rf"\| {page.id} \| {page.name} \| [^|]+ \|([0-9A-F ]*)\| ([0-9a-f]{{8}}) \|", SPECIFICATION)
    left_open = [
        f"{value:02X}" for value in range(0x80, 0x100) if not bytes([value]).decode(reference.PAGES[page.id], "ignore")
    ]
    assert (row[0].strip(), row[1]) == (" ".join(left_open), f"{zlib.crc32(page.table[0x80:].encode()):08x}")
    assert all(page.table[int(value, 16)] == chr(int(value, 16)) for value in left_open)


@pytest.mark.parametrize("encoding", DOUBLE_BYTE, ids=lambda encoding: encoding.name)
def test_codes_of_two_bytes_are_those_of_the_specification(encoding):
    codec = encoding.codec
    (row,) = re.findall(rf"\| {encoding.id} \| [^|]+ \| [^|]+ \| ([0-9,]+) \| ([0-9a-f]{{8}}) \|", SPECIFICATION)
    characters, first = [], {}
    for code in (bytes([high, low]) for high in range(0x81, 0x100) for low in range(0x40, 0x100)):
        try:
            character = code.decode(codec)
        except UnicodeDecodeError:
            continue
        if len(character) == 1 and first.setdefault(character, code) == code:
            characters.append(character)
            assert character.encode(codec) == code
            assert encoding.invert(character.encode(), b"", 9) == code
    assert row == (f"{len(characters):,}", f"{zlib.crc32(''.join(characters).encode()):08x}")
    assert reference.DOUBLE[encoding.id] == codec
    ones = {value: bytes([value]).decode(codec, "ignore") for value in range(256)}
    japanese = {0x80: "\x80", 0xA0: "\uf8f0"} | {value: chr(0xFEC0 + value) for value in range(0xA1, 0xE0)}
    japanese |= {value: chr(0xF7F4 + value) for value in (0xFD, 0xFE, 0xFF)}
    upper = {value: character for value, character in ones.items() if value >= 0x80 and character}
    assert upper == (japanese if encoding.id == 49 else {})


JAPANESE = "灯台守は毎晩、海の上に灯をともした。だれも来なかったが、かれは待っていた。\n"


@pytest.mark.parametrize(("text", "name"), [(JAPANESE, "cp932"), (CHINESE, "gbk")])
def test_chinese_and_japanese_are_known_by_what_is_frequent(text, name):
    data = text.encode(name)
    for part in (data, data[:61], data[1:60]):
        assert double_byte_encoding(part).name == name
    assert applied(FILTERS_BY_NAME[name], data) == (text, b"")
    others = [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (RUSSIAN, "cp866"), (FRENCH, "cp1252"), (FRENCH, "mac-roman")]
    for other, codec in others:
        assert double_byte_encoding(other.encode(codec)) is None
    for other in (random.Random(1).randbytes(4000), "Don’t say I’m what’s his. ".encode("cp1252") * 20, text.encode()):
        assert double_byte_encoding(other) is None


def test_escapes_become_characters():
    text = '{"где": "там, где café", "\U0001f600": "é"}\n'
    for upper in (False, True):
        escaped = json.dumps(json.loads(text))
        escaped = re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda found: found[0].upper(), escaped) if upper else escaped
        assert applied(16, escaped) == (text.rstrip(), bytes([upper]))
    assert applied(16, r"\u0434\u0430 é \u0434\u0430 \ud800 \u0041")[1] == b"\0\2\1"
    assert applied(16, r"\u0434 \u0430 \u0434 \U00000434") is None


@pytest.mark.parametrize("letter", ["é", "中", "\U0001f600"])
def test_escapes_may_be_as_long_as_a_group_and_no_longer(letter):
    changed, original = (3 * letter).encode(), json.dumps(3 * letter)[1:-1].encode()
    assert FILTERS[16].invert(changed, b"\0", len(original)) == original
    with pytest.raises(DamagedFileError, match="at most"):
        FILTERS[16].invert(changed, b"\0", len(original) - 1)


def test_the_numbers_are_those_of_the_specification():
    assert set(FILTERS) == reference.KNOWN == {*range(1, 15), 16, *range(32, 45), 48, 49}


@settings(max_examples=300)
@given(st.lists(st.booleans(), max_size=90))
def test_runs_have_one_encoding(flags):
    packed = base.pack_runs(flags)
    assert base.unpack_runs(packed, 0, len(flags)) == flags == reference.runs(packed, len(flags))
    assert bool(packed) == (not all(flags))


@given(st.binary(max_size=6), st.integers(0, 9))
def test_no_other_runs_are_read(parameters, n):
    try:
        flags = base.unpack_runs(parameters, 0, n)
    except DamagedFileError:
        with pytest.raises(reference.Malformed):
            reference.runs(parameters, n)
        return
    assert reference.runs(parameters, n) == flags
    if not parameters.startswith(base.BIT_BY_BIT):
        assert len(base.pack_runs(flags)) <= len(parameters)
        assert base.pack_runs(flags) == parameters or base.pack_runs(flags).startswith(base.BIT_BY_BIT)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([b"ab", b"0123456789abcdef", b"\n", b"x" * 33]), st.integers(1, 9))))
def test_repeats_come_back_and_are_found(parts):
    data = b"".join(part * n for part, n in parts)
    change = repeats.Repeats().apply(data)
    if change is None:
        assert all(data.find(data[at : at + 48], at + 1) < 0 for at in range(len(data) - 48))
    else:
        assert len(change.changed) <= len(data) - repeats.SHORTEST
        assert repeats.Repeats().invert(change.changed, change.parameters, len(data)) == data
        assert reference.with_copies(change.changed, change.parameters, len(data)) == data


def test_the_copy_of_the_specification():
    (parameters, text) = re.search(
        r"with the parameters `([0-9A-F ]+)` the filtered bytes `(\w+)`", SPECIFICATION
    ).groups()
    made = FILTERS[14].invert(text.encode(), bytes.fromhex(parameters), 48)
    assert made == text.encode() * 3


def test_short_repeats_are_left_to_the_model():
    data = b"one line of a text\n" + RANDOM + b"one line of a text\n"
    assert repeats.Repeats(128).apply(data + RANDOM[:100]) is None
    assert repeats.Repeats(128).apply(data + RANDOM) == repeats.Repeats(128).apply(data + RANDOM, b"")
    assert repeats.Repeats(128).apply(data + RANDOM).changed == data[:219]


def test_copies_of_a_byte_take_a_few_bytes():
    change = FILTERS[14].apply(b"a" * 2**20)
    assert len(change.changed) + len(change.parameters) < 32


def test_a_filter_that_cannot_be_inverted_is_not_taken(monkeypatch):
    monkeypatch.setattr(encodings.Mark, "invert", lambda self, changed, parameters, limit: changed)
    assert chain.extended(Chain(()), b"\xef\xbb\xbftext", FILTERS[1]) is None


def test_letters_that_become_too_many_bytes_are_refused_before_they_take_much_memory():
    changed = "\u1e69".encode() * 500_000  # each becomes a letter and two marks
    letters.Composed().invert(b"", b"", 0)  # which makes its tables
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match="are allowed"):
            letters.Composed().invert(changed, b"", len(changed))
        assert tracemalloc.get_traced_memory()[1] < 12 * len(changed)
    finally:
        tracemalloc.stop()
    assert letters.Composed().invert(changed, b"", 2 * len(changed)) == "s\u0323\u0307".encode() * 500_000
