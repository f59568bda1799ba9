#!/usr/bin/env python3
"""Makes the test vectors of what a model is known by: the token tables of section 9, the fingerprints of section 10.

    python formats/make_identity.py [FOLDER]       (without FOLDER: formats/identity)

Tables and canonical JSON are written down here by hand, as cram.md says they are; only their hashes are computed. The
same files come out on every machine.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

from llama import string, tokenizer_hash, varint

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
SPACE = "\u2581"
SENTENCEPIECE = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}


def added(i, content, special):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": content, **flags, "special": special}


def tokenizer(decoder, entries, added_tokens=(), unknown=None):
    """A tokenizer.json with a BPE vocabulary: the entries have the ids 0, 1, 2, ..."""
    return tokenizer_of(
        decoder, {"type": "BPE", "unk_token": unknown, "vocab": {e: i for i, e in enumerate(entries)}, "merges": []}
    ) | {"added_tokens": list(added_tokens)}


def tokenizer_of(decoder, model):
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def unigram(decoder, entries, unknown):
    return tokenizer_of(decoder, {"type": "Unigram", "unk_id": unknown, "vocab": [[e, -float(i)] for i, e in entries]})


def tokenizers():
    """-> (name, description, tokenizer.json, its token table or None where it is not supported)."""
    yield (
        "byte-level",
        "characters stand for bytes; an entry with a character that stands for none stands for nothing",
        tokenizer(BYTE_LEVEL, ["!", "Ġ", "Ċa", "\u0143", "é", SPACE, "a b"]),
        [b"!", b" ", b"\na", b"\xad", b"\xe9", None, None],
    )
    yield (
        "byte-level-unknown",
        "the unknown token of a byte-level vocabulary stands for nothing, although all its characters stand for bytes",
        tokenizer(BYTE_LEVEL, ["<unk>", "a"], unknown="<unk>"),
        [None, b"a"],
    )
    yield (
        "byte-level-unknown-absent",
        "the vocabulary has no entry that is its unknown token",
        tokenizer(BYTE_LEVEL, ["a", "b"], unknown="<unk>"),
        [b"a", b"b"],
    )
    for what, special, content in [("special", True, None), ("plain", False, b"<unk>")]:
        yield (
            f"byte-level-unknown-{what}",
            f"the unknown token is an added one too, {'' if special else 'not '}marked special: that decides",
            tokenizer(BYTE_LEVEL, ["<unk>", "a"], [added(0, "<unk>", special)], "<unk>"),
            [content, b"a"],
        )
        yield (
            f"sentencepiece-unknown-{what}",
            f"the unknown token is an added one too, {'' if special else 'not '}marked special: that decides",
            tokenizer(SENTENCEPIECE, ["<unk>", "a"], [added(0, "<unk>", special)], "<unk>"),
            [content, b"a"],
        )
    yield (
        "sentencepiece",
        "U+2581 stands for a space, the unknown token for nothing, other entries for their UTF-8 bytes",
        tokenizer(SENTENCEPIECE, ["<unk>", f"{SPACE}the", f"{SPACE}{SPACE}", "é", "Ġ"], unknown="<unk>"),
        [None, b" the", b"  ", "é".encode(), "Ġ".encode()],
    )
    yield (
        "sentencepiece-unknown-by-index",
        "the vocabulary names its unknown token by its index",
        unigram(SENTENCEPIECE, enumerate(["a", "<unk>", "b"]), 1),
        [b"a", None, b"b"],
    )
    yield (
        "sentencepiece-bytes",
        "<0xHH> stands for a byte if its digits are two, and capitals where they are letters; else it is text",
        tokenizer(
            SENTENCEPIECE, ["<0x0A>", "<0xAB>", "<0xab>", "<0xaB>", "<0X0A>", "<0x0AB>", "<0x+A>", " <0x0A>", "<0x٠A>"]
        ),
        [b"\n", b"\xab", b"<0xab>", b"<0xaB>", b"<0X0A>", b"<0x0AB>", b"<0x+A>", b" <0x0A>", "<0x٠A>".encode()],
    )
    yield (
        "byte-level-no-bytes",
        "in a byte-level vocabulary <0x0A> is text",
        tokenizer(BYTE_LEVEL, ["<0x0A>"]),
        [b"<0x0A>"],
    )
    yield (
        "added",
        "added tokens: special ones stand for nothing, the others for their content; ids without an entry for nothing",
        tokenizer(BYTE_LEVEL, ["a", "b"], [added(1, "b", True), added(2, f"Ġ{SPACE}x", False), added(3, "end", True)]),
        [b"a", None, f"Ġ{SPACE}x".encode(), None],
    )
    holes = tokenizer(BYTE_LEVEL, [], [added(3, "x", False)])
    holes["model"]["vocab"] = {"a": 0, "b": 2, "c": 4}
    yield "holes", "an id has no entry, and an added token is amid the others", holes, [b"a", None, b"b", b"x", b"c"]
    both = {"type": "Sequence", "decoders": [*SENTENCEPIECE["decoders"], BYTE_LEVEL]}
    yield (
        "both-decoders",
        "a decoder that replaces U+2581 and has a ByteLevel step is byte-level",
        tokenizer(both, ["Ġa", f"{SPACE}a", "<0x0A>"]),
        [b" a", None, b"<0x0A>"],
    )
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    yield "metaspace", "a Metaspace decoder", tokenizer(metaspace, [f"{SPACE}a", "b"]), [b" a", b"b"]
    replace = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    for what, description, decoder in [
        ("no-decoder", "there is no decoder", None),
        (
            "other-kind",
            "a vocabulary of WordPiece has bytes of no kind",
            {"type": "WordPiece", "prefix": "##", "cleanup": True},
        ),
        ("other-metaspace", "Metaspace with a replacement that is not U+2581", {**metaspace, "replacement": "_"}),
        ("other-replacement", "U+2581 is replaced, but not by a space", {**replace, "content": "_"}),
        ("other-pattern", "an expression for U+2581 is replaced", {**replace, "pattern": {"Regex": SPACE}}),
    ]:
        yield what, description, tokenizer(decoder, ["a"]), None
    twice = tokenizer(BYTE_LEVEL, ["a", "b"])
    twice["model"]["vocab"] = {"a": 0, "b": 0}
    yield "id-twice", "two entries have one id", twice, None
    yield "entry-twice", "an entry has two ids", unigram(SENTENCEPIECE, enumerate("aba"), None), None
    for what, description, tokens in [
        ("gap", "an added token leaves ids out", [added(2, "x", False), added(4, "y", False)]),
        ("order", "added tokens are not in the order of their ids", [added(3, "x", False), added(2, "y", False)]),
        ("other-id", "an added token of the vocabulary has another id there", [added(2, "a", False)]),
        ("twice", "an added token is there twice", [added(2, "x", False), added(2, "x", False)]),
        ("empty", "an added token is empty", [added(2, "", False)]),
    ]:
        yield f"added-{what}", description, tokenizer(BYTE_LEVEL, ["a", "b"], tokens), None


def describe_tokenizer(name, description, content, table):
    out = {"name": name, "description": description, "tokenizer": content}
    if table is None:
        return out | {"expect": "unsupported"}
    tokens = [None if token is None else token.hex() for token in table]
    return out | {"expect": "ok", "table": tokens, "hash": tokenizer_hash(table).hex()}


# ---------------------------------------------------------------- fingerprints


def safetensors_file(header, data):
    """A file with the header as it is written."""
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def entry(begin, end, dtype="F32", shape="[1]"):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


ONE = safetensors_file(f'{{"w":{entry(0, 4)}}}', b"\0\0\x80?")
ONE_TENSORS = [("w", "F32", [1], b"\0\0\x80?")]
CONFIGS = [
    (
        "config",
        "keys in order, no white space",
        '{ "b": [1, {"d": null, "c": true}],\n "a": "x" }',
        '{"a":"x","b":[1,{"c":true,"d":null}]}',
    ),
    (
        "config-ignored-keys",
        "keys without effect are left out, at the top level only",
        '{"use_cache":1,"dtype":2,"torch_dtype":3,"architectures":4,"transformers_version":5,"_name_or_path":6,'
        '"a":{"use_cache":1}}',
        '{"a":{"use_cache":1}}',
    ),
    (
        "config-escapes",
        "escapes in either case, and what needs none: the shortest of those for controls, else four small digits",
        '{"\\u00E9":"\\u00e9é","control":"\\u0000\\u001F\\u007f\\u0008\\u000c\\u000A\\u000d\\u0009","\\u0022":"\\/\\\\"}',
        r'{"\"":"/\\","control":"\u0000\u001f\u007f\b\f\n\r\t","\u00e9":"\u00e9\u00e9"}',
    ),
    (
        "config-surrogates",
        "a character beyond U+FFFF is a pair of escapes; keys are in the order of code points, not of these",
        '{"😀":"\\uD83D\\ude00","\uffff":1,"lone":"\\uDC00"}',
        r'{"lone":"\udc00","\uffff":1,"\ud83d\ude00":"\ud83d\ude00"}',
    ),
    (
        "config-numbers",
        "integers with all digits, other numbers as the shortest that gives the same binary64",
        '{"a":[-0,7e0,1.0,1E5,123456789012345678901234567890,0.1,1e15,1e16,0.0001,0.00001,-0.0,5e-324,1.50,1e400]}',
        '{"a":[0,7.0,1.0,100000.0,123456789012345678901234567890,0.1,1000000000000000.0,1e+16,0.0001,1e-05,-0.0,5e-324,'
        "1.5,Infinity]}",
    ),
    ("config-words", "what is no number", '{"a":[NaN,Infinity,-Infinity]}', '{"a":[NaN,Infinity,-Infinity]}'),
    ("config-double-key", "a key is there twice", '{"a":1,"a":1}', None),
    ("config-double-key-within", "a key is there twice, in an object within", '{"a":[{"b":1,"b":2}]}', None),
    ("config-double-key-escaped", "a key is there twice, once as an escape", '{"b":1,"\\u0062":2}', None),
    ("config-double-key-ignored", "a key without effect is there twice", '{"dtype":1,"dtype":2}', None),
    ("config-no-object", "the configuration is no object", "[]", None),
    ("config-byte-order-mark", "the file begins with U+FEFF", "\ufeff{}", None),
    ("config-weights-elsewhere", "transformers_weights names other files", '{"transformers_weights":"x"}', None),
]


def models():
    """-> (name, description, {file: content}, canonical JSON or None where it is not supported, tensors)."""
    for name, description, config, canonical in CONFIGS:
        yield name, description, {"config.json": config.encode(), "model.safetensors": ONE}, canonical, ONE_TENSORS
    plain = {"config.json": b"{}"}

    def single(header, data):
        return plain | {"model.safetensors": safetensors_file(header, data)}

    yield (
        "metadata",
        "__metadata__ is no tensor, and counts for nothing",
        single(f'{{"__metadata__":{{"format":"pt"}},"w":{entry(0, 4)}}}', b"\0\0\x80?"),
        "{}",
        ONE_TENSORS,
    )
    yield (
        "tensors",
        "names in the order of their UTF-8 bytes, of whatever order and spelling in the file; a shape of no dimensions",
        single(
            f'{{"\\uD83D\\uDE00":{entry(4, 6, "F16")},"\uffff":{entry(6, 7, "BOOL")},"Z":{entry(0, 4, shape="[]")},'
            f'"a":{entry(7, 7, "I64", "[0,3]")}}}',
            bytes(range(7)),
        ),
        "{}",
        [
            ("Z", "F32", [], bytes(range(4))),
            ("a", "I64", [0, 3], b""),
            ("\uffff", "BOOL", [1], b"\6"),
            ("😀", "F16", [1], b"\4\5"),
        ],
    )

    def shards(first, second, weight_map):
        index = {
            "weight_map": dict.fromkeys(weight_map[0], "1.safetensors") | dict.fromkeys(weight_map[1], "2.safetensors")
        }
        return plain | {
            "model.safetensors.index.json": json.dumps(index).encode(),
            "1.safetensors": safetensors_file(first, bytes(4)),
            "2.safetensors": safetensors_file(second, b"\1\2\3\4"),
        }

    yield (
        "two-files",
        "the tensors of two files, in the order of their names",
        shards(f'{{"b":{entry(0, 4)}}}', f'{{"a":{entry(0, 4)}}}', ["b", "a"]),
        "{}",
        [("a", "F32", [1], b"\1\2\3\4"), ("b", "F32", [1], bytes(4))],
    )
    yield (
        "name-in-two-files",
        "a tensor is in two files, and the index names one",
        shards(f'{{"a":{entry(0, 4)}}}', f'{{"a":{entry(0, 2, "F16")},"b":{entry(2, 4, "F16")}}}', ["a", "b"]),
        None,
        [],
    )
    yield (
        "name-twice",
        "a name is there twice in the header of a file",
        single(f'{{"w":{entry(0, 4)},"w":{entry(0, 4)}}}', bytes(4)),
        None,
        [],
    )
    notes = '"__metadata__":{"probe":"00"},'
    exact = f'{{{notes}"a.scale":{entry(2, 6)},"a.weight":{entry(0, 2, "I8", "[1,2]")}}}'
    yield (
        "exact",
        "exact.safetensors alone, with a note that counts for nothing",
        plain | {"exact.safetensors": safetensors_file(exact, b"\x81\x7f\1\2\3\4")},
        "{}",
        [("a.scale", "F32", [1], b"\1\2\3\4"), ("a.weight", "I8", [1, 2], b"\x81\x7f")],
    )
    yield (
        "exact-beside-another",
        "exact.safetensors beside model.safetensors, which alone counts",
        plain | {"exact.safetensors": safetensors_file(exact, b"\x81\x7f\1\2\3\4"), "model.safetensors": ONE},
        "{}",
        ONE_TENSORS,
    )
    adapter = {"config.json": b"{}", "model.safetensors": ONE, "adapter_config.json": b"{}"}
    yield "adapter", "an adapter lies beside the model", adapter, None, []


# ---------------------------------------------------------------- GGUF

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
F32, Q4_1, BF16 = 0, 3, 30  # of GGML


def long_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def field(key, kind, value):
    return long_string(key) + struct.pack("<I", kind) + value


def array(kind, count, values):
    return struct.pack("<IQ", kind, count) + values


def gguf_file(fields, tensors=(), alignment=32):
    """A file with the fields as they are written, and the tensors (name, type, shape, data)."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    data = b""
    for name, kind, shape, content in tensors:
        data += bytes(-len(data) % alignment)
        out += long_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content
    return out + bytes(-len(out) % alignment) + data


def gguf_models():
    """-> as `models`."""
    architecture = field("general.architecture", STRING, long_string("llama"))
    words = long_string("a") + long_string("é")
    values = [
        field("llama.uint8", UINT8, b"\xff"),
        field("llama.int8", INT8, b"\xff"),
        field("llama.uint16", UINT16, b"\xff\xff"),
        field("llama.int16", INT16, b"\xff\xff"),
        field("llama.uint32", UINT32, b"\xff" * 4),
        field("llama.int32", INT32, b"\xff" * 4),
        field("llama.uint64", UINT64, b"\xff" * 8),
        field("llama.int64", INT64, b"\xff" * 8),
        field("llama.float32", FLOAT32, struct.pack("<f", 0.1)),
        field("llama.float64", FLOAT64, struct.pack("<d", 0.1)),
        field("llama.whole", FLOAT32, struct.pack("<f", 1e4)),
        field("llama.small", FLOAT32, struct.pack("<f", 1e-5)),
        field("llama.true", BOOL, b"\1"),
        field("llama.false", BOOL, b"\0"),
        field("llama.string", STRING, long_string('é"')),
        field("llama.integers", ARRAY, array(INT16, 2, b"\1\0\xff\xff")),
        field("llama.floats", ARRAY, array(FLOAT32, 2, struct.pack("<2f", 0.5, -3))),
        field("llama.booleans", ARRAY, array(BOOL, 2, b"\0\1")),
        field("llama.strings", ARRAY, array(STRING, 2, words)),
        field("llama.nothing", ARRAY, array(UINT8, 0, b"")),
    ]
    others = [field("llamas.a", UINT8, b"\1"), field("tokenizer.ggml.model", STRING, long_string("gpt2"))]
    canonical = (
        '{"general.architecture":"llama","llama.booleans":[false,true],"llama.false":false,'
        '"llama.float32":0.10000000149011612,"llama.float64":0.1,"llama.floats":[0.5,-3.0],"llama.int16":-1,'
        '"llama.int32":-1,"llama.int64":-1,"llama.int8":-1,"llama.integers":[1,-1],"llama.nothing":[],'
        '"llama.small":9.999999747378752e-06,"llama.string":"\\u00e9\\"","llama.strings":["a","\\u00e9"],'
        '"llama.true":true,"llama.uint16":65535,"llama.uint32":4294967295,"llama.uint64":18446744073709551615,'
        '"llama.uint8":255,"llama.whole":10000.0}'
    )
    yield "gguf-values", "values of all types", gguf_file([*others, *values, architecture]), canonical, []
    quantised, plain = bytes(range(60)), bytes(range(12))
    tensors = [("b", Q4_1, [32, 3], quantised), ("a", F32, [3], plain), ("c", BF16, [1], b"\x80?")]
    expected = [("a", "F32", [3], plain), ("b", "Q4_1", [32, 3], quantised), ("c", "BF16", [1], b"\x80?")]
    short = '{"general.architecture":"llama"}'
    yield "gguf-tensors", "tensors of three types", gguf_file([architecture], tensors), short, expected
    aligned = field("general.alignment", UINT32, struct.pack("<I", 64))
    yield (
        "gguf-alignment",
        "tensors at multiples of 64",
        gguf_file([architecture, aligned], tensors[:2], 64),
        short,
        expected[:2],
    )
    split = field("split.count", UINT16, b"\1\0")
    yield "gguf-split-in-one", "split.count is 1", gguf_file([architecture, split], tensors[:1]), short, expected[1:2]
    nested = field("llama.a", ARRAY, array(ARRAY, 1, array(UINT8, 1, b"\1")))
    for what, description, content in [
        ("split", "one of two files", gguf_file([architecture, field("split.count", UINT16, b"\2\0")])),
        ("double-key", "a field is there twice", gguf_file([architecture, values[0], values[0]])),
        ("double-tensor", "a tensor is there twice", gguf_file([architecture], tensors[1:2] * 2)),
        ("nested", "an array of arrays", gguf_file([architecture, nested])),
        ("cut-off", "the last byte of a tensor is missing", gguf_file([architecture], tensors[:1])[:-1]),
    ]:
        yield f"gguf-{what}", description, content, None, []


def fingerprint_of(canonical, tensors):
    digest = hashlib.sha256(b"cramzip-model-1" + string(canonical))
    for name, dtype, shape, data in tensors:
        digest.update(string(name) + string(dtype) + varint(len(shape)) + b"".join(map(varint, shape)) + data)
    return digest.digest()


def describe_model(name, description, files, canonical, tensors):
    contents = {file: content.hex() for file, content in files.items()}
    out = {"name": name, "description": description, "files": contents}
    if canonical is None:
        return out | {"expect": "unsupported"}
    return out | {"expect": "ok", "config": canonical, "fingerprint": fingerprint_of(canonical, tensors).hex()}


def write_identity(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for file, cases in [
        ("tokenizers.json", [describe_tokenizer(*case) for case in tokenizers()]),
        (
            "models.json",
            [describe_model(*case) for case in models()]
            + [
                describe_model(name, description, {"model.gguf": content}, *rest)
                for name, description, content, *rest in gguf_models()
            ],
        ),
    ]:
        (folder / file).write_text(json.dumps(cases, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write_identity(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "identity")
