"""Bytes to tokens and back: no tokenizer and no text may cost a byte."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TINY_MODEL, byte_level_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from cramzip.errors import ModelError
from cramzip.lm import tokens
from cramzip.lm.tokens import MAX_TOKENS, ByteExactTokenizer, read_tokenizer, table_hash, token_table

AWKWARD = {
    "empty": b"",
    "nul": b"a\0b\0",
    "crlf": b"a\r\nb\r\n",
    "bom": b"\xef\xbb\xbftext",
    "invalid utf-8": b"caf\xe9 \xff\xfe ok \xc3",
    "a family of emoji with joiners": "👨‍👩‍👧‍👦 and 🏳️‍🌈".encode(),
    "decomposed accents": "e\u0301a\u0300".encode(),
    "full-width and ligatures": "ﬁne ＡＢＣ ①".encode(),
    "capitals and leading spaces": b"  Hello WORLD  ",
    "special tokens as text": b"<|endoftext|><s></s><unk><pad><|bos|>",
    "what looks like a byte token": b"<0x0A> <0xFF>",
    "the space sign of SentencePiece": "a\u2581b".encode(),
}


def sentencepiece_tokenizer(prepend: bool) -> Tokenizer:
    """Llama-2 style: U+2581 for spaces, a space before the text, byte fallback."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    words += ["\u2581", *"abcdeHlotx", "\u2581H", "\u2581a"]
    tokenizer = Tokenizer(
        models.BPE(
            {word: index for index, word in enumerate(words)},
            [("\u2581", "H"), ("\u2581", "a")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    steps = [normalizers.Prepend("\u2581")] if prepend else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[:3]])
    return tokenizer


def byte_level_with_special_tokens() -> Tokenizer:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(["<|endoftext|>", "<s>"])
    tokenizer.add_tokens(["  ", "Hello"])
    return tokenizer


TOKENIZERS = {
    "byte-level": byte_level_tokenizer(),
    "byte-level that lowercases": byte_level_tokenizer(normalizers.Lowercase()),
    "byte-level that composes": byte_level_tokenizer(normalizers.NFKC()),
    "byte-level with added tokens": byte_level_with_special_tokens(),
    "sentencepiece": sentencepiece_tokenizer(prepend=False),
    "sentencepiece with a space before the text": sentencepiece_tokenizer(prepend=True),
    "the tiny model's": Tokenizer.from_file(str(TINY_MODEL / "tokenizer.json")),
}


def byte_exact(backend: Tokenizer) -> ByteExactTokenizer:
    return ByteExactTokenizer(backend, backend.get_vocab_size())


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("backend", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_every_byte_comes_back(backend, text):
    tokenizer = byte_exact(backend)
    pieces = tokenizer.encode(text)
    assert b"".join(piece.content for piece in pieces) == text
    assert all(tokenizer.decode(piece.ids) == piece.content for piece in pieces if piece.ids is not None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_any_bytes_come_back_through_a_tokenizer_that_normalises(data):
    tokenizer = byte_exact(TOKENIZERS["byte-level that composes"])
    pieces = tokenizer.encode(data)
    assert b"".join(tokenizer.decode(piece.ids) for piece in pieces if piece.ids is not None) == data


def test_a_byte_level_tokenizer_has_tokens_for_all_256_bytes():
    data = bytes(range(256))
    (piece,) = byte_exact(TOKENIZERS["byte-level"]).encode(data)
    assert piece.ids is not None


def test_special_tokens_are_never_made_from_text():
    backend = byte_level_with_special_tokens()
    (piece,) = byte_exact(backend).encode(b"x<|endoftext|>y")
    assert backend.token_to_id("<|endoftext|>") not in piece.ids


def test_special_tokens_as_text_are_cut_like_other_text():
    backend = TOKENIZERS["the tiny model's"]
    (piece,) = byte_exact(backend).encode(b" the <|end|> the")
    assert piece.ids.count(backend.token_to_id("\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}the")) == 2
    assert backend.token_to_id("en") in piece.ids


def test_other_added_tokens_are_made_from_text():
    backend = byte_level_with_special_tokens()
    (piece,) = byte_exact(backend).encode(b"Hello  x")
    assert piece.ids[:2] == [backend.token_to_id("Hello"), backend.token_to_id("  ")]


def test_no_space_is_put_before_a_text():
    backend = TOKENIZERS["sentencepiece with a space before the text"]
    (piece,) = byte_exact(backend).encode(b"Hello")
    assert piece.ids[0] == backend.token_to_id("H")


def test_tokens_beyond_the_logits_of_the_model_are_not_used():
    backend = byte_level_with_special_tokens()
    assert max(ByteExactTokenizer(backend, 256).encode(b"Hello  x")[0].ids) < 256


def test_without_byte_tokens_what_cannot_be_said_has_no_ids():
    backend = Tokenizer(models.BPE({"\u2581": 0, "a": 1}, [], unk_token=None))
    backend.decoder = decoders.Metaspace()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    assert byte_exact(backend).encode(b"a a")[0].ids is not None
    assert byte_exact(backend).encode("ééééééééééé".encode())[0].ids is None


def test_a_token_that_stands_for_nothing_cannot_be_decoded():
    backend = byte_level_with_special_tokens()
    with pytest.raises(ValueError, match="no bytes"):
        byte_exact(backend).decode([backend.token_to_id("<s>")])


def test_an_unknown_kind_of_tokenizer_is_refused():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="neither byte-level nor SentencePiece"):
        token_table(backend)


def test_the_hash_covers_what_tokens_stand_for_and_not_how_text_is_cut():
    backend = TOKENIZERS["byte-level"]
    state = json.loads(backend.to_str())
    state["pre_tokenizer"]["use_regex"] = False
    other = Tokenizer.from_str(json.dumps(state))
    assert table_hash(token_table(other)) == table_hash(token_table(backend))
    other.add_tokens(["new"])
    assert table_hash(token_table(other)) != table_hash(token_table(backend))


def test_ids_that_no_tokenizer_needs_are_refused_before_anything_is_made_for_them():
    state = json.loads(byte_level_tokenizer().to_str())
    state["model"]["vocab"]["far"] = MAX_TOKENS
    with pytest.raises(ModelError, match="an id that is not"):
        token_table(Tokenizer.from_str(json.dumps(state)))


@pytest.mark.parametrize("far", [MAX_TOKENS, 2**31, 2**32 - 1])
def test_an_id_far_away_is_refused_at_once(far):
    state = json.loads(byte_level_tokenizer().to_str())
    state["model"]["vocab"]["far"] = far
    before = time.process_time()
    with pytest.raises(ModelError, match=f"the id {far}; expected 0 to"):
        read_tokenizer(json.dumps(state).encode())
    assert time.process_time() - before < 1


class CountedBytes(bytes):
    """Bytes that count how many of them are copied when they are cut."""

    copied = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if isinstance(key, slice):
            CountedBytes.copied += len(found)
            return CountedBytes(found)
        return found


def test_text_in_a_one_byte_encoding_is_not_copied_again_for_every_letter(monkeypatch):
    data = CountedBytes("Съешь же ещё этих мягких французских булок, да выпей чаю. ".encode("cp1251") * 200)
    monkeypatch.setattr(CountedBytes, "copied", 0)
    pieces = byte_exact(TOKENIZERS["byte-level"]).encode(data)
    assert b"".join(piece.content for piece in pieces) == data
    assert CountedBytes.copied <= 2 * len(data)


class CountedList(list):
    """A list that counts how many items are copied when lists are joined."""

    copied = 0

    def __add__(self, other):
        CountedList.copied += len(self) + len(other)
        return CountedList(super().__add__(other))


def test_pieces_are_not_joined_one_by_one(monkeypatch):
    monkeypatch.setattr(CountedList, "copied", 0)
    (piece,) = tokens._join(tokens.Piece(b"a", CountedList([97])) for _ in range(3000))
    assert piece == (b"a" * 3000, [97] * 3000)
    assert CountedList.copied <= 2 * 3000


def test_pieces_with_and_without_tokens_stay_apart():
    pieces = [(b"a", [1]), (b"", []), (b"b", [2, 3]), (b"c", None), (b"d", None), (b"e", [4])]
    joined = tokens._join(tokens.Piece(*piece) for piece in pieces)
    assert joined == [(b"ab", [1, 2, 3]), (b"cd", None), (b"e", [4])]
    assert tokens._join([]) == []


DECOMPOSED = "the e\u0301ve of the o\u0302ther in the A\u030angstrom, ing\u0301 and the ﬁnal ＡＢＣ of THE end, " * 20
LOSSY = {
    "composes": normalizers.NFC(),
    "composes what is alike": normalizers.NFKC(),
    "decomposes": normalizers.NFD(),
    "lowercases": normalizers.Lowercase(),
    "strips": normalizers.Strip(),
    "strips accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "replaces": normalizers.Replace("the", "a"),
}


@pytest.mark.parametrize("normalizer", LOSSY.values(), ids=LOSSY.keys())
def test_a_byte_level_tokenizer_that_normalises_needs_no_more_tokens(normalizer):
    plain, backend = (Tokenizer.from_file(str(TINY_MODEL / "tokenizer.json")) for _ in range(2))
    backend.normalizer = normalizer
    data = f"  {DECOMPOSED}  ".encode()
    assert byte_exact(backend).encode(data) == byte_exact(plain).encode(data)
    assert byte_exact(backend).hash == byte_exact(plain).hash


@pytest.mark.parametrize("normalizer", LOSSY.values(), ids=LOSSY.keys())
def test_a_sentencepiece_tokenizer_that_normalises_needs_no_more_tokens(normalizer):
    plain, backend = sentencepiece_tokenizer(prepend=False), sentencepiece_tokenizer(prepend=True)
    backend.normalizer = normalizers.Sequence([normalizer, backend.normalizer])
    data = DECOMPOSED.encode()
    assert byte_exact(backend).encode(data) == byte_exact(plain).encode(data)


def test_a_normalizer_that_writes_bytes_as_characters_is_kept():
    backend = byte_level_tokenizer(normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()]))
    backend.pre_tokenizer = None
    (piece,) = byte_exact(backend).encode("e\u0301 é\n".encode())
    assert len(piece.ids) == len("e\u0301 é\n".encode())
