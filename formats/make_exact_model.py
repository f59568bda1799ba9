#!/usr/bin/env python3
"""Makes the tiny model of the test vectors of exact files: a folder as section 3 of exact.md says.

    python formats/make_exact_model.py [FOLDER]          (without FOLDER: formats/exact_model)

It knows nothing, but everything about it is awkward on purpose: its widths are 52 and 61, the heads have more numbers
than the state, keys and values are shared, the head is not tied, there are negative scales and rows of zeros, two
tokens always have the same logit, epsilon is large and no float32, the start token is not 0 and stands for nothing, the
tokenizer has fewer ids than the model, the floats in its file are not aligned, and lanes have more positions than
`max_position_embeddings`. Its codebook has seven entries of three vectors, one of them of zeros, one with a negative
scale, and one that is as unlikely as can be. The tokenizer is that of make_model.py. All numbers are drawn as integers,
so that they are the same on every machine.
"""

import sys
from pathlib import Path

import numpy as np
from exact import Model, probe
from make_model import CONFIG as OTHER_CONFIG
from make_model import END, safetensors_file, tokenizer, write_json

CONFIG = OTHER_CONFIG | {
    "head_dim": 64,
    "hidden_size": 52,
    "intermediate_size": 61,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 0.3,
    "rope_parameters": {"rope_theta": 10007.0, "rope_type": "default"},
    "vocab_size": 277,
}
TWINS = (ord("v"), ord("w"))  # whose logits tie
NEGATIVE, ZEROS = 19, 23  # rows of every matrix with a scale below 0, and with the weights 0


def tensors(config=CONFIG):
    """-> {name: array}: int8, and float32 without any rounding."""
    random = np.random.RandomState(1866)
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries, keys = (64 * config[f"num_{heads}_heads"] for heads in ("attention", "key_value"))
    out = {}

    def matrix(name, rows, columns, size):
        """Weights of up to `size`, in absolute value, or a little more."""
        integers = random.randint(-127, 128, (rows, columns))
        integers[ZEROS] = 0
        scales = random.randint(6, 11, rows) * round(size / 127 * 2**13) / 2**16
        scales[NEGATIVE] *= -1
        out[f"{name}.weight"], out[f"{name}.scale"] = integers.astype("i1"), scales.astype("<f4")

    def norm(name):
        out[f"{name}.weight"] = ((24 + random.randint(0, 17, width)) / 32).astype("<f4")

    matrix("model.embed_tokens", vocabulary, width, 1)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        norm(f"{layer}.input_layernorm")
        matrix(f"{layer}.self_attn.q_proj", queries, width, 0.2)
        matrix(f"{layer}.self_attn.k_proj", keys, width, 0.2)
        matrix(f"{layer}.self_attn.v_proj", keys, width, 0.5)
        matrix(f"{layer}.self_attn.o_proj", width, queries, 0.5)
        norm(f"{layer}.post_attention_layernorm")
        matrix(f"{layer}.mlp.gate_proj", inner, width, 0.4)
        matrix(f"{layer}.mlp.up_proj", inner, width, 0.4)
        matrix(f"{layer}.mlp.down_proj", width, inner, 0.4)
    norm("model.norm")
    matrix("lm_head", vocabulary, width, 1.2)
    readable = np.isin(np.arange(vocabulary), [*range(0x20, 0x7F), *range(0x100, END)])
    out["lm_head.scale"][~readable] /= 4  # so that recitals are mostly text
    for part in ("weight", "scale"):
        out[f"lm_head.{part}"][TWINS[1]] = out[f"lm_head.{part}"][TWINS[0]]
    return out


def codebook():
    """-> {name: array} of its codebook."""
    random, width = np.random.RandomState(1492), CONFIG["hidden_size"]
    entries, selector = random.randint(-127, 128, (7, 3, width)), random.randint(-127, 128, (7, width))
    entries[2, 1] = 0
    scales = random.randint(1, 64, (7, 3)) / 2**11
    scales[4, 0] *= -1
    first, others = [20000, 30000, 5000, 10000, 500, 35, 1], [1, 300, 60000, 1200, 4000, 34, 1]
    return {
        "mem.weight": entries.astype("i1"),
        "mem.scale": scales.astype("<f4"),
        "mem.prior": np.array([first, others], "<f4"),
        "selector.weight": selector.astype("i1"),
        "selector.scale": (random.randint(1, 64, 7) / 2**11).astype("<f4"),
        "selector.bias": (random.randint(-64, 65, 7) / 2**6).astype("<f4"),
    }


def write_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer.json", tokenizer())
    weights = tensors()
    kinds = {"i1": "I8", "f4": "F32"}
    typed = {name: (kinds[values.dtype.str[1:]], values) for name, values in weights.items()}
    notes = {"format": "cramzip-exact-1", "probe": probe(Model(CONFIG, weights))}
    (folder / "exact.safetensors").write_bytes(safetensors_file(typed, notes))
    typed = {name: (kinds[values.dtype.str[1:]], values) for name, values in codebook().items()}
    (folder / "mem.safetensors").write_bytes(safetensors_file(typed, {}))


if __name__ == "__main__":
    write_model(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "exact_model")
