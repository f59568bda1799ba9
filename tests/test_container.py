"""Files to bytes and back, as far as no model is needed."""

import hashlib
import io
import zlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cramzip.container import layout, opened, reading, records, stored, writing
from cramzip.container.endings import ENDINGS
from cramzip.container.layout import MAX_TOKENS, MAX_VECTORS, MAX_WIDTH
from cramzip.container.records import (
    HASH_SIZES,
    STANDARD,
    STANDARD_LANES,
    BuiltinModel,
    Coding,
    Entry,
    Group,
    Header,
    Kind,
    Lanes,
    OutsideModel,
    Parameters,
    Vectors,
    n_chunks,
)
from cramzip.container.stored import stored_group
from cramzip.container.wire import Cursor, pack_varint
from cramzip.container.writing import modelled_group
from cramzip.errors import DamagedFileError

patiently = settings(deadline=None)
OUTSIDE = OutsideModel("hf:someone/model", "", bytes(32), bytes(range(32)))
BUILTIN = BuiltinModel(b"\x1a\x2b\x3c\x4d")
VECTORS = Vectors(Coding.TERNARY, 7)  # 3 bytes each
EMPTY = Header(0, bytes(32))
TEXT = b"some text"


def write(header, groups=()):
    sink = io.BytesIO()
    size = writing.write(sink, header, groups)
    assert size == len(sink.getvalue())
    return sink.getvalue()


def predicted(content=TEXT, n_tokens=3, corrections=b"\x12\x34"):
    return modelled_group(Kind.PREDICTED, content, n_tokens, 0, corrections)


def crammed(kind=Kind.CORRECTED, content=TEXT, n_tokens=3, n_vectors=2, body=None):
    body = bytes(3 * n_vectors) + b"\x12\x34" * (kind is Kind.CORRECTED) if body is None else body
    return modelled_group(kind, content, n_tokens, n_vectors, body)


def header_of(groups, model=OUTSIDE, vectors=VECTORS, **others):
    """A header that goes with `groups`."""
    kinds = [group.entry.kind for group in groups]
    return Header(
        sum(group.entry.size for group in groups),
        bytes(32),
        model=model if any(not kind.is_stored for kind in kinds) else None,
        vectors=vectors if any(kind.has_vectors for kind in kinds) else None,
        **others,
    )


def sealed(front, *payloads, one_group=False):
    """A file with the right Check, whatever is in it."""
    body = b"".join(payloads)
    return front + zlib.crc32(front + body if one_group else front).to_bytes(4, "little") + body


def front_of(header, groups):
    """Header and table."""
    entries = b"".join(writing.pack_entry(group.entry, alone=len(groups) == 1) for group in groups)
    return writing.pack_header(header, len(groups)) + entries


def stage_of(blob):
    with pytest.raises(DamagedFileError) as caught:
        reading.read(blob)
    assert "\n" not in str(caught.value)
    return caught.value.stage


def facts(groups):
    return [(group.entry, bytes(group.payload)) for group in groups]


def alone(group):
    """What is known of a file's only group."""
    return Group(replace(group.entry, payload_crc=None, content_crc=None), group.payload)


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters="/\\"), min_size=1).filter(
    lambda name: records.name_fault(name) is None
)
endings = st.sampled_from(ENDINGS) | st.from_regex("[0-9A-Za-z]{0,7}[A-Za-z][0-9A-Za-z]{0,6}", fullmatch=True)
models = st.one_of(
    st.builds(BuiltinModel, st.binary(min_size=4, max_size=4)),
    st.builds(
        OutsideModel,
        st.builds("{}{}".format, st.sampled_from(["hf:", "local:"]), names.filter(lambda name: len(name) < 40)),
        st.sampled_from(["", "0" * 40]),
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=32, max_size=32),
    ),
    st.builds(OutsideModel, *map(st.just, ("", "")), *[st.binary(min_size=4, max_size=4)] * 2),
)
parameters = st.just(STANDARD) | st.builds(
    Parameters, st.integers(0, 15), st.integers(1, MAX_TOKENS), st.integers(0, MAX_TOKENS)
)
vector_blocks = st.builds(
    Vectors, st.sampled_from(Coding), st.integers(1, 50), st.integers(0, layout.MAX_GAIN), st.booleans()
)


ways = st.builds(Header, st.just(0), st.just(b""), parameters=parameters) | st.builds(
    Header,
    st.just(0),
    st.just(b""),
    lanes=st.just(STANDARD_LANES)
    | st.builds(Lanes, st.integers(1, MAX_TOKENS), st.integers(1, layout.MAX_LANES), st.booleans()),
)


@st.composite
def files(draw):
    """A header, and groups that go with it."""
    how, block = draw(ways), draw(vector_blocks)
    kinds = [kind for kind in Kind if not kind.is_stored and kind.is_allowed(exact=how.is_exact)]
    groups = []
    for kind in draw(st.lists(st.sampled_from([None, *kinds]), max_size=5)):
        content = draw(st.binary(min_size=1, max_size=100))
        if kind is None:
            groups.append(stored_group(content))
            continue
        n_tokens, n_vectors = draw(st.integers(1, len(content))), draw(st.integers(1, 3)) * kind.has_vectors
        size = n_chunks(Entry(kind, 0, 0, 0, 0, n_tokens), how) * n_vectors * block.size
        body = bytes(size) + (b"" if kind is Kind.RECITED else draw(st.binary(max_size=20)))
        groups.append(modelled_group(kind, content, n_tokens, n_vectors, body))
    header = header_of(groups, draw(models), block)
    original_hash = draw(st.sampled_from(HASH_SIZES).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
    if header.model:
        header = replace(header, parameters=how.parameters, lanes=how.lanes)
    name = draw(st.none() | names)
    ending = draw(st.none() | endings) if name is None else None
    return replace(header, original_hash=original_hash, name=name, ending=ending), groups


SMALL_FILES = {
    "empty": write(EMPTY),
    "one stored": write(Header(3, bytes(4), "name.txt"), [stored_group(b"abc")]),
    "one with an ending": write(Header(3, bytes(4), ending="unheardof"), [stored_group(b"abc")]),
    "one predicted": write(header_of([predicted()], BUILTIN), [predicted()]),
    "one crammed": write(header_of([crammed()]), [crammed()]),
    "several": write(
        header_of([crammed(), stored_group(b"a" * 100), predicted()], parameters=Parameters(8, 2, 0)),
        [crammed(n_vectors=2, body=bytes(14)), stored_group(b"a" * 100), predicted()],
    ),
}
small_files = pytest.mark.parametrize("blob", SMALL_FILES.values(), ids=SMALL_FILES)


# -- round trips -----------------------------------------------------------------------------------


@patiently
@given(files())
def test_what_is_written_is_read(file):
    header, groups = file
    found = reading.read(write(header, groups))
    assert found.header == header
    assert facts(found) == facts(map(alone, groups) if len(groups) == 1 else groups)
    assert found.offsets[-1] == header.original_size


@patiently
@given(files())
def test_what_is_read_is_written_again_as_it_was(file):
    blob = write(*file)
    found = reading.read(blob)
    assert write(found.header, found) == blob


@patiently
@given(files())
def test_a_table_is_read_without_payloads_that_are_damaged(file):
    header, groups = file
    assume(len(groups) > 1)
    damaged = write(header, [Group(group.entry, bytes(b ^ 1 for b in group.payload)) for group in groups])
    assert [group.entry for group in reading.read_table(damaged)] == [group.entry for group in groups]
    if any(group.payload for group in groups):
        assert stage_of(damaged) == "payload"


@pytest.mark.parametrize("size", HASH_SIZES)
def test_a_hash_may_be_cut(size):
    header = replace(EMPTY, original_hash=bytes(range(size)))
    assert reading.read(write(header)).header == header


@patiently
@given(st.binary(min_size=1, max_size=2000))
def test_a_stored_group_gives_its_content(content):
    group = stored_group(content)
    assert stored.stored_content(group) == content
    assert len(group.payload) <= len(content)


@given(st.integers(0, 2**63 - 1))
def test_varints_are_read_as_written(value):
    assert Cursor(pack_varint(value), "header").varint() == value


def test_many_tiny_groups_are_read():
    groups = [stored_group(b"x"), predicted(b"y", 1, b"")] * 200
    assert facts(reading.read(write(header_of(groups), groups))) == facts(groups)
    groups = [stored_group(b"x")] * 2
    assert facts(reading.read(write(header_of(groups), groups))) == facts(groups)


@pytest.mark.parametrize("kind", [Kind.CORRECTED, Kind.PREDICTED])
def test_corrections_may_take_no_bytes(kind):
    group = crammed(kind, n_vectors=2 * kind.has_vectors, body=bytes(6 * kind.has_vectors))
    assert facts(reading.read(write(header_of([group]), [group]))) == facts([alone(group)])


def test_the_parts_of_a_payload_are_told_apart():
    packed = bytes([128, 5, 0]) * 6
    groups = [crammed(n_tokens=5, body=packed + b"fix"), predicted(), stored_group(b"abc")]
    header = header_of(groups, parameters=Parameters(14, 2, 0))
    found = reading.read(write(header, groups))
    parts = [tuple(map(bytes, opened.split(group, header))) for group in found]
    assert parts == [(packed, b"fix"), (b"", b"\x12\x34"), (b"", b"abc")]
    assert [[mem.codes.shape for mem in opened.vectors(group, header)] for group in found] == [[(2, 7)] * 3, [], []]
    assert [opened.corrections(group, header) is None for group in found] == [False] * 3
    assert opened.corrections(crammed(Kind.RECITED), header) is None


# -- size ------------------------------------------------------------------------------------------


def overhead(group, hash_size, name=None):
    """What a file of one group and a built-in model costs without its payload."""
    vectors = Vectors(Coding.TERNARY, 576, gain=1000 if name else 0)
    header = header_of([group], BUILTIN, vectors, name=name)
    return len(write(replace(header, original_hash=bytes(hash_size)), [group])) - len(group.payload)


CRAMMED_576 = crammed(content=b"t" * 4000, n_tokens=1000, body=bytes(2 * 2 * 117))
PREDICTED = predicted(b"t" * 4000, 1000)


@pytest.mark.parametrize(("group", "size"), [(PREDICTED, 40), (CRAMMED_576, 48)], ids=["predicted", "crammed"])
def test_a_file_of_one_group_has_few_bytes_of_its_own(group, size):
    assert overhead(group, 8, "chapter1.txt") <= size


@pytest.mark.parametrize(("group", "size"), [(PREDICTED, 24), (CRAMMED_576, 28)], ids=["predicted", "crammed"])
def test_a_file_that_is_stripped_has_even_fewer(group, size):
    assert overhead(group, 4) <= size


def test_a_group_among_others_costs_24_bytes_at_most():
    for group in (predicted(b"t" * 10**5, 4000), crammed(content=b"t" * 10**5, n_tokens=4000)):
        assert len(writing.pack_entry(group.entry)) <= 24


# -- damage ----------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    assert stage_of(noise)
    assert stage_of(layout.MAGIC + b"\x01" + noise)


@small_files
def test_every_truncation_is_found(blob):
    for size in range(len(blob)):
        assert stage_of(blob[:size])


@small_files
def test_every_flipped_bit_is_found(blob):
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        assert stage_of(bytes(damaged))


@pytest.mark.parametrize(
    ("file", "stage"), [("empty", "length"), ("one stored", "table"), ("one predicted", "table"), ("several", "length")]
)
def test_trailing_bytes_are_damage(file, stage):
    assert stage_of(SMALL_FILES[file] + b"\0") == stage
    assert stage_of(SMALL_FILES[file] + bytes(100)) == stage


@pytest.mark.parametrize(("file", "stage"), [("one stored", "table"), ("several", "length")])
def test_missing_bytes_are_damage(file, stage):
    assert stage_of(SMALL_FILES[file][:-1]) == stage


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_changed_headers_with_a_right_checksum_give_no_other_error(data, one_group):
    groups = [crammed(), predicted()][: 1 if one_group else 2]
    front = front_of(header_of(groups, name="name.txt", parameters=Parameters(9, 20, 3)), groups)
    place = data.draw(st.integers(5, len(front) - 1))
    changed = front[:place] + data.draw(st.binary(max_size=12)) + front[place + data.draw(st.integers(0, 12)) :]
    with suppress(DamagedFileError):
        reading.read(sealed(changed, *[group.payload for group in groups], one_group=one_group))


def test_a_genomics_file_is_called_by_its_name():
    with pytest.raises(DamagedFileError, match="genomics"):
        reading.read(b"CRAM\x03\x00" + bytes(20))


@pytest.mark.parametrize("magic", [b"", b"\x9dC", b"\x9dCZ"[::-1], b"PK\x03\x04"])
def test_another_magic_is_refused(magic):
    assert stage_of(magic + bytes(20 * bool(magic))) == "magic"


@pytest.mark.parametrize("rest", [b"", b"\x00", b"\x02" + bytes(100), b"\x0a" + bytes(100)])
def test_another_version_is_refused(rest):
    assert stage_of(layout.MAGIC + rest) == "version"


# -- header ----------------------------------------------------------------------------------------


def with_flags(change, header=EMPTY, groups=()):
    front = bytearray(front_of(header, groups))
    front[4] = change(front[4])
    return sealed(bytes(front), *[group.payload for group in groups], one_group=len(groups) == 1)


@pytest.mark.parametrize("flag", [layout.BUILTIN, layout.IS_STANDARD, layout.HAS_VECTORS, layout.IS_EXACT])
def test_flags_of_a_model_without_a_model_are_refused(flag):
    assert stage_of(with_flags(lambda flags: flags | flag)) == "header"
    group = stored_group(b"abc")
    assert stage_of(with_flags(lambda flags: flags | flag, header_of([group]), [group])) == "header"


@pytest.mark.parametrize("group", [predicted(), crammed()], ids=["predicted", "crammed"])
def test_standard_parameters_have_one_encoding(group):
    header = header_of([group])
    blob = write(header, [group])
    assert blob[4] & layout.IS_STANDARD
    front = front_of(header, [group])
    spelled_out = bytes([14]) + pack_varint(STANDARD.chunk_tokens) + pack_varint(STANDARD.context_tokens) + b"\0"
    vector_block = bytes([VECTORS.coding, VECTORS.width, 0]) if header.vectors else b""
    at = len(writing.pack_header(header, 1)) - len(vector_block + b"\1")
    front = bytearray(front[:at] + spelled_out + front[at:])
    front[4] ^= layout.IS_STANDARD
    assert stage_of(sealed(bytes(front), group.payload, one_group=True)) == "header"
    other = replace(header, parameters=Parameters(14, 512, 510))
    assert not write(other, [group])[4] & layout.IS_STANDARD
    assert reading.read(write(other, [group])).header == other


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "/etc/passwd", "a\nb", "a\x00", "\x7f", "é" * 128])
def test_bad_names_are_refused(name):
    assert records.name_fault(name)
    assert stage_of(write(replace(EMPTY, name=name))) == "header"


@pytest.mark.parametrize(
    "change",
    [
        {"model": replace(OUTSIDE, model_id="")},
        {"model": replace(OUTSIDE, model_id="tiny")},
        {"model": replace(OUTSIDE, model_id="file:tiny")},
        {"model": replace(OUTSIDE, model_id="builtin:tiny")},
        {"model": replace(OUTSIDE, model_id="hf:")},
        {"model": replace(OUTSIDE, model_id="hf:a\nb")},
        {"model": replace(OUTSIDE, revision="é" * 128)},
        {"parameters": Parameters(noise_exponent=16)},
        {"parameters": Parameters(noise_exponent=255)},
        {"parameters": Parameters(chunk_tokens=0)},
        {"parameters": Parameters(chunk_tokens=2**16 + 1)},
        {"parameters": Parameters(context_tokens=2**16 + 1)},
        {"parameters": Parameters(context_tokens=2**62)},
        {"vectors": replace(VECTORS, width=0)},
        {"vectors": replace(VECTORS, width=MAX_WIDTH + 1)},
        {"vectors": replace(VECTORS, gain=layout.MAX_GAIN + 1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [0, 1])
def test_values_beyond_the_limits_of_the_header_are_refused(change, more):
    groups = [crammed(), predicted()][: 1 + more]
    assert stage_of(write(replace(header_of(groups), **change), groups)) == "header"


@pytest.mark.parametrize("coding", [0, 8, 16 + 2, 255])
def test_a_reserved_coding_is_refused(coding):
    group = crammed()
    front = front_of(header_of([group]), [group])
    block = bytes([Coding.TERNARY, 7, 0, 1])  # vector block and Group_Count
    assert front.count(block) == 1
    changed = front.replace(block, bytes([coding]) + block[1:])
    assert stage_of(sealed(changed, group.payload, one_group=True)) == "header"


def test_a_number_in_more_bytes_than_it_needs_is_refused():
    front = writing.pack_header(EMPTY, 0)
    assert front[5] == 0
    assert stage_of(sealed(front[:5] + b"\x80\x00" + front[6:])) == "header"
    assert stage_of(sealed(front[:-1] + b"\x80\x00")) == "header"


# -- table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Kind.RAW, 0, 0, 0, 0),
        Entry(Kind.RAW, 2**22 + 1, 2**22 + 1, 0, 0),
        Entry(Kind.RAW, 5, 4, 0, 0),
        Entry(Kind.RAW, 5, 6, 0, 0),
        Entry(Kind.ZSTD, 5, 0, 0, 0),
        Entry(Kind.ZSTD, 5, 5, 0, 0),
        Entry(Kind.PREDICTED, 0, 5, 0, 0, 1),
        Entry(Kind.PREDICTED, 5, 5, 0, 0, 0),
        Entry(Kind.PREDICTED, 5, 5, 0, 0, 6),
        Entry(Kind.PREDICTED, 2**22, 5, 0, 0, MAX_TOKENS + 1),
        Entry(Kind.CORRECTED, 5, 9, 0, 0, 0, 2),
        Entry(Kind.CORRECTED, 5, 9, 0, 0, 1, 0),
        Entry(Kind.CORRECTED, 5, 3 * (MAX_VECTORS + 1), 0, 0, 1, MAX_VECTORS + 1),
        Entry(Kind.CORRECTED, 5, 5, 0, 0, 1, 2),
        Entry(Kind.CORRECTED, 2000, 11, 0, 0, 769, 2),
        Entry(Kind.RECITED, 5, 5, 0, 0, 1, 2),
        Entry(Kind.RECITED, 5, 7, 0, 0, 1, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [0, 1])
def test_entries_beyond_the_limits_are_refused(entry, more):
    groups = [Group(entry, bytes(entry.payload_size)), predicted()][: 1 + more]
    assert stage_of(write(header_of(groups), groups)) == "table"


@pytest.mark.parametrize("kind", [5, 6, 255])
def test_a_reserved_kind_is_refused(kind):
    front = writing.pack_header(Header(1, bytes(32)), 1) + bytes([kind])
    assert stage_of(sealed(front, b"x", one_group=True)) == "table"
    entries = [bytearray(writing.pack_entry(stored_group(b"x").entry)) for _ in range(2)]
    entries[1][0] = kind
    assert stage_of(sealed(writing.pack_header(Header(2, bytes(32)), 2) + b"".join(entries), b"xx")) == "table"


@pytest.mark.parametrize("size", [3, 7, 2**62])
def test_sizes_must_add_up(size):
    groups = [stored_group(b"abc"), stored_group(b"d")]
    assert stage_of(write(Header(size, bytes(32)), groups)) == "table"


def test_an_empty_original_has_no_groups():
    assert stage_of(write(Header(0, bytes(32)), [stored_group(b"abc")])) == "table"
    assert stage_of(write(Header(3, bytes(32)))) == "table"


@pytest.mark.parametrize("groups", [[predicted()], [predicted(), stored_group(b"abc")]], ids=["one", "two"])
def test_modelled_groups_need_a_model_block(groups):
    assert stage_of(write(replace(header_of(groups), model=None), groups)) == "table"


@pytest.mark.parametrize("n_groups", [0, 1, 2])
def test_a_model_block_needs_modelled_groups(n_groups):
    groups = [stored_group(b"abc")] * n_groups
    assert stage_of(write(replace(header_of(groups), model=OUTSIDE), groups)) == "table"


@pytest.mark.parametrize("groups", [[crammed()], [crammed(), predicted()]], ids=["one", "two"])
def test_groups_with_vectors_need_a_vector_block(groups):
    assert stage_of(write(replace(header_of(groups), vectors=None), groups)) == "table"


@pytest.mark.parametrize("n_groups", [1, 2])
def test_a_vector_block_needs_groups_with_vectors(n_groups):
    groups = [predicted()] * n_groups
    assert stage_of(write(replace(header_of(groups), vectors=VECTORS), groups)) == "table"


@pytest.mark.parametrize("n_groups", [8, 2**31, 2**62])
def test_huge_counts_cost_nothing(n_groups):
    front = writing.pack_header(Header(1, bytes(32)), n_groups)
    assert stage_of(sealed(front, bytes(50))) == "table"


@pytest.mark.parametrize("size", [2**22, 2**40, 2**62])
def test_huge_payloads_cost_nothing(size):
    groups = [Group(replace(predicted().entry, payload_size=size), b"xx"), predicted()]
    assert stage_of(sealed(front_of(header_of(groups), groups), b"xxxx")) == "length"


def test_one_group_is_under_one_checksum():
    blob = bytearray(SMALL_FILES["one predicted"])
    blob[-1] ^= 1
    with pytest.raises(DamagedFileError, match="Check") as caught:
        reading.read(bytes(blob))
    assert caught.value.stage == "table"


# -- content ---------------------------------------------------------------------------------------


def test_a_zstd_frame_that_unpacks_to_more_is_refused_before_it_is_unpacked():
    bomb = stored_group(bytes(2**20))
    liar = Group(replace(bomb.entry, size=100), bomb.payload)
    with pytest.raises(DamagedFileError) as caught:
        stored.stored_content(liar)
    assert caught.value.stage == "content"


@pytest.mark.parametrize("frame", [b"not a frame", stored_group(bytes(100)).payload + b"x"])
def test_a_bad_zstd_frame_is_refused(frame):
    group = Group(Entry(Kind.ZSTD, 100, len(frame), zlib.crc32(frame), zlib.crc32(bytes(100))), frame)
    with pytest.raises(DamagedFileError):
        stored.stored_content(group)


def test_wrong_content_is_refused():
    group = stored_group(b"abc")
    with pytest.raises(DamagedFileError, match="Content_CRC"):
        reading.check_content(group.entry, b"abd")
    with pytest.raises(DamagedFileError, match="Size"):
        reading.check_content(alone(group).entry, b"ab")


@pytest.mark.parametrize("n_groups", [1, 2])
def test_codes_that_the_coding_does_not_have_are_damage(n_groups):
    groups = [crammed(body=b"\x80\xff\xff" * 2)] * n_groups
    blob = write(header_of(groups), groups)
    assert reading.read_table(blob)
    with pytest.raises(DamagedFileError) as caught:
        reading.read(blob)
    assert caught.value.stage == "vectors"


def test_the_examples_of_the_specification():
    text = b"the cat sat"
    header = Header(len(text), hashlib.sha256(text).digest()[:8], "a.txt", BUILTIN)
    assert write(header, [predicted(text, 4, b"\x8f\x31")]) == bytes.fromhex(
        "9d435a 01 2f 0b 77255f02a3435d1f 05612e747874 1a2b3c4d 01 0404 a1fba752 8f31"
    )
    empty = Header(0, hashlib.sha256(b"").digest()[:4])
    assert write(empty) == bytes.fromhex("9d435a 01 00 00 e3b0c442 00 e49ab001")
