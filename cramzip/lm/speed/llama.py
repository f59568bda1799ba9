"""One-token steps of Llama models, several times as fast as those of transformers where models or batches are small.

Layers and weights are those of the loaded model; left out is what a general library does between them. A single
token of every row needs no mask, and its query heads can share a key head as if they were tokens. Where the models of
transformers are no longer made of the parts that are used here, its own steps are taken.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn import functional

FIRST_POSITIONS = 1024  # that rotations are computed for
WORKS_WITHIN = 1e-3  # of logits of about 1


class LlamaStep:
    """Logits after one more token of every row, for a Llama of transformers and its cache."""

    def __init__(self, model: Any):
        self._head, self._norm, self._layers = model.lm_head, model.model.norm, model.model.layers
        self._rotary = model.model.rotary_emb
        self._head_width = int(self._layers[0].self_attn.head_dim)
        self._rotations = self._rotate_up_to(FIRST_POSITIONS)

    @classmethod
    def of(cls, model: Any) -> LlamaStep | None:
        """Steps for `model`, if it is a Llama."""
        from transformers import LlamaForCausalLM

        is_llama = type(model) is LlamaForCausalLM and model.config.hidden_act == "silu"
        return cls(model) if is_llama and is_available() else None

    def __call__(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits (B, V) after the input embeddings x (B, D); their keys and values go into `cache`."""
        position = cache.get_seq_length()
        if position >= len(self._rotations):
            self._rotations = self._rotate_up_to(2 * position)
        rotation = self._rotations[position]
        for index, layer in enumerate(self._layers):
            x = x + self._attend(layer.self_attn, _normalize(layer.input_layernorm, x), rotation, cache, index)
            y, mlp = _normalize(layer.post_attention_layernorm, x), layer.mlp
            x = x + mlp.down_proj(functional.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
        logits: torch.Tensor = self._head(_normalize(self._norm, x))
        return logits

    def _attend(self, attention: Any, y: torch.Tensor, rotation: torch.Tensor, cache: Any, index: int) -> torch.Tensor:
        n_rows, width = len(y), self._head_width
        query, key = attention.q_proj(y).view(n_rows, -1, width), attention.k_proj(y).view(n_rows, -1, width)
        n_keys = key.shape[1]
        rotated = torch.cat([query, key], dim=1)  # (B, H + G, d)
        rotated = torch.addcmul(rotated * rotation[0], rotated.roll(width // 2, dims=2), rotation[1])
        query, key = rotated[:, :-n_keys].view(n_rows, n_keys, -1, width), rotated[:, -n_keys:, None]
        keys, values = cache.update(key, attention.v_proj(y).view(n_rows, n_keys, 1, width), index)  # (B, G, N, d)
        seen = functional.scaled_dot_product_attention(query, keys, values)  # (B, G, H / G, d)
        out: torch.Tensor = attention.o_proj(seen.view(n_rows, -1))
        return out

    @torch.inference_mode()
    def _rotate_up_to(self, n: int) -> torch.Tensor:
        """Cosines, and sines with the signs that they have where the halves of a head are exchanged: (n, 2, d)."""
        weight = self._norm.weight
        cosine, sine = self._rotary(weight.new_zeros(1), torch.arange(n, device=weight.device)[None])  # (1, n, d)
        half = self._head_width // 2
        signed = torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)
        return torch.stack([cosine[0], signed[0]], dim=1)


def _normalize(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


@functools.cache
def is_available() -> bool:
    """Whether these steps give what those of transformers do, for the smallest Llama."""
    try:
        with torch.device("cpu"), torch.autocast("cpu", enabled=False), torch.inference_mode():
            model, inputs = _smallest(torch.Generator().manual_seed(0))
            expected = model(inputs_embeds=inputs, use_cache=False).logits[:, -1]
            cache = model(inputs_embeds=inputs[:, :2], use_cache=True).past_key_values
            found = LlamaStep(model)(inputs[:, 2], cache)
    except Exception:  # whatever comes of parts that are no longer there
        return False
    return bool((found - expected).abs().max() <= WORKS_WITHIN * expected.std())


def _smallest(generator: torch.Generator) -> tuple[Any, torch.Tensor]:
    """A Llama with random weights, and input embeddings (B, N, D) for it. Random numbers of others stay the same."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 4, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)).float().eval()
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, torch.randn(2, 3, 8, generator=generator)
