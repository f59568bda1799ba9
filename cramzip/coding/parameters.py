"""What is decided for a whole file before it is written: noise, lengths, and what vectors may be expected to hold."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..config import CramConfig
from ..container.records import Parameters
from ..errors import ModelError, UsageError
from ..lm import profiles
from ..lm.frozen import FrozenLM
from .chunking import prior_capacity
from .view import View

POSITIONS = 1024  # that the model sees at once, if it can
SMALL_MODEL = 2**25  # parameters; what is far away is of little use to it
MOST_NOISE_EXPONENT = 14
NOISE_MARGIN = 2.0  # times what is seen here: other processors and libraries were seen to err 1.42 times as much
MAX_EXACT_TOKENS = 2**12  # of a chunk without corrections


class Expectation(NamedTuple):
    """What vectors may be expected to do.

    `capacity`: bits that one vector holds if it has to be exact. `learning_rate`: the best one for such vectors, and
    `origin`: the point around which vectors start. None = not measured.
    """

    capacity: float
    learning_rate: float | None
    origin: tuple[float, ...] | None


def expected(lm: FrozenLM) -> Expectation:
    """What was measured for this very model; or else what was published or may be guessed."""
    if profile := profiles.find(lm.fingerprint):
        origin = profile.origin if len(profile.origin) == lm.width else None
        return Expectation(profile.bits_per_vector, profile.learning_rate, origin)
    return Expectation(prior_capacity(lm.width, lm.vocabulary_size, lm.n_layers), None, None)


def choose_parameters(lm: FrozenLM, config: CramConfig) -> Parameters:
    """How the groups of a file are to be decoded.

    Raises UsageError if the model cannot see that far, and ModelError if its logits err by more than any file could
    withstand.
    """
    exponent = _noise_exponent(lm) if config.noise_exponent is None else config.noise_exponent
    parameters, n_vectors = Parameters(exponent, start_token=lm.start), config.n_vectors
    before = View.for_model(lm, parameters, vectors=n_vectors > 0).n_before(n_vectors)
    wanted = max(POSITIONS, (config.chunk_tokens or POSITIONS // 2) + (config.context or 0) + before)
    room = min(lm.context or wanted, wanted) - before
    if config.exact:
        chunk, context = min((lm.context or MAX_EXACT_TOKENS + before) - before, MAX_EXACT_TOKENS), 0
    elif config.chunk_tokens is not None:
        chunk = config.chunk_tokens
        context = config.context if config.context is not None else room - chunk
    elif config.context is not None:
        context = config.context
        chunk = room - context
    else:
        context = room // 4 if n_vectors or lm.n_parameters <= SMALL_MODEL else room // 2
        chunk = room - context
    if chunk < 1 or context < 0 or before + chunk + context > (lm.context or math.inf):
        asked = f"{n_vectors} vectors, {config.context or 0} tokens before a chunk of {max(chunk, 1)}"
        raise UsageError(f"{asked} do not fit into the {lm.context} positions of the model")
    return Parameters(exponent, chunk, context, lm.start)


def _noise_exponent(lm: FrozenLM) -> int:
    """The largest k such that 2^-k is at least NOISE_MARGIN times the largest error seen in any logit of a probe.

    It is never more than MOST_NOISE_EXPONENT.
    """
    bound = NOISE_MARGIN * lm.noise
    if not bound <= 1:
        raise ModelError(f"{lm.model_id}: its logits were seen to err by {lm.noise:.2g}, more than files can withstand")
    return math.floor(-math.log2(max(bound, 2.0**-MOST_NOISE_EXPONENT)))
