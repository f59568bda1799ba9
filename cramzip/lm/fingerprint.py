"""The fingerprint of a model: a hash of what its output depends on, taken from its files.

It is taken from the files and not from the loaded model, so that no version of a library can change it, and a wrong
model is refused before it is loaded. Defined in section 10 of formats/cram.md.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..container.wire import Bytes, pack_string, pack_varint
from ..errors import ModelError
from .gguf_file import GgufTensor, read_gguf
from .strict_json import parse_object
from .weights import has_exact_weights, weight_files

CONFIG_KEYS_WITHOUT_EFFECT = frozenset(
    {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
)
MAX_SAFETENSORS_HEADER = 100 * 2**20


class StoredTensor(NamedTuple):
    """A tensor of a safetensors file, as it is stored."""

    name: str
    dtype: str
    shape: list[int]
    data: Bytes


def folder_fingerprint(folder: Path) -> bytes:
    """SHA-256 over configuration and weights of a Hugging Face folder."""
    config = parse_object((folder / "config.json").read_bytes(), str(folder / "config.json"))
    if "transformers_weights" in config or (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder}: weights from elsewhere (transformers_weights, adapters) are not supported")
    kept = {key: value for key, value in config.items() if key not in CONFIG_KEYS_WITHOUT_EFFECT}
    tensors = [tensor for file in weight_files(folder) for tensor in stored_tensors(file)]
    names = sorted(tensor.name for tensor in tensors)
    if twice := next((name for name, other in pairwise(names) if name == other), None):
        raise ModelError(f"{folder}: the tensor {twice!r} is in two of its files")
    if not has_exact_weights(folder) and (bad := next(filter(_is_quantised, tensors), None)):
        raise ModelError(f"{folder}: quantised weights are not supported ({bad.name} is {bad.dtype})")
    return _fingerprint(kept, tensors)


def _is_quantised(tensor: StoredTensor) -> bool:
    """Whether a tensor holds quantised weights. The masks of older models are bytes, but no weights."""
    is_weight = tensor.name.endswith("weight") and len(tensor.shape) > 1
    return not re.fullmatch("F16|BF16|F32|F64", tensor.dtype) and (
        is_weight or re.match("F[468]", tensor.dtype) is not None
    )


def gguf_fingerprint(file: Path) -> bytes:
    """SHA-256 over the architecture's metadata and the tensors of a GGUF file."""
    content = read_gguf(file)
    if (n_parts := content.fields.get("split.count", 1)) != 1:
        raise ModelError(f"{file}: one of the {n_parts} files of a model: join them first")
    architecture = content.plain("general.architecture")
    keys = [key for key in content.fields if key == "general.architecture" or key.startswith(f"{architecture}.")]
    return _fingerprint({key: content.plain(key) for key in keys}, content.tensors)


def _fingerprint(config: dict[str, Any], tensors: Sequence[StoredTensor | GgufTensor]) -> bytes:
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(b"cramzip-model-1" + pack_string(canonical))
    for tensor in sorted(tensors, key=lambda tensor: tensor.name.encode()):
        digest.update(pack_string(tensor.name) + pack_string(tensor.dtype) + pack_varint(len(tensor.shape)))
        digest.update(b"".join(map(pack_varint, tensor.shape)))
        digest.update(tensor.data)
    return digest.digest()


def tensors_of(path: Path) -> Iterator[StoredTensor | GgufTensor]:
    """The tensors of a model folder or a GGUF file, as they are stored. Raises ModelError."""
    if path.is_file():
        yield from read_gguf(path).tensors
    else:
        for file in weight_files(path):
            yield from stored_tensors(file)


def stored_tensors(file: Path) -> Iterator[StoredTensor]:
    """The tensors of a safetensors file, which stays in use while one of them does. Raises ModelError."""
    with file.open("rb") as source:
        data = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(MAX_SAFETENSORS_HEADER, len(data) - 8):
        raise ModelError(f"{file}: not a safetensors file")
    for name, about in parse_object(bytes(data[8 : 8 + size]), str(file)).items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            yield StoredTensor(name, about["dtype"], about["shape"], data[8 + size + begin : 8 + size + end])
