"""A codebook of `[mem]`: vectors after the start token, each for texts that begin alike. How it is learned.

Texts belong to the entry that makes them cheapest, and each entry follows the gradient of its texts; in turn, as in
k-means. At first texts belong together whose states lie together. What states say of entries stays as the *selector*,
which spares a writer trying all of them. The model does not change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..exact.codebook import PRIOR_TOTAL, Codebook
from ..exact.weights import quantise
from ..lm.devices import has_fast_bfloat16
from ..lm.frozen import FrozenLM, token_costs

BATCH = 64  # texts in a step
MOST_LOGITS = 2**28  # of a batch, or there are fewer texts in it
LEAST_BATCH = 8
RATE, FINAL_RATE = 0.08, 0.05  # of the optimiser, in units of the embedding scale; the share that is left in the end
BETAS = (0.9, 0.95)
PARENTS = 16  # clusters that the entries are first learned for, in a new codebook
PARENT_SHARE = 0.15  # of the time
TRIED, TRIED_ON = 3, 24  # entries that a text may go over to, and the tokens that decide about it
ROUNDS, LATER_ROUNDS = 4, 2  # times that texts change over, in a new codebook and in one that goes on
CHANGING_SHARE = 0.25  # of a round
LEAST_TEXTS = 4  # of an entry, or it takes over half of the largest one
SELECTOR_STEPS, SELECTOR_RATE, SELECTOR_DECAY = 200, 0.02, 1e-3
TRIED_AT_LAST = 12  # entries that are tried for a text that is held out
SMOOTHING = 0.3  # texts more that each entry has in the priors

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Windows:
    """First tokens (N, T) of texts and of stretches of texts; `begins`: whether each is the beginning of a text."""

    tokens: torch.Tensor
    begins: torch.Tensor


class Learning:
    """A codebook that is being learned: its vectors (K, M, D), and the entry of each text."""

    def __init__(self, lm: FrozenLM, windows: Windows, shape: tuple[int, int], seed: int = 0):
        """`shape`: entries, and vectors of each."""
        self.lm, self.windows, self.n_entries, self.n_each = lm, windows, *shape
        self._generator = torch.Generator().manual_seed(seed)
        self._batch = max(LEAST_BATCH, min(BATCH, MOST_LOGITS // (windows.tokens.shape[1] * lm.vocabulary_size)))
        start = lm.embed(torch.tensor([lm.start], device=lm.device)).detach().float().cpu()
        self.vectors = start.expand(self.n_entries, self.n_each, lm.width).clone()
        self.vectors += torch.randn(self.n_each, lm.width, generator=self._generator) * (0.3 * lm.embedding_scale)
        self.without, self.states = self.begun(windows.tokens)  # bits (N,), (N, D)
        self.labels = torch.zeros(len(windows.tokens), dtype=torch.long)
        self._waiting: list[int] = []
        self._forget()

    def _forget(self) -> None:
        """Let the optimiser begin anew."""
        self._mean, self._square = torch.zeros_like(self.vectors), torch.zeros_like(self.vectors)
        self._steps = torch.zeros(self.n_entries)

    def run(self, seconds: float, earlier: Codebook | None = None, tell: Tell = print) -> Iterator[Codebook]:
        """Learn for about so long, from an earlier codebook or from nothing. Gives what there is after each round."""
        begin = time.monotonic()
        if earlier is None:
            self._begin_anew(begin, seconds)
        else:
            self.vectors = torch.from_numpy(earlier.vectors(range(earlier.n_entries))).clone()
            guesses = torch.from_numpy(earlier.guessed(self.states.numpy()))
            self.labels = guesses.argmax(1)
            self._change_over(guesses)
        used, n_rounds = time.monotonic() - begin, LATER_ROUNDS if earlier else ROUNDS
        for number in range(n_rounds):
            end = used + (seconds - used) * (number + 1) / n_rounds
            rates = [1 - (1 - FINAL_RATE) * part / n_rounds for part in (number, number + 1)]
            reserve = (seconds - used) / n_rounds * CHANGING_SHARE
            self._train(begin, end - reserve, (rates[0], rates[1]))
            selector, bias = fitted(self.states, self.labels, self.n_entries)
            moved = self._change_over(self.states @ selector.T + bias)
            tell(f"round {number + 1}: {moved:.0%} of the texts changed over, {self._saved:.2f} bits saved on a text")
            yield self.codebook()

    def _begin_anew(self, begin: float, seconds: float) -> None:
        """Let texts belong to the cluster of their states; where there are many, entries begin as those of a few."""
        if self.n_entries > PARENTS:
            self.labels = clusters(self.states, PARENTS, self._generator)
            self._train(begin, seconds * PARENT_SHARE, (1.0, 0.5))
        parents, self.labels = self.labels, clusters(self.states, self.n_entries, self._generator)
        members = [parents[self.labels == entry] for entry in range(self.n_entries)]
        self.vectors = self.vectors[[int(own.mode().values) if len(own) else 0 for own in members]]
        self._fill_empty()
        self._forget()

    def _train(self, begin: float, until: float, rates: tuple[float, float]) -> None:
        """Steps until so many seconds after `begin`, at a rate that goes from the first to the second."""
        first = time.monotonic() - begin
        while (now := time.monotonic() - begin) < until:
            share = (now - first) / max(until - first, 1e-9)
            self._step(self._drawn(), RATE * self.lm.embedding_scale * (rates[0] + (rates[1] - rates[0]) * share))

    def _drawn(self) -> torch.Tensor:
        if len(self._waiting) < self._batch:
            self._waiting += torch.randperm(len(self.labels), generator=self._generator).tolist()
        drawn, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
        return torch.tensor(drawn)

    def _step(self, texts: torch.Tensor, rate: float) -> None:
        """One step of Adam of the entries that these texts belong to."""
        entries = self.labels[texts]
        own = self.vectors[entries].requires_grad_()
        (gradient,) = torch.autograd.grad(self._costs(own, self.windows.tokens[texts]).sum(), own)
        whole = torch.zeros_like(self.vectors).index_add_(0, entries, gradient)
        used = torch.unique(entries)
        self._steps[used] += 1
        k = self._steps[used][:, None, None]
        self._mean[used] = BETAS[0] * self._mean[used] + (1 - BETAS[0]) * whole[used]
        self._square[used] = BETAS[1] * self._square[used] + (1 - BETAS[1]) * whole[used].square()
        mean, square = self._mean[used] / (1 - BETAS[0] ** k), self._square[used] / (1 - BETAS[1] ** k)
        self.vectors[used] -= rate * mean / (square.sqrt() + 1e-8)

    @torch.no_grad()
    def _change_over(self, guesses: torch.Tensor) -> float:
        """Give each text to the entry that makes it cheapest, of the likely ones; the share of texts that change."""
        likely = guesses.topk(min(TRIED, self.n_entries)).indices
        likely = torch.cat([self.labels[:, None], likely], dim=1)
        costs = self.bits(self.windows.tokens[:, :TRIED_ON], likely) + self._rates()[likely]
        best = costs.argmin(1, keepdim=True)
        before, self.labels = self.labels, likely.gather(1, best)[:, 0]
        self._fill_empty()
        sample = torch.arange(0, len(self.labels), max(1, len(self.labels) // 1024))
        after = self.bits(self.windows.tokens[sample], self.labels[sample][:, None])[:, 0]
        self._saved = float((self.without[sample] - after).mean())
        return float((before != self.labels).float().mean())

    def _rates(self) -> torch.Tensor:
        counts = torch.bincount(self.labels, minlength=self.n_entries) + 1.0
        return -(counts / counts.sum()).log2()

    def _fill_empty(self) -> None:
        """Let entries of hardly any texts take over half of the largest ones."""
        counts = torch.bincount(self.labels, minlength=self.n_entries)
        for entry in torch.nonzero(counts < LEAST_TEXTS)[:, 0].tolist():
            largest = int(counts.argmax())
            members = torch.nonzero(self.labels == largest)[:, 0]
            moved = members[clusters(self.states[members], 2, self._generator) == 1]
            self.labels[moved] = entry
            self.vectors[entry] = self.vectors[largest]
            self._mean[entry], self._square[entry], self._steps[entry] = 0.0, 0.0, 0
            counts = torch.bincount(self.labels, minlength=self.n_entries)

    @torch.no_grad()
    def trial(self, codebook: Codebook, held_out: Windows) -> tuple[torch.Tensor, torch.Tensor]:
        """Bits (N,) that the best likely entry saves on other texts, and that saying so takes; none where none pays."""
        without, states = self.begun(held_out.tokens)
        guesses = torch.from_numpy(codebook.guessed(states.numpy()))
        likely = guesses.topk(min(TRIED_AT_LAST, codebook.n_entries)).indices
        vectors = torch.from_numpy(codebook.vectors(range(codebook.n_entries)))
        rates = -torch.from_numpy(codebook.priors / codebook.priors.sum(1, keepdims=True)).log2()
        spent = rates[torch.where(held_out.begins, 0, 1)].gather(1, likely)
        saved = without[:, None] - self.bits(held_out.tokens, likely, vectors)
        best = (saved - spent).argmax(1, keepdim=True)
        saved, spent = saved.gather(1, best)[:, 0], spent.gather(1, best)[:, 0]
        return torch.where(saved > spent, saved, 0.0), torch.where(saved > spent, spent, 0.0)

    def codebook(self) -> Codebook:
        """What was learned, as integers."""
        matrix = quantise(self.vectors.reshape(-1, self.lm.width).numpy())
        selector, bias = fitted(self.states, self.labels, self.n_entries)
        shape = self.n_entries, self.n_each
        return Codebook(
            integers=matrix.integers.reshape(*shape, -1),
            scales=matrix.scales.reshape(shape),
            priors=np.stack([self._prior(self.windows.begins), self._prior(~self.windows.begins)]),
            selector=quantise(selector.numpy()),
            bias=bias.numpy(),
        )

    def _prior(self, of: torch.Tensor) -> np.ndarray:
        """How often each entry is chosen by some of the texts, as integers that add up to PRIOR_TOTAL."""
        counts = torch.bincount(self.labels[of], minlength=self.n_entries).double().numpy() + SMOOTHING
        whole = 1 + np.floor(counts / counts.sum() * (PRIOR_TOTAL - self.n_entries)).astype(np.int64)
        whole[whole.argmax()] += PRIOR_TOTAL - whole.sum()
        found: np.ndarray = whole
        return found

    @torch.no_grad()
    def begun(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bits (N,) of rows of tokens (N, T) after the start token, and means (N, D) of what the head would take."""
        lm, bits, states = self.lm, [], []
        for rows in torch.split(tokens, self._batch):
            ids = torch.cat([torch.full((len(rows), 1), lm.start), rows], dim=1).to(lm.device)
            with self._precision():
                hidden = lm.hidden(lm.embed(ids), ids.shape[1])
                costs = token_costs(lm.head(hidden[:, :-1]).float(), ids[:, 1:])
            bits.append(costs.sum(1).cpu() / math.log(2))
            states.append(hidden[:, 1:].float().mean(1).cpu())
        return torch.cat(bits), torch.cat(states)

    @torch.no_grad()
    def bits(self, tokens: torch.Tensor, entries: torch.Tensor, vectors: torch.Tensor | None = None) -> torch.Tensor:
        """Bits (N, C) of rows of tokens (N, T) after each of some entries (N, C)."""
        vectors = self.vectors if vectors is None else vectors
        columns = [
            torch.cat(
                [
                    self._costs(vectors[own], rows).sum(1).cpu()
                    for rows, own in zip(
                        torch.split(tokens, self._batch), torch.split(column, self._batch), strict=True
                    )
                ]
            )
            for column in entries.T
        ]
        return torch.stack(columns, dim=1) / math.log(2)

    def _costs(self, vectors: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Nats (B, T) of tokens (B, T) after the start token and vectors (B, M, D)."""
        lm, tokens = self.lm, tokens.to(self.lm.device)
        start = lm.embed(torch.full((len(tokens), 1), lm.start, device=lm.device))
        inputs = torch.cat([start, vectors.to(lm.device), lm.embed(tokens[:, :-1])], dim=1)
        with self._precision():
            logits = lm.logits(inputs, tokens.shape[1])
            if not torch.is_grad_enabled():  # gradients need no float32, and half the time
                logits = logits.float()
            return token_costs(logits, tokens).float()

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """bfloat16 where that is fast. On a CPU attention is plain products: their gradients are found sooner."""
        device = self.lm.device
        with (
            torch.autocast(device, torch.bfloat16, enabled=has_fast_bfloat16(device)),
            sdpa_kernel([SDPBackend.MATH]) if device == "cpu" else nullcontext(),
        ):
            yield


def fitted(states: torch.Tensor, labels: torch.Tensor, n_entries: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What tells entries by states (N, D): weights (K, D) and biases (K,) of a softmax regression."""
    mean, scale = states.mean(0), states.std(0) + 1e-6
    inputs = (states - mean) / scale
    weights = torch.zeros(n_entries, states.shape[1], requires_grad=True)
    bias = torch.zeros(n_entries, requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias], lr=SELECTOR_RATE)
    for _ in range(SELECTOR_STEPS):
        loss = functional.cross_entropy(inputs @ weights.T + bias, labels) + SELECTOR_DECAY * weights.square().sum() / 2
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    found = (weights / scale).detach()
    return found, (bias - found @ mean).detach()


def clusters(points: torch.Tensor, n: int, generator: torch.Generator, n_steps: int = 20) -> torch.Tensor:
    """Which of `n` clusters each of some points (N, D) is in, by k-means."""
    points = (points - points.mean(0)) / (points.std(0) + 1e-6)
    centres = points[torch.randperm(len(points), generator=generator)[:n]].clone()
    for _ in range(n_steps):
        distances = torch.cdist(points, centres)
        nearest = distances.min(1)
        counts = torch.bincount(nearest.indices, minlength=n)
        sums = torch.zeros_like(centres).index_add_(0, nearest.indices, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        for empty in torch.nonzero(counts == 0)[:, 0].tolist():
            centres[empty] = points[int(nearest.values.argmax())]
    return torch.cdist(points, centres).argmin(1)
