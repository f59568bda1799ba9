#!/usr/bin/env python3
"""Makes the test vectors of what a model is known by: the token tables of section 9.

    python formats/make_identity.py [FOLDER]       (without FOLDER: formats/identity)

Tables are written down here by hand, as cram.md says they are; only their hashes are computed. The same files come out
on every machine.
"""

import json
import sys
from pathlib import Path

from llama import tokenizer_hash

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


def describe(name, description, content, table):
    out = {"name": name, "description": description, "tokenizer": content}
    if table is None:
        return out | {"expect": "unsupported"}
    tokens = [None if token is None else token.hex() for token in table]
    return out | {"expect": "ok", "table": tokens, "hash": tokenizer_hash(table).hex()}


def write_identity(folder):
    folder.mkdir(parents=True, exist_ok=True)
    cases = [describe(*case) for case in tokenizers()]
    (folder / "tokenizers.json").write_text(json.dumps(cases, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write_identity(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "identity")
