"""How long a training lasts and what share of the full learning rate it has: up, level, down to zero.

The learning rate follows time, so that a run on a busy machine ends when it should.
"""

import time
from dataclasses import dataclass

DECAY = 0.4  # of the whole training, at its end
WARM_UP = 0.01  # of the whole training, at its beginning
WARM_UP_FROM_WEIGHTS = 0.04  # trained weights lose more at a sudden start, while momentum is not yet there

WARM_UP_STEPS = 60  # at least: compiling takes minutes in which no momentum comes about


@dataclass(frozen=True)
class Schedule:
    """Limits of a training, of which the soonest counts; None sets no limit.

    `minutes` counts the time of the training over all resumes; `until` is a time of the clock, seconds since 1970, for
    a run that is paused now and then.  `warm_up` and `decay` are in minutes, or None for their share of the whole.
    """

    minutes: float | None = None
    until: float | None = None
    tokens: float | None = None
    warm_up: float | None = None
    decay: float | None = None
    warm_up_share: float = WARM_UP

    def left(self, state):
        """Seconds to the end; tokens that are left are taken at the speed so far."""
        limits = []
        if self.minutes is not None:
            limits.append(60 * self.minutes - state["seconds"])
        if self.until is not None:
            limits.append(self.until - time.time())
        if self.tokens is not None:
            limits.append((self.tokens - state["trained"]) * max(state["seconds"], 1.0) / max(state["trained"], 1))
        return min(limits)

    def lr_share(self, state):
        """Share of the full learning rate, 0 to 1."""
        left, seconds = self.left(state), state["seconds"]
        whole = max(left + seconds, 1.0)
        warm_up = self.warm_up_share * whole if self.warm_up is None else 60 * self.warm_up
        decay = DECAY * whole if self.decay is None else 60 * self.decay
        up = (seconds + 1e-3 * whole) / max(warm_up, 1.0)
        momentum = (1 + state["step"]) / WARM_UP_STEPS
        return max(0.0, min(1.0, up, momentum, left / max(decay, 1.0)))
