import io
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cramzip import container
from cramzip.container import Chunk, Entry, Header, Kind, ModelBlock
from cramzip.errors import DamagedFileError
from cramzip.wire import Cursor, pack_varint

MODEL = ModelBlock("builtin:tiny", "", bytes(32), bytes(range(32)), 288, 4, 8)
EMPTY = Header(0, bytes(32))


def write(header, chunks=()):
    sink = io.BytesIO()
    size = container.write(sink, header, chunks)
    assert size == len(sink.getvalue())
    return sink.getvalue()


def crammed(content=b"some text", n_tokens=3, n_vectors=2, payload=bytes(17)):
    return container.crammed_chunk(content, n_tokens, n_vectors, payload)


def header_of(chunks, name=None):
    model = MODEL if any(chunk.entry.kind is Kind.CRAMMED for chunk in chunks) else None
    return Header(sum(chunk.entry.size for chunk in chunks), bytes(32), name, model)


def resealed(header_bytes):
    """A header, whatever was done to it, with the right CRC."""
    return header_bytes[:-4] + zlib.crc32(header_bytes[:-4]).to_bytes(4, "little")


def stage_of(blob):
    with pytest.raises(DamagedFileError) as caught:
        container.read(blob)
    assert "\n" not in str(caught.value)
    return caught.value.stage


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters="/\\"), min_size=1).filter(
    lambda name: container.name_fault(name) is None
)
stored_chunks = st.binary(min_size=1, max_size=300).map(container.stored_chunk)
crammed_chunks = st.builds(
    lambda content, n_tokens, n_vectors, fixes: crammed(
        content, min(n_tokens, len(content)), n_vectors, bytes(8 * n_vectors) + fixes
    ),
    st.binary(min_size=1, max_size=50),
    st.integers(1, container.MAX_TOKENS),
    st.integers(1, 5),
    st.binary(min_size=1, max_size=20),
)


@given(st.lists(st.one_of(stored_chunks, crammed_chunks), max_size=5), st.none() | names)
def test_what_is_written_is_read(chunks, name):
    header = header_of(chunks, name)
    found = container.read(write(header, chunks))
    assert found.header == header
    assert [(chunk.entry, bytes(chunk.payload)) for chunk in found] == [
        (chunk.entry, bytes(chunk.payload)) for chunk in chunks
    ]


@given(st.binary(min_size=1, max_size=2000))
def test_a_stored_chunk_gives_its_content(content):
    chunk = container.stored_chunk(content)
    assert container.stored_content(chunk) == content
    assert len(chunk.payload) <= len(content)


@given(st.integers(0, 2**63 - 1))
def test_varints_are_read_as_written(value):
    assert Cursor(pack_varint(value), "header").varint() == value


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    assert stage_of(noise)
    assert stage_of(container.MAGIC + b"\x01" + noise)


SMALL_FILES = {
    "empty": write(EMPTY),
    "stored": write(Header(3, bytes(32), "name.txt"), [container.stored_chunk(b"abc")]),
    "mixed": write(Header(109, bytes(32), None, MODEL), [crammed(), container.stored_chunk(b"a" * 100)]),
}


@pytest.mark.parametrize("blob", SMALL_FILES.values(), ids=SMALL_FILES)
def test_every_truncation_is_found(blob):
    for size in range(len(blob)):
        assert stage_of(blob[:size])


@pytest.mark.parametrize("blob", SMALL_FILES.values(), ids=SMALL_FILES)
def test_every_flipped_bit_is_found(blob):
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        assert stage_of(bytes(damaged))


@settings(max_examples=300)
@given(st.data())
def test_changed_headers_with_a_right_crc_give_no_other_error(data):
    header = container.pack_header(header_of([crammed()], "name.txt"), 1, 20)
    place = data.draw(st.integers(5, len(header) - 5))
    changed = header[:place] + data.draw(st.binary(max_size=12)) + header[place + data.draw(st.integers(0, 12)) :]
    assert stage_of(resealed(changed) + bytes(50))


def test_trailing_bytes_are_damage():
    assert stage_of(SMALL_FILES["stored"] + b"\0") == "length"


def test_a_genomics_file_is_called_by_its_name():
    with pytest.raises(DamagedFileError, match="genomics"):
        container.read(b"CRAM\x03\x00" + bytes(20))


def test_another_version_is_refused():
    assert stage_of(container.MAGIC + b"\x02" + bytes(100)) == "version"


@pytest.mark.parametrize("bit", [4, 5, 6, 7])
def test_reserved_flags_are_refused(bit):
    header = bytearray(write(EMPTY)[:-4])
    header[5] |= 1 << bit
    assert stage_of(resealed(bytes(header)) + bytes(4)) == "header"


@pytest.mark.parametrize("bit", [2, 3])
def test_unused_flags_are_ignored(bit):
    header = bytearray(container.pack_header(EMPTY, 0, 0))
    header[5] |= 1 << bit
    assert container.read(resealed(bytes(header)) + bytes(4)).header == EMPTY


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "/etc/passwd", "a\nb", "a\x00", "\x7f", "é" * 128])
def test_bad_names_are_refused(name):
    assert container.name_fault(name)
    assert stage_of(write(replace(EMPTY, name=name))) == "header"


@pytest.mark.parametrize(
    "change",
    [
        {"model_id": "tiny"},
        {"model_id": "file:tiny"},
        {"model_id": "hf:"},
        {"vocabulary_size": 0},
        {"vocabulary_size": 2**24 + 1},
        {"vector_width": 0},
        {"vector_width": 2**16 + 1},
        {"noise_exponent": 64},
        {"compute_type": 1},
        {"vector_coding": 0},
        {"correction_coding": 2},
    ],
    ids=str,
)
def test_bad_model_blocks_are_refused(change):
    chunk = crammed()
    header = replace(header_of([chunk]), model=replace(MODEL, **change))
    assert stage_of(write(header, [chunk])) == "header"


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Kind.RAW, 0, 0, 0, 0),
        Entry(Kind.RAW, 2**22 + 1, 2**22 + 1, 0, 0),
        Entry(Kind.RAW, 5, 4, 0, 0),
        Entry(Kind.ZSTD, 5, 5, 0, 0),
        Entry(Kind.CRAMMED, 5, 16, 0, 0, 1, 2),
        Entry(Kind.CRAMMED, 5, 17, 0, 0, 0, 2),
        Entry(Kind.CRAMMED, 5, 17, 0, 0, 2**16 + 1, 2),
        Entry(Kind.CRAMMED, 5, 17, 0, 0, 1, 0),
        Entry(Kind.CRAMMED, 5, 8 * 4097 + 1, 0, 0, 1, 4097),
    ],
    ids=str,
)
def test_entries_beyond_the_limits_are_refused(entry):
    chunk = Chunk(entry, bytes(min(entry.payload_size, 100)))
    assert stage_of(write(header_of([chunk]), [chunk])) in ("header", "table")


def test_a_reserved_kind_is_refused():
    table = b"\x03" + container.pack_entry(Entry(Kind.RAW, 1, 1, 0, 0))[1:]
    header = container.pack_header(Header(1, bytes(32)), 1, len(table))
    assert stage_of(header + table + zlib.crc32(table).to_bytes(4, "little") + b"x") == "table"


def test_sizes_must_add_up():
    assert stage_of(write(Header(4, bytes(32)), [container.stored_chunk(b"abc")])) == "table"


def test_an_empty_original_has_no_chunks():
    assert stage_of(write(Header(0, bytes(32)), [container.stored_chunk(b"abc")])) == "header"


def test_crammed_chunks_need_a_model_block():
    assert stage_of(write(Header(9, bytes(32)), [crammed()])) == "table"


def test_a_model_block_needs_crammed_chunks():
    assert stage_of(write(Header(3, bytes(32), None, MODEL), [container.stored_chunk(b"abc")])) == "table"


@pytest.mark.parametrize(("n_chunks", "table_size"), [(2**62, 7), (1, 2**62), (2**62, 2**62)])
def test_huge_counts_cost_nothing(n_chunks, table_size):
    assert stage_of(container.pack_header(Header(1, bytes(32)), n_chunks, table_size) + bytes(50)) == "table"


def test_a_zstd_frame_that_unpacks_to_more_is_refused_before_it_is_unpacked():
    bomb = container.stored_chunk(bytes(2**20))
    liar = Chunk(replace(bomb.entry, size=100), bomb.payload)
    with pytest.raises(DamagedFileError) as caught:
        container.stored_content(liar)
    assert caught.value.stage == "content"


@pytest.mark.parametrize("payload", [b"not a frame", container.stored_chunk(bytes(100)).payload + b"x"])
def test_a_bad_zstd_frame_is_refused(payload):
    chunk = Chunk(Entry(Kind.ZSTD, 100, len(payload), zlib.crc32(payload), zlib.crc32(bytes(100))), payload)
    with pytest.raises(DamagedFileError):
        container.stored_content(chunk)


def test_wrong_content_is_refused():
    chunk = container.stored_chunk(b"abc")
    with pytest.raises(DamagedFileError, match="Content_CRC"):
        container.check_content(chunk.entry, b"abd")


def test_one_chunk_costs_under_200_bytes():
    chunk = crammed()
    blob = write(replace(header_of([chunk]), name="book.txt"), [chunk])
    assert len(blob) - len(chunk.payload) < 200
