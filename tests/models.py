"""Tiny randomly initialised models of every architecture that cramzip promises to work with."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cramzip.lm.models import as_torch

ROOT = Path(__file__).parent.parent
TINY_MODEL = ROOT / "formats" / "model"

PROSE = b"It is a far, far better thing that I do, than I have ever done; it is a far, far better rest."

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


@torch.inference_mode()
def recital(lm, n_tokens, *, seed=0, temperature=1.0):
    """Text that a model says of its own accord: what even a tiny one compresses well.

    `n_tokens` tokens of printable ASCII, drawn at random and such that the text is cut into just these. The higher
    the temperature, the more of them surprise the model.
    """
    lm = as_torch(lm)
    generator = torch.Generator().manual_seed(seed)
    readable = [
        bool(content) and content.isascii() and content.decode().isprintable() for content in lm.tokenizer.table
    ]
    short = [
        is_readable and len(content) < 10 for is_readable, content in zip(readable, lm.tokenizer.table, strict=True)
    ]
    allowed = torch.full((lm.vocabulary_size,), -torch.inf)
    allowed[: len(short)][torch.tensor(short)] = 0.0
    tokens, cache = [], None
    for _ in range(n_tokens):
        last = torch.tensor([[tokens[-1] if tokens else lm.start]])
        logits, cache = lm.step(lm.embed(last), cache)
        drawn = torch.multinomial(((logits[0] + allowed) / temperature).softmax(0), 20, generator=generator).tolist()
        fitting = (token for token in drawn if _ids(lm, [*tokens, token]) == [*tokens, token])
        tokens.append(next(fitting, drawn[0]))
    return lm.tokenizer.decode(tokens)


def _ids(lm, tokens):
    return lm.tokenizer.encode(lm.tokenizer.decode(tokens))[0].ids


GGUF_ENTRIES = ("<|endoftext|>", "<pad>", "  ", "\u00e9", "<unused>", "Hello")
GGUF_TYPES = (3, 3, 4, 4, 5, 1)  # control, user-defined, unused and normal, as GGUF numbers them


def make_gguf(path, kind="gpt2", alphabet=None, entries=GGUF_ENTRIES, types=GGUF_TYPES):
    """A tiny Llama as a GGUF file. Its tokens are those of `alphabet`, by default all bytes, and then `entries`."""
    from gguf import GGUFWriter

    alphabet = alphabet or sorted(pre_tokenizers.ByteLevel.alphabet())
    width, hidden, layers, heads = 32, 64, 2, 2
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(alphabet) + len(entries))
    writer.add_tokenizer_model(kind)
    writer.add_token_list([*alphabet, *entries])
    writer.add_token_types([1] * len(alphabet) + list(types))
    writer.add_token_scores([0.0] * (len(alphabet) + len(entries)))
    writer.add_token_merges([])
    writer.add_bos_token_id(len(alphabet))
    writer.add_eos_token_id(len(alphabet))
    writer.add_unk_token_id(len(alphabet))
    writer.add_add_bos_token(False)
    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd": (len(alphabet) + len(entries), width), "output": (len(alphabet) + len(entries), width)}
    for layer in range(layers):
        square = {f"blk.{layer}.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
        wide = {f"blk.{layer}.ffn_gate": (hidden, width), f"blk.{layer}.ffn_up": (hidden, width)}
        shapes |= square | wide | {f"blk.{layer}.ffn_down": (width, hidden)}
        shapes |= {f"blk.{layer}.attn_norm": (width,), f"blk.{layer}.ffn_norm": (width,)}
    shapes["output_norm"] = (width,)
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator) if len(shape) > 1 else torch.ones(shape)
        writer.add_tensor(f"{name}.weight", values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def segments_of(data, lm, config, **how):
    """The segments of a text, as they are found one after the other."""
    from cramzip.coding.encode import Writer

    return list(Writer(lm, config).segments(data, **how))


def restored(blob, lm, **how):
    """The contents of a file's groups, as they come; `how` is what a Runner has besides a model."""
    from cramzip.coding.restore import Runner, restore
    from cramzip.container import reading

    return restore(reading.read(blob), Runner(lm, **how))
