"""Float weights off the files of a model, row by row, with NumPy alone, under the names that transformers gives them.

A GGUF file of a Llama has the rows of its queries and keys in another order: the numbers that RoPE turns together are
neighbours there, and half a head apart here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..exact.arithmetic import Floats
from ..exact.layouts import Tensor, Unsuited, shape_of
from ..exact.weights import Shape
from .fingerprint import StoredTensor, stored_tensors
from .gguf_file import GgufFile, GgufTensor, read_gguf
from .strict_json import parse_object
from .weights import weight_files

SAFETENSORS_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Of GGUF: the types that are read here, and the kinds of models.
GGML_TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
KINDS = ("llama", "qwen2", "qwen3")
PERMUTED = ("llama",)
KEYS = {  # of a configuration, and of the metadata behind the name of the architecture
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
}
UNKNOWN_KEYS = re.compile(
    r"expert|rope\.scaling\.(?!type|original_context_length|finetuned)|softcap|logit_scale|residual"
)
NAMES = {  # of tensors
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FACTORS = "rope_freqs.weight"
_TENSOR = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


@dataclass(frozen=True)
class FloatModel:
    """A model that exact arithmetic can run, as its files have it."""

    shape: Shape
    tensors: Mapping[str, Tensor]


def open_floats(path: Path) -> FloatModel:
    """The model in a folder or a GGUF file. Raises Unsuited if exact arithmetic cannot run it, and ModelError."""
    if path.is_file():
        return _from_gguf(read_gguf(path))
    config = parse_object((path / "config.json").read_bytes(), str(path / "config.json"))
    shape = shape_of(config)
    found = [tensor for file in weight_files(path) for tensor in stored_tensors(file)]
    return FloatModel(shape, {tensor.name: _Stored(tensor) for tensor in found})


@dataclass(frozen=True)
class _Stored:
    """A tensor of a safetensors file."""

    tensor: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._values.shape)

    @cached_property
    def _values(self) -> Any:
        about = self.tensor
        if about.dtype not in SAFETENSORS_TYPES:
            raise Unsuited(f"{about.name} is {about.dtype}; expected one of {', '.join(SAFETENSORS_TYPES)}")
        return np.frombuffer(about.data, SAFETENSORS_TYPES[about.dtype]).reshape(about.shape)

    def rows(self, first: int, stop: int) -> Floats:
        values = self._values[first:stop]
        if self.tensor.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        floats: Floats = values.astype(np.float32)
        return floats


def _from_gguf(content: GgufFile) -> FloatModel:
    kind = content.plain("general.architecture")
    if kind not in KINDS:
        raise Unsuited(f"a GGUF file of the kind {kind!r}; exact arithmetic runs {', '.join(KINDS)}")
    plain = {key.removeprefix(f"{kind}."): content.plain(key) for key in content.fields if key.startswith(f"{kind}.")}
    tensors = {tensor.name: tensor for tensor in content.tensors}
    shape = shape_of(_gguf_config(kind, plain, content, tensors), _slowdowns(tensors))
    return FloatModel(shape, dict(_renamed(tensor, shape, kind in PERMUTED) for tensor in tensors.values()))


def _gguf_config(
    kind: str, plain: Mapping[str, Any], content: GgufFile, tensors: Mapping[str, GgufTensor]
) -> dict[str, Any]:
    """What transformers would call the configuration."""
    if unknown := next((key for key, value in plain.items() if value and UNKNOWN_KEYS.search(key)), None):
        raise Unsuited(f"exact arithmetic does not know what {kind}.{unknown} says")
    config = {key: plain[name] for key, name in KEYS.items() if name in plain}
    if "token_embd.weight" not in tensors:
        raise Unsuited("it has no tensor token_embd.weight")
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for name in ("rope.dimension_count", "attention.value_length"):
        if plain.get(name, width) != width:
            raise Unsuited(f"{kind}.{name} is {plain[name]}; exact arithmetic needs that of a head, {width}")
    return config | {
        "model_type": kind,
        "vocab_size": tensors["token_embd.weight"].shape[-1],
        "head_dim": width,
        "tie_word_embeddings": "output.weight" not in tensors,
        "use_sliding_window": True,
        "rope_scaling": {"rope_type": plain.get("rope.scaling.type", "none").replace("none", "default")},
        "bos_token_id": content.fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": content.fields.get("tokenizer.ggml.eos_token_id"),
    }


def _slowdowns(tensors: Mapping[str, GgufTensor]) -> list[Fraction] | None:
    if FACTORS not in tensors:
        return None
    tensor = _Gguf(tensors[FACTORS], 0)
    return [Fraction(factor) for factor in tensor.rows(0, tensor.shape[0]).tolist()]


def _renamed(tensor: GgufTensor, shape: Shape, is_permuted: bool) -> tuple[str, Tensor]:
    found = _TENSOR.fullmatch(tensor.name)
    if tensor.name == FACTORS:
        return f"{tensor.name}.rotary_emb.inv_freq", _Gguf(tensor, 0)
    if not found or found[2] not in NAMES:
        return tensor.name, _Gguf(tensor, 0)
    layer, name, kind = found.groups()
    prefix = "" if layer is None else f"model.layers.{layer}."
    turns = is_permuted and name in ("attn_q", "attn_k")
    return f"{prefix}{NAMES[name]}.{kind}", _Gguf(tensor, shape.head_width if turns else 0)


@dataclass(frozen=True)
class _Gguf:
    """A tensor of a GGUF file; `head`: how many rows are to be put in order together, 0 for none."""

    tensor: GgufTensor
    head: int

    @property
    def shape(self) -> tuple[int, ...]:
        if self.tensor.dtype not in GGML_TYPES:
            raise Unsuited(f"{self.tensor.name} is {self.tensor.dtype}; expected one of {', '.join(GGML_TYPES)}")
        return tuple(reversed(self.tensor.shape))

    def rows(self, first: int, stop: int) -> Floats:
        if not self.head:
            return self._stored(first, stop)
        begin, end = first // self.head * self.head, -(-stop // self.head) * self.head
        heads = self._stored(begin, end).reshape(-1, self.head // 2, 2, *self.shape[1:])
        rows: Floats = heads.swapaxes(1, 2).reshape(-1, *self.shape[1:])[first - begin : stop - begin]
        return rows

    def _stored(self, first: int, stop: int) -> Floats:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        height = self.shape[0]
        data = np.frombuffer(self.tensor.data, np.uint8).reshape(height, -1)[first:stop]
        values = dequantize(np.ascontiguousarray(data), GGMLQuantizationType[self.tensor.dtype])
        floats: Floats = values.astype(np.float32, copy=False).reshape(stop - first, *self.shape[1:])
        return floats
