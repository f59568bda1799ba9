"""The method for models that are computed in floats: ranks of the true tokens, guarded against noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from ..config import CramConfig
from ..container.records import Entry, Header, Parameters
from ..container.stored import stored_group
from ..container.wire import Bytes
from ..errors import UsageError
from ..lm.devices import DEVICES
from ..lm.frozen import FrozenLM
from ..lm.identity import reference
from ..lm.precision import usual_settings
from .corrected import corrected_groups, group_tokens
from .cram import Goal
from .method import Coded, Method, Progress, versions
from .parameters import choose_parameters, expected
from .quantize import dequantize
from .recited import faults, recited_groups, recited_segment_size


class Ranked(Method):
    """A model in torch, and how a text is crammed with it. Raises UsageError if the model cannot do it so."""

    lm: FrozenLM

    def __init__(self, lm: FrozenLM, config: CramConfig):
        self.lm = lm
        config = replace(config, vectors=config.n_vectors)
        self.parameters = choose_parameters(lm, config)
        self.config, self.expected = with_profile(lm, _decided(config, self.parameters))
        self.goal = Goal.of(lm, self.config, self.parameters)
        self.group_tokens = 0 if config.exact else group_tokens(config.n_vectors)

    def segment_size(self, remaining: int, capacity: float) -> int:
        if self.config.exact:
            return recited_segment_size(self.goal, capacity, learns=capacity == self.expected)
        most = DEVICES[self.lm.device].segment_bytes
        return -(-remaining // max(1, -(-remaining // most)))

    @usual_settings()
    def code(self, ids: Sequence[int], capacity: float, progress: Progress) -> Coded:
        goal = self.goal
        if not self.config.exact:
            return Coded(*corrected_groups(goal, ids, progress))
        return recited_groups(goal, ids, capacity, lambda chunk, mem: faults(goal, chunk, dequantize(mem)), progress)

    @usual_settings()
    def bits(self, ids: Sequence[int], part: slice) -> float:
        """In chunks like those of a group."""
        view = self.goal.view
        firsts = range(part.start, part.stop, view.chunk_tokens)
        rows = [ids[first : min(first + view.chunk_tokens, part.stop)] for first in firsts]
        seen = [view.context(ids[:first]) for first in firsts]
        return sum(float(cost.sum()) for cost in self.lm.score(rows, seen)) / math.log(2)

    def stored_bits(self, content: bytes, part: slice) -> float:
        """What zstd takes more for the segment with these bytes than without: it has seen all the rest."""
        without = stored_group(content[: part.start] + content[part.stop :])
        return 8 * (stored_group(content).entry.payload_size - without.entry.payload_size)

    def cost(self, ids: Sequence[int]) -> float:
        return self.bits(ids, slice(0, len(ids)))

    def stored_entry(self, content: Bytes) -> Entry:
        return stored_group(content).entry

    def described(self, header: Header, gain: float | None) -> Header:
        vectors = None if gain is None else self.goal.described(gain)
        return replace(header, model=reference(self.lm), parameters=self.parameters, vectors=vectors)

    @property
    def conditions(self) -> dict[str, Any]:
        return {
            "parameters": asdict(self.parameters),
            "device": self.lm.device,
            "packages": versions("numpy", "tokenizers", "torch", "transformers", "zstandard"),
            "threads": torch.get_num_threads(),
            "expected": known_of_vectors(self),
        }


def _decided(config: CramConfig, parameters: Parameters) -> CramConfig:
    """The same, so that every worker decides as its parent did, whatever noise it finds."""
    config = replace(config, noise_exponent=parameters.noise_exponent)
    if config.exact:
        return config
    return replace(config, chunk_tokens=parameters.chunk_tokens, context=parameters.context_tokens)


def known_of_vectors(method: Method) -> list[Any] | None:
    """What profiles say, and what decides on vectors; None where there are to be none."""
    config = method.config
    return [method.expected, config.learning_rate, config.origin] if config.vectors else None


def with_profile(lm: FrozenLM, config: CramConfig) -> tuple[CramConfig, float]:
    """What is left open in `config`, by the profile of the model; and the bits that a vector may be expected to recite.

    Raises UsageError for an origin of another width.
    """
    found = expected(lm)
    if config.origin is not None and len(config.origin) != lm.width:
        raise UsageError(f"origin: expected {lm.width} numbers, found {len(config.origin)}")
    if config.origin is None:
        config = replace(config, origin=found.origin)
    if config.exact and config.learning_rate is None:
        config = replace(config, learning_rate=found.learning_rate)
    return config, found.capacity
