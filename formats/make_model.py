#!/usr/bin/env python3
"""Makes the tiny model of the test vectors: an ordinary Hugging Face folder with an untrained Llama.

    python formats/make_model.py [FOLDER]          (without FOLDER: formats/model)

It knows nothing, but everything about it is awkward on purpose: head_dim is not D / heads, key and value heads
are shared, the tensors have three dtypes, two tokens always have the same logit, the tokenizer has a special
token, an added token of 600 bytes and fewer ids than the model has logits. All its weights are float16 values,
drawn so that they come out the same on every machine.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 272,
    "dtype": "float32",
    "eos_token_id": 272,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 288,
}
MERGES = [
    "Ġ t",
    "h e",
    "Ġ a",
    "i n",
    "e r",
    "Ġt he",
    "o n",
    "a n",
    "r e",
    "Ġ o",
    "a t",
    "e n",
    "e d",
    "Ġo f",
    "in g",
    "Ġ w",
]
END = 272
TWINS = (0xF8, 0xFA)  # bytes of no text, whose logits tie
CITIES = 273  # a token so long that a text with it is worth cramming, even with this model
CITIES_TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    "foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, "
    "it was the season of Darkness, it was the spring of hope, it was the winter of despair, we had everything "
    "before us, we had nothing before us, we were all going direct to Heaven, we were all going direct the other "
    "way – in short, the period was so far like the present period, that some of its noisiest authorities "
    "insisted on its being received, for good or for evil, in the superlative degree of comparison only."
)


def tokenizer():
    """Byte-level BPE: token n is the byte n, then come the merges, then two added tokens."""
    same = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    characters = [chr(byte if byte in same else next(others)) for byte in range(256)]
    entries = characters + [merge.replace(" ", "") for merge in MERGES]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": END, "content": "<|end|>", **plain, "special": True},
            {"id": CITIES, "content": CITIES_TEXT, **plain, "special": False},
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {entry: i for i, entry in enumerate(entries)},
            "merges": [merge.split() for merge in MERGES],
        },
    }


def weights():
    """-> {name: (dtype, float64 array)}, all values exact in float16.

    `random_sample` is exact arithmetic on a stream that NumPy has frozen. The scales make for varied recitals
    and clear decisions; tokens that one cannot read get smaller logits, so that recitals are mostly text.
    """
    random = np.random.RandomState(1859)
    vocab, width = CONFIG["vocab_size"], CONFIG["hidden_size"]
    queries = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    inner = CONFIG["intermediate_size"]

    def matrix(rows, columns, scale):
        return np.float64(np.float16((2 * random.random_sample((rows, columns)) - 1) * scale))

    def gains():
        return 0.75 + 0.5 * random.randint(0, 32, width) / 32

    head = matrix(vocab, width, 3.5)
    readable = np.isin(np.arange(vocab), [*range(0x20, 0x7F), *range(0x100, END)])
    head[~readable] /= 4
    head[TWINS[1]] = head[TWINS[0]]
    tensors = {
        "model.embed_tokens.weight": ("F16", matrix(vocab, width, 1)),
        "model.norm.weight": ("BF16", gains()),
        "lm_head.weight": ("F32", np.float64(np.float16(head))),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, rows, columns in [
            ("self_attn.q_proj", queries, width),
            ("self_attn.k_proj", keys, width),
            ("self_attn.v_proj", keys, width),
            ("self_attn.o_proj", width, queries),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ]:
            tensors[f"model.layers.{layer}.{name}.weight"] = ("F16", matrix(rows, columns, 3 / columns**0.5))
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = ("BF16", gains())
    return tensors


def to_bytes(dtype, values):
    if dtype == "BF16":  # exact: the gains have six significant bits
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "I8": "i1"}[dtype]).tobytes()


def safetensors_file(tensors, notes=None):
    """The bytes of a file of tensors {name: (dtype, array)} without gaps, in the order that they have."""
    header, data = {"__metadata__": notes or {"format": "pt"}}, b""
    for name, (dtype, values) in tensors.items():
        start, data = len(data), data + to_bytes(dtype, values)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write_json(file, value):
    file.write_bytes((json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def write_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer.json", tokenizer())
    names = {"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", names)
    (folder / "model.safetensors").write_bytes(safetensors_file(weights()))


if __name__ == "__main__":
    write_model(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "model")
