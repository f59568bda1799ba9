"""Tiny randomly initialised models of every architecture that cramzip promises to work with."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ROOT = Path(__file__).parent.parent
TINY_MODEL = ROOT / "formats" / "model"

GAIN = 10.0

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}
ARCHITECTURES = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 16},
    "gpt_neox": {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    },
    "gemma": _LLAMA | {"head_dim": 16},
    "gemma2": _LLAMA | {"head_dim": 16, "sliding_window": 16},
    "gemma3_text": _LLAMA | {"head_dim": 16, "sliding_window": 16},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}


def make_model(architecture, folder):
    """A model with a byte-level tokenizer of 256 entries, as an ordinary Hugging Face folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=260,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **ARCHITECTURES[architecture],
    )
    model = AutoModelForCausalLM.from_config(config)
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():  # layers that outweigh the residual stream, so that [mem] has a say in what comes
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter is not embedding:
                parameter.mul_(GAIN)
    model.save_pretrained(folder)
    byte_level_tokenizer().save(str(Path(folder) / "tokenizer.json"))
    return model


def byte_level_tokenizer(normalizer=None):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer
