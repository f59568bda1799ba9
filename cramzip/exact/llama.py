"""A stack of Llama layers in exact arithmetic: the same bits on every machine, in steps and batches of any size.

The comments name shapes by B rows, N new positions, T positions seen, D width, H heads, G key-value heads, V tokens.
Sections 4 to 6 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arithmetic import (
    POWER_ONE,
    SIGMOID_RANGE,
    SIGMOID_STEPS,
    STEPS,
    TINY,
    Doubles,
    Floats,
    levels,
    powers,
    sigmoids,
    to_integers,
)
from .cache import WINDOW, Cache
from .product import Product
from .rotations import Rotations
from .weights import HEAD_WIDTH, Layer, Matrix, Shape, Weights

LOG2_E = 1.4426950408889634
PER_NAT = np.float32(STEPS * LOG2_E)  # entries of POWERS for a factor of e
PER_SCORE = np.float32(STEPS * LOG2_E / 8)  # 8 is the square root of the width of a head
KEY_MOST = 127
QUERY_MOST = levels(HEAD_WIDTH)  # with keys of at most 127, a sum of 64 products stays below 2^24
VALUE_MOST = 127
SHARE_ONE = 2**17  # what the weights of values add up to, or less; with roundings, times 127, still below 2^24
NORM_MOST = np.float32(2047)  # of the integers whose squares a norm adds up
SCORES_AT_ONCE = 2**17
KEYS_AT_ONCE = 2**19


@dataclass(frozen=True)
class Precision:
    """The largest integers of keys, queries, values, and in norms; and what the shares of values add up to."""

    key: int
    query: int
    value: int
    share_one: int
    norm: np.float32

    def of_heads(self, shape: Shape) -> Floats:
        """Those of queries, keys and values (H + 2 G, 1)."""
        most = [self.query] * shape.n_heads + [self.key] * shape.n_key_heads + [self.value] * shape.n_key_heads
        return np.array(most, np.float32)[:, None]


class Model:
    """What `lanes` and `probe` need of a model, in whatever way it computes.

    `dtype` is that of products in NumPy: float64 where those in float32 go wrong.
    """

    dtype: type = np.float32

    def __init__(self, weights: Weights):
        self.shape, self.weights = weights.shape, weights

    def embed(self, tokens: npt.ArrayLike) -> Floats:
        """Input embeddings (..., D) of tokens (...)."""
        return self.weights.embedding.rows(np.asarray(tokens))

    def new_cache(self, n_rows: int, n_positions: int) -> Cache:
        """For `n_rows` rows of at most `n_positions`, vectors and start token included."""
        raise NotImplementedError

    def forward(self, x: Floats, cache: Cache, n_last: int | None = None) -> tuple[Floats, Floats]:
        """Logits at the last `n_last` of N further positions, or at all, and what one of their units stands for.

        x (B, N, D) are input embeddings, of tokens or any others. Gives u (B, n_last, V) and s (B, n_last, 1); the
        logits are u x s. What `u` lies in may be used again by the next call with this cache.
        """
        raise NotImplementedError

    def states(self, x: Floats, cache: Cache, n_last: int | None = None) -> tuple[Floats, Floats]:
        """What the head would take: integers (B, n_last, D), and what one of them stands for (B, n_last, 1)."""
        raise NotImplementedError

    def logits(self, x: Floats, cache: Cache, n_last: int | None = None) -> Floats:
        """The same as `forward` as logits (B, n_last, V) of their own."""
        units, scale = self.forward(x, cache, n_last)
        return units * scale

    def product(self, integers: Floats, matrix: Matrix) -> Floats:
        """integers (M, K) times a matrix (N, K) and its scales (M, N), as the layers compute it."""
        raise NotImplementedError

    def head(self) -> Product:
        """The product with the head, in NumPy."""
        return Product(self.weights.head, self.dtype)


class Llama(Model):
    """A model in NumPy; `wide` if its products are to be computed in float64, where float32 goes wrong."""

    precision = Precision(KEY_MOST, QUERY_MOST, VALUE_MOST, SHARE_ONE, NORM_MOST)

    def __init__(self, weights: Weights, *, wide: bool = False):
        super().__init__(weights)
        shape = weights.shape
        self._rotations = Rotations(shape.theta, shape.head_width // 2, shape.slowdowns)
        self._powers, self._sigmoids = powers(), sigmoids()
        self.dtype = np.float64 if wide else np.float32
        self._layers = [self._running(layer) for layer in weights.layers]
        self._head = self._product(weights.head)
        self._levels_out = self._levels(shape.n_heads * shape.head_width)
        self._levels_down = self._levels(shape.hidden)
        self._per_score = PER_SCORE
        self._head_most = self.precision.of_heads(shape)  # (H + 2 G, 1)

    def head(self) -> Product:
        return self._head

    def _running(self, layer: Layer) -> RunningLayer:
        return RunningLayer(layer, self._product)

    def _product(self, matrix: Matrix) -> Product:
        return Product(matrix, self.dtype)

    @staticmethod
    def _levels(n_terms: int) -> np.float32:
        """How large activations can be, where so many products with weights are summed."""
        return np.float32(levels(n_terms))

    def new_cache(self, n_rows: int, n_positions: int) -> Cache:
        return Cache(self.shape, n_rows, n_positions)

    def product(self, integers: Floats, matrix: Matrix) -> Floats:
        product = self._product(matrix)
        return product(integers, np.empty((len(integers), product.width), np.float32))

    def forward(self, x: Floats, cache: Cache, n_last: int | None = None) -> tuple[Floats, Floats]:
        integers, scale = self.states(x, cache, n_last)
        rows = integers.reshape(-1, integers.shape[-1])
        units = self._head(rows, cache.scratch("logits", (len(rows), self._head.width)))
        return units.reshape(*integers.shape[:2], -1), scale

    def states(self, x: Floats, cache: Cache, n_last: int | None = None) -> tuple[Floats, Floats]:
        n_rows, n, width = x.shape
        n_last = n if n_last is None else n_last
        hidden, done = np.empty((n_rows, n_last, width), np.float32), 0
        while done < n:
            count = cache.take(n - done)
            states = self._run_layers(x[:, done : done + count], cache)
            done += count
            wanted = min(count, done - (n - n_last))
            if wanted > 0:
                place = done - (n - n_last)
                hidden[:, place - wanted : place] = states[:, count - wanted :]
        integers, scale = self._normalise(hidden.reshape(-1, width), self.weights.norm)
        return integers.reshape(n_rows, n_last, width), scale.reshape(n_rows, n_last, 1)

    def _run_layers(self, x: Floats, cache: Cache) -> Floats:
        """What the layers make of x (B, N, D), all within one block; the cache moves on."""
        n_rows, n, width = x.shape
        rotation = self._rotations.at(cache.position, n)
        states = x.reshape(-1, width).copy()  # (B N, D)
        for index, layer in enumerate(self._layers):
            integers, scale = self._normalise(states, layer.attention_norm)
            projected = layer.qkv(integers, cache.scratch("qkv", (len(states), layer.qkv.width)))
            heads, scales = self._heads(layer, projected, scale)
            queries, query_scales = self._store(heads, scales, rotation, cache, index)
            seen = self._attend(queries, query_scales, cache, index)
            integers, scale = to_integers(seen, self._levels_out)
            states += layer.out(integers, cache.scratch("out", (len(states), layer.out.width))) * scale
            integers, scale = self._normalise(states, layer.mlp_norm)
            states += self._feed_forward(layer, integers, scale, cache)
        cache.advance(n)
        return states.reshape(n_rows, n, width)

    def _heads(self, layer: RunningLayer, projected: Floats, scale: Floats) -> tuple[Floats, Floats]:
        """Queries, keys and values (B N, H + 2 G, W) before their rotation, and what 1 stands for (B N, 1, or each)."""
        return projected.reshape(len(projected), -1, self.shape.head_width), scale

    def _store(
        self, heads: Floats, scale: Floats, rotation: tuple[Floats, Floats], cache: Cache, index: int
    ) -> tuple[Floats, Floats]:
        """Put keys and values of a layer into the cache; give queries (B, G, H / G, N, W) and their scales."""
        shape, n_rows, first = self.shape, cache.n_rows, cache.length
        n_heads, n_keys = shape.n_heads, shape.n_key_heads
        heads = heads.reshape(n_rows, -1, *heads.shape[1:])  # (B, N, H + 2 G, W)
        n = heads.shape[1]
        _rotate(heads[:, :, : n_heads + n_keys], rotation, cache)
        integers, units = to_integers(heads, self._head_most, out=cache.scratch("heads", heads.shape))
        scales = units[..., 0] * scale.reshape(n_rows, n, -1)
        cache.integers[index, :, :, first : first + n] = integers[:, :, n_heads:].swapaxes(1, 2)
        cache.scales[index, :, :, first : first + n] = scales[:, :, n_heads:].swapaxes(1, 2)
        queries = integers[:, :, :n_heads].reshape(n_rows, n, n_keys, -1, shape.head_width)
        query_scales = np.maximum(scales[:, :, :n_heads] * self._per_score, TINY).reshape(n_rows, n, n_keys, -1)
        return queries.transpose(0, 2, 3, 1, 4), query_scales.transpose(0, 2, 3, 1)

    def _attend(self, queries: Floats, query_scales: Floats, cache: Cache, index: int) -> Floats:
        """What the queries of a layer see in the cache: (B N, H W), without the scale of the largest share."""
        n_rows, n_keys, n_shared, n, _ = queries.shape
        n_seen = cache.length + n  # T
        out = np.empty((n_rows, n, n_keys, n_shared, self.shape.head_width), np.float32)
        step = max(1, SCORES_AT_ONCE // (n_keys * n_shared * n * n_seen))
        for first in range(0, n_rows, step):
            rows = slice(first, min(first + step, n_rows))
            shares, value_scales = self._shares(queries[rows], query_scales[rows], cache, index, rows)
            seen = self._product_with(cache.integers[index, rows, n_keys:, :n_seen], shares, cache, transposed=False)
            seen = seen.reshape(-1, n_keys, n_shared, n, seen.shape[-1]) * value_scales[:, :, None, :, None]
            out[rows] = seen.transpose(0, 3, 1, 2, 4)
        return out.reshape(n_rows * n, -1)

    def _shares(
        self, queries: Floats, query_scales: Floats, cache: Cache, index: int, rows: slice
    ) -> tuple[Floats, Floats]:
        """Integers that the values of the positions seen are multiplied with (B, G, H / G x N, T), and their scales."""
        n_rows, n_keys, n_shared, n, _ = queries.shape
        old = cache.length
        n_seen = old + n
        by_key = queries.reshape(n_rows, n_keys, n_shared * n, -1)
        scores = self._scores(by_key, cache.integers[index, rows, :n_keys, :n_seen], cache)
        scores *= cache.scales[index, rows, :n_keys, None, :n_seen]
        scores = scores.reshape(n_rows, n_keys, n_shared, n, n_seen)
        if n > 1:
            later = np.triu(np.ones((n, n), bool), 1)
            np.copyto(scores[..., old:], np.float32(-np.inf), where=later)
        np.subtract(np.maximum.reduce(scores, axis=-1, keepdims=True), scores, out=scores)
        scores *= query_scales[..., None]
        if n > 1:
            np.copyto(scores[..., old:], np.float32(len(self._powers)), where=later)
        indices = cache.scratch("indices", scores.shape, np.intp)
        np.copyto(indices, scores, casting="unsafe")
        np.take(self._powers, indices, out=scores, mode="clip")
        total = np.add.reduce(scores, axis=-1, keepdims=True, dtype=np.float64)
        scales = cache.scales[index, rows, n_keys:, :n_seen]
        largest = _largest_so_far(scales, n)  # (B, G, N)
        scores *= scales[:, :, None, None]
        scores *= (self.precision.share_one / (total * largest[:, :, None, :, None])).astype(np.float32)
        np.rint(scores, out=scores)
        return scores.reshape(n_rows, n_keys, n_shared * n, n_seen), largest * np.float32(1 / self.precision.share_one)

    def _scores(self, queries: Floats, keys: npt.NDArray[Any], cache: Cache) -> Floats:
        """The products of queries (B, G, M, W) and keys (B, G, T, W): (B, G, M, T)."""
        return self._product_with(keys, queries, cache, transposed=True)

    def _product_with(self, stored: npt.NDArray[Any], left: Floats, cache: Cache, *, transposed: bool) -> Floats:
        """left (B, G, M, .) times stored (B, G, T, W), or its transpose; of a few rows at once, which stay near."""
        n_rows, n_keys, n_seen, width = stored.shape
        name, n_columns = ("scores", n_seen) if transposed else ("seen", width)
        out: Floats = cache.scratch(name, (*left.shape[:3], n_columns))
        step = max(1, KEYS_AT_ONCE // (n_keys * n_seen * width))
        floats = cache.scratch("floats", (min(step, n_rows), n_keys, n_seen, width), self.dtype)
        for first in range(0, n_rows, step):
            rows = slice(first, min(first + step, n_rows))
            right = floats[: rows.stop - first]
            np.copyto(right, stored[rows])
            right = right.swapaxes(2, 3) if transposed else right
            if self.dtype is np.float32:
                np.matmul(left[rows], right, out=out[rows])
            else:
                out[rows] = np.matmul(left[rows], right, dtype=self.dtype)
        return out

    def _feed_forward(self, layer: RunningLayer, integers: Floats, scale: Floats, cache: Cache) -> Floats:
        both = layer.gate_up(integers, cache.scratch("gate_up", (len(integers), layer.gate_up.width)))
        gate, up = both[:, : self.shape.hidden], both[:, self.shape.hidden :]
        place = np.multiply(gate, scale * np.float32(SIGMOID_STEPS), out=cache.scratch("place", gate.shape))
        place += np.float32(SIGMOID_RANGE * SIGMOID_STEPS + 0.5)
        indices = cache.scratch("gate_indices", gate.shape, np.intp)
        np.copyto(indices, place, casting="unsafe")
        np.take(self._sigmoids, indices, out=place, mode="clip")
        place *= gate
        place *= up
        hidden, hidden_scale = to_integers(place, self._levels_down, out=cache.scratch("hidden", gate.shape))
        result = layer.down(hidden, cache.scratch("out", (len(hidden), layer.down.width)))
        result *= hidden_scale * (scale * scale)
        return result

    def _normalise(self, x: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """RMSNorm of rows x (M, D), as integers (M, D) and what one of them stands for (M, 1)."""
        small, unit = to_integers(x, self.precision.norm)
        wide: Doubles = unit.astype(np.float64)
        total = np.add.reduce(np.square(small, dtype=np.float64), axis=1, keepdims=True)
        inverse = (1 / np.sqrt(total / x.shape[1] * (wide * wide) + self.shape.epsilon)).astype(np.float32)
        integers, scale = to_integers(np.multiply(x, weight, out=small), self._levels(x.shape[1]))
        return integers, scale * inverse


class RunningLayer:
    """A layer with its products; `layer` has the rest."""

    def __init__(self, layer: Layer, product: Callable[[Matrix], Product]):
        self.layer = layer
        self.attention_norm, self.mlp_norm = layer.attention_norm, layer.mlp_norm
        self.qkv, self.out = product(layer.qkv), product(layer.out)
        self.gate_up, self.down = product(layer.gate_up), product(layer.down)


def _rotate(heads: Floats, rotation: tuple[Floats, Floats], cache: Cache) -> None:
    """Rotary position embedding of heads (B, N, H, W), in place, by cosines and sines (N, W / 2)."""
    cosines, sines = (table[:, None] for table in rotation)  # (N, 1, W / 2)
    halves = heads.reshape(*heads.shape[:-1], 2, heads.shape[-1] // 2)  # the same memory
    first, second = halves[..., 0, :], halves[..., 1, :]
    from_first, from_second = cache.scratch("from", (2, *first.shape))
    np.multiply(first, sines, out=from_first)
    np.multiply(second, sines, out=from_second)
    halves *= cosines[..., None, :]
    first -= from_second
    second += from_first


def _largest_so_far(scales: Floats, n: int) -> Floats:
    """The largest of all scales (B, G, T) up to each of the last n: (B, G, n)."""
    old = scales.shape[-1] - n + 1
    before: Floats = np.maximum.reduce(scales[..., :old], axis=-1, keepdims=True, initial=TINY)
    if n == 1:
        return before
    return np.concatenate([before, np.maximum(np.maximum.accumulate(scales[..., old:], axis=-1), before)], axis=-1)


assert WINDOW <= 2048
assert (SHARE_ONE * (1 + 2.0**-20) + WINDOW / 2) * VALUE_MOST < 2**24
assert POWER_ONE * WINDOW < 2**53
