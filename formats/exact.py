"""The model side of reader.py for exact files: the arithmetic and the lanes of exact.md, in plain NumPy.

Written from exact.md alone, to be read beside it: "section" always means a section of exact.md, and names are those
used there. Sums of integers are sums of integers here (int64), so nothing depends on what floats hold exactly. One
sequence is computed at a time, position by position.
"""

import hashlib
import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
from corrections import Impossible
from llama import Unsupported

f32, f64 = np.float32, np.float64
TINY = f32(2.0**-100)
BLOCK = 256  # positions that are forgotten together
MOST_POSITIONS = 2**16
MOST_NUMBER = 2.0**16  # of scales, weights of norms, and vectors
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def ints(x, most):
    """Section 1: integers, and what one of them stands for."""
    m = max(np.abs(x).max(), TINY)
    return np.rint(x * (f32(most) / m)).astype(np.int64), m / f32(most)


def levels(n_terms):
    """A(K) of section 1."""
    return min((2**24 - 1) // (127 * n_terms), 16383)


# ---------------------------------------------------------------- tables (section 2)


@cache
def powers():
    return np.array([*(round(2**24 * 2 ** (-k / 256)) for k in range(6400)), 0], f32)


@cache
def sigmoids():
    upper = [round(2**24 / (1 + math.exp(-k / 128))) for k in range(2049)]
    return np.array([2**24 - value for value in upper[:0:-1]] + upper, f32) / f32(2**24)


@cache
def stretches():
    values = [round(2**16 * math.log((2 * k + 1) / (8191 - 2 * k))) for k in range(4096)]
    return np.array([*values, values[-1]], f32) / f32(2**16)


@cache
def frequencies(theta):
    with localcontext(prec=50):
        return [Decimal(theta) ** (Decimal(-i) / 32) for i in range(32)]


@cache
def rotation(position, theta):
    """C[p] and Z[p]."""
    with localcontext(prec=50):
        angles = [float(position * frequency % (2 * PI)) for frequency in frequencies(theta)]
    return tuple(
        np.array([round(f(angle) * 2**14) for angle in angles], f32) / f32(2**14) for f in (math.cos, math.sin)
    )


def power(index):
    return powers()[np.minimum(index.astype(np.int64), 6400)]


# ---------------------------------------------------------------- the model (section 3)


def require(truth, message):
    if not truth:
        raise Unsupported(f"no model for exact arithmetic: {message}")


def arrays(tensors):
    """The tensors of exact.safetensors, as `llama.read_tensors` gives them, as {name: array}."""
    kinds = {"I8": "i1", "F32": "<f4"}
    for name, tensor in tensors:
        require(tensor["dtype"] in kinds, f"{name} is {tensor['dtype']}")
    return {name: np.frombuffer(t["data"], kinds[t["dtype"]]).reshape(t["shape"]) for name, t in tensors}


def check_numbers(config, *more):
    """What is to be an integer is one, and what is to be a number."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", *more):
        require(type(config.get(name)) is int, f"{name} in config.json")
    for name in ("num_key_value_heads", "head_dim"):
        require(config.get(name) is None or type(config[name]) is int, f"{name} in config.json")
    for value in (config.get("rms_norm_eps"), rope.get("rope_theta", config.get("rope_theta", 10000))):
        require(type(value) in (int, float) and math.isfinite(value), "a number in config.json")


@dataclass(frozen=True)
class Matrix:
    integers: np.ndarray  # (N, K)
    scales: np.ndarray  # (N,)

    def lin(self, q):
        """Section 4."""
        return (self.integers @ q).astype(f32) * self.scales


@dataclass(frozen=True)
class Layer:
    input_layernorm: np.ndarray
    q_proj: Matrix
    k_proj: Matrix
    v_proj: Matrix
    o_proj: Matrix
    post_attention_layernorm: np.ndarray
    gate_proj: Matrix
    up_proj: Matrix
    down_proj: Matrix


class Model:
    """Weights and shape; `config` is the object in config.json, `tensors` {name: array}, int8 and float32."""

    head_width = 64
    most_norm = 2047  # of the integers whose squares a norm adds up

    def __init__(self, config, tensors):
        self.read_shape(config)
        left = dict(tensors)

        def take(name, dtype, *shape):
            found = left.pop(name, None)
            require(found is not None and found.shape == shape and found.dtype == dtype, f"{name} is wrong or missing")
            if dtype == f32:
                require((np.abs(found) <= MOST_NUMBER).all(), f"{name} has a value beyond 2^16, or none")
            return found

        def matrix(name, rows, columns):
            integers = take(f"{name}.weight", np.int8, rows, columns).astype(np.int64)
            require((integers >= -127).all(), f"{name} has the weight -128")
            return Matrix(integers, take(f"{name}.scale", f32, rows))

        def layer(prefix):
            heads, keys = 64 * self.heads, 64 * self.key_heads
            return Layer(
                take(f"{prefix}.input_layernorm.weight", f32, self.width),
                matrix(f"{prefix}.self_attn.q_proj", heads, self.width),
                matrix(f"{prefix}.self_attn.k_proj", keys, self.width),
                matrix(f"{prefix}.self_attn.v_proj", keys, self.width),
                matrix(f"{prefix}.self_attn.o_proj", self.width, heads),
                take(f"{prefix}.post_attention_layernorm.weight", f32, self.width),
                matrix(f"{prefix}.mlp.gate_proj", self.hidden, self.width),
                matrix(f"{prefix}.mlp.up_proj", self.hidden, self.width),
                matrix(f"{prefix}.mlp.down_proj", self.width, self.hidden),
            )

        self.embedding = matrix("model.embed_tokens", self.vocabulary_size, self.width)
        self.layers = [layer(f"model.layers.{i}") for i in range(self.n_layers)]
        self.last_norm = take("model.norm.weight", f32, self.width)
        self.head = self.embedding if self.tied else matrix("lm_head", self.vocabulary_size, self.width)
        require(not left, f"{[*left][:1]} has no place in it")
        self.check_reach()

    def read_shape(self, config):
        check_numbers(config)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = rope.get("rope_theta", config.get("rope_theta", 10000))
        self.width, self.hidden = config["hidden_size"], config["intermediate_size"]
        self.n_layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.key_heads = config.get("num_key_value_heads") or self.heads
        self.vocabulary_size, self.epsilon = config["vocab_size"], config["rms_norm_eps"]
        self.tied, start = bool(config.get("tie_word_embeddings")), config.get("bos_token_id")
        self.start = start if type(start) is int else 0
        self.theta = int(theta)
        head_width = config.get("head_dim") or self.width // self.heads
        for name, truth in {
            "model_type": config.get("model_type") == "llama",
            "hidden_act": config.get("hidden_act") == "silu",
            "biases": not config.get("attention_bias") and not config.get("mlp_bias"),
            "heads": head_width == 64 and self.key_heads >= 1 and self.heads % self.key_heads == 0,
            "RoPE": rope.get("rope_type", rope.get("type", "default")) == "default",
            "theta": theta == self.theta and 1 <= theta <= 2**40,
            "widths": all(1 <= n <= 1040 for n in (self.width, self.hidden, 64 * self.heads)),
            "num_hidden_layers": 1 <= self.n_layers <= 256,
            "vocab_size": 1 <= self.vocabulary_size <= 2**18,
            "rms_norm_eps": 0 < self.epsilon < 1,
            "bos_token_id": 0 <= self.start < self.vocabulary_size,
        }.items():
            require(truth, f"{name} in config.json")

    def check_reach(self):
        def reach(norm, *matrices):
            scale = max(float(np.abs(matrix.scales).max()) for matrix in matrices)
            return 254 * self.width * scale * float(np.abs(norm).max())

        reaches = [2**28 * reach(self.last_norm, self.head)]
        for layer in self.layers:
            reaches.append(2**10 * reach(layer.post_attention_layernorm, layer.gate_proj, layer.up_proj))
            reaches.append(2**16 * reach(layer.input_layernorm, layer.q_proj, layer.k_proj, layer.v_proj) ** 2)
        require(max(reaches) < 2**62, "its numbers are too large")

    def embed(self, token):
        return self.embedding.integers[token].astype(f32) * self.embedding.scales[token]

    def norm(self, x, w):
        """Section 4."""
        a, m = ints(x, self.most_norm)
        wide = f64(m) * f64(m)
        i = f32(1 / np.sqrt(f64(int((a * a).sum())) / f64(self.width) * wide + f64(self.epsilon)))
        q, u = ints(x * w, self.most_state)
        return q, u * i

    def last(self, x):
        """q and t of section 4, of the state after the last layer."""
        return self.norm(x, self.last_norm)

    def said(self, q, t):
        """y and t of section 4."""
        return self.head.lin(q), t

    def logits(self, x):
        return self.said(*self.last(x))

    def sequence(self, positions):
        return Sequence(self, positions)

    @property
    def most_state(self):
        """A(D)."""
        return levels(self.width)

    def most_slope(self, n_lanes):
        """B of section 12.8."""
        return (2**24 - 1) // (levels(self.width) * n_lanes)


# ---------------------------------------------------------------- layers and attention (sections 4 and 5)


def rotate(y, turn):
    c, z = turn
    return np.concatenate([y[:32] * c - y[32:] * z, y[32:] * c + y[:32] * z])


class Past:
    """Keys and values of one layer, for each key-value head and position."""

    def __init__(self, heads, positions, width):
        self.keys, self.values = np.zeros((2, heads, positions, width), np.int64)
        self.l, self.n = np.zeros((2, heads, positions), f32)


class Sequence:
    """One sequence on its way through the model, with room for so many positions."""

    def __init__(self, model, positions):
        self.model, self.position, self.entry = model, 0, 0
        self.pasts = [Past(model.key_heads, positions, model.head_width) for _ in model.layers]

    def copy(self, more):
        """The same, with room for so many positions more."""
        other = self.model.sequence(self.position + more)
        for own, past in zip(other.pasts, self.pasts, strict=True):
            for name in ("keys", "values", "l", "n"):
                getattr(own, name)[:, : self.position] = getattr(past, name)[:, : self.position]
        other.position = self.position
        return other

    def feed(self, x):
        """The state after the last layer at the next position, at which x stands."""
        model = self.model
        for layer, past in zip(model.layers, self.pasts, strict=True):
            q, t = model.norm(x, layer.input_layernorm)
            z = self.attention(layer.q_proj.lin(q), layer.k_proj.lin(q), layer.v_proj.lin(q), t, past)
            q, u = ints(z, levels(64 * model.heads))
            x = x + layer.o_proj.lin(q) * u
            q, t = model.norm(x, layer.post_attention_layernorm)
            g, h = layer.gate_proj.lin(q), layer.up_proj.lin(q)
            j = np.clip(np.trunc(g * (t * f32(128)) + f32(2048.5)).astype(np.int64), 0, 4096)
            q, u = ints(sigmoids()[j] * g * h, levels(model.hidden))
            x = x + layer.down_proj.lin(q) * (u * (t * t))
        self.position += 1
        return x

    def seen(self, p):
        """What position p sees."""
        places = np.arange(max(0, BLOCK * (p // BLOCK - 2)), p + 1)
        return places if p < self.entry + 64 else places[(places < 1) | (places > self.entry)]

    def attention(self, q, k, v, t, past):
        model, p = self.model, self.position
        turn = rotation(p, model.theta)
        for i in range(model.key_heads):
            past.keys[i, p], u = ints(rotate(k[64 * i : 64 * i + 64], turn), 127)
            past.l[i, p] = u * t
            past.values[i, p], u = ints(v[64 * i : 64 * i + 64], 127)
            past.n[i, p] = u * t
        seen, z = self.seen(p), []
        for h in range(model.heads):
            i = h * model.key_heads // model.heads
            query, u = ints(rotate(q[64 * h : 64 * h + 64], turn), levels(64))
            a = max(u * t * f32(32 * math.log2(math.e)), TINY)
            d = (past.keys[i, seen] @ query).astype(f32) * past.l[i, seen]
            w = power((d.max() - d) * a)
            total, n = f64(int(w.astype(np.int64).sum())), past.n[i, seen]
            largest = max(n.max(), TINY)  # N
            f = np.rint(w * n * f32(2.0**17 / (total * f64(largest)))).astype(np.int64)
            z.append((f @ past.values[i, seen]).astype(f32) * (largest * f32(2.0**-17)))
        return np.concatenate(z)


# ---------------------------------------------------------------- probabilities and coder (sections 7 and 8)


def whole_bits(n_tokens):
    """The logarithm of W."""
    return 24 if n_tokens <= 2**14 else 30


def counts(y, t):
    e = power((y.max() - y) * (t * f32(256 * math.log2(math.e))))
    total, whole = f64(int(e.astype(np.int64).sum())), 2 ** whole_bits(len(y))
    found = (e * f32((whole - len(y)) / total)).astype(np.int64) + 1
    found[int(np.argmax(y))] += whole - int(found.sum())
    return found


def chosen(low, size):
    """Of the numbers low ... low + size - 1 the one that an encoder takes."""
    for zeros in range(48, -1, -8):
        number = -(-low >> zeros) << zeros
        if number < low + size:
            return number


class Decoder:
    """Tokens out of a range coder."""

    def __init__(self, data, n_tokens=0):
        """`n_tokens`: those of the model."""
        self.data, self.at, self.range, self.bits = data, 6, 2**48 - 1, whole_bits(n_tokens)
        self.code = int.from_bytes(data[:6].ljust(6, b"\0"), "big")

    def token(self, y, t):
        """The next token, from what the model says of it."""
        return self.take(counts(y, t))

    def take(self, shares):
        """The next token, where the tokens have these counts."""
        upto = np.cumsum(shares)  # F of the token after each
        token = int(np.searchsorted(upto, self.target(), side="right"))
        before = int(upto[token - 1]) if token else 0
        self.narrow(before, int(upto[token]) - before)
        return token

    def target(self):
        target = self.code // (self.range >> self.bits)
        if target >= 2**self.bits:
            raise Impossible("coded tokens: no token has this target")
        return target

    def narrow(self, before, count):
        """Goes on in the interval that begins at `before` and is so wide."""
        part = self.range >> self.bits
        self.code -= part * before
        self.range = part * count
        while self.range < 2**40:
            self.code = (self.code << 8 | (self.data[self.at] if self.at < len(self.data) else 0)) & 2**48 - 1
            self.range, self.at = self.range << 8, self.at + 1

    def check_end(self):
        """Refuses what no encoder writes for these tokens."""
        if len(self.data) > self.at or self.data[-1:] == b"\0":
            raise Impossible(f"coded tokens: {len(self.data)} bytes, of which {self.at} are read")
        last = int.from_bytes(self.data.ljust(self.at, b"\0")[self.at - 6 : self.at], "big")
        if last != chosen(last - self.code, self.range):
            raise Impossible("coded tokens: they end with another number of the interval")


class Reciter:
    """What the model itself says, for groups without coded tokens."""

    def token(self, y, t):
        return int(np.argmax(y))  # the lowest of equals


# ---------------------------------------------------------------- lanes (section 9)


def lane_lengths(n_tokens, n_lanes):
    return [n_tokens // n_lanes + (lane < n_tokens % n_lanes) for lane in range(n_lanes)]


def order(lengths):
    """The lanes in the order in which their tokens are coded."""
    return [lane for step in range(lengths[0]) for lane, length in enumerate(lengths) if step < length]


def run_lanes(model, firsts, n_tokens, coder, before=None, said=None, entry=0):
    """-> the token ids of a group.

    `firsts` is for each lane what stands first, (P, D), after the positions of the sequence `before`, if there is one;
    `coder.token(y, t)` says what the next token is,
    and `said(q, t)` what y and t are, if that is not for the model alone to say. After the start token stand `entry`
    vectors that are not seen for long (section 15).
    """
    said = said or model.said
    lengths, before = lane_lengths(n_tokens, len(firsts)), before or model.sequence(0)
    lanes = [before.copy(len(first) + length - 1) for first, length in zip(firsts, lengths, strict=True)]
    for lane in lanes:
        lane.entry = entry
    texts = [[] for _ in lanes]
    for i in order(lengths):
        for x in [model.embed(texts[i][-1])] if texts[i] else firsts[i]:
            state = lanes[i].feed(x)
        texts[i].append(coder.token(*said(*model.last(state))))
    return [token for text in texts for token in text]


# ---------------------------------------------------------------- probe and vectors (sections 10 and 11)


def probe(model):
    """SHA-256 of the logits, in hexadecimal digits."""
    sequence, digest = model.sequence(96), hashlib.sha256()
    for token in [model.start, *(n * n * 40503 % model.vocabulary_size for n in range(1, 96))]:
        y, t = model.logits(sequence.feed(model.embed(token)))
        digest.update((y * t + f32(0)).astype("<f4").tobytes())  # + 0: no negative zeros
    return digest.hexdigest()


P8 = [
    float.fromhex(digits)
    for digits in [
        "0x1.0p+0",
        "0x1.172b83c7d517bp+0",
        "0x1.306fe0a31b715p+0",
        "0x1.4bfdad5362a27p+0",
        "0x1.6a09e667f3bcdp+0",
        "0x1.8ace5422aa0dbp+0",
        "0x1.ae89f995ad3adp+0",
        "0x1.d5818dcfba487p+0",
    ]
]


@cache
def cosines(width):
    """K of section 11."""
    f, n = np.arange(width)[:, None], np.arange(width)
    table = np.rint(2**14 * np.cos(np.pi / (2 * width) * (f * (2 * n + 1) % (4 * width)))).astype(np.int64)
    table[0] = 11585
    return table


def vectors(codes, scales, n_levels, signs):
    """-> (M, D), from codes (M, D), the bytes Scale (M,), the number of levels, and the signs s_n (D,), 1 or -1."""
    width = codes.shape[1]
    sums = (2 * codes.astype(np.int64) - (n_levels - 1)) @ cosines(width)
    eighths, octaves = np.int64(scales) % 8, np.int64(scales) // 8
    g = np.array(P8)[eighths] * 2.0 ** (octaves - 30) * np.sqrt(2 / width) / (n_levels - 1)
    return ((signs * sums) * g[:, None]).astype(f32)
