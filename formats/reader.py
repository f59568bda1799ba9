#!/usr/bin/env python3
"""A reader of `.cram` files, written from cram.md and exact.md alone.

    python formats/reader.py FILE.cram [MODEL_FOLDER [DICTIONARY | CODEBOOK]] > original

It shares no code with the library, and no numerics either: the model (llama.py, and exact.py for exact files) runs in
plain NumPy, so a file that both decode alike was decoded twice. It trades speed for being short enough to check against
the specification; "section" means a section of cram.md.

MODEL_FOLDER is a Hugging Face folder with a Llama in it; a file of stored groups alone needs none. DICTIONARY is the
file that a file with Dictionary_Hash was made with, CODEBOOK that of one with Codebook_Hash.
Exit codes: 0 ok, 1 input/output, 2 usage, 3 damaged file, 4 wrong or missing model.
"""

import hashlib
import re
import sys
import unicodedata
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import codebook
import dictionary
import exact
import filters
import learner
import numpy as np
import wide
import zstandard
from candidates import Expectations
from corrections import Corrections, Impossible, require_decidable
from llama import Llama, Unsupported, fingerprint, is_exact, read_config, read_tensors, token_table, tokenizer_hash

MAGIC = b"\x9dCZ"
HAS_NAME, HAS_MODEL, IS_BUILTIN, IS_STANDARD, HAS_VECTORS, IS_EXACT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80
AFTER_START = 0x08  # of Vector_Coding
HAS_CODEBOOK, IS_WIDE = 0x40, 0x80  # of Learning
FILTERED = 0x80  # of Kind
RAW, ZSTD, RECITED, CORRECTED, PREDICTED, CODED, PROMPTED, CHOSEN = range(8)
LEVELS = {1: 2, 2: 3, 3: 4, 4: 8, 5: 16, 6: 256}  # of the vector codings that have codes
THREE_LEVELS, BINARY16 = 2, 7
ENDINGS = re.findall(  # section 3; the first is number 1
    r"\w+",
    """
    txt md html json csv xml py log tex c h js java yaml
    yml toml ini cfg conf tsv jsonl rst adoc org htm xhtml css scss ts tsx jsx sh bash sql cpp cc hpp hh cs go rs rb pl
    php lua kt swift scala hs ml r jl f90 asm ipynb bib srt vtt eml mbox ics vcf po patch diff svg tar bin pdf doc rtf
    epub fb2 wiki
    """,
)


class Refused(Exception):
    """What a reader cannot decode, and the stage of section 11 that found out."""

    def __init__(self, stage, message):
        super().__init__(f"{stage}: {message}")
        self.stage = stage


class Damaged(Refused):
    """The file breaks the specification."""


class WrongModel(Refused):
    """The file is sound as far as one can tell without its model, which is not at hand."""


def require(truth, stage, message):
    if not truth:
        raise Damaged(stage, message)


def require_range(value, low, high, stage, field):
    require(low <= value <= high, stage, f"{field} is {value}, not {low} to {high}")


# ---------------------------------------------------------------- fields (section 1)


class Cursor:
    """Takes fields off the front of `data`; what cannot be taken is damage of `stage`."""

    def __init__(self, data, stage):
        self.data, self.stage, self.at = data, stage, 0

    @property
    def left(self):
        return len(self.data) - self.at

    def take(self, count, field):
        require(
            count <= self.left, self.stage, f"{field} needs {count} bytes at offset {self.at}, {self.left} are left"
        )
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self, field):
        return self.take(1, field)[0]

    def crc(self, field):
        return int.from_bytes(self.take(4, field), "little")

    def varint(self, field):
        value = 0
        for i in range(9):
            byte = self.u8(field)
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                require(byte or i == 0, self.stage, f"{field} is not in its shortest encoding")
                return value
        raise Damaged(self.stage, f"{field} is longer than nine bytes")

    def string(self, field):
        length = self.varint(field)
        require_range(length, 0, 255, self.stage, f"the length of {field}")
        try:
            text = self.take(length, field).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damaged(self.stage, f"{field} is not valid UTF-8") from error
        require(not re.search(r"[\x00-\x1f\x7f]", text), self.stage, f"{field} holds a control character")
        return text


# ---------------------------------------------------------------- header (sections 3 and 4)


@dataclass
class Header:
    original_size: int = 0
    original_hash: bytes = b""
    name: str | None = None
    ending: str | None = None
    has_model: bool = False
    is_exact: bool = False
    digest: bytes | None = None  # of a built-in model, which has none of the next four
    model_id: str = ""
    revision: str = ""
    fingerprint: bytes = b""
    tokenizer_hash: bytes = b""
    noise_exponent: int = 14
    chunk_tokens: int = 768
    context_tokens: int = 255
    start_token: int = 0
    lane_tokens: int = 512  # of exact files, in place of the four before
    lane_limit: int = 32
    learning: int = 1
    probe: bytes | None = None  # of a model that was not made for exact arithmetic
    dictionary_hash: bytes | None = None
    codebook_hash: bytes | None = None
    vector_coding: int | None = None  # without vector block
    vectors_after_start: bool = False
    vector_width: int = 0
    vector_gain: int = 0
    group_count: int = 0


def parse_header(cursor):
    begin = cursor.data[:4]
    hint = "; this may be the genomics format CRAM" if begin == b"CRAM" else ""
    require(begin[:3] == MAGIC, "magic", f"the file begins with {begin[:3].hex(' ')}, not {MAGIC.hex(' ')}{hint}")
    require(
        len(begin) == 4 and begin[3] % 16 == 1, "version", f"the version is {begin[3:].hex()[1:] or 'missing'}, not 1"
    )
    cursor.take(4, "Magic and Version")
    ending, flags, header = begin[3] // 16, cursor.u8("Flags"), Header()
    has_dictionary = flags & (HAS_MODEL | IS_EXACT) == IS_EXACT
    reserved = 0 if flags & HAS_MODEL else IS_BUILTIN | IS_STANDARD | HAS_VECTORS
    reserved = HAS_NAME | HAS_VECTORS if has_dictionary else reserved
    require(not flags & reserved, "header", f"Flags {flags:#04x} has a reserved bit set")
    header.original_size = cursor.varint("Original_Size")
    header.original_hash = cursor.take(4 << (flags >> 5 & 3), "Original_Hash")
    require(not (flags & HAS_NAME and ending), "header", "there is an Ending beside the Name")
    if flags & HAS_NAME:
        header.name = cursor.string("Name")
    if ending:
        header.ending = parse_ending(cursor, ending)
    if flags & (HAS_MODEL | IS_EXACT):
        parse_model(cursor, flags, header, has_dictionary)
    if flags & HAS_VECTORS:
        code = cursor.u8("Vector_Coding")
        header.vector_coding, header.vectors_after_start = code & ~AFTER_START, bool(code & AFTER_START)
        header.vector_width = cursor.varint("Vector_Width")
        header.vector_gain = cursor.varint("Vector_Gain")
        require_range(header.vector_coding, 1, 7, "header", "Vector_Coding")
    header.group_count = cursor.varint("Group_Count")
    return header


def parse_ending(cursor, number):
    if number < 15:
        return ENDINGS[number - 1]
    number = cursor.u8("Ending")
    if 15 <= number <= len(ENDINGS):
        return ENDINGS[number - 1]
    require_range(number, 1, 14, "header", "Ending")
    text = cursor.take(number, "Ending").decode("latin-1")
    is_plain = re.fullmatch("[0-9A-Za-z]*[A-Za-z][0-9A-Za-z]*", text)
    require(is_plain and text not in ENDINGS, "header", f"Ending spells {text!r}")
    return text


def parse_model(cursor, flags, header, has_dictionary):
    header.has_model, header.is_exact = True, bool(flags & IS_EXACT)
    if flags & IS_BUILTIN:
        header.digest = b"" if has_dictionary else cursor.take(4, "Model_Digest")
    else:
        header.model_id = cursor.string("Model_ID")
        header.revision = cursor.string("Revision") if header.model_id else ""
        header.fingerprint = cursor.take(32 if header.model_id else 4, "Model_Fingerprint")
        header.tokenizer_hash = cursor.take(32 if header.model_id else 4, "Tokenizer_Hash")
    if has_dictionary:
        header.dictionary_hash = cursor.take(min(len(header.original_hash), 8), "Dictionary_Hash")
    if flags & IS_STANDARD:
        return
    if header.is_exact:
        header.lane_tokens = cursor.varint("Lane_Tokens")
        header.lane_limit = cursor.varint("Lane_Limit")
        header.learning = cursor.u8("Learning")
        if header.learning & IS_WIDE and not flags & IS_BUILTIN:
            header.learning &= ~IS_WIDE
            header.probe = cursor.take(4, "Probe")
        if header.learning & HAS_CODEBOOK:
            header.learning &= ~HAS_CODEBOOK
            header.codebook_hash = cursor.take(4, "Codebook_Hash")
        require(header.learning <= 2, "header", f"Learning: {header.learning} is reserved")
        found = (header.lane_tokens, header.lane_limit, header.learning, header.probe, header.codebook_hash)
        is_standard = found == (512, 32, 1, None, None)
    else:
        header.noise_exponent = cursor.u8("Noise_Exponent")
        header.chunk_tokens = cursor.varint("Chunk_Tokens")
        header.context_tokens = cursor.varint("Context_Tokens")
        header.start_token = cursor.varint("Start_Token")
        found = (header.noise_exponent, header.chunk_tokens, header.context_tokens, header.start_token)
        is_standard = found == (14, 768, 255, 0)
    require(not is_standard, "header", "the standard parameters are written out")


def check_header(header):
    is_plain = header.dictionary_hash is None or (header.learning, header.codebook_hash) == (1, None)
    require(is_plain, "header", f"Learning is {header.learning} in a file with a dictionary")
    require_range(header.noise_exponent, 0, 15, "header", "Noise_Exponent")
    require_range(header.chunk_tokens, 1, 2**16, "header", "Chunk_Tokens")
    require_range(header.context_tokens, 0, 2**16, "header", "Context_Tokens")
    require_range(header.start_token, 0, 2**24 - 1, "header", "Start_Token")
    require_range(header.lane_tokens, 1, 2**16, "header", "Lane_Tokens")
    require_range(header.lane_limit, 1, 1024, "header", "Lane_Limit")
    if header.vector_coding is not None:
        require_range(header.vector_width, 1, 2**14, "header", "Vector_Width")
        require_range(header.vector_gain, 0, 2**48 + 1, "header", "Vector_Gain")
    if header.name is not None:
        is_base_name = header.name not in ("", ".", "..") and not re.search(r"[/\\]", header.name)
        require(is_base_name, "header", "Name is no base name")
    if header.model_id:
        is_known = re.match("(hf|local):.", header.model_id)
        require(is_known, "header", "Model_ID does not begin with hf: or local: and a name")


# ---------------------------------------------------------------- table (section 5)


@dataclass
class Group:
    kind: int
    size: int = 0
    payload_size: int = 0
    payload_crc: int | None = None  # where another checksum stands for it
    content_crc: int | None = None
    token_count: int = 0
    vector_count: int = 0
    is_filtered: bool = False

    @property
    def is_modelled(self):
        return self.kind not in (RAW, ZSTD)

    @property
    def has_vectors(self):
        return self.kind in (RECITED, CORRECTED, PROMPTED)

    def parts(self, header):
        """The number of its chunks, or in an exact file of its lanes."""
        if not header.is_exact:
            return -(-self.token_count // header.chunk_tokens)
        return 1 if self.kind == RECITED else min(header.lane_limit, -(-self.token_count // header.lane_tokens))

    def vectors_size(self, header):
        """Bytes of the vectors of all its chunks or lanes."""
        if not self.has_vectors:
            return 0
        return self.parts(header) * self.vector_count * vector_size(header.vector_coding, header.vector_width)

    def positions(self, header):
        """The most positions that one of its chunks or lanes takes."""
        before = self.vector_count + header.vectors_after_start if self.vector_count else 1
        before += dictionary.READ if header.dictionary_hash is not None else 0
        before += 16 if self.kind == CHOSEN else 0
        if header.is_exact:
            return before + -(-self.token_count // self.parts(header)) - 1
        longest = min(self.token_count, header.chunk_tokens)
        return before + min(self.token_count - longest, header.context_tokens) + longest


def parse_entry(cursor, header):
    kind = cursor.u8("Kind")
    group = Group(kind & ~FILTERED, is_filtered=bool(kind & FILTERED))
    require_range(group.kind, RECITED if group.is_filtered else RAW, CHOSEN, "table", "Kind")
    alone = header.group_count == 1
    if alone:
        group.size = header.original_size
    else:
        group.size = cursor.varint("Size")
        group.payload_size = cursor.varint("Payload_Size")
        group.payload_crc = cursor.crc("Payload_CRC")
        group.content_crc = cursor.crc("Content_CRC") if group.kind != RAW else None
    if group.is_modelled:
        group.token_count = cursor.varint("Token_Count")
    if group.has_vectors:
        group.vector_count = cursor.varint("Vector_Count")
    if alone:
        group.payload_size = cursor.left - (4 if has_check(header) else 0)  # behind Check

    require_range(group.size, 1, 2**22, "table", "Size")
    if group.kind == RAW:
        require(group.payload_size == group.size, "table", "Payload_Size of a raw group is not its Size")
    if group.kind == ZSTD:
        require_range(group.payload_size, 1, group.size - 1, "table", "Payload_Size of a zstd group")
    if group.is_modelled:
        most = 2**22 if group.kind in (CODED, PROMPTED, CHOSEN) else 2**16
        longest = 3 * group.size if group.is_filtered else group.size
        require_range(group.token_count, 1, min(longest, most), "table", "Token_Count")
    if group.has_vectors:
        require_range(group.vector_count, 1, 2**12, "table", "Vector_Count")
    return group


def has_check(header):
    return header.group_count != 1 or header.dictionary_hash is None


def parse_table(cursor, header):
    """-> the groups; the cursor stands behind Check, which agrees, if there is one."""
    cursor.stage = "table"
    if header.group_count > 1:
        require(7 * header.group_count <= cursor.left, "table", f"no room for {header.group_count} entries")
    groups = [parse_entry(cursor, header) for _ in range(header.group_count)]
    if not has_check(header):
        return groups
    checked = cursor.data[: cursor.at]
    check = cursor.crc("Check")
    if header.group_count == 1:
        checked += cursor.data[cursor.at :]
    require(check == zlib.crc32(checked), "table", "Check differs")
    return groups


def check_table(groups, header):
    misplaced = (CORRECTED, PREDICTED) if header.is_exact else (CODED, PROMPTED, CHOSEN)
    misplaced += (CHOSEN,) if header.dictionary_hash is not None else ()
    for group in groups:
        kind_of_file = "an exact file" if header.is_exact else "a file that is not exact"
        require(group.kind not in misplaced, "table", f"a group of kind {group.kind} in {kind_of_file}")
    total = sum(group.size for group in groups)
    require(total == header.original_size, "table", f"Sizes add up to {total}, not {header.original_size}")
    is_needed = header.codebook_hash is None or any(group.kind == CHOSEN for group in groups)
    require(is_needed, "table", "Codebook_Hash is superfluous")
    modelled = any(group.is_modelled for group in groups)
    require(modelled == header.has_model, "table", "the model block is missing or superfluous")
    with_vectors = [group for group in groups if group.has_vectors]
    has_block = header.vector_coding is not None
    require(bool(with_vectors) == has_block, "table", "the vector block is missing or superfluous")
    for group in with_vectors:
        check_rest(group, group.payload_size, header, "table", is_all=not group.is_filtered)
    if header.is_exact:
        longest = max(group.positions(header) for group in groups if group.is_modelled)
        require(longest <= exact.MOST_POSITIONS, "table", f"a lane takes {longest} positions")


def check_rest(group, size, header, stage, is_all):
    """`size` bytes: no fewer than the vectors take, and no more if they are `is_all` there is in a recited group."""
    rest = size - group.vectors_size(header)
    fits = rest == 0 if group.kind == RECITED and is_all else rest >= 0
    require(fits, stage, f"the payload is that of the vectors and {rest} bytes")


def parse_payloads(cursor, groups):
    """-> one slice of the file for each group."""
    end = cursor.at + sum(group.payload_size for group in groups)
    require(end == len(cursor.data), "length", f"the file has {len(cursor.data)} bytes, not {end}")
    payloads = [cursor.take(group.payload_size, "payload") for group in groups]
    for i, (group, payload) in enumerate(zip(groups, payloads, strict=True)):
        require(group.payload_crc in (None, zlib.crc32(payload)), "payload", f"Payload_CRC of group {i} differs")
    return payloads


def parse_filters(group, payload, header):
    """-> the filters of a group, and the rest of its payload."""
    if not group.is_filtered:
        return [], payload
    try:
        steps, rest = filters.parse(payload)
    except filters.Malformed as problem:
        raise Damaged("payload", f"filters: {problem}") from problem
    check_rest(group, len(rest), header, "payload", is_all=True)
    return steps, rest


def unfilter(steps, content, size):
    try:
        return filters.invert(steps, content, size)
    except filters.Malformed as problem:
        raise Damaged("content", f"filters: {problem}") from problem


# ---------------------------------------------------------------- vectors (section 6.1)


def code_bits(coding):
    return LEVELS[coding].bit_length() - 1


def vector_size(coding, width):
    """Bytes of one vector."""
    if coding == BINARY16:
        return 2 * width
    if coding == THREE_LEVELS:
        return 1 + -(-width // 5)
    return 1 + -(-code_bits(coding) * width // 8)


def parse_vectors(data, coding, width):
    """-> (vector, D): with coding 7 the vectors, with the others the numbers v_f."""
    if coding == BINARY16:
        vectors = np.frombuffer(data, "<f2").reshape(-1, width)
        require(np.isfinite(vectors).all(), "vectors", "a value is infinite or not a number")
        return vectors.astype(np.float32)
    codes, scales = parse_codes(data, coding, width)
    return (2 * codes / (LEVELS[coding] - 1) - 1) * 2 ** ((scales - 128.0) / 8)


def parse_codes(data, coding, width):
    """-> codes (vector, D), Scale (vector, 1)."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, vector_size(coding, width))
    scales, packed = rows[:, :1], rows[:, 1:]
    if coding == THREE_LEVELS:
        require((packed <= 242).all(), "vectors", "a byte is larger than 242")
        codes = (packed[:, :, None] // 3 ** np.arange(5) % 3).reshape(len(rows), -1)
    else:
        n_bits = code_bits(coding)
        bits = np.unpackbits(packed, axis=1, bitorder="little")
        bits = np.pad(bits, [(0, 0), (0, -bits.shape[1] % n_bits)])
        codes = bits.reshape(len(rows), -1, n_bits) @ 2 ** np.arange(n_bits)
    require(not codes[:, width:].any(), "vectors", "what fills the last byte is not 0")
    return codes[:, :width], scales


def transform(numbers):
    """The vectors for the numbers v_f, (vector, D)."""
    width = numbers.shape[1]
    places = np.arange(width)
    basis = np.sqrt(2 / width) * np.cos(np.pi / width * places[:, None] * (places + 0.5))  # (f, n)
    basis[0] = np.sqrt(1 / width)
    return (numbers @ basis * signs_of(width)).astype(np.float32)


def signs_of(width):
    """s_n: 1 or -1."""
    signs = hashlib.shake_256(b"cramzip-rotation-1" + width.to_bytes(4, "little")).digest(-(-width // 8))
    bits = np.unpackbits(np.frombuffer(signs, np.uint8), bitorder="little")[:width]
    return 1 - 2 * bits.astype(np.int64)


def exact_vectors(data, header):
    """The vectors of an exact file, (vector, D): section 11 of exact.md."""
    coding, width = header.vector_coding, header.vector_width
    if coding == BINARY16:
        return parse_vectors(data, coding, width)
    codes, scales = parse_codes(data, coding, width)
    return exact.vectors(codes, scales[:, 0], LEVELS[coding], signs_of(width))


# ---------------------------------------------------------------- groups (sections 5, 8 and 9)


def open_model(folder, header, groups, sample=None):
    """-> (Llama or exact.Model, token table) of the folder, if it is the model that the file needs.

    `sample` is the codebook, if the file names one.
    """
    if folder is None:
        kind, hash_ = ("a", header.fingerprint) if header.digest is None else ("the built-in", header.digest)
        wanted = header.model_id or f"{kind} model {hash_.hex()}".rstrip()
        raise WrongModel("model", f"the file needs {wanted}; give the folder with that model")
    config, tensors, table = read_config(folder), read_tensors(folder), token_table(folder)
    found = fingerprint(config, tensors)
    identities = [("Model_Digest", header.digest, found[: len(header.digest or b"")])]
    if header.digest is None:
        identities = [
            ("Model_Fingerprint", header.fingerprint, found),
            ("Tokenizer_Hash", header.tokenizer_hash, tokenizer_hash(table)),
        ]
    for field, needed, here in identities:
        if needed != here[: len(needed)]:
            raise WrongModel("model", f"{field}: the file needs {needed.hex()}, this model has {here.hex()}")
    model = exact_model(folder, header, config, tensors) if header.is_exact else Llama(config, tensors)
    if header.vector_coding is not None and header.vector_width != model.width:
        raise WrongModel("model", f"D is {model.width} in this model, {header.vector_width} in the file")
    if header.is_exact:
        if header.codebook_hash is not None:
            model.codebook = open_codebook(sample, header, model)
        if any(group.kind == CHOSEN for group in groups) and model.codebook is None:
            raise WrongModel("model", "the file needs a codebook, and the model has none")
        return model, table
    if header.start_token >= model.vocabulary_size:
        raise WrongModel(
            "model", f"this model has {model.vocabulary_size} logits, and Start_Token is {header.start_token}"
        )
    longest = max(group.positions(header) for group in groups if group.is_modelled)
    if longest > model.context:
        raise WrongModel("model", f"a group needs {longest} positions, this model has {model.context}")
    return model, table


def open_codebook(content, header, model):
    needed = header.codebook_hash
    if content is None:
        raise WrongModel("model", f"Codebook_Hash: the file needs the codebook {needed.hex()}")
    if (found := codebook.hash_of(content)[:4]) != needed:
        raise WrongModel("model", f"Codebook_Hash: the file needs {needed.hex()}, this codebook has {found.hex()}")
    try:
        return codebook.of_file(content, model.width, exact.BLOCK if header.probe is None else model.block)
    except Unsupported as problem:
        raise WrongModel("model", str(problem)) from problem


def open_dictionary(content, folder, header, model, table):
    """-> where lanes begin in a file with a dictionary."""
    needed = header.dictionary_hash
    if content is None:
        raise WrongModel("model", f"Dictionary_Hash: the file needs the dictionary {needed.hex()}")
    model_fingerprint = fingerprint(read_config(folder), read_tensors(folder))
    found = hashlib.sha256(b"cramzip-dictionary-1" + model_fingerprint + content).digest()[: len(needed)]
    if found != needed:
        raise WrongModel("model", f"Dictionary_Hash: the file needs {needed.hex()}, this dictionary has {found.hex()}")
    tokens = dictionary.cut(content, table, model.vocabulary_size)
    return dictionary.Start(model, tokens, learner.Learner(table, model.vocabulary_size, 1))


def exact_model(folder, header, config, tensors):
    if is_exact(folder) != (header.probe is None):
        raise WrongModel("model", "the file needs a model with weights in exact.safetensors, or one with others")
    try:
        if header.probe is None:
            own, others = codebook.parted(exact.arrays(tensors))
            model = exact.Model(config, own)
            model.codebook = codebook.Codebook(others, model.width) if others else None
            return model
        model = wide.Model(config, tensors)
    except Unsupported as problem:
        raise WrongModel("model", str(problem)) from problem
    if (found := wide.probe(model)[:4]) != header.probe:
        raise WrongModel("model", f"Probe: the file needs {header.probe.hex()}, this model has {found.hex()}")
    return model


def decode_tokens(model, header, group, vectors, corrections):
    """-> the T token ids of a group.

    `vectors` are those of all its chunks, (chunk, M, D), or None; `corrections` None where the model recites.
    """
    done = []
    while len(done) < group.token_count:
        n = min(header.chunk_tokens, group.token_count - len(done))
        start = model.embedding[[header.start_token]]
        own = start[:0] if vectors is None else vectors[len(done) // header.chunk_tokens]
        first = np.concatenate([start, own]) if vectors is None or header.vectors_after_start else own
        seen = done[max(len(done) - header.context_tokens, 0) :]
        x, position = np.concatenate([first, *model.embedding[seen, None]]), 0
        cache = model.empty_cache(len(x) + n)
        if corrections:
            corrections.begin_chunk(n)
        for _ in range(n):
            logits = model.logits(x, position, cache)
            require_decidable(logits)
            done.append(corrections.token(logits) if corrections else int(logits.argmax()))  # the lowest of equals
            x, position = model.embedding[done[-1:]], position + len(x)
    return done


def decode_group(model, table, header, group, payload, extra):
    """-> bytes; `extra` is where lanes begin, or in a file that is not exact, what parse_vectors gave; or None."""
    decode = decode_exact_group if header.is_exact else decode_other_group
    try:
        tokens = decode(model, table, header, group, payload, extra)
    except Impossible as problem:
        raise Damaged("content", f"a modelled group: {problem}") from problem
    return join_tokens(tokens, table)


def coded_bytes(header, group, payload):
    """What follows the vectors."""
    coded = payload[group.vectors_size(header) :]
    many = f"{group.token_count} tokens are too many for {len(coded)} bytes"
    counted = len(coded) + (header.dictionary_hash is not None)
    require(group.token_count <= 2**12 * counted, "content", many)
    return coded


def decode_exact_group(model, table, header, group, payload, begin):
    start, n_lanes = model.embed(model.start)[None], group.parts(header)
    coder = (
        exact.Reciter()
        if group.kind == RECITED
        else exact.Decoder(coded_bytes(header, group, payload), model.vocabulary_size)
    )
    chosen = model.codebook.choices(coder, n_lanes) if group.kind == CHOSEN else None
    said = None
    if header.learning and group.kind != RECITED:
        if begin:
            learns = begin.learner_of(n_lanes)
        else:
            adapted = model if header.learning == 2 and group.token_count >= 1024 else None
            learns = learner.Learner(table, model.vocabulary_size, n_lanes, adapted)
        coder = learner.LearningDecoder(coder, learns, group.token_count)
        said = learns.adapter.said if learns.adapter else None
    firsts, before = [start] * n_lanes, None
    if begin:
        firsts, before = [model.embed(begin.last)[None]] * n_lanes, begin.sequence
    if chosen is not None:
        firsts = [np.concatenate([start, model.codebook.vectors[entry]]) for entry in chosen]
    if group.has_vectors:
        vectors = exact_vectors(payload[: group.vectors_size(header)], header)
        require((np.abs(vectors) <= exact.MOST_NUMBER).all(), "content", "a vector has a number beyond 2^16")
        firsts = vectors.reshape(n_lanes, group.vector_count, model.width)
        if header.vectors_after_start:
            firsts = [np.concatenate([start, own]) for own in firsts]
    entry = 0 if chosen is None else len(model.codebook.vectors[0])
    tokens = exact.run_lanes(model, firsts, group.token_count, coder, before, said, entry)
    if group.kind != RECITED:
        coder.check_end()
    return tokens


def decode_other_group(model, table, header, group, payload, numbers):
    vectors = corrections = None
    if numbers is not None:
        vectors = numbers if header.vector_coding == BINARY16 else transform(numbers)
        vectors = vectors.reshape(-1, group.vector_count, model.width)
    if group.kind != RECITED:
        coded = coded_bytes(header, group, payload)
        size = model.vocabulary_size
        expectations = partial(Expectations, table, size)
        corrections = Corrections(coded, size, header.noise_exponent, group.token_count, expectations)
    tokens = decode_tokens(model, header, group, vectors, corrections)
    if corrections:
        corrections.coder.check_end()
    return tokens


def join_tokens(tokens, table):
    for token in tokens:
        require(token < len(table) and table[token] is not None, "content", f"token {token} stands for nothing")
    return b"".join(table[token] for token in tokens)


def decompress_zstd(payload, size):
    require(payload[:4] == b"\x28\xb5\x2f\xfd", "content", "a zstd payload does not begin with a zstd frame")
    require(
        not any(byte & 0b11011 for byte in payload[4:5]), "content", "a zstd frame has reserved bits, or a dictionary"
    )
    try:
        frame = zstandard.get_frame_parameters(payload)
        require(frame.content_size == size, "content", f"a zstd frame does not state the content size {size}")
        require(frame.window_size <= 2**23, "content", f"a zstd frame has a window of {frame.window_size} bytes")
        return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged("content", f"zstd: {error}") from error


# ---------------------------------------------------------------- all of it, in the order of section 11


def read(blob, folder=None, sample=None):
    """The original in a `.cram` file; `sample` is the dictionary or the codebook. Raises Damaged or WrongModel."""
    cursor = Cursor(blob, "header")
    header = parse_header(cursor)
    groups = parse_table(cursor, header)
    check_header(header)
    check_table(groups, header)
    payloads = parse_payloads(cursor, groups)
    parted = [parse_filters(group, payload, header) for group, payload in zip(groups, payloads, strict=True)]
    payloads = [rest for _, rest in parted]
    numbers = [
        parse_vectors(payload[: group.vectors_size(header)], header.vector_coding, header.vector_width)
        if group.has_vectors
        else None
        for group, payload in zip(groups, payloads, strict=True)
    ]
    model, table = open_model(folder, header, groups, sample) if header.has_model else (None, None)
    begin = None
    if header.dictionary_hash is not None:
        begin = open_dictionary(sample, folder, header, model, table)

    original = b""
    for i, (group, content) in enumerate(zip(groups, payloads, strict=True)):
        if group.kind == ZSTD:
            content = decompress_zstd(content, group.size)
        if group.is_modelled:
            content = decode_group(model, table, header, group, content, begin if header.is_exact else numbers[i])
        if group.is_filtered:
            content = unfilter(parted[i][0], content, group.size)
        require(len(content) == group.size, "content", f"group {i} has {len(content)} bytes, not {group.size}")
        require(group.content_crc in (None, zlib.crc32(content)), "content", f"Content_CRC of group {i} differs")
        original += content
    digest = hashlib.sha256(original).digest()
    require(digest.startswith(header.original_hash), "content", "Original_Hash differs")
    return original


def escaped(text):
    """What may be shown of a file's strings (section 1)."""
    steering = {"Cc", "Cf", "Zl", "Zp"}
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in steering else c for c in text)


def main(arguments):
    if len(arguments) not in (1, 2, 3):
        print("usage: reader.py FILE.cram [MODEL_FOLDER [DICTIONARY | CODEBOOK]] > original", file=sys.stderr)
        return 2
    try:
        sample = Path(arguments[2]).read_bytes() if arguments[2:] else None
        original = read(Path(arguments[0]).read_bytes(), arguments[1] if arguments[1:] else None, sample)
        sys.stdout.buffer.write(original)
        sys.stdout.buffer.flush()
    except (Refused, Unsupported, OSError) as problem:
        print(f"reader.py: {escaped(str(problem))}", file=sys.stderr)
        return 3 if isinstance(problem, Damaged) else 1 if isinstance(problem, OSError) else 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
