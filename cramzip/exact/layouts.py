"""Models that were not made for exact arithmetic: which of them it can run, and how their floats become integers.

What kinds there are is data: a `Layout` for each. Knows nothing of files: a configuration is a mapping, and weights
come row by row from whoever reads them. Section 14 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from .arithmetic import TINY, WEIGHT_MOST, Floats
from .blocks import Blocks, shape_of_blocks
from .rotations import FRACTION, angles_of
from .weights import (
    BLOCKS_SEEN,
    MAX_THETA,
    MOST_LAYERS,
    MOST_SCALE,
    MOST_VOCABULARY,
    Layer,
    Matrix,
    Shape,
    Weights,
    check_reach,
    integer,
    number,
)

MOST_WIDTH, MOST_HIDDEN, MOST_HEAD_WIDTH, MOST_HEADS = 2**14, 2**17, 256, 2**16  # heads: numbers of all of them
MOST_BLOCK, MOST_KEPT = 512, 4
AT_ONCE = 2**22  # numbers that are made integers together
TWO_PI = 2 * Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
WITHOUT_EFFECT = ("rotary_emb.inv_freq",)  # ends of names of tensors that some files have


@dataclass(frozen=True)
class Layout:
    """What a kind of model has beside the plain layers of a Llama."""

    bias: bool = False  # of queries, keys and values
    head_norms: bool = False  # of queries and keys
    slides: str = ""  # the key that says whether `sliding_window` counts; empty: it has none
    head_width: int | None = None  # where the configuration says nothing; None: width / heads


LAYOUTS = {
    "llama": Layout(),
    "mistral": Layout(slides="sliding_window"),
    "qwen2": Layout(bias=True, slides="use_sliding_window"),
    "qwen3": Layout(head_norms=True, slides="use_sliding_window", head_width=128),
}


class Unsuited(ModelError):
    """Exact arithmetic cannot run this model; it may be computed in floats."""


class Tensor(Protocol):
    """Float weights of some file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, first: int, stop: int) -> Floats:
        """Some rows of a matrix, or some numbers of a vector, in float32."""


Tensors = Mapping[str, Tensor]


def shape_of(config: Mapping[str, Any], slowdowns: Sequence[Fraction] | None = None) -> Shape:
    """The shape that a configuration of transformers describes. Raises Unsuited for what exact arithmetic cannot run.

    `slowdowns`: what the angles of RoPE are divided by, where that does not follow from the configuration.
    """
    try:
        layout = _layout(config)
        return _bounded(_described(config, layout, slowdowns))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise Unsuited(f"the configuration is none that exact arithmetic understands ({error!r})") from error


def _layout(config: Mapping[str, Any]) -> Layout:
    kind = config.get("model_type")
    if kind not in LAYOUTS:
        raise Unsuited(f"a model of the kind {kind!r}; exact arithmetic runs {', '.join(LAYOUTS)}")
    rope = _rope(config)
    expected = {
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(config.get("attention_bias")), False),
        "mlp_bias": (bool(config.get("mlp_bias")), False),
        "partial_rotary_factor": (rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1)), 1),
        "quantization_config": (config.get("quantization_config"), None),
        "compression_config": (config.get("compression_config"), None),
    }
    for name, (found, needed) in expected.items():
        if found != needed:
            raise Unsuited(f"exact arithmetic needs {name} {needed!r}; this model has {found!r}")
    return LAYOUTS[kind]


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found


def _described(config: Mapping[str, Any], layout: Layout, slowdowns: Sequence[Fraction] | None) -> Shape:
    n_heads, rope = integer(config, "num_attention_heads"), _rope(config)
    width = integer(config, "hidden_size")
    head_width = integer(config, "head_dim", layout.head_width or width // n_heads)
    theta = Fraction(number("rope_theta", rope.get("rope_theta", config.get("rope_theta", 10000))))
    if not 1 <= theta <= MAX_THETA or not 2 <= head_width <= MOST_HEAD_WIDTH or head_width % 2:
        raise Unsuited(f"rope_theta {float(theta)} and heads of {head_width}: beyond what exact arithmetic runs")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "llama3":
        slowdowns = list(_llama_3(rope, angles_of(theta, head_width // 2)))
    elif kind != "default":
        raise Unsuited(f"exact arithmetic has no RoPE of the type {kind!r}")
    slides = bool(layout.slides and config.get(layout.slides) and config.get("sliding_window"))
    window = integer(config, "sliding_window") if slides else MOST_BLOCK * BLOCKS_SEEN
    reach = min(integer(config, "max_position_embeddings"), window)
    block = min(MOST_BLOCK, reach // BLOCKS_SEEN)
    return Shape(
        width=width,
        n_layers=integer(config, "num_hidden_layers"),
        n_heads=n_heads,
        n_key_heads=integer(config, "num_key_value_heads", n_heads),
        hidden=integer(config, "intermediate_size"),
        vocabulary=integer(config, "vocab_size"),
        theta=theta,
        epsilon=float(number("rms_norm_eps", config["rms_norm_eps"])),
        tied=bool(config.get("tie_word_embeddings")),
        start=_start(config),
        head_width=head_width,
        block=block,
        n_kept=0 if slides else min(MOST_KEPT, block),
        slowdowns=None if slowdowns is None else tuple(slowdowns),
        has_bias=layout.bias,
        has_head_norms=layout.head_norms,
        wide=True,
    )


def _start(config: Mapping[str, Any]) -> int:
    """The token that texts begin with, or else end with, or else 0."""
    for value in (config.get("bos_token_id"), config.get("eos_token_id")):
        token = value[0] if isinstance(value, list) and value else value
        if type(token) is int and 0 <= token < integer(config, "vocab_size"):
            return token
    return 0


def _llama_3(rope: Mapping[str, Any], angles: Sequence[int]) -> Iterator[Fraction]:
    """What the angles are divided by: slow turns by a factor, quick ones by 1, those between by something between."""
    low, high, factor = (Fraction(number(key, rope[key])) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    length = integer(rope, "original_max_position_embeddings")
    if not (0 < low < high and factor >= 1 and length > 0):
        raise Unsuited("the scaling of its RoPE makes no sense")
    for angle in angles:
        turns = length * Fraction(angle, 1 << FRACTION) / TWO_PI
        share = min(max((turns - low) / (high - low), Fraction(0)), Fraction(1))
        yield 1 / ((1 - share) / factor + share)


def _bounded(shape: Shape) -> Shape:
    limits = {
        "hidden_size": (shape.width, MOST_WIDTH),
        "intermediate_size": (shape.hidden, MOST_HIDDEN),
        "num_attention_heads x head_dim": (shape.n_heads * shape.head_width, MOST_HEADS),
        "num_hidden_layers": (shape.n_layers, MOST_LAYERS),
        "vocab_size": (shape.vocabulary, MOST_VOCABULARY),
        "positions / 3": (shape.block, MOST_BLOCK),
    }
    for name, (value, most) in limits.items():
        if not 1 <= value <= most:
            raise Unsuited(f"exact arithmetic needs {name} from 1 to {most}; this model has {value}")
    if shape.n_key_heads < 1 or shape.n_heads % shape.n_key_heads:
        raise Unsuited(f"{shape.n_heads} heads cannot share {shape.n_key_heads} key-value heads")
    if not 0 < shape.epsilon < 1:
        raise Unsuited(f"rms_norm_eps must lie between 0 and 1; this model has {shape.epsilon}")
    if shape.slowdowns and (len(shape.slowdowns) != shape.head_width // 2 or min(shape.slowdowns) < 1):
        raise Unsuited("the factors of its RoPE are too few, too many, or below 1")
    return shape


@dataclass(frozen=True)
class _Part:
    """Tensors that make one matrix or vector of a model: names, and the shape of each."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def is_vector(self) -> bool:
        return len(self.shapes[0]) == 1

    @property
    def height(self) -> int:
        """Numbers of a vector, rows of a matrix."""
        return sum(size[0] for size in self.shapes)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """The shape of a matrix in blocks."""
        return shape_of_blocks(self.height, self.shapes[0][1])


def _parts(shape: Shape) -> Iterator[tuple[str, _Part]]:
    """What a model consists of, each with a name of its own."""
    width, heads, keys = shape.width, shape.n_heads * shape.head_width, shape.n_key_heads * shape.head_width

    def one(name: str, *size: int) -> _Part:
        return _Part((f"{name}.weight",), (size,))

    yield "embedding", one("model.embed_tokens", shape.vocabulary, width)
    for index in range(shape.n_layers):
        prefix = f"model.layers.{index}."
        qkv = tuple(f"{prefix}self_attn.{name}_proj" for name in "qkv")
        yield f"{index} attention_norm", one(f"{prefix}input_layernorm", width)
        yield (
            f"{index} qkv",
            _Part(tuple(f"{name}.weight" for name in qkv), ((heads, width), (keys, width), (keys, width))),
        )
        if shape.has_bias:
            yield f"{index} bias", _Part(tuple(f"{name}.bias" for name in qkv), ((heads,), (keys,), (keys,)))
        if shape.has_head_norms:
            yield f"{index} query_norm", one(f"{prefix}self_attn.q_norm", shape.head_width)
            yield f"{index} key_norm", one(f"{prefix}self_attn.k_norm", shape.head_width)
        yield f"{index} out", one(f"{prefix}self_attn.o_proj", width, heads)
        yield f"{index} mlp_norm", one(f"{prefix}post_attention_layernorm", width)
        gate_up = (f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight")
        yield f"{index} gate_up", _Part(gate_up, ((shape.hidden, width),) * 2)
        yield f"{index} down", one(f"{prefix}mlp.down_proj", width, shape.hidden)
    yield "norm", one("model.norm", width)
    if not shape.tied:
        yield "head", one("lm_head", shape.vocabulary, width)


def n_parameters(shape: Shape) -> int:
    """Weights in all."""
    return sum(prod(size) for _, part in _parts(shape) for size in part.shapes)


def check_tensors(shape: Shape, tensors: Tensors) -> None:
    """Raise Unsuited unless these are the tensors of a model of this shape, and no others."""
    left = {name for name in tensors if not name.endswith(WITHOUT_EFFECT)}
    for _, part in _parts(shape):
        for name, size in zip(part.names, part.shapes, strict=True):
            if name not in tensors or tuple(tensors[name].shape) != size:
                found = f"one of {tensors[name].shape}" if name in tensors else "none"
                raise Unsuited(f"exact arithmetic needs a tensor {name} of {size}; there is {found}")
            left.discard(name)
    if shape.tied:
        left.discard("lm_head.weight")
    if left:
        raise Unsuited(f"the tensor {min(left)} has no place in this model")


def read(shape: Shape, tensors: Tensors, progress: Callable[[int], object] = lambda _: None) -> Weights:
    """The model as integers; `progress` is told how many more weights are done. Raises ModelError, and Unsuited."""
    check_tensors(shape, tensors)
    made = {}
    for name, part in _parts(shape):
        sources = [tensors[one] for one in part.names]
        made[name] = _vector(part, sources) if part.is_vector else _matrix(part, sources, progress)
    return _assembled(shape, made)


def _assembled(shape: Shape, made: Mapping[str, Any]) -> Weights:
    layers = []
    for index in range(shape.n_layers):
        prefix = f"{index} "
        own = {name.removeprefix(prefix): value for name, value in made.items() if name.startswith(prefix)}
        layers.append(Layer(**own))
    embedding = made["embedding"]
    weights = Weights(shape, embedding, tuple(layers), made["norm"], made.get("head", embedding), None)
    check_reach(weights)
    return weights


def pack(weights: Weights) -> Iterator[npt.NDArray[Any]]:
    """The arrays that a model of `read` consists of, as `unpack` takes them one after the other."""
    for name, part in _parts(weights.shape):
        *layer, kind = name.split()
        value = getattr(weights.layers[int(layer[0])] if layer else weights, kind)
        scales = (value if part.is_vector else value.scales).astype("<f4", copy=False)
        yield from [scales] if part.is_vector else [scales, value.blocks]


def unpack(shape: Shape, data: memoryview) -> Weights:
    """The model of `pack`, whose arrays stay in `data`. Raises ValueError for another number of bytes."""
    if len(data) != packed_size(shape):
        raise ValueError(f"{len(data)} bytes; expected {packed_size(shape)}")
    made: dict[str, Any] = {}
    place = 0

    def taken(size: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        nonlocal place
        array = np.frombuffer(data, dtype, prod(size), place).reshape(size)
        place += array.nbytes
        return array

    for name, part in _parts(shape):
        scales = taken((part.height,), "<f4")
        made[name] = scales if part.is_vector else Blocks(taken(part.blocks, "i1"), scales)
    return _assembled(shape, made)


def packed_size(shape: Shape) -> int:
    """Bytes of all arrays of `pack`."""
    return sum(4 * part.height + (0 if part.is_vector else prod(part.blocks)) for _, part in _parts(shape))


def _vector(part: _Part, sources: Sequence[Tensor]) -> Any:
    values = np.concatenate([source.rows(0, source.shape[0]) for source in sources])
    if not (np.abs(values) <= MOST_SCALE).all():
        raise ModelError(f"weights: {part.names[0]} has values that are not finite or beyond {MOST_SCALE:.0f}")
    return values


def _matrix(part: _Part, sources: Sequence[Tensor], progress: Callable[[int], object]) -> Any:
    height, width = part.height, part.shapes[0][1]
    integers, scales = np.empty((height, width), np.int8), np.empty(height, np.float32)
    step, place = max(1, AT_ONCE // width), 0
    for name, source in zip(part.names, sources, strict=True):
        for first in range(0, source.shape[0], step):
            rows = source.rows(first, min(first + step, source.shape[0]))
            end = place + len(rows)
            integers[place:end], scales[place:end] = quantised(name, rows)
            progress(rows.size)
            place = end
    return Blocks.of(Matrix(integers, scales))


def quantised(name: str, rows: Floats) -> tuple[Floats, Floats]:
    """Rows as integers of at most 127, and what one of them stands for in each row. Raises ModelError."""
    largest = np.abs(rows).max(axis=1)
    if not (largest <= MOST_SCALE * WEIGHT_MOST).all():
        raise ModelError(f"weights: {name} has values that are not finite or beyond {MOST_SCALE * WEIGHT_MOST:.0f}")
    is_zero = largest < TINY
    scales = np.where(is_zero, np.float32(1), largest / np.float32(WEIGHT_MOST))
    return np.rint(rows / scales[:, None]), scales
