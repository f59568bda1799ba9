"""The model and how it learns: shape, loss and optimisers.

This module knows nothing of files.
"""

import math
from collections import defaultdict

import torch
import torch.nn.functional as F
from texts import BOS_ID, LONG_CONTEXT, SEED
from transformers import LlamaConfig, LlamaForCausalLM

from cramzip.lm.devices import has_fast_bfloat16


def fast_bfloat16(device):
    """Whether products in bfloat16 are quicker than in float32; on many CPUs they are slower."""
    return device != "cpu" or has_fast_bfloat16(device)


def nll(model, rows):
    """Nats per predicted token, shape (B, T - 1); 0 where the target is filling or `<|bos|>`."""
    inputs, targets = rows[:, :-1].clamp(min=0), rows[:, 1:]
    logits = model(input_ids=inputs, use_cache=False).logits.float()  # (B, T - 1, V)
    return token_nats(logits, targets)


def token_nats(logits, targets):
    """Nats (B, T) of targets (B, T) under logits (B, T, V); 0 where the target is filling or `<|bos|>`."""
    flat = targets.masked_fill(targets <= BOS_ID, -100).flatten()
    return F.cross_entropy(logits.flatten(0, 1), flat, reduction="none").view_as(targets)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024), matrices of a shape at once.

    torch.optim.Muon does the same one matrix at a time, and in bfloat16 where that is slow, too.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @staticmethod
    def orthogonalise(g, steps=5):
        """The nearest semi-orthogonal matrices, roughly; g has shape (N, rows, columns)."""
        x = g.bfloat16() if fast_bfloat16(g.device.type) else g
        if tall := g.shape[1] > g.shape[2]:
            x = x.mT
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(steps):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return (x.mT if tall else x).to(g.dtype)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                by_shape[p.shape].append(p)
            for (n_out, n_in), ps in by_shape.items():
                updates = [p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in ps]
                scale = group["lr"] * math.sqrt(max(1.0, n_out / n_in))
                orthogonal = self.orthogonalise(torch.stack(updates))
                for p, update in zip(ps, orthogonal, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def make_optimisers(model, muon_lr, adam_lr):
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    adamw = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    return [Muon(matrices, lr=muon_lr), adamw]


def attention(device):
    """PyTorch's fused attention, or the plain one where that is quicker: on a CPU without products in bfloat16."""
    return "sdpa" if fast_bfloat16(device) else "eager"


def make_model(vocab_size, layers, hidden, heads, key_heads, intermediate, activation="silu"):
    """A new model, whose blocks do nothing yet."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        hidden_act=activation,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=LONG_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=None,
        architectures=["LlamaForCausalLM"],
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:  # every block starts as the identity
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model
