"""The fingerprint of a GGUF file (section 10), for models that reader.py does not run.

Knows the layout of GGUF, version 2 and 3, and nothing of `.cram` files.
"""

import struct
from math import prod
from pathlib import Path

from llama import Unsupported, fingerprint

BOOL, STRING, ARRAY = 7, 8, 9
NUMBERS = dict(enumerate("BbHhIif")) | {10: "Q", 11: "q", 12: "d"}  # as the module struct writes them
GGML_TYPES = {  # name, values in a block, bytes of a block
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


class Fields:
    """Takes values off the front of a file."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size > len(self.data) - self.at:
            raise Unsupported("the GGUF file is cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind):
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0]

    def string(self):
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == BOOL:
            return self.number("B") != 0
        if kind == ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind == ARRAY:
                raise Unsupported("an array of arrays")
            return [self.value(kind) for _ in range(count)]
        if kind not in NUMBERS:
            raise Unsupported(f"{kind} is no type of metadata")
        return self.number(NUMBERS[kind])


def pairs_once(pairs):
    pairs = list(pairs)
    if len(dict(pairs)) < len(pairs):
        raise Unsupported("two fields or tensors have one name")
    return dict(pairs)


def read_gguf(path):
    """-> (metadata, [(name, {"dtype", "shape", "data"}), ...] in the order of the names)."""
    fields = Fields(Path(path).read_bytes())
    if fields.take(4) != b"GGUF" or fields.number("I") not in (2, 3):
        raise Unsupported("no GGUF file of version 2 or 3")
    n_tensors, n_fields = fields.number("Q"), fields.number("Q")
    metadata = pairs_once((fields.string(), fields.value(fields.number("I"))) for _ in range(n_fields))
    if metadata.get("split.count", 1) != 1:
        raise Unsupported("one of several files of a model")

    def description():
        name, dimensions = fields.string(), fields.number("I")
        return name, ([fields.number("Q") for _ in range(dimensions)], fields.number("I"), fields.number("Q"))

    described = pairs_once(description() for _ in range(n_tensors))
    alignment = metadata.get("general.alignment", 32)
    begin = -(-fields.at // alignment) * alignment
    tensors = []
    for name, (shape, kind, offset) in described.items():
        if kind not in GGML_TYPES:
            raise Unsupported(f"this reader does not know the GGML type {kind}")
        dtype, block, size = GGML_TYPES[kind]
        fields.at = begin + offset
        tensors.append((name, {"dtype": dtype, "shape": shape, "data": fields.take(prod(shape) // block * size)}))
    return metadata, sorted(tensors, key=lambda tensor: tensor[0].encode())


def gguf_fingerprint(path):
    metadata, tensors = read_gguf(path)
    architecture = metadata["general.architecture"]
    kept = {
        key: value
        for key, value in metadata.items()
        if key == "general.architecture" or key.startswith(f"{architecture}.")
    }
    return fingerprint(kept, tensors)
