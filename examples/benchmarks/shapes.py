"""What the shape of a model costs in seconds: steps of the exact engine at several numbers of rows.

    python examples/benchmarks/shapes.py [--repeats 3] [--positions 500] [--output shapes.json]

Weights are drawn at random, since seconds do not depend on them. All shapes take turns, so that whatever else the
machine does falls on all of them; the least of the repeats counts. `learner` is what a token costs beside the model.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cramzip.exact.learner import Learner
from cramzip.exact.llama import Llama
from cramzip.exact.probabilities import counts, cumulated
from cramzip.exact.threads import one_blas_thread
from cramzip.exact.weights import HEAD_WIDTH, Layer, Matrix, Shape, Weights

SHIPPED = Shape(320, 4, 5, 1, 864, 4096, 10000, 1e-5, True, 0)
SHAPES = {  # all are compared with the first
    "5 heads, each with its own keys and values": replace(SHIPPED, n_key_heads=5),
    "1 head of keys and values, as it ships": SHIPPED,
    "the same, what that saves in the MLP": replace(SHIPPED, hidden=1078),
    "the same with 5 layers": replace(SHIPPED, n_layers=5),
    "5 heads, 3 layers": replace(SHIPPED, n_key_heads=5, n_layers=3),
    "5 heads, 3 layers, a wider MLP": replace(SHIPPED, n_key_heads=5, n_layers=3, hidden=1040),
    "5 heads, 5 layers": replace(SHIPPED, n_key_heads=5, n_layers=5),
    "5 heads, a vocabulary of 2,048": replace(SHIPPED, n_key_heads=5, vocabulary=2048),
    "256 wide, 4 heads, 5 layers": replace(SHIPPED, width=256, n_layers=5, n_heads=4, n_key_heads=4, hidden=688),
}
ROWS = 1, 8, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--positions", type=int, default=500)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    models = {name: Llama(random_weights(shape)) for name, shape in SHAPES.items()}
    best: dict[tuple[str, int], float] = {}
    learner: dict[int, float] = {}
    with one_blas_thread():
        for _ in range(given.repeats):
            for n_rows in ROWS:
                learner[n_rows] = min(learner.get(n_rows, np.inf), learner_step(n_rows, given.positions))
                for name, model in models.items():
                    key = name, n_rows
                    best[key] = min(best.get(key, np.inf), model_step(model, n_rows, given.positions))
    rows = list(table(best, learner))
    for row in rows:
        print(row)
    if given.output:
        about = {"machine": platform.processor() or platform.machine(), "numpy": np.__version__, "threads": 1}
        record = {**about, "positions": given.positions, "rows": rows}
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def table(best: dict[tuple[str, int], float], learner: dict[int, float]) -> Iterator[dict[str, object]]:
    first = next(iter(SHAPES))
    for name, shape in SHAPES.items():
        steps = {str(n): round(1000 * best[name, n], 2) for n in ROWS}
        wholes = {n: best[name, n] + learner[n] for n in ROWS}
        faster = {str(n): round((best[first, n] + learner[n]) / wholes[n], 2) for n in ROWS}
        yield {
            "shape": name,
            "parameters": random_weights(shape).n_parameters,
            "milliseconds_a_step": steps,
            "learner_milliseconds": {str(n): round(1000 * learner[n], 2) for n in ROWS},
            "decoding_faster_by": faster,
            "config": asdict(shape),
        }


def model_step(model: Llama, n_rows: int, n_positions: int) -> float:
    """Seconds of a step of so many rows, the mean over positions, probabilities included."""
    cache, draw = model.new_cache(n_rows, n_positions), np.random.default_rng(1)
    tokens = draw.integers(0, model.shape.vocabulary, (n_positions, n_rows, 1))
    begin = time.perf_counter()
    for row in tokens:
        cumulated(counts(*model.forward(model.embed(row), cache)))
    return (time.perf_counter() - begin) / n_positions


def learner_step(n_rows: int, n_positions: int) -> float:
    """Seconds that the learner takes for a step of so many lanes, on tokens that follow Zipf's law."""
    draw, vocabulary = np.random.default_rng(2), SHIPPED.vocabulary
    learner = Learner([b"word "] * vocabulary, vocabulary, n_rows)
    places = 1 / np.arange(1, vocabulary + 1)
    tokens = draw.choice(vocabulary, (n_positions, n_rows), p=places / places.sum())
    logits = np.log(np.tile(places / places.sum(), (n_rows, 1))).astype(np.float32)
    bare = coded = 0.0
    for row in tokens.tolist():
        begin = time.perf_counter()
        cumulated(counts(logits.copy(), np.ones((n_rows, 1), np.float32)))
        bare += time.perf_counter() - begin
        begin = time.perf_counter()
        sums = learner.sums(logits.copy())
        for lane, token in enumerate(row):
            learner.encode(lane, sums[lane], token)
        learner.end_step(list(sums), row)
        coded += time.perf_counter() - begin
    return (coded - bare) / n_positions


def random_weights(shape: Shape) -> Weights:
    draw = np.random.default_rng(0)

    def matrix(n: int, k: int) -> Matrix:
        integers = draw.integers(-127, 128, (n, k), dtype=np.int8)
        return Matrix(integers, np.full(n, 0.001, np.float32))

    def layer() -> Layer:
        ones, heads = np.ones(shape.width, np.float32), shape.n_heads * HEAD_WIDTH
        return Layer(
            attention_norm=ones,
            qkv=matrix(heads + 2 * shape.n_key_heads * HEAD_WIDTH, shape.width),
            out=matrix(shape.width, heads),
            mlp_norm=ones,
            gate_up=matrix(2 * shape.hidden, shape.width),
            down=matrix(shape.width, shape.hidden),
        )

    embedding = matrix(shape.vocabulary, shape.width)
    layers = tuple(layer() for _ in range(shape.n_layers))
    return Weights(shape, embedding, layers, np.ones(shape.width, np.float32), embedding, None)


if __name__ == "__main__":
    main()
