#!/usr/bin/env python3
"""A reader of `.cram` files, written from cram.md alone.

    python formats/reader.py FILE.cram [MODEL_FOLDER] > original

It shares no code with the library, and no numerics either: the model (llama.py) runs in plain NumPy, one
position at a time, so a file that both decode alike was decoded twice. It trades speed for being short
enough to check against the specification; "section" always means a section of cram.md.

MODEL_FOLDER is a Hugging Face folder with a Llama in it; a file without crammed chunks needs none.
Exit codes: 0 ok, 1 input/output, 2 usage, 3 damaged file, 4 wrong or missing model.
"""

import hashlib
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from llama import Llama, Unsupported, fingerprint, read_config, read_tensors, token_table, tokenizer_hash

MAGIC = b"\x9dCZ\n"
RAW, ZSTD, CRAMMED = 0, 1, 2
HAS_NAME, HAS_MODEL, RESERVED_FLAGS = 0x01, 0x02, 0xF0


class Refused(Exception):
    """What a reader cannot decode, and the stage of section 10 that found out."""

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


# ---------------------------------------------------------------- fields (section 1)


class Cursor:
    """Takes fields off the front of `data`; what cannot be taken is damage of `stage`."""

    def __init__(self, data, stage, at=0):
        self.data, self.stage, self.at = data, stage, at

    def take(self, count, field):
        left = len(self.data) - self.at
        require(count <= left, self.stage, f"{field} needs {count} bytes at offset {self.at}, {left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self, field):
        return self.take(1, field)[0]

    def crc(self, field):
        return int.from_bytes(self.take(4, field), "little")

    def hash(self, field):
        return self.take(32, field)

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
        """The bytes of a string; `check_string` comes later, once a CRC has vouched for them."""
        return self.take(self.varint(field), field)


def check_string(value, field, low, high, stage="header"):
    require(low <= len(value) <= high, stage, f"{field} has {len(value)} bytes, not {low} to {high}")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(stage, f"{field} is not valid UTF-8") from error
    require(not re.search(r"[\x00-\x1f\x7f]", text), stage, f"{field} holds a control character")


def check_range(value, field, low, high, stage):
    require(low <= value <= high, stage, f"{field} is {value}, not {low} to {high}")


# ---------------------------------------------------------------- header and table (sections 3 to 5)


@dataclass(frozen=True)
class ModelBlock:
    model_id: bytes
    revision: bytes
    fingerprint: bytes
    tokenizer_hash: bytes
    vocabulary_size: int
    vector_width: int
    compute_type: int
    noise_exponent: int
    vector_coding: int
    correction_coding: int


@dataclass(frozen=True)
class Header:
    flags: int
    original_size: int
    original_sha256: bytes
    chunk_count: int
    table_size: int
    name: bytes | None
    model: ModelBlock | None


@dataclass(frozen=True)
class Chunk:
    kind: int
    size: int
    payload_size: int
    payload_crc: int
    content_crc: int | None = None
    token_count: int = 0
    vector_count: int = 0


def parse_header(blob):
    """-> (Header, offset behind it)."""
    hint = "; this may be the genomics format CRAM" if blob[:4] == b"CRAM" else ""
    require(blob[:4] == MAGIC, "magic", f"the file begins with {blob[:4].hex(' ')}, not {MAGIC.hex(' ')}{hint}")
    require(blob[4:5] == b"\x01", "version", f"this is version {blob[4:5].hex() or '(missing)'}, not 01")
    cursor = Cursor(blob, "header", at=5)
    flags = cursor.u8("Flags")
    header = Header(
        flags=flags,
        original_size=cursor.varint("Original_Size"),
        original_sha256=cursor.hash("Original_SHA256"),
        chunk_count=cursor.varint("Chunk_Count"),
        table_size=cursor.varint("Table_Size"),
        name=cursor.string("Name") if flags & HAS_NAME else None,
        model=parse_model_block(cursor) if flags & HAS_MODEL else None,
    )
    found = zlib.crc32(blob[: cursor.at])
    require(cursor.crc("Header_CRC") == found, "header", "Header_CRC differs")
    check_header(header)
    return header, cursor.at


def parse_model_block(cursor):
    return ModelBlock(
        model_id=cursor.string("Model_ID"),
        revision=cursor.string("Revision"),
        fingerprint=cursor.hash("Model_Fingerprint"),
        tokenizer_hash=cursor.hash("Tokenizer_Hash"),
        vocabulary_size=cursor.varint("Vocabulary_Size"),
        vector_width=cursor.varint("Vector_Width"),
        compute_type=cursor.u8("Compute_Type"),
        noise_exponent=cursor.u8("Noise_Exponent"),
        vector_coding=cursor.u8("Vector_Coding"),
        correction_coding=cursor.u8("Correction_Coding"),
    )


def check_header(header):
    require(not header.flags & RESERVED_FLAGS, "header", f"Flags {header.flags:#04x} has a reserved bit set")
    require(
        (header.original_size == 0) == (header.chunk_count == 0),
        "header",
        f"Original_Size is {header.original_size}, Chunk_Count {header.chunk_count}: both or none are 0",
    )
    if header.name is not None:
        check_string(header.name, "Name", 1, 255)
        require(
            header.name not in (b".", b"..") and not re.search(rb"[/\\]", header.name), "header", "Name is no base name"
        )
    if model := header.model:
        check_string(model.model_id, "Model_ID", 1, 255)
        require(
            re.match(rb"(builtin|hf|local):.", model.model_id),
            "header",
            "Model_ID does not begin with builtin:, hf: or local: and a name",
        )
        check_string(model.revision, "Revision", 0, 255)
        check_range(model.vocabulary_size, "Vocabulary_Size", 1, 2**24, "header")
        check_range(model.vector_width, "Vector_Width", 1, 2**16, "header")
        check_range(model.compute_type, "Compute_Type", 0, 0, "header")
        check_range(model.noise_exponent, "Noise_Exponent", 0, 63, "header")
        check_range(model.vector_coding, "Vector_Coding", 1, 1, "header")
        check_range(model.correction_coding, "Correction_Coding", 1, 1, "header")


def parse_table(blob, at, header):
    """-> (chunks, offset behind the table)."""
    cursor = Cursor(blob, "table", at)
    entries = cursor.take(header.table_size, "the table")
    require(
        7 * header.chunk_count <= len(entries),
        "table",
        f"{header.chunk_count} entries do not fit into {len(entries)} bytes",
    )
    require(cursor.crc("Table_CRC") == zlib.crc32(entries), "table", "Table_CRC differs")
    rows = Cursor(entries, "table")
    chunks = [parse_entry(rows, header.model) for _ in range(header.chunk_count)]
    require(rows.at == len(entries), "table", f"{len(entries) - rows.at} bytes are left over")
    total = sum(chunk.size for chunk in chunks)
    require(total == header.original_size, "table", f"Sizes add up to {total}, not {header.original_size}")
    crammed = any(chunk.kind == CRAMMED for chunk in chunks)
    require(crammed or not header.model, "table", "there is a model block, but no crammed chunk")
    return chunks, cursor.at


def parse_entry(cursor, model):
    kind = cursor.u8("Kind")
    check_range(kind, "Kind", RAW, CRAMMED, "table")
    fields = [cursor.varint("Size"), cursor.varint("Payload_Size"), cursor.crc("Payload_CRC")]
    if kind != RAW:
        fields += [cursor.crc("Content_CRC")]
    if kind == CRAMMED:
        fields += [cursor.varint("Token_Count"), cursor.varint("Vector_Count")]
    chunk = Chunk(kind, *fields)

    check_range(chunk.size, "Size", 1, 2**22, "table")
    require(chunk.payload_size >= 1, "table", "Payload_Size is 0")
    if kind == RAW:
        require(chunk.payload_size == chunk.size, "table", "Payload_Size of a raw chunk is not its Size")
    if kind == ZSTD:
        require(chunk.payload_size < chunk.size, "table", "a zstd payload is not smaller than its content")
    if kind == CRAMMED:
        require(model, "table", "there is a crammed chunk, but no model block")
        check_range(chunk.token_count, "Token_Count", 1, min(chunk.size, 2**16), "table")
        check_range(chunk.vector_count, "Vector_Count", 1, 2**12, "table")
        least = 2 * chunk.vector_count * model.vector_width + 1
        require(chunk.payload_size >= least, "table", f"a crammed payload has not even {least} bytes")
    return chunk


# ---------------------------------------------------------------- payloads (section 6)


def parse_payloads(blob, at, chunks):
    """-> one slice of the file for each chunk."""
    end = at + sum(chunk.payload_size for chunk in chunks)
    require(end == len(blob), "length", f"the file has {len(blob)} bytes, not {end}")
    cursor = Cursor(blob, "length", at)
    payloads = [cursor.take(chunk.payload_size, "payload") for chunk in chunks]
    for i, (chunk, payload) in enumerate(zip(chunks, payloads, strict=True)):
        require(zlib.crc32(payload) == chunk.payload_crc, "payload", f"Payload_CRC of chunk {i} differs")
    return payloads


def parse_vectors(payload, count, width):
    """-> float32 (M, D)."""
    vectors = np.frombuffer(payload, dtype="<f2", count=count * width).reshape(count, width)
    require(np.isfinite(vectors).all(), "vectors", "a value is infinite or not a number")
    return vectors.astype(np.float32)


def parse_corrections(data, token_count, vocabulary_size):
    """-> {position: token}."""
    cursor = Cursor(data, "corrections")
    count = cursor.varint("Count")
    check_range(count, "Count", 0, token_count, "corrections")
    corrections, position = {}, -1
    for _ in range(count):
        position += cursor.varint("Gap") + 1
        check_range(position, "a position", 0, token_count - 1, "corrections")
        corrections[position] = cursor.varint("Token")
        check_range(corrections[position], "Token", 0, vocabulary_size - 1, "corrections")
    require(cursor.at == len(data), "corrections", f"{len(data) - cursor.at} bytes are left over")
    return corrections


# ---------------------------------------------------------------- model at hand (sections 7 to 9)


def open_model(folder, block, chunks):
    """-> (Llama, token table) of the folder, if it is the model that the file needs."""
    if folder is None:
        raise WrongModel("model", f"the file needs {block.model_id.decode()}; give the folder with that model")
    config, tensors, table = read_config(folder), read_tensors(folder), token_table(folder)
    for field, needed, found in [
        ("Model_Fingerprint", block.fingerprint, fingerprint(config, tensors)),
        ("Tokenizer_Hash", block.tokenizer_hash, tokenizer_hash(table)),
    ]:
        if needed != found:
            raise WrongModel("model", f"{field}: the file needs {needed.hex()}, this model has {found.hex()}")
    model = Llama(config, tensors)
    if (block.vocabulary_size, block.vector_width) != (model.vocabulary_size, model.width):
        raise WrongModel(
            "model",
            f"V is {model.vocabulary_size} and D {model.width} in this model, "
            f"{block.vocabulary_size} and {block.vector_width} in the file",
        )
    longest = max(chunk.vector_count + chunk.token_count for chunk in chunks)
    if longest > model.context:
        raise WrongModel("model", f"a chunk needs {longest} positions, this model has {model.context}")
    return model, table


# ---------------------------------------------------------------- content (sections 5 and 7)


def decode_tokens(model, vectors, token_count, corrections):
    """Greedy decoding from `vectors`, (M, D), with the corrections put in -> T token ids."""
    x, tokens = list(vectors), []
    cache = model.empty_cache(len(vectors) + token_count)
    for position in range(len(vectors) + token_count - 1):
        logits = model.logits(x[position], position, cache)
        if position >= len(vectors) - 1:
            tokens.append(corrections.get(len(tokens), int(logits.argmax())))  # the lowest of equals
            x.append(model.embedding[tokens[-1]])
    return tokens


def join_tokens(tokens, table):
    for token in tokens:
        require(token < len(table) and table[token] is not None, "content", f"token {token} stands for nothing")
    return b"".join(table[token] for token in tokens)


def decompress_zstd(payload, size):
    require(payload[:4] == b"\x28\xb5\x2f\xfd", "content", "a zstd payload does not begin with a zstd frame")
    try:
        frame = zstandard.get_frame_parameters(payload)
        require(frame.content_size == size, "content", f"a zstd frame does not state the content size {size}")
        require(frame.dict_id == 0, "content", "a zstd frame needs a dictionary")
        require(frame.window_size <= 2**23, "content", f"a zstd frame has a window of {frame.window_size} bytes")
        return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged("content", f"zstd: {error}") from error


# ---------------------------------------------------------------- all of it, in the order of section 10


def read(blob, folder=None):
    """The original in a `.cram` file. Raises Damaged or WrongModel."""
    header, at = parse_header(blob)
    chunks, at = parse_table(blob, at, header)
    payloads = parse_payloads(blob, at, chunks)
    crammed = {i: chunk for i, chunk in enumerate(chunks) if chunk.kind == CRAMMED}
    if block := header.model:
        vectors = {
            i: parse_vectors(payloads[i], chunk.vector_count, block.vector_width) for i, chunk in crammed.items()
        }
        corrections = {
            i: parse_corrections(payloads[i][2 * vectors[i].size :], chunk.token_count, block.vocabulary_size)
            for i, chunk in crammed.items()
        }
        model, table = open_model(folder, block, crammed.values())

    parts = []
    for i, (chunk, payload) in enumerate(zip(chunks, payloads, strict=True)):
        if chunk.kind == ZSTD:
            payload = decompress_zstd(payload, chunk.size)
        if chunk.kind == CRAMMED:
            tokens = decode_tokens(model, vectors[i], chunk.token_count, corrections[i])
            payload = join_tokens(tokens, table)
        require(len(payload) == chunk.size, "content", f"chunk {i} has {len(payload)} bytes, not {chunk.size}")
        if chunk.content_crc is not None:
            require(zlib.crc32(payload) == chunk.content_crc, "content", f"Content_CRC of chunk {i} differs")
        parts.append(payload)
    original = b"".join(parts)
    require(hashlib.sha256(original).digest() == header.original_sha256, "content", "Original_SHA256 differs")
    return original


def main(arguments):
    if len(arguments) not in (1, 2):
        print("usage: reader.py FILE.cram [MODEL_FOLDER] > original", file=sys.stderr)
        return 2
    try:
        original = read(Path(arguments[0]).read_bytes(), *arguments[1:])
        sys.stdout.buffer.write(original)
        sys.stdout.buffer.flush()
    except (Refused, Unsupported, OSError) as problem:
        print(f"reader.py: {problem}", file=sys.stderr)
        return 3 if isinstance(problem, Damaged) else 1 if isinstance(problem, OSError) else 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
