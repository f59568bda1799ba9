"""Whether this machine computes a model to the bits that it has everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ..errors import ModelError
from .arithmetic import WEIGHT_MOST, Floats, levels
from .llama import Llama, Model
from .product import Product
from .threads import one_blas_thread
from .weights import Matrix, Shape, Weights
from .wide import FULL_HALVES, WideLlama, WideProduct

AnyModel = TypeVar("AnyModel", bound=Model)

PROBE_LENGTH, WIDE_PROBE_LENGTH = 96, 16
STEPS_ALONE, WIDE_STEPS_ALONE = 4, 2  # of them, that are computed one by one
ROWS, COLUMNS = 33, 64  # of the product that tries out the largest sums


@one_blas_thread()
def load(weights: Weights) -> Llama:
    """A model that gives the right bits, in the slower way if need be. Raises ModelError if there is none."""
    kind = WideLlama if weights.shape.wide else Llama
    model = kind(weights)
    return model if _is_right(model) else checked(kind(weights, wide=True))


def checked(model: AnyModel) -> AnyModel:
    """The model itself. Raises ModelError if it does not give the right bits."""
    if not _is_right(model):
        raise ModelError("the model does not come out right on this machine: its bits differ from those of others")
    return model


def numpy_type(shape: Shape) -> type:
    """What products in NumPy have to be computed in: float32, or float64 where that goes wrong."""
    product = WideProduct if shape.wide else Product
    exact = _adds_exactly(shape, lambda row, matrix: product(matrix)(row, np.empty((ROWS, COLUMNS), np.float32)))
    return np.float32 if exact else np.float64


def _is_right(model: Model) -> bool:
    if not _adds_exactly(model.shape, model.product):
        return False
    return model.weights.probe_hash is None or model.weights.probe_hash == model_hash(model)


def probe_hash(weights: Weights) -> str:
    """SHA-256, in hexadecimal digits, of the logits that the probe has to give with these weights."""
    return model_hash(Llama(weights, wide=True))


def _adds_exactly(shape: Shape, product: Callable[[Floats, Matrix], Floats]) -> bool:
    """Whether the largest sums that a layer can have come out right, to the last bit."""
    for n_terms in shape.n_terms:
        weights = np.full((COLUMNS, n_terms), WEIGHT_MOST, np.int8)
        weights[:, 0] -= np.arange(COLUMNS, dtype=np.int8)
        row = np.full((ROWS, n_terms), FULL_HALVES if shape.wide else levels(n_terms), np.float32)
        row[:, 0] -= np.arange(ROWS)
        found = product(row, Matrix(weights, np.ones(COLUMNS, np.float32)))
        if not (found == (row.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.float32)).all():
            return False
    return True


@one_blas_thread()
def model_hash(model: Model) -> str:
    """SHA-256, in hexadecimal digits, of the logits of the probe."""
    shape = model.shape
    length = WIDE_PROBE_LENGTH if shape.wide else PROBE_LENGTH
    tokens = [shape.start, *(n * n * 40503 % shape.vocabulary for n in range(1, length))]
    x, cache = model.embed([tokens]), model.new_cache(1, length)
    digest = hashlib.sha256()
    together = length - (WIDE_STEPS_ALONE if shape.wide else STEPS_ALONE)
    for first, stop in [(0, together), *((n, n + 1) for n in range(together, length))]:
        logits = model.logits(x[:, first:stop], cache) + np.float32(0)  # a zero's sign is no part of the promise
        digest.update(logits.astype("<f4").tobytes())
    return digest.hexdigest()
