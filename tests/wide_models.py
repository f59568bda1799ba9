"""Tiny models of every layout that were not made for exact arithmetic. Imports no torch."""

import hashlib
from dataclasses import dataclass

import numpy as np
from test_exact_llama import in_pieces

from cramzip.exact import layouts
from cramzip.exact.wide import WideLlama

PLAIN = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "vocab_size": 61,
    "rope_theta": 10007.25,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 60,
    "bos_token_id": 3,
}
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CONFIGS = {
    "llama": PLAIN,
    "llama tied": PLAIN | {"tie_word_embeddings": True, "head_dim": 64},
    "llama wide heads": PLAIN | {"head_dim": 128, "num_key_value_heads": 4},
    "llama wider heads": PLAIN | {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1},
    "llama 3": PLAIN | {"head_dim": 80, "rope_scaling": SCALED | {"original_max_position_embeddings": 64}},
    "long sums": PLAIN | {"intermediate_size": 2100, "num_hidden_layers": 1},
    "mistral": PLAIN | {"model_type": "mistral", "sliding_window": 24, "head_dim": 96},
    "qwen2": PLAIN | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 3},
    "qwen3": PLAIN | {"model_type": "qwen3", "rope_theta": 10**6},
}
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Given:
    """A tensor in memory."""

    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    def rows(self, first, stop):
        return self.values[first:stop]


def weights_of(config, seed=1):
    """Named float32 tensors for a configuration, drawn as integers."""
    random, shape = np.random.RandomState(seed), layouts.shape_of(config)
    found = {}
    for _, part in layouts._parts(shape):
        for name, size in zip(part.names, part.shapes, strict=True):
            if name.endswith("norm.weight"):
                found[name] = ((24 + random.randint(0, 17, size)) / 32).astype(np.float32)
            else:
                scale = {"embed": 1.0, "bias": 1.5, "q_pro": 0.4, "k_pro": 0.4}
                most = next((value for key, value in scale.items() if key in name), 0.25)
                found[name] = (random.randint(-999, 1000, size) * np.float32(most / 999)).astype(np.float32)
    return found


def tensors_of(config):
    return {name: Given(values) for name, values in weights_of(config).items()}


def model_of(config, **fields):
    return WideLlama(layouts.read(layouts.shape_of(config), tensors_of(config)), **fields)


def tokens_of(config, *size, seed=0):
    return np.random.default_rng(seed).integers(0, config["vocab_size"], size)


def digest(make=None):
    """A hash of logits of several layouts, which batches of 1, 7 and 64 rows in several pieces have to agree on.

    `make`: makes a model of weights.
    """
    found = hashlib.sha256()
    for name in ("llama 3", "llama wider heads", "long sums", "mistral", "qwen2", "qwen3"):
        config = CONFIGS[name]
        model = (make or WideLlama)(layouts.read(layouts.shape_of(config), tensors_of(config)))
        x = model.embed(tokens_of(config, 64, 30))
        whole = in_pieces(model, x, [30]) + 0
        for n_rows, sizes in ((1, [1]), (7, [9, 1, 4]), (64, [13])):
            assert (in_pieces(model, x[:n_rows], sizes) == whole[:n_rows]).all(), (name, n_rows)
        found.update(whole.tobytes())
    return found.hexdigest()
