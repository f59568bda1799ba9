"""formats/exact.md once more, position by position, with sums of Python's and NumPy's integers: the same bits."""

import hashlib
import math
from functools import cache

import numpy as np
import pytest
from test_exact_llama import GROUPED, PLAIN, in_pieces, random_model, random_tokens

from cramzip.exact import lanes

f32, f64 = np.float32, np.float64
TINY = f32(2.0**-100)


@cache
def powers():
    return np.array([*(f32(round(2**24 * 2 ** (-k / 256))) for k in range(6400)), f32(0)])


@cache
def sigmoids():
    upper = [round(2**24 / (1 + math.exp(-k / 128))) for k in range(2049)]
    return np.array([2**24 - value for value in upper[:0:-1]] + upper).astype(f32) / f32(2**24)


def rotation(position, theta):
    angles = [position * theta ** (-i / 32) for i in range(32)]
    return [np.array([f32(round(f(angle) * 2**14)) / f32(2**14) for angle in angles]) for f in (math.cos, math.sin)]


def levels(n):
    return (2**24 - 1) // (127 * n)


def ints(x, most):
    m = max(np.abs(x).max(), TINY)
    return np.rint(x * (f32(most) / m)).astype(np.int64), m / f32(most)


def lin(q, matrix, rows=slice(None)):
    return (matrix.integers[rows].astype(np.int64) @ q).astype(f32) * matrix.scales[rows]


def norm(x, w, epsilon):
    a, m = ints(x, 2047)
    wide = f64(m) * f64(m)
    i = f32(1 / np.sqrt(f64(int((a * a).sum())) / f64(len(x)) * wide + f64(epsilon)))
    q, u = ints(x * w, levels(len(x)))
    return q, u * i


def rotate(y, turn):
    c, z = turn
    return np.concatenate([y[:32] * c - y[32:] * z, y[32:] * c + y[:32] * z])


def attention(q, k, v, t, past, position, shape):
    turn = rotation(position, shape.theta)
    for g in range(shape.n_key_heads):
        key, u = ints(rotate(k[64 * g : 64 * g + 64], turn), 127)
        value, n = ints(v[64 * g : 64 * g + 64], 127)
        past[g].append((key, u * t, value, n * t))
    seen_from, z = max(0, 256 * (position // 256 - 2)), []
    for h in range(shape.n_heads):
        kept = past[h * shape.n_key_heads // shape.n_heads][seen_from:]
        query, u = ints(rotate(q[64 * h : 64 * h + 64], turn), levels(64))
        a = max(u * t * f32(32 * math.log2(math.e)), TINY)
        keys, values = (np.array([entry[part] for entry in kept]) for part in (0, 2))
        ls, ns = (np.array([entry[part] for entry in kept], f32) for part in (1, 3))
        d = (keys @ query).astype(f32) * ls
        w = powers()[np.minimum(((d.max() - d) * a).astype(np.int64), 6400)]
        total, largest = f64(int(w.astype(np.int64).sum())), max(ns.max(), TINY)
        f = np.rint(w * ns * f32(2.0**17 / (total * f64(largest)))).astype(np.int64)
        z.append((f @ values).astype(f32) * (largest * f32(2.0**-17)))
    return np.concatenate(z)


class Reference:
    """One sequence, one position at a time."""

    def __init__(self, weights):
        self.weights, self.position = weights, 0
        self.past = [[[] for _ in range(weights.shape.n_key_heads)] for _ in weights.layers]

    def __call__(self, x):
        shape = self.weights.shape
        heads, keys = 64 * shape.n_heads, 64 * shape.n_key_heads
        for layer, past in zip(self.weights.layers, self.past, strict=True):
            q, t = norm(x, layer.attention_norm, shape.epsilon)
            projected = lin(q, layer.qkv)
            parts = projected[:heads], projected[heads : heads + keys], projected[heads + keys :]
            q, u = ints(attention(*parts, t, past, self.position, shape), levels(heads))
            x = x + lin(q, layer.out) * u
            q, t = norm(x, layer.mlp_norm, shape.epsilon)
            g, h = lin(q, layer.gate_up, slice(shape.hidden)), lin(q, layer.gate_up, slice(shape.hidden, None))
            j = np.clip((g * (t * f32(128)) + f32(2048.5)).astype(np.int64), 0, 4096)
            q, u = ints(sigmoids()[j] * g * h, levels(shape.hidden))
            x = x + lin(q, layer.down) * (u * (t * t))
        self.position += 1
        q, t = norm(x, self.weights.norm, shape.epsilon)
        return lin(q, self.weights.head), t


def counts(y, t):
    e = powers()[np.minimum(((y.max() - y) * (t * f32(256 * math.log2(math.e)))).astype(np.int64), 6400)]
    total = f64(int(e.astype(np.int64).sum()))
    found = (e * f32((2**24 - len(y)) / total)).astype(np.int64) + 1
    found[int(np.argmax(y))] += 2**24 - int(found.sum())
    return [int(count) for count in found]


def embed(weights, token):
    return weights.embedding.integers[token].astype(f32) * weights.embedding.scales[token]


def decode(weights, payload, n_tokens, n_lanes):
    length, n_longer = divmod(n_tokens, n_lanes)
    texts = [[] for _ in range(n_lanes)]
    models = [Reference(weights) for _ in texts]
    size, code, place = 2**48 - 1, int.from_bytes(payload[:6].ljust(6, b"\0"), "big"), 6
    for step in range(length + (n_longer > 0)):
        for text, model in list(zip(texts, models, strict=True))[: n_lanes if step < length else n_longer]:
            shares = counts(*model(embed(weights, text[-1] if text else weights.shape.start)))
            part, token, before = size >> 24, 0, 0
            while code // part >= before + shares[token]:
                before, token = before + shares[token], token + 1
            code, size = code - part * before, part * shares[token]
            while size < 2**40:
                code = (code << 8 | (payload[place] if place < len(payload) else 0)) & 2**48 - 1
                size, place = size << 8, place + 1
            text.append(token)
    return [token for text in texts for token in text]


def test_the_tables_are_those_of_the_specification():
    first = [rotation(position, 10000) for position in range(1024)]
    tables = powers(), sigmoids(), np.concatenate([np.stack(part) for part in zip(*first, strict=True)])
    hashes = [hashlib.sha256(table.astype("<f4").tobytes()).hexdigest()[:8] for table in tables]
    assert hashes == ["0c5a298f", "eaed2681", "f78585f3"]


@pytest.mark.parametrize(("shape", "n"), [(GROUPED, 40), (PLAIN, 40)], ids=["grouped", "plain"])
def test_logits_are_those_of_the_specification(shape, n):
    model, reference = random_model(shape), None
    tokens = random_tokens(shape, n)
    reference = Reference(model.weights)
    expected = [y * t for y, t in (reference(embed(model.weights, token)) for token in tokens)]
    assert in_pieces(model, model.embed([tokens]), [11])[0].tobytes() == np.array(expected, f32).tobytes()


def test_logits_beyond_the_window_are_those_of_the_specification():
    model = random_model(PLAIN)
    tokens, reference = random_tokens(PLAIN, 790), Reference(model.weights)
    expected = [y * t for y, t in (reference(embed(model.weights, token)) for token in tokens)]
    found = model.logits(model.embed([tokens]), model.new_cache(1, 790), 30)[0]
    assert found.tobytes() == np.array(expected[-30:], f32).tobytes()


def test_lanes_are_those_of_the_specification():
    model = random_model(GROUPED)
    tokens = random_tokens(GROUPED, 26).tolist()
    assert decode(model.weights, lanes.encode_lanes(model, tokens, 4), 26, 4) == tokens
