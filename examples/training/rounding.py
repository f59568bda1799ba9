"""The rounding of the exact engine, in training: matrices as integers of at most 127, one scale a row."""

from contextlib import contextmanager

import torch

from cramzip.exact.arithmetic import WEIGHT_MOST


def rounded(weights):
    """Weights (N, K) as exact arithmetic will have them, still floats."""
    largest = weights.abs().amax(dim=1, keepdim=True)
    scales = torch.where(largest > 0, largest / WEIGHT_MOST, 1.0)
    return (weights / scales).round() * scales


@contextmanager
@torch.no_grad()
def rounded_matrices(model):
    """Let the model compute with rounded matrices; afterwards they are as they were.

    A gradient that is taken inside is that of the rounded weights, and goes to those which are kept (Bengio et al.
    2013 call this straight through).
    """
    matrices = [p for p in model.parameters() if p.ndim == 2]
    before = [p.detach().clone() for p in matrices]
    for p in matrices:
        p.copy_(rounded(p))
    try:
        with torch.enable_grad():
            yield
    finally:
        for p, kept in zip(matrices, before, strict=True):
            p.copy_(kept)
