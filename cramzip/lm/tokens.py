"""Bytes to token ids and back, exactly.

A tokenizer may normalise, prepend spaces, or know words that stand for no text. None of this may touch a single byte.
So decoding is a plain table (token id -> bytes), and encoding is checked against it, piece by piece. The table and its
hash are defined in section 9 of formats/cram.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, groupby
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from ..container.wire import pack_varint
from ..errors import ModelError
from .strict_json import parse_object

TokenTable = tuple[bytes | None, ...]

MAX_TOKENS = 2**24
SMALLEST_PIECE = 8  # characters: so short a piece, if it does not survive, is spelled in bytes or given up
_GGUF_SENTENCEPIECE = ("llama", "t5", "gemma4")
_GGUF_NORMAL, _GGUF_USER_DEFINED, _GGUF_NO_TEXT = 1, 4, (2, 3, 5)  # unknown, control and unused tokens
SPACE = "\u2581"  # what SentencePiece writes for a space
_VALID_OR_NOT = re.compile("([^\udc80-\udcff]+)|[\udc80-\udcff]+")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Piece(NamedTuple):
    """Some bytes, and the tokens that stand for exactly them; `ids` is None where there are none."""

    content: bytes
    ids: list[int] | None


class ByteExactTokenizer:
    """A Hugging Face tokenizer from which every byte comes back, or which says that it cannot."""

    def __init__(self, backend: Tokenizer | Callable[[], str], vocabulary_size: int, table: TokenTable | None = None):
        """`table`: what the tokens stand for, where the tokenizer itself does not say it; then it may come later, as
        the text of its tokenizer.json.
        """
        self._stated = backend if callable(backend) else backend.to_str
        if table is None:
            assert isinstance(backend, Tokenizer)
            table = token_table(backend)
        self.table = table
        self.hash = table_hash(self.table)
        self.vocabulary_size = vocabulary_size
        single = {content: i for i, content in reversed(list(enumerate(self.table))) if content is not None}
        self._byte_ids = [self._usable(single.get(bytes([value]))) for value in range(256)]

    @cached_property
    def _backend(self) -> Tokenizer:
        return _without_additions(self._stated())

    def _usable(self, token_id: int | None) -> int | None:
        return token_id if token_id is not None and token_id < self.vocabulary_size else None

    def encode(self, data: bytes) -> list[Piece]:
        """Pieces that concatenate to `data`; neighbours with tokens are joined into one piece."""
        return _join(piece for part, text in _split_utf8(data) for piece in self._encode_part(part, text))

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`. Raises ValueError for a token that stands for nothing."""
        parts = []
        for token_id in ids:
            content = self.table[token_id] if token_id < len(self.table) else None
            if content is None:
                raise ValueError(f"token {token_id} stands for no bytes")
            parts.append(content)
        return b"".join(parts)

    def _encode_part(self, part: bytes, text: str | None) -> Iterator[Piece]:
        if text is None:
            yield self._spell(part)
            return
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if self._stands_for(ids, part):
            yield Piece(part, ids)
        elif len(text) <= SMALLEST_PIECE:
            yield self._spell(part)
        else:
            for half in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield from self._encode_part(half.encode(), half)

    def _stands_for(self, ids: Sequence[int], content: bytes) -> bool:
        if not all(token_id < self.vocabulary_size and self.table[token_id] for token_id in ids):
            return False  # a token beyond the logits, or one that stands for nothing or for no bytes
        return self.decode(ids) == content

    def _spell(self, content: bytes) -> Piece:
        ids = [self._byte_ids[value] for value in content]
        known = [token_id for token_id in ids if token_id is not None]
        return Piece(content, known if len(known) == len(ids) else None)


def read_tokenizer(content: bytes, what: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer that a tokenizer.json describes. Raises ModelError where it gives a token two ids, or two one id.

    The library takes the last of two entries in silence, and numbers added tokens by its own rule, whatever their ids.
    """
    stated = parse_object(content, what)
    backend = Tokenizer.from_buffer(content)
    vocabulary, added = stated["model"]["vocab"], stated.get("added_tokens", [])
    entries = list(vocabulary) if isinstance(vocabulary, dict) else [entry for entry, _ in vocabulary]
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    contents = [token["content"] for token in added]
    if far := next((i for i in ids if not 0 <= i < MAX_TOKENS), None):  # the library makes room for all ids below
        raise ModelError(f"{what}: a token has the id {far}; expected 0 to {MAX_TOKENS - 1}")
    for values in (entries, ids, contents):
        if len(set(values)) < len(values):
            twice = next(value for value, count in Counter(values).items() if count > 1)
            raise ModelError(f"{what}: {twice!r} is there twice in its vocabulary, or among its added tokens")
    for token in added:
        if (found := backend.token_to_id(token["content"])) != token["id"]:
            raise ModelError(f"{what}: the added token {token['content']!r} has the id {token['id']}, expected {found}")
    return backend


def token_table(backend: Tokenizer) -> TokenTable:
    """What every token id stands for, None for nothing. Raises ModelError for other kinds of tokenizer."""
    state = json.loads(backend.to_str())
    decoder = state.get("decoder") or {}
    steps = decoder.get("decoders", [decoder])
    if any(step.get("type") == "ByteLevel" for step in steps):
        to_bytes = _byte_level_bytes
    elif any(map(_puts_spaces, steps)):
        to_bytes = _sentencepiece_bytes
    else:
        raise ModelError("the tokenizer is neither byte-level nor SentencePiece: its tokens have no exact bytes")

    entries: dict[int, bytes | None] = {
        token_id: to_bytes(entry) for entry, token_id in backend.get_vocab(with_added_tokens=False).items()
    }
    unknown = _unknown_token(state["model"])
    if unknown is not None and (unknown_id := backend.token_to_id(unknown)) is not None:
        entries[unknown_id] = None
    for added in state["added_tokens"]:
        entries[added["id"]] = None if added["special"] else added["content"].encode()
    return _as_table(entries)


def byte_level_table(vocabulary: dict[str, int]) -> TokenTable:
    """What the tokens of a byte-level vocabulary without added tokens stand for."""
    return _as_table({token_id: _byte_level_bytes(entry) for entry, token_id in vocabulary.items()})


def _as_table(entries: dict[int, bytes | None]) -> TokenTable:
    if not entries or min(entries) < 0 or max(entries) >= MAX_TOKENS:
        raise ModelError(f"the tokenizer has no tokens, or an id that is not within 0 and {MAX_TOKENS - 1}")
    return tuple(entries.get(token_id) for token_id in range(max(entries) + 1))


def gguf_token_table(kind: str, entries: Sequence[str], types: Sequence[int] | None) -> TokenTable:
    """What every token of a GGUF file stands for: `tokenizer.ggml.model`, `.tokens` and `.token_type` of its metadata.

    Raises ModelError for other kinds of tokenizer.
    """
    if kind not in ("gpt2", *_GGUF_SENTENCEPIECE):
        raise ModelError(f"tokenizer.ggml.model: {kind!r} is neither byte-level nor SentencePiece")
    types = [_GGUF_NORMAL] * len(entries) if types is None else types
    if len(types) != len(entries):
        raise ModelError(f"tokenizer.ggml.token_type: expected {len(entries)} types, found {len(types)}")
    to_bytes = _byte_level_bytes if kind == "gpt2" else _sentencepiece_bytes
    return tuple(
        None if type_ in _GGUF_NO_TEXT else entry.encode() if type_ == _GGUF_USER_DEFINED else to_bytes(entry)
        for entry, type_ in zip(entries, types, strict=True)
    )


def table_hash(table: TokenTable) -> bytes:
    """SHA-256 over all that the tokens stand for: Tokenizer_Hash."""
    packed = (b"\0" if content is None else pack_varint(len(content) + 1) + content for content in table)
    return hashlib.sha256(b"cramzip-tokens-1" + b"".join(packed)).digest()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's mapping of characters to bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(0x100 + i): v for i, v in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_alphabet()


def _puts_spaces(step: dict[str, Any]) -> bool:
    """Whether a step of a decoder puts spaces for U+2581, as SentencePiece does."""
    if step.get("type") == "Metaspace":
        return bool(step.get("replacement", SPACE) == SPACE)
    return step.get("type") == "Replace" and step["pattern"] == {"String": SPACE} and step["content"] == " "


def _byte_level_bytes(entry: str) -> bytes | None:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in entry)
    except KeyError:
        return None


def _sentencepiece_bytes(entry: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(entry):
        return bytes([int(match[1], 16)])
    return entry.replace(SPACE, " ").encode()


def _unknown_token(model: dict[str, Any]) -> str | None:
    if isinstance(model.get("unk_id"), int):  # Unigram keeps an index into its vocabulary
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _without_additions(stated: str) -> Tokenizer:
    """The same vocabulary, with everything switched off that changes the text, adds to it or reads commands in it."""
    state = json.loads(stated)
    state.update(truncation=None, padding=None, post_processor=None)
    state["model"].pop("dropout", None)  # of BPE: cuts the same text differently every time
    state["normalizer"] = _alphabet_alone(state.get("normalizer"))
    state["pre_tokenizer"] = _without_prefix(state.get("pre_tokenizer"))
    plain = Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True  # "<|endoftext|>" in a text is text
    return plain


def _alphabet_alone(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a normalizer does to write a text in the characters of the vocabulary, and nothing else that it does.

    Text that is composed, lowercased or stripped before it is cut does not come back, and would have to be cut again,
    piece by piece, into many more tokens.
    """
    if step is None:
        return None
    if step["type"] == "Sequence":
        kept = [part for part in map(_alphabet_alone, step["normalizers"]) if part is not None]
        return {**step, "normalizers": kept}
    writes_spaces = step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": " "}, SPACE)
    return step if writes_spaces or step["type"] == "ByteLevel" else None


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A pre-tokenizer, and all it consists of, without the space it puts before a text."""
    if step is None:
        return None
    step = dict(step)
    if "pretokenizers" in step:
        step["pretokenizers"] = [_without_prefix(part) for part in step["pretokenizers"]]
    if step["type"] == "ByteLevel":
        step["add_prefix_space"] = False
    if step["type"] == "Metaspace":
        step["prepend_scheme"] = "never"
    return step


def _split_utf8(data: bytes) -> Iterator[tuple[bytes, str | None]]:
    """Runs of valid UTF-8 with their text, and the runs of invalid bytes between them."""
    text = data.decode("utf-8", "surrogateescape")  # an invalid byte becomes a lone surrogate, which no text has
    for run in _VALID_OR_NOT.finditer(text):
        yield run[0].encode("utf-8", "surrogateescape"), None if run[1] is None else run[0]


def _join(pieces: Iterable[Piece]) -> list[Piece]:
    joined = []
    for has_ids, run in groupby(pieces, key=lambda piece: piece.ids is not None):
        same = list(run)
        ids = list(chain.from_iterable(piece.ids or () for piece in same)) if has_ids else None
        joined.append(Piece(b"".join(piece.content for piece in same), ids))
    return joined
