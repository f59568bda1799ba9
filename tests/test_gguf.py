"""GGUF files: read strictly, and told apart by what they say alone."""

import hashlib
import json
import struct
import tracemalloc

import pytest
from gguf import GGUFReader
from models import GGUF_ENTRIES, make_gguf
from transformers import AutoTokenizer

from cramzip import CramConfig, compress, decompress
from cramzip.container.wire import pack_string, pack_varint
from cramzip.errors import ModelError
from cramzip.lm.gguf_file import read_gguf
from cramzip.lm.models import load
from cramzip.lm.source import find

ARRAY, STRING, UINT8, UINT32, BOOL = 9, 8, 0, 4, 7
MANY = 2**20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def string(text):
    return struct.pack("<Q", len(text)) + text


def start(n_tensors, n_fields, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_fields)


def field(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def array(kind, count):
    return struct.pack("<IQ", kind, count)


LLAMA = field(b"general.architecture", STRING, string(b"llama"))
TENSOR = string(b"x") + struct.pack("<IQIQ", 1, 8, 0, 0)


def test_the_fields_are_those_that_the_library_of_the_format_reads(path):
    reader, content = GGUFReader(path), read_gguf(path)
    expected = {key: value.contents() for key, value in reader.fields.items() if not key.startswith("GGUF.")}
    assert {key: content.plain(key) for key in content.fields} == expected
    assert content.plain("tokenizer.ggml.tokens")[-len(GGUF_ENTRIES) :] == list(GGUF_ENTRIES)


def test_the_fingerprint_is_a_hash_of_what_the_library_of_the_format_reads(path):
    reader = GGUFReader(path)
    keys = [key for key in reader.fields if key.startswith("llama.") or key == "general.architecture"]
    config = {key: reader.fields[key].contents() for key in keys}
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(b"cramzip-model-1" + pack_string(canonical))
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name):
        shape = [int(size) for size in tensor.shape]
        digest.update(pack_string(tensor.name) + pack_string(tensor.tensor_type.name))
        digest.update(b"".join(map(pack_varint, [len(shape), *shape])))
        digest.update(tensor.data.tobytes())
    assert find(str(path)).fingerprint == digest.digest()


@pytest.mark.parametrize(
    "content",
    [
        start(0, 1) + field(b"a", ARRAY, array(STRING, MANY)),
        start(0, 1) + field(b"a", ARRAY, array(UINT8, MANY)),
        start(0, 1) + field(b"a", ARRAY, array(UINT32, 2**61)),
        start(0, MANY) + field(b"a", BOOL, b"\1") * 3,
        start(MANY, 0) + TENSOR * 3,
        start(0, 1) + struct.pack("<Q", 2**63) + b"a",
    ],
    ids=["array of strings", "array of bytes", "array of numbers", "fields", "tensors", "string"],
)
def test_a_count_that_the_file_cannot_hold_is_refused_before_anything_is_made_for_it(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"cut off|expected, . left"):
            find(str(tmp_path / "x.gguf")).fingerprint  # noqa: B018
        assert tracemalloc.get_traced_memory()[1] < MANY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"GGML" + bytes(100), "not a GGUF file"),
        (start(0, 0, version=1), "version"),
        (start(0, 0, version=3 << 24), "version"),
        (start(0, 2) + LLAMA * 2, "there twice"),
        (start(0, 1) + field(b"a\xff", BOOL, b"\1"), "UTF-8"),
        (start(0, 1) + field(b"a", 13, bytes(8)), "13: not a type"),
        (start(0, 1) + field(b"a", ARRAY, array(13, 1) + bytes(8)), "13: not a type"),
        (start(0, 1) + field(b"a", ARRAY, array(ARRAY, 1) + array(UINT8, 0)), "arrays of arrays"),
        (start(0, 1) + field(b"general.alignment", UINT32, struct.pack("<I", 3)), "power of two"),
        (start(0, 1) + field(b"general.alignment", UINT32, bytes(4)), "power of two"),
        (start(2, 1) + LLAMA + TENSOR * 2 + bytes(100), "two tensors have one name"),
        (start(1, 1) + LLAMA + TENSOR, "cut off: tensor x"),
        (start(1, 1) + LLAMA + string(b"x") + struct.pack("<I", 9) + bytes(100), "dimensions"),
        (start(1, 1) + LLAMA + string(b"x") + struct.pack("<IQIQ", 1, 8, 99, 0), "GGML type"),
        (start(1, 1) + LLAMA + string(b"x") + struct.pack("<IQIQ", 1, 8, 2, 0), "multiple of 32"),
        (start(0, 1) + field(b"a", BOOL, b"\1"), "general.architecture: missing"),
        (start(0, 2) + LLAMA + field(b"split.count", UINT8, b"\3"), "one of the 3 files"),
    ],
    ids=str,
)
def test_what_breaks_the_format_is_told(tmp_path, content, message):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        find(str(tmp_path / "x.gguf")).fingerprint  # noqa: B018


def test_a_file_cut_off_anywhere_is_refused(path, tmp_path):
    content = path.read_bytes()
    for size in range(0, len(content), 997):
        (tmp_path / "x.gguf").write_bytes(content[:size])
        with pytest.raises(ModelError):
            read_gguf(tmp_path / "x.gguf")


TEXT = "a caf\u00e9  <|endoftext|> <unused> Hello\r\n".encode() + b"\xff"


def test_the_tokens_of_a_byte_level_vocabulary_stand_for_what_their_types_say(path):
    table = load(str(path)).tokenizer.table
    assert sorted(table[:256]) == [bytes([value]) for value in range(256)]
    assert table[256:] == (None, None, b"  ", "\u00e9".encode(), None, b"Hello")


def test_the_tokens_of_a_sentencepiece_vocabulary_stand_for_what_their_types_say(tmp_path):
    alphabet = ["<unk>", *(f"<0x{value:02X}>" for value in range(256))]
    entries, types = ["\u2581Hello", "\u2581\u2581", "</s>", "<unk>"], [1, 4, 3, 2]
    path = make_gguf(tmp_path / "x.gguf", kind="llama", alphabet=alphabet, entries=entries, types=types)
    table = load(str(path)).tokenizer.table
    assert table[1:] == (*(bytes([value]) for value in range(256)), b" Hello", "\u2581\u2581".encode(), None, None)


def test_a_vocabulary_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ModelError, match="bert"):
        load(str(make_gguf(tmp_path / "x.gguf", kind="bert")))


def test_the_tokenizer_hash_and_the_text_do_not_depend_on_what_transformers_adds(path, monkeypatch, never_stored):
    """Some versions of it give every Llama the tokens of another model, beyond the logits."""
    lm = load(str(path))
    blob = compress(TEXT, lm, CramConfig(vectors=0))
    from_pretrained = AutoTokenizer.from_pretrained

    def generous(*arguments, **options):
        tokenizer = from_pretrained(*arguments, **options)
        tokenizer.backend_tokenizer.add_special_tokens(["<FILL_ME>"])
        tokenizer.backend_tokenizer.add_tokens(["caf"])
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", generous)
    other = load(str(path))
    assert other.tokenizer_hash == lm.tokenizer_hash
    assert decompress(blob, other) == TEXT
    assert decompress(compress(TEXT, other, CramConfig(vectors=0)), lm) == TEXT
