"""A model folder as exact arithmetic needs it: `config.json`, and int8 weights in `exact.safetensors`.

The layout of safetensors, read strictly: the length of a header, the header in JSON, then the tensors without a gap.
Bounds are checked here, once, so that no sum in `llama` can leave the integers that its type holds exactly.
Section 3 of formats/exact.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from . import WEIGHTS_NAME
from .arithmetic import STEPS, WEIGHT_MOST, Floats, levels
from .rotations import HALF

HEAD_WIDTH = 2 * HALF  # of a model with integer weights
BLOCK, BLOCKS_SEEN = 256, 3  # positions that are forgotten together; how many such blocks a position sees
MOST_TERMS = 1040  # the most products in a sum: with more, activations would have fewer levels than weights
MOST_LAYERS, MOST_WIDTH, MOST_VOCABULARY = 256, MOST_TERMS, 2**18
MOST_SCALE = 2.0**16  # of scales and of weights of norms
MOST_INDEX = 2.0**62  # what may be converted to an index, before it is cut off at the end of a table
MOST_ADAPTED = 2**18  # how many times as long a state can be in the end, if an adapter learns at every position
MOST_ADAPTED_WIDE = 2**22  # the same, for the widths that layouts allow
MAX_THETA = 2**40
_HEADER_LIMIT = 2**20
_DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype("i1"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """What a stack of Llama layers looks like. `wide`: one that was not made for exact arithmetic, see `layouts`."""

    width: int  # D
    n_layers: int
    n_heads: int  # H, of queries
    n_key_heads: int  # G, of keys and values; each serves H / G heads
    hidden: int  # width inside the MLP
    vocabulary: int  # V
    theta: int | Fraction
    epsilon: float
    tied: bool  # whether the head's weights are those of the embedding
    start: int  # the token that stands before a text
    head_width: int = HEAD_WIDTH
    block: int = BLOCK  # positions that are forgotten together
    n_kept: int = 0  # of the first positions, that are never forgotten
    slowdowns: tuple[Fraction, ...] | None = None  # what each angle of RoPE is divided by
    has_bias: bool = False  # of queries, keys and values
    has_head_norms: bool = False  # of queries and keys
    wide: bool = False

    @property
    def n_terms(self) -> set[int]:
        """How many products the sums of linear layers have."""
        return {self.width, self.hidden, self.n_heads * self.head_width}


@dataclass(frozen=True)
class Matrix:
    """Weights (N, K) as integers of at most 127, and what one of them stands for in each row (N,)."""

    integers: npt.NDArray[np.int8]
    scales: Floats

    def rows(self, places: npt.NDArray[np.int64]) -> Floats:
        """Some rows (..., K), as the floats that they stand for."""
        rows: Floats = self.integers[places] * self.scales[places][..., None]
        return rows


@dataclass(frozen=True)
class Layer:
    """One layer; q, k, v and gate, up are rows of one matrix, in this order."""

    attention_norm: Floats
    qkv: Matrix
    out: Matrix
    mlp_norm: Floats
    gate_up: Matrix
    down: Matrix
    bias: Floats | None = None  # of q, k and v
    query_norm: Floats | None = None  # of the numbers in a head
    key_norm: Floats | None = None


@dataclass(frozen=True)
class Weights:
    shape: Shape
    embedding: Matrix
    layers: tuple[Layer, ...]
    norm: Floats
    head: Matrix
    probe_hash: str | None  # of the logits that the model has to give, see `probe`

    @property
    def n_parameters(self) -> int:
        """Weights in all; those that the head shares with the embedding count once."""
        matrices = [self.embedding] if self.head is self.embedding else [self.embedding, self.head]
        vectors = [self.norm]
        for layer in self.layers:
            matrices += [layer.qkv, layer.out, layer.gate_up, layer.down]
            vectors += [layer.attention_norm, layer.mlp_norm]
            vectors += [one for one in (layer.bias, layer.query_norm, layer.key_norm) if one is not None]
        return sum(matrix.integers.size for matrix in matrices) + sum(vector.size for vector in vectors)


def read_model(folder: Path) -> Weights:
    """The model in a folder. Raises ModelError if it is none that exact arithmetic can run."""
    shape = read_shape(folder)
    try:
        data = (folder / WEIGHTS_NAME).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder / WEIGHTS_NAME} cannot be read: {error.strerror}") from error
    tensors, notes = parse(data)
    if not isinstance(notes, dict):
        raise ModelError("weights: __metadata__ is no object")
    return assemble(shape, tensors, notes.get("probe"))


def read_shape(folder: Path) -> Shape:
    """The shape that `config.json` describes. Raises ModelError for what is no plain Llama with heads of 64."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except OSError as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON: {error}") from error
    try:
        return _shape(config)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{folder / 'config.json'}: no description of a Llama model ({error!r})") from error


def _shape(config: dict[str, Any]) -> Shape:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    n_heads, width = integer(config, "num_attention_heads"), integer(config, "hidden_size")
    head_width = integer(config, "head_dim", width // max(1, n_heads))
    theta = number("rope_theta", rope.get("rope_theta", config.get("rope_theta", 10000)))
    expected = {
        "model_type": (config.get("model_type"), "llama"),
        "hidden_act": (config.get("hidden_act"), "silu"),
        "attention_bias": (bool(config.get("attention_bias")), False),
        "mlp_bias": (bool(config.get("mlp_bias")), False),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "head_dim": (head_width, HEAD_WIDTH),
        "rope_theta": (theta, int(theta)),
    }
    for name, (found, needed) in expected.items():
        if found != needed:
            raise ModelError(f"exact arithmetic needs a Llama with {name} {needed!r}; this model has {found!r}")
    start = config.get("bos_token_id")
    return _bounded(
        Shape(
            width=width,
            n_layers=integer(config, "num_hidden_layers"),
            n_heads=n_heads,
            n_key_heads=integer(config, "num_key_value_heads", n_heads),
            hidden=integer(config, "intermediate_size"),
            vocabulary=integer(config, "vocab_size"),
            theta=int(theta),
            epsilon=float(number("rms_norm_eps", config["rms_norm_eps"])),
            tied=bool(config.get("tie_word_embeddings")),
            start=start if type(start) is int else 0,
        )
    )


def integer(config: Mapping[str, Any], name: str, usual: int | None = None) -> int:
    """The integer of this name, or the `usual` one where it is missing, null or 0. Raises TypeError for anything else.

    A word or a fraction is not what its writer meant, whatever `int` makes of it.
    """
    found = config[name] if usual is None else config.get(name)
    if found is None and usual is not None:
        return usual
    if type(found) is not int:
        raise TypeError(f"{name}: expected an integer, found {found!r}")
    return found or usual or 0


def number(name: str, found: Any) -> int | float:
    """The same of a number that need not be an integer."""
    if type(found) not in (int, float):
        raise TypeError(f"{name}: expected a number, found {found!r}")
    value: int | float = found
    return value


def _bounded(shape: Shape) -> Shape:
    limits = {
        "hidden_size": (shape.width, MOST_WIDTH),
        "intermediate_size": (shape.hidden, MOST_TERMS),
        "num_attention_heads x 64": (shape.n_heads * HEAD_WIDTH, MOST_TERMS),
        "num_hidden_layers": (shape.n_layers, MOST_LAYERS),
        "vocab_size": (shape.vocabulary, MOST_VOCABULARY),
        "rope_theta": (shape.theta, MAX_THETA),
    }
    for name, (value, most) in limits.items():
        if not 1 <= value <= most:
            raise ModelError(f"exact arithmetic needs {name} from 1 to {most}; this model has {value}")
    if shape.n_key_heads < 1 or shape.n_heads % shape.n_key_heads:
        raise ModelError(f"{shape.n_heads} heads cannot share {shape.n_key_heads} key-value heads")
    if not 0 <= shape.start < shape.vocabulary:
        raise ModelError(f"the start token {shape.start} is not in the vocabulary of {shape.vocabulary}")
    if not 0 < shape.epsilon < 1:
        raise ModelError(f"rms_norm_eps must lie between 0 and 1; this model has {shape.epsilon}")
    return shape


def parse(data: bytes) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Tensors and notes of a safetensors file, which must have neither gaps nor bytes left over."""
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(_HEADER_LIMIT, len(data) - 8):
        raise ModelError(f"weights: a header of {size} bytes in a file of {len(data)}")
    body = memoryview(data)[8 + size :]
    tensors, end = {}, 0
    try:
        header = json.loads(data[8 : 8 + size])
        notes = header.pop("__metadata__", {})
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, (begin, stop) = _DTYPES[entry["dtype"]], entry["data_offsets"]
            if begin != end or stop > len(body):
                raise ModelError(f"weights: {name} does not begin where the tensor before it ends, or is cut off")
            if any(type(n) is not int or n < 0 for n in entry["shape"]):
                raise ModelError(f"weights: {name} has the shape {entry['shape']}")
            tensors[name] = np.frombuffer(body[begin:stop], dtype).reshape(entry["shape"])
            end = stop
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"weights: the header is damaged ({error!r})") from error
    if end != len(body):
        raise ModelError(f"weights: {len(body) - end} bytes left over")
    return tensors, notes


def serialise(tensors: Tensors, notes: Mapping[str, str]) -> bytes:
    """The inverse of `parse`; the same bytes for the same tensors."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(notes.items()))}
    body, offset = [], 0
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).tobytes()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        body.append(raw)
        offset += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(body)


def quantise(weights: Floats) -> Matrix:
    """Weights (N, K) as integers of at most 127, one scale a row; each step is rounded in float32."""
    largest = np.abs(weights).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(WEIGHT_MOST), np.float32(1))
    return Matrix(np.rint(weights / scales[:, None]).astype(np.int8), scales)


def assemble(shape: Shape, tensors: Tensors, probe_hash: str | None = None) -> Weights:
    """A model of named tensors, as transformers names them; a matrix has its scales in NAME.scale."""
    left = dict(tensors)

    def vector(name: str, size: int) -> Floats:
        return _finite(name, _taken(left, name, (size,), np.float32))

    def matrix(names: tuple[str, ...], heights: tuple[int, ...], n_terms: int) -> Matrix:
        parts = [_taken(left, f"{name}.weight", (n, n_terms), np.int8) for name, n in zip(names, heights, strict=True)]
        scales = [vector(f"{name}.scale", n) for name, n in zip(names, heights, strict=True)]
        if any((part == -128).any() for part in parts):
            raise ModelError(f"weights: {names[0]} and its neighbours have a weight of -128; at most 127 is exact")
        return Matrix(np.concatenate(parts), np.concatenate(scales))

    def layer(index: int) -> Layer:
        prefix, heads, keys = f"model.layers.{index}.", shape.n_heads * HEAD_WIDTH, shape.n_key_heads * HEAD_WIDTH
        qkv = tuple(f"{prefix}self_attn.{name}_proj" for name in "qkv")
        return Layer(
            attention_norm=vector(f"{prefix}input_layernorm.weight", shape.width),
            qkv=matrix(qkv, (heads, keys, keys), shape.width),
            out=matrix((f"{prefix}self_attn.o_proj",), (shape.width,), heads),
            mlp_norm=vector(f"{prefix}post_attention_layernorm.weight", shape.width),
            gate_up=matrix((f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj"), (shape.hidden,) * 2, shape.width),
            down=matrix((f"{prefix}mlp.down_proj",), (shape.width,), shape.hidden),
        )

    embedding = matrix(("model.embed_tokens",), (shape.vocabulary,), shape.width)
    layers = tuple(layer(index) for index in range(shape.n_layers))
    norm = vector("model.norm.weight", shape.width)
    head = embedding if shape.tied else matrix(("lm_head",), (shape.vocabulary,), shape.width)
    if left:
        raise ModelError(f"weights: {next(iter(left))} has no place in this model")
    found = Weights(shape, embedding, layers, norm, head, probe_hash)
    check_reach(found)
    return found


def _taken(left: dict[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], dtype: type) -> npt.NDArray[Any]:
    tensor = left.pop(name, None)
    if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
        found = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise ModelError(f"weights: {name} should be {np.dtype(dtype)} {shape}; found {found}")
    return tensor


def _finite(name: str, values: Floats) -> Floats:
    if not (np.abs(values) <= MOST_SCALE).all():
        raise ModelError(f"weights: {name} has values that are not finite or beyond {MOST_SCALE:.0f}")
    return values


def check_reach(weights: Weights) -> None:
    """Raise ModelError if a score, gate or logit could be too large to be converted to an index."""

    def reach(matrix: Matrix, norm: Floats) -> float:  # Cauchy and Schwarz: a normalised row is no longer than sqrt(D)
        return 2 * WEIGHT_MOST * weights.shape.width * float(np.abs(matrix.scales).max()) * float(np.abs(norm).max())

    found = reach(weights.head, weights.norm) * STEPS * (MOST_ADAPTED_WIDE if weights.shape.wide else MOST_ADAPTED)
    head_width = weights.shape.head_width
    for layer in weights.layers:
        qkv = reach(layer.qkv, layer.attention_norm)
        if layer.bias is not None:
            qkv += float(np.abs(layer.bias).max())
        if layer.query_norm is not None and layer.key_norm is not None:
            norms = np.abs(layer.query_norm).max(), np.abs(layer.key_norm).max()
            qkv = 2 * head_width**0.5 * float(max(norms))
        found = max(found, qkv * qkv * head_width * STEPS, reach(layer.gate_up, layer.mlp_norm) * STEPS)
    if not found * 4 < MOST_INDEX:
        raise ModelError(f"the model's numbers are too large for exact arithmetic: {found:.3g}")


assert levels(MOST_TERMS) >= WEIGHT_MOST
