"""What a chunk sees before its own tokens: the start token, its vectors, and the tokens of its group before it.

This is decided here alone, for making files as for opening them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..container.records import Coding, Header, Parameters, Vectors

if TYPE_CHECKING:
    import torch

    from ..lm.frozen import FrozenLM


@dataclass(frozen=True)
class Chunk:
    """The tokens of a chunk, and those of its group before it that it sees."""

    tokens: Sequence[int]
    context: Sequence[int] = ()

    @property
    def length(self) -> int:
        """Tokens, with those of the context."""
        return len(self.context) + len(self.tokens)


@dataclass(frozen=True)
class View:
    """How a group is cut into chunks, and what each of these sees.

    A chunk has `chunk_tokens` tokens, the last one of a group what is left, and sees up to `context_tokens` tokens
    before it. It begins with its vectors, or, if it has none, with the start token; `after_start`: vectors stand after
    the start token, not in its place.
    """

    chunk_tokens: int
    context_tokens: int
    start_token: int
    after_start: bool = False

    @classmethod
    def of(cls, header: Header) -> View:
        """How the chunks of a file are seen."""
        return cls._with(header.parameters, header.vectors is not None and header.vectors.after_start)

    @classmethod
    def for_model(cls, lm: FrozenLM, parameters: Parameters, *, vectors: bool) -> View:
        """What suits a model when a file is made. Only with `vectors` is the model asked where it hears them better."""
        return cls._with(parameters, vectors and lm.vectors_after_start)

    @classmethod
    def _with(cls, parameters: Parameters, after_start: bool) -> View:
        return cls(parameters.chunk_tokens, parameters.context_tokens, parameters.start_token, after_start)

    def described(self, coding: Coding, width: int, gain: int | None) -> Vectors:
        """What a header says of the vectors of this view."""
        return Vectors(coding, width, gain, self.after_start)

    def chunks(self, tokens: Sequence[int]) -> list[Chunk]:
        """The chunks of a group."""
        starts = range(0, len(tokens), self.chunk_tokens)
        return [Chunk(tokens[start : start + self.chunk_tokens], self.context(tokens[:start])) for start in starts]

    def context(self, before: Sequence[int]) -> Sequence[int]:
        """Those of the tokens `before` a chunk in its group that it sees."""
        return before[max(0, len(before) - self.context_tokens) :]

    def n_before(self, n_vectors: int) -> int:
        """Positions that a chunk takes before its context."""
        return n_vectors + self.after_start if n_vectors else 1

    def positions(self, n_tokens: int, n_vectors: int) -> int:
        """The most positions that a chunk of a group of `n_tokens` takes."""
        chunk = min(n_tokens, self.chunk_tokens)
        return self.n_before(n_vectors) + min(n_tokens - chunk, self.context_tokens) + chunk

    def before(self, lm: FrozenLM, mem: Sequence[torch.Tensor], n_rows: int) -> torch.Tensor:
        """The input embeddings (B, N, D) that `n_rows` chunks begin with; `mem` holds the vectors (M, D) of each."""
        import torch

        start = lm.embed(torch.full((n_rows, 1), self.start_token, device=lm.device))
        if not mem:
            return start
        vectors = torch.stack(list(mem)).to(lm.device)
        return torch.cat([start, vectors], dim=1) if self.after_start else vectors

    def logits(self, lm: FrozenLM, chunk: Chunk, mem: torch.Tensor | None = None) -> torch.Tensor:
        """What the model says at each token of a chunk (T, V), float32, all the tokens before being right."""
        import torch

        before = self.before(lm, [] if mem is None else [mem], 1)
        ids = torch.tensor([[*chunk.context, *chunk.tokens[:-1]]], dtype=torch.long, device=lm.device)
        with torch.inference_mode(), lm.plain_float32():
            return lm.logits(torch.cat([before, lm.embed(ids)], dim=1), len(chunk.tokens))[0].float()
