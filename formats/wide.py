"""The model side of reader.py for models that were not made for exact arithmetic: section 14 of exact.md.

Written from exact.md alone, to be read beside it, as exact.py is. Sums of integers are sums of integers here.
"""

import hashlib
import math
from decimal import Decimal, localcontext
from functools import cache

import exact
import numpy as np
from exact import MOST_NUMBER, PI, TINY, Matrix, Sequence, ints, power, sigmoids
from llama import Unsupported, to_float32

f32, f64 = np.float32, np.float64
KINDS = {  # 14.1: biases, norms of heads, what says that the window counts, width of heads where nothing says it
    "llama": (False, False, None, None),
    "mistral": (False, False, "sliding_window", None),
    "qwen2": (True, False, "use_sliding_window", None),
    "qwen3": (False, True, "use_sliding_window", 128),
}
A, A_QUERY, A_VALUE, A_NORM = 32639, 8191, 480, 65535
FLOATS = ("F32", "F16", "BF16")


def require(truth, message):
    if not truth:
        raise Unsupported(f"no model for exact arithmetic: {message}")


def quantised(weights):
    """14.2, of a matrix of floats."""
    largest = np.abs(weights).max(1)
    require((largest <= MOST_NUMBER * 127).all(), "a weight is too large, or no number")
    scales = np.where(largest < TINY, f32(1), largest / f32(127))
    return Matrix(np.rint(weights / scales[:, None]).astype(np.int64), scales)


class Model(exact.Model):
    """Weights and shape; `tensors` as `llama.read_tensors` gives them."""

    most_norm = A_NORM

    def __init__(self, config, tensors):
        self.read_shape(config)
        left = {name: tensor for name, tensor in tensors if not name.endswith("rotary_emb.inv_freq")}

        def take(name, *shape):
            tensor = left.pop(name, None)
            require(tensor and tuple(tensor["shape"]) == shape and tensor["dtype"] in FLOATS, f"{name} is wrong")
            return to_float32(tensor)

        def vector(name, *shape):
            found = take(name, *shape)
            require((np.abs(found) <= MOST_NUMBER).all(), f"{name} has a value beyond 2^16, or none")
            return found

        def matrix(name, rows, columns):
            return quantised(take(f"{name}.weight", rows, columns))

        def layer(name):
            heads, keys = self.head_width * self.heads, self.head_width * self.key_heads
            found = {"q": (heads, self.width), "k": (keys, self.width), "v": (keys, self.width)}
            found = {f"{key}_proj": matrix(f"{name}.self_attn.{key}_proj", *size) for key, size in found.items()}
            for key, rows in (("q", heads), ("k", keys), ("v", keys)):
                found[f"{key}_bias"] = vector(f"{name}.self_attn.{key}_proj.bias", rows) if self.has_bias else None
            for key in ("q_norm", "k_norm"):
                norm = f"{name}.self_attn.{key}.weight"
                found[key] = vector(norm, self.head_width) if self.has_head_norms else None
            found["o_proj"] = matrix(f"{name}.self_attn.o_proj", self.width, heads)
            for key in ("input_layernorm", "post_attention_layernorm"):
                found[key] = vector(f"{name}.{key}.weight", self.width)
            for key in ("gate_proj", "up_proj"):
                found[key] = matrix(f"{name}.mlp.{key}", self.hidden, self.width)
            return found | {"down_proj": matrix(f"{name}.mlp.down_proj", self.width, self.hidden)}

        self.embedding = matrix("model.embed_tokens", self.vocabulary_size, self.width)
        self.layers = [layer(f"model.layers.{i}") for i in range(self.n_layers)]
        self.last_norm = vector("model.norm.weight", self.width)
        left = {name: tensor for name, tensor in left.items() if name != "lm_head.weight" or not self.tied}
        self.head = self.embedding if self.tied else matrix("lm_head", self.vocabulary_size, self.width)
        require(not left, f"{[*left][:1]} has no place in it")
        self.check_reach()

    def read_shape(self, config):
        kind = config.get("model_type")
        require(kind in KINDS, f"model_type is {kind}")
        self.has_bias, self.has_head_norms, slides, head_width = KINDS[kind]
        exact.check_numbers(config, "max_position_embeddings")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        self.width, self.hidden = config["hidden_size"], config["intermediate_size"]
        self.n_layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.key_heads = config.get("num_key_value_heads") or self.heads
        self.head_width = config.get("head_dim") or head_width or self.width // self.heads
        self.vocabulary_size, self.epsilon = config["vocab_size"], config["rms_norm_eps"]
        self.tied, self.start = bool(config.get("tie_word_embeddings")), 0
        for value in (config.get("eos_token_id"), config.get("bos_token_id")):
            token = value[0] if value and type(value) is list else value
            if type(token) is int and 0 <= token < self.vocabulary_size:
                self.start = token
        self.theta = Decimal(rope.get("rope_theta", config.get("rope_theta", 10000)))
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        slides = bool(slides and config.get(slides) and config.get("sliding_window"))
        reach = min(config["max_position_embeddings"], config["sliding_window"] if slides else 1536)
        self.block = min(512, reach // 3)
        self.kept = 0 if slides else min(4, self.block)
        for name, truth in {
            "hidden_act": config.get("hidden_act", "silu") == "silu",
            "biases": not config.get("attention_bias") and not config.get("mlp_bias"),
            "quantised": not config.get("quantization_config") and not config.get("compression_config"),
            "partial_rotary_factor": rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1)) == 1,
            "heads": self.key_heads >= 1 and self.heads % self.key_heads == 0,
            "head_dim": 2 <= self.head_width <= 256 and self.head_width % 2 == 0,
            "RoPE": rope_type in ("default", "llama3"),
            "theta": 1 <= self.theta <= 2**40,
            "widths": 1 <= self.width <= 2**14 and 1 <= self.hidden <= 2**17,
            "all heads": self.heads * self.head_width <= 2**16,
            "num_hidden_layers": 1 <= self.n_layers <= 256,
            "vocab_size": 1 <= self.vocabulary_size <= 2**18,
            "positions": self.block >= 1,
            "rms_norm_eps": 0 < self.epsilon < 1,
        }.items():
            require(truth, f"{name} in config.json")
        with localcontext(prec=50):
            half = self.head_width // 2
            self.angles = [self.theta ** (Decimal(-i) / half) for i in range(half)]
            if rope_type == "llama3":
                self.angles = [slowed(angle, rope) for angle in self.angles]
        self.most_key = min(4095, (2**24 - 1) // (64 * self.head_width))

    def check_reach(self):
        def reach(norm, *matrices):
            scale = max(float(np.abs(matrix.scales).max()) for matrix in matrices)
            return 254 * self.width * scale * float(np.abs(norm).max())

        reaches = [2**32 * reach(self.last_norm, self.head)]
        for layer in self.layers:
            qkv = reach(layer["input_layernorm"], layer["q_proj"], layer["k_proj"], layer["v_proj"])
            if self.has_bias:
                qkv += max(float(np.abs(layer[f"{key}_bias"]).max()) for key in "qkv")
            if self.has_head_norms:
                qkv = 2 * math.sqrt(self.head_width)
                qkv *= max(float(np.abs(layer[key]).max()) for key in ("q_norm", "k_norm"))
            reaches.append(2**10 * reach(layer["post_attention_layernorm"], layer["gate_proj"], layer["up_proj"]))
            reaches.append(2**10 * self.head_width * qkv**2)
        require(max(reaches) < 2**62, "its numbers are too large")

    @property
    def most_state(self):
        return A

    def most_slope(self, n_lanes):
        return A

    def sequence(self, positions):
        return WideSequence(self, positions)

    @cache  # noqa: B019 (a model lives as long as the program)
    def rotation(self, position):
        """C[p] and Z[p]."""
        with localcontext(prec=50):
            angles = [float(position * angle % (2 * PI)) for angle in self.angles]
        turns = (np.array([round(f(angle) * 2**14) for angle in angles], f32) for f in (math.cos, math.sin))
        return tuple(turn / f32(2**14) for turn in turns)

    def turned(self, y, position):
        c, z = self.rotation(position)
        left, right = np.split(y, 2)
        return np.concatenate([left * c - right * z, right * c + left * z])


def slowed(angle, rope):
    """14.1: an angle of RoPE as Llama 3 has it."""
    low, high, factor = (Decimal(rope[key]) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    require(0 < low < high and factor >= 1, "the scaling of RoPE")
    turns = rope["original_max_position_embeddings"] * angle / (2 * PI)
    s = min(max((turns - low) / (high - low), Decimal(0)), Decimal(1))
    return angle * ((1 - s) / factor + s)


class WideSequence(Sequence):
    """One sequence on its way through the model."""

    def feed(self, x):
        model = self.model
        for layer, past in zip(model.layers, self.pasts, strict=True):
            q, t = model.norm(x, layer["input_layernorm"])
            z = self.attention(layer, q, t, past)
            q, u = ints(z, A)
            x = x + layer["o_proj"].lin(q) * u
            q, t = model.norm(x, layer["post_attention_layernorm"])
            g, h = layer["gate_proj"].lin(q), layer["up_proj"].lin(q)
            j = np.clip(np.trunc(g * (t * f32(128)) + f32(2048.5)).astype(np.int64), 0, 4096)
            q, u = ints(sigmoids()[j] * g * h, A)
            x = x + layer["down_proj"].lin(q) * (u * (t * t))
        self.position += 1
        return x

    def heads_of(self, layer, key, q, t):
        """14.3: the rows of all heads, and the t of each."""
        model = self.model
        y = layer[f"{key}_proj"].lin(q)
        if model.has_bias:
            y, t = y * t + layer[f"{key}_bias"], f32(1)
        rows = y.reshape(-1, model.head_width)
        if not model.has_head_norms or key == "v":
            return [(row, t) for row in rows]
        return [self.normed(row, t, layer[f"{key}_norm"]) for row in rows]

    def normed(self, y, t, w):
        a, m = ints(y, A_NORM)
        wide = f64(m) * f64(t)
        i = f32(1 / np.sqrt(f64(int((a * a).sum())) / f64(len(y)) * (wide * wide) + f64(self.model.epsilon)))
        return y * w, t * i

    def seen(self, p):
        """What position p sees."""
        m = self.entry
        forgets = p >= m + 64
        kept = [0, m + 1, m + 2, m + 3] if forgets else range(4)
        places = [*kept[: self.model.kept], *range(max(0, self.model.block * (p // self.model.block - 2)), p + 1)]
        return np.unique([place for place in places if place <= p and not (forgets and 1 <= place <= m)])

    def attention(self, layer, q, t, past):
        model, p = self.model, self.position
        for i, (key, own) in enumerate(self.heads_of(layer, "k", q, t)):
            past.keys[i, p], u = ints(model.turned(key, p), model.most_key)
            past.l[i, p] = u * own
        for i, (value, own) in enumerate(self.heads_of(layer, "v", q, t)):
            past.values[i, p], u = ints(value, A_VALUE)
            past.n[i, p] = u * own
        seen = self.seen(p)
        c, z = f32(f64(256 * 1.4426950408889634) / np.sqrt(f64(model.head_width))), []
        for h, (query, own) in enumerate(self.heads_of(layer, "q", q, t)):
            i = h * model.key_heads // model.heads
            query, u = ints(model.turned(query, p), A_QUERY)
            a = max(u * own * c, TINY)
            d = (past.keys[i, seen] @ query).astype(f32) * past.l[i, seen]
            w = power((d.max() - d) * a)
            total, n = f64(int(w.astype(np.int64).sum())), past.n[i, seen]
            largest = max(n.max(), TINY)
            f = np.rint(w * n * f32(2.0**15 / (total * f64(largest)))).astype(np.int64)
            z.append((f @ past.values[i, seen]).astype(f32) * (largest * f32(2.0**-15)))
        return np.concatenate(z)


def probe(model):
    """14.5: SHA-256 of the logits."""
    sequence, digest = model.sequence(16), hashlib.sha256()
    for token in [model.start, *(n * n * 40503 % model.vocabulary_size for n in range(1, 16))]:
        y, t = model.logits(sequence.feed(model.embed(token)))
        digest.update((y * t + f32(0)).astype("<f4").tobytes())
    return digest.digest()
