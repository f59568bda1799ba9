"""What running a model shows of it: its sizes, whether it is causal, its noise, and where it listens to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from ..errors import ModelError, one_line

NOISE_TOKENS = 128
RANDOM_VECTORS, VECTOR_SCALE = 32, 4.0  # how many a model is shown, and their scale in units of the embedding scale
PROBE_TEXT = (
    b"The quick brown fox jumps over the lazy dog. In 1897, on a cold evening, she read the letter twice; then she "
    b"folded it, put it back into the drawer, and said nothing to anyone about it until the spring.\n\n"
    b'def area(width, height):\n    return width * height\n\n{"name": "Ada", "born": 1815, "tags": ["a", "b"]}\n'
)
PROBE_TOKENS = 5
TOLERANCE = 1e-2  # of the logits' standard deviation: far more than rounding, far less than another answer


class Running(Protocol):
    """What a model has to do for a probe; FrozenLM says what each of these is."""

    model_id: str
    device: str

    def embed(self, ids: torch.Tensor) -> torch.Tensor: ...

    def logits(self, inputs: torch.Tensor, n_last: int = 0) -> torch.Tensor: ...

    def step(self, inputs: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]: ...

    def plain_float32(self) -> AbstractContextManager[None]: ...


@torch.inference_mode()
def run(lm: Running) -> tuple[torch.Tensor, torch.Tensor]:
    """Some embeddings (1, N, D) and their logits (N, V).

    Raises ModelError if the model cannot be run on embeddings, is not causal, or has a cache that changes its output.
    """
    try:
        with lm.plain_float32():
            embeddings = lm.embed(torch.arange(PROBE_TOKENS, device=lm.device)[None])
            whole = lm.logits(embeddings)[0]
            last, cache = lm.step(embeddings[:, :2])
            stepwise = [last]
            for n in range(2, PROBE_TOKENS):
                last, cache = lm.step(embeddings[:, n : n + 1], cache)
                stepwise.append(last)
    except Exception as error:
        raise ModelError(f"{lm.model_id} cannot be run on input embeddings: {one_line(error)}") from error
    if not torch.isfinite(whole).all():
        raise ModelError(f"{lm.model_id} gives logits that are not finite")
    if not is_same(torch.cat(stepwise), whole[1:]):
        raise ModelError(f"{lm.model_id} is not causal, or its cache changes its output: not supported")
    return embeddings, whole


def is_same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two computations of the same logits agree, but for rounding."""
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE * expected.std())


@torch.inference_mode()
def noise(lm: Running, tokens: Sequence[int]) -> float:
    """The largest change of a logit when tokens are read one by one, and not all at once."""
    embeddings = lm.embed(torch.tensor([tokens], device=lm.device))  # (1, N, D)
    with lm.plain_float32():
        whole = lm.logits(embeddings)[0].float()
        cache, largest = None, 0.0
        for n in range(embeddings.shape[1]):
            last, cache = lm.step(embeddings[:, n : n + 1], cache)
            largest = max(largest, float((last[0] - whole[n]).abs().max()))
    return largest


@torch.inference_mode()
def hears_more_after(lm: Running, start: torch.Tensor, scale: float) -> bool:
    """Whether a vector of the `scale` of embeddings says more when the embedding `start` (D,) stands before it.

    Many models treat position 0 in a way of their own, whatever is there: a vector there hardly moves the first token.
    Measured as the information that the token has of random vectors, in nats.
    """
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(RANDOM_VECTORS, 1, len(start), generator=generator).to(lm.device) * (VECTOR_SCALE * scale)
    before = start.expand(RANDOM_VECTORS, 1, -1)
    with lm.plain_float32():
        alone, after = lm.logits(vectors, 1), lm.logits(torch.cat([before, vectors], dim=1), 1)
    return _information(after[:, 0].float()) > _information(alone[:, 0].float())


def _information(logits: torch.Tensor) -> float:
    """How much a token drawn from logits (B, V) tells of the row that it was drawn from, in nats."""
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    return float((p * (log_p - p.mean(0).log())).nan_to_num().sum(1).mean())
