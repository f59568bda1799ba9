"""The vectors of a codebook, trained together with the model, which so learns to listen to them.

The rows of such a step are short. Each has, after `<|bos|>`, the entry of the codebook that makes it cheapest of a few
likely ones; the model and the entry then follow the same gradient.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from recipe import token_nats
from texts import BOS_ID

from cramzip.exact.codebook import PRIOR_TOTAL
from cramzip.exact.weights import quantise

EVERY = 5  # one of so many steps has such rows
TRIED, TRIED_ON = 3, 24  # entries that are tried for a row, and the tokens that decide
RATE = 0.04  # of the vectors at the full rate of the model, in deviations of its embeddings
BETAS = (0.9, 0.95)


def begun_nll(model, rows, vectors):
    """Nats (B, T) of rows (B, T + 1) with vectors (B, M, D) after their first token; 0 for filling and `<|bos|>`."""
    embedded = model.get_input_embeddings()(rows[:, :-1].clamp(min=0))  # (B, T, D)
    inputs = torch.cat([embedded[:, :1], vectors, embedded[:, 1:]], dim=1)
    n_tokens = rows.shape[1] - 1
    logits = model(inputs_embeds=inputs, use_cache=False, logits_to_keep=n_tokens).logits.float()
    return token_nats(logits, rows[:, 1:])


class Mems:
    """Entries that are being trained: `table` (K, M * D), and its average over the last steps."""

    def __init__(self, codebook, model, compiled=False):
        self.codebook, self.n_each = codebook, codebook.n_each
        device = model.device
        start = torch.from_numpy(codebook.vectors(range(codebook.n_entries))).flatten(1).to(device)
        self.table, self.averaged = torch.nn.Parameter(start), start.clone()
        self.rate = RATE * float(model.get_input_embeddings().weight.detach().float().std())
        self.optimiser = torch.optim.SparseAdam([self.table], lr=self.rate, betas=BETAS)
        self.nll = torch.compile(begun_nll, dynamic=False) if compiled else begun_nll
        prior = torch.from_numpy(codebook.priors[1]).to(device)
        self.rates = math.log(PRIOR_TOTAL) - prior.log()  # nats (K,) that saying an entry takes

    def state_dict(self):
        return {"table": self.table.data, "averaged": self.averaged, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state):
        self.table.data.copy_(state["table"])
        self.averaged.copy_(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])

    def costs(self, model, rows):
        """Nats (B, T) of rows (B, T + 1), each with the entry that suits it."""
        chosen = self.chosen(model, rows)
        return self.nll(model, rows, F.embedding(chosen, self.table, sparse=True).unflatten(1, (self.n_each, -1)))

    @torch.no_grad()
    def chosen(self, model, rows):
        """The entry (B,) for each of some rows (B, T + 1)."""
        states = model.base_model(input_ids=rows.clamp(min=0), use_cache=False).last_hidden_state[:, 1:].float()
        there = (rows[:, 1:] > BOS_ID)[..., None]
        mean = (states * there).sum(1) / there.sum(1).clamp(min=1)
        guesses = torch.from_numpy(self.codebook.guessed(mean.cpu().numpy())).to(rows.device)
        likely = guesses.topk(min(TRIED, len(self.table))).indices  # (B, C)
        vectors = self.table[likely].flatten(0, 1).unflatten(1, (self.n_each, -1))
        starts = rows[:, : TRIED_ON + 1].repeat_interleave(likely.shape[1], dim=0)
        costs = begun_nll(model, starts, vectors).sum(1).view_as(likely) + self.rates[likely]
        torch.clear_autocast_cache()  # of weights that were cast without gradients
        return likely.gather(1, costs.argmin(1, keepdim=True))[:, 0]

    def step(self, lr_share):
        """Move the entries that the last rows had."""
        self.optimiser.param_groups[0]["lr"] = self.rate * lr_share
        self.optimiser.step()
        self.optimiser.zero_grad()

    @torch.no_grad()
    def average(self, share):
        self.averaged.lerp_(self.table, share)


def with_vectors(codebook, table):
    """The codebook with other vectors (K, M * D); priors and selector stay, until it is learned further."""
    shape = codebook.integers.shape
    matrix = quantise(np.ascontiguousarray(table.float().numpy().reshape(-1, shape[2])))
    return replace(codebook, integers=matrix.integers.reshape(shape), scales=matrix.scales.reshape(shape[:2]))
