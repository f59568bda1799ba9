"""A frozen causal language model, asked for embeddings, logits and costs. Computing is float32 with TF32 off.

Any decoder-only model of transformers that accepts `inputs_embeds`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..errors import ModelError
from . import probe
from .devices import pick
from .isolation import transformers_alone
from .known import versions
from .loading import load_model, load_tokenizer
from .precision import plain_float32, require_float32, usual_settings
from .source import ModelSource, find
from .speed.cache import with_room
from .speed.linear import pack_layers
from .speed.llama import LlamaStep
from .speed.memory import keep_freed_memory

SCALE_SAMPLE = 4096  # rows of the embedding table that its scale is measured on

# Positions encoded by the length of the whole sequence: a cache then holds what is no longer true.
_LENGTH_DEPENDENT = re.compile(r'"(rope_)?type": "(dynamic|longrope)"')


class FrozenLM:
    """A causal language model in float32 that nothing will train.

    `width` D is the width of an input embedding, `vocabulary_size` V the number of logits, `context`
    the most positions it can see (None: no limit), `embedding_scale` the standard deviation of its
    input embeddings, `start` the token that stands before a text.
    """

    @usual_settings()
    def __init__(self, source: ModelSource, device: str = "auto"):
        self.source = source
        self.model_id, self.revision = source.model_id, source.revision
        self.fingerprint, self.weight_bytes = source.fingerprint, source.weight_bytes
        self.device = pick(device)
        require_float32(self.device)
        self._model = load_model(source).to(self.device).eval().requires_grad_(False)
        self.n_parameters = sum(parameter.numel() for parameter in self._model.parameters())
        self._embed = self._model.get_input_embeddings()
        if self.device == "cpu":
            keep_freed_memory()
            pack_layers(self._model)
        self._llama = LlamaStep.of(self._model)
        accepted = inspect.signature(self._model.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

        config = self._model.config.get_text_config()
        if _LENGTH_DEPENDENT.search(config.to_json_string()):
            raise ModelError(f"{self.model_id} encodes positions by the length of the text: not supported")
        self.context = _positions(config)
        self.n_layers: int = getattr(config, "num_hidden_layers", 0)
        with transformers_alone():  # when it is first run, a model may look for kernels, and report those it lacks
            embeddings, logits = probe.run(self)
            self._has_plain_head = self._finds_plain_head(embeddings, logits)
        self.vocabulary_size, self.width = logits.shape[-1], embeddings.shape[-1]
        self.tokenizer = load_tokenizer(source, self.vocabulary_size)
        self.tokenizer_hash = self.tokenizer.hash
        self.embedding_scale = self._measure_scale()
        self.start = self._start_token(config)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> FrozenLM:
        """The model in a local folder or GGUF file."""
        return cls(find(str(path)), device)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings (..., D) of token ids (...), as the model itself looks them up."""
        embedded: torch.Tensor = self._embed(ids)
        return embedded

    def logits(self, inputs: torch.Tensor, n_last: int = 0) -> torch.Tensor:
        """Logits (B, N, V) at the last `n_last` positions of input embeddings (B, ., D), or at all; differentiable."""
        keep = {"logits_to_keep": n_last} if n_last and self._last_only else {}
        logits: torch.Tensor = self._model(inputs_embeds=inputs, use_cache=False, **keep).logits
        return logits[:, -n_last:]

    def hidden(self, inputs: torch.Tensor, n_last: int) -> torch.Tensor:
        """What `head` makes the last `n_last` logits of: (B, n_last, H); differentiable.

        Logits take much memory, and need not all be there at once.
        """
        if not self._has_plain_head:
            return self.logits(inputs, n_last)
        states: torch.Tensor = self._model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return states[:, -n_last:]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of hidden states (..., H); differentiable."""
        if not self._has_plain_head:
            return hidden
        logits: torch.Tensor = self._model.get_output_embeddings()(hidden)
        return logits

    def step(self, inputs: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        """Logits (B, V) after the last of the input embeddings (B, N, D), and the cache that goes on."""
        if self._llama and cache is not None and inputs.shape[1] == 1:
            return self._llama(inputs[:, 0], cache).float(), cache
        output = self._model(inputs_embeds=inputs, use_cache=True, **{self._cache_name: cache}, **self._last_only)
        after = getattr(output, self._cache_name)
        return output.logits[:, -1].float(), with_room(after) if cache is None else after

    @usual_settings()
    @torch.inference_mode()
    def score(self, rows: Sequence[Sequence[int]], contexts: Sequence[Sequence[int]] = ()) -> list[np.ndarray]:
        """Cost in nats of each token of each row, given the tokens before it: those of its context, then of the row.

        Before them stands the start token.
        """
        costs: list[np.ndarray] = []
        for index, row in enumerate(rows):
            context = list(contexts[index]) if contexts else []
            ids = torch.tensor([[self.start, *context, *row[:-1]]], device=self.device)
            with self.plain_float32():
                logits = self.logits(self.embed(ids), len(row)).float()
            targets = torch.tensor([row], device=self.device)
            costs.append(token_costs(logits, targets)[0].cpu().numpy())
        return costs

    @cached_property
    @usual_settings()
    def vectors_after_start(self) -> bool:
        """Whether a vector says more when the start token stands before it."""
        start = self.embed(torch.tensor(self.start, device=self.device))
        return probe.hears_more_after(self, start, self.embedding_scale)

    @cached_property
    def noise(self) -> float:
        """What `measure_noise` once found, with this device and these packages."""
        machine = f"{self.device} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
        fact = f"noise {versions('torch', 'transformers')} {machine}"
        found = self.source.recall().get(fact)
        if not isinstance(found, float):
            found = self.measure_noise()
            self.source.remember(**{fact: found})
        return found

    @usual_settings()
    def measure_noise(self) -> float:
        """The largest change of a logit when a text is read token by token, and not at once."""
        ids = [token for piece in self.tokenizer.encode(probe.PROBE_TEXT) for token in piece.ids or []]
        most = min(probe.NOISE_TOKENS, (self.context or probe.NOISE_TOKENS + 1) - 1)
        return probe.noise(self, [self.start, *(ids or [self.start])[:most]])

    @torch.inference_mode()
    def _finds_plain_head(self, embeddings: torch.Tensor, whole: torch.Tensor) -> bool:
        """Whether logits are nothing but the output layer applied to what the layers before it give."""
        head, base = self._model.get_output_embeddings(), self._model.base_model
        if head is None or base is self._model:
            return False
        with self.plain_float32():
            found = head(base(inputs_embeds=embeddings, use_cache=False).last_hidden_state)[0]
        return probe.is_same(found, whole)

    @contextmanager
    def plain_float32(self) -> Iterator[None]:
        """Plain float32, whatever the program around has set: no TF32, no autocast."""
        with plain_float32(self.device):
            yield

    def _start_token(self, config: Any) -> int:
        """What the configuration says that texts begin with, or else end with, or else token 0."""
        for value in (config.bos_token_id, config.eos_token_id):
            token = value[0] if isinstance(value, list) and value else value
            if isinstance(token, int) and 0 <= token < self.vocabulary_size:
                return token
        return 0

    @torch.inference_mode()
    def _measure_scale(self) -> float:
        """The deviation of input embeddings. Rows that no training has touched can hold anything, even NaN."""
        n_rows = min(self.vocabulary_size, len(self.tokenizer.table))
        sample = torch.linspace(0, n_rows - 1, min(n_rows, SCALE_SAMPLE), device=self.device).long()
        embeddings = self.embed(sample).float()
        scale = float(embeddings[embeddings.isfinite().all(1)].std())
        if not (0 < scale < math.inf):
            raise ModelError(f"{self.model_id}: its input embeddings have no scale (found {scale})")
        return scale


def _positions(config: Any) -> int | None:
    """The most positions that a model can see; None where there is no such number. Raises ModelError."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and not (isinstance(positions, int) and positions > 0):
        raise ModelError(f"max_position_embeddings: expected 1 or more, found {positions!r}")
    return positions


def token_costs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of `targets` (B, T) under `logits` (B, T, V), in nats: (B, T)."""
    costs = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return costs.view(targets.shape)


def pad(rows: Sequence[Sequence[int]], length: int, value: int = 0) -> torch.Tensor:
    """Rows of ids as one tensor (B, length), filled up with `value` on the right."""
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded
