"""A GGUF file as transformers wants to see it, read once and fast.

The library `gguf` makes several NumPy arrays for each string of a vocabulary, and transformers lets it read the file
three times: 20 seconds for 50,000 tokens. Here its `GGUFReader` is replaced by one with the same content, and its table
of names is not made anew for each module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .gguf_file import ARRAY, STRING, GgufTensor, read_gguf


class _Field(NamedTuple):
    """A field: `data` are the indices of its values in `parts`, `types` the numbers of their types."""

    name: str
    parts: list[Any]
    data: list[int]
    types: list[int]


class _Tensor(NamedTuple):
    name: str
    tensor_type: Any
    shape: Any
    data: Any


class Reader:
    """What transformers uses of gguf.GGUFReader: fields and tensors."""

    def __init__(self, path: str, mode: str = "r"):
        content = read_gguf(Path(path))
        self.fields = {key: _field(key, kind, content.fields[key]) for key, kind in content.kinds.items()}
        self.tensors = [_tensor(tensor) for tensor in content.tensors]


def _field(name: str, kind: tuple[int, ...], value: Any) -> _Field:
    if kind[0] != ARRAY:
        return _Field(name, [value.encode() if kind[0] == STRING else [value]], [0], list(kind))
    if kind[1] == STRING:
        parts: list[Any] = [one.encode() for one in value]
    else:
        parts = value.reshape(-1, 1).tolist()
    return _Field(name, parts, list(range(len(parts))), list(kind))


def _tensor(tensor: GgufTensor) -> _Tensor:
    import numpy as np
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    kind = GGMLQuantizationType[tensor.dtype]
    plain = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
    shape = tuple(reversed(tensor.shape))
    if tensor.dtype in plain:
        data = np.frombuffer(tensor.data, plain[tensor.dtype]).reshape(shape)
    else:
        data = np.frombuffer(tensor.data, np.uint8).reshape(quant_shape_to_byte_shape(shape, kind))
    return _Tensor(tensor.name, kind, np.array(tensor.shape, np.uint32), data)


@contextmanager
def quick_reader() -> Iterator[None]:
    """Let transformers read GGUF files with `Reader`, each once, and make each table of names once."""
    import gguf

    before = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = lru_cache(2)(Reader), lru_cache(2)(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before
