"""The model side of reader.py: token table, fingerprint and a forward pass in plain NumPy.

Knows Hugging Face folders with a Llama in them, and nothing of `.cram` files. Section numbers are those of
cram.md, from which alone this was written.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import safetensors

EXACT_FILE = "exact.safetensors"
CODEBOOK_FILE = "mem.safetensors"
CODEBOOK = ("mem.", "selector.")  # what the names of its tensors begin with


class Unsupported(Exception):
    """A model or tokenizer of a kind that is not written down here."""


def parse_json(content):
    """The object in a file: UTF-8, and no name twice (section 10)."""

    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            raise Unsupported("a name is there twice in one JSON object")
        return dict(pairs)

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=once)
    except ValueError as error:
        raise Unsupported(f"not JSON in UTF-8: {error}") from error
    if not isinstance(value, dict):
        raise Unsupported("not a JSON object")
    return value


# ---------------------------------------------------------------- token table (section 9)


def varint(value):
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def string(text):
    return varint(len(text.encode())) + text.encode()


def byte_of_character():
    """The mapping of GPT-2, with which byte-level vocabularies write bytes as characters."""
    same = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in same]
    return {chr(byte): byte for byte in same} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def token_table(folder):
    """-> for each token id its bytes, or None where it stands for nothing (section 9)."""
    tokenizer = parse_json((Path(folder) / "tokenizer.json").read_bytes())
    model, decoder = tokenizer["model"], tokenizer["decoder"] or {}
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: [[entry, score], ...]
        vocab = {entry: i for i, (entry, _) in enumerate(vocab)}
        if len(vocab) < len(model["vocab"]):
            raise Unsupported("an entry of the vocabulary has two ids")
    if len(set(vocab.values())) < len(vocab):
        raise Unsupported("two entries of the vocabulary have one id")
    check_added(tokenizer["added_tokens"], vocab)
    unknown = {model.get("unk_token"), model.get("unk_id")}
    steps = decoder.get("decoders", [decoder])
    alphabet = byte_of_character()

    def byte_level(entry):
        return bytes(alphabet[c] for c in entry) if alphabet.keys() >= set(entry) else None

    def sentencepiece(entry):
        byte = re.fullmatch("<0x([0-9A-F]{2})>", entry)
        return bytes.fromhex(byte[1]) if byte else entry.replace("\u2581", " ").encode()

    if any(step.get("type") == "ByteLevel" for step in steps):
        to_bytes = byte_level
    elif any(puts_spaces(step) for step in steps):
        to_bytes = sentencepiece
    else:
        raise Unsupported("its tokenizer is neither byte-level nor SentencePiece")

    table = {i: None if unknown & {entry, i} else to_bytes(entry) for entry, i in vocab.items()}
    for added in tokenizer["added_tokens"]:
        table[added["id"]] = None if added["special"] else added["content"].encode()
    return [table.get(i) for i in range(max(table) + 1)]


def check_added(added_tokens, vocab):
    """Added tokens with the ids that they must have."""
    following, seen = len(vocab), set()
    for token in added_tokens:
        content = token["content"]
        if not content or content in seen or token["id"] != vocab.get(content, following):
            raise Unsupported(f"the added token {content!r} has the id {token['id']}")
        following = max(following, token["id"] + 1)
        seen.add(content)


def puts_spaces(step):
    """Whether a step of a decoder is that of a SentencePiece vocabulary."""
    if step.get("type") == "Metaspace":
        return step.get("replacement", "\u2581") == "\u2581"
    return step.get("type") == "Replace" and (step["pattern"], step["content"]) == ({"String": "\u2581"}, " ")


def tokenizer_hash(table):
    fields = (varint(0) if token is None else varint(len(token) + 1) + token for token in table)
    return hashlib.sha256(b"cramzip-tokens-1" + b"".join(fields)).digest()


# ---------------------------------------------------------------- fingerprint (section 10)


def read_config(folder):
    config = parse_json((Path(folder) / "config.json").read_bytes())
    if "transformers_weights" in config or (Path(folder) / "adapter_config.json").exists():
        raise Unsupported("weights from elsewhere")
    return config


def is_exact(folder):
    """Whether the tensors of a model are those of exact.safetensors."""
    others = ("model.safetensors", "model.safetensors.index.json")
    return not any((Path(folder) / name).exists() for name in others) and (Path(folder) / EXACT_FILE).exists()


def read_tensors(folder):
    """-> [(name, {"dtype", "shape", "data"}), ...] in the order of the names."""
    files = {EXACT_FILE if is_exact(folder) else "model.safetensors"}
    if is_exact(folder) and (Path(folder) / CODEBOOK_FILE).exists():
        files.add(CODEBOOK_FILE)
    index = Path(folder) / "model.safetensors.index.json"
    if not is_exact(folder) and not (Path(folder) / "model.safetensors").exists():
        files = set(parse_json(index.read_bytes())["weight_map"].values())
    tensors = []
    for file in files:
        content = (Path(folder) / file).read_bytes()
        header_size = int.from_bytes(content[:8], "little")
        if file in (EXACT_FILE, CODEBOOK_FILE) and header_size > 2**20:
            raise Unsupported(f"{file} has a header of {header_size} bytes")
        parse_json(content[8 : 8 + header_size])  # for names that are there twice
        tensors += safetensors.deserialize(content)
    if len({name for name, _ in tensors}) < len(tensors):
        raise Unsupported("a tensor is in two files")
    return sorted(tensors, key=lambda tensor: tensor[0].encode())


def fingerprint(config, tensors):
    ignored = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    kept = {key: value for key, value in config.items() if key not in ignored}
    digest = hashlib.sha256(b"cramzip-model-1")
    digest.update(string(json.dumps(kept, sort_keys=True, separators=(",", ":"))))
    for name, tensor in tensors:
        shape = tensor["shape"]
        digest.update(string(name) + string(tensor["dtype"]) + varint(len(shape)))
        digest.update(b"".join(map(varint, shape)))
        digest.update(tensor["data"])
    return digest.digest()


# ---------------------------------------------------------------- forward pass (section 8)

DEFAULTS = {  # of the architecture in transformers
    "attention_bias": False,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": None,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def to_float32(tensor):
    kinds = {"F16": "<f2", "F32": "<f4", "BF16": "<u2", "I8": "i1"}
    if tensor["dtype"] not in kinds:
        raise Unsupported(f"this reader knows weights of {', '.join(kinds)}, not {tensor['dtype']}")
    values = np.frombuffer(tensor["data"], kinds[tensor["dtype"]]).reshape(tensor["shape"])
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    return values.astype(np.float32)


def float_weights(tensors):
    """-> {name: float32 array}; integers of exact.safetensors are multiplied by the scales of their rows.

    What stands in a codebook is no part of the model in floats.
    """
    tensors = {name: tensor for name, tensor in tensors if not name.startswith(CODEBOOK)}
    weights = {name: to_float32(tensor) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor["dtype"] == "I8":
            weights[name] *= weights.pop(name.removesuffix("weight") + "scale")[:, None]
    return weights


class Llama:
    """The forward pass of a Llama (Touvron et al. 2023), in float32.

    `embedding` is E of section 8, (V, D); `context` the number of positions that the model has.
    """

    def __init__(self, config, tensors):
        config = DEFAULTS | config
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if config["model_type"] != "llama":
            raise Unsupported(f"this reader runs Llama only, not {config['model_type']}")
        if (
            rope.get("rope_type", rope.get("type", "default")) != "default"
            or config["attention_bias"]
            or config["mlp_bias"]
            or config["hidden_act"] != "silu"
        ):
            raise Unsupported("this reader runs plain Llamas only: no scaled RoPE, no biases, silu")

        self.weights = float_weights(tensors)
        self.embedding = self.weights["model.embed_tokens.weight"]
        self.head = self.embedding if config["tie_word_embeddings"] else self.weights["lm_head.weight"]
        self.vocabulary_size, self.width = len(self.head), self.embedding.shape[1]
        self.context = config["max_position_embeddings"]
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"] or self.heads
        self.head_dim = config["head_dim"] or self.width // self.heads
        self.epsilon = config["rms_norm_eps"]
        theta = rope.get("rope_theta", config["rope_theta"])
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float32) / self.head_dim
        self.frequencies = 1 / np.float32(theta) ** exponents  # (head_dim / 2,)

    def empty_cache(self, positions):
        """Room for the keys and values of so many positions: (layer, 2, kv_head, position, head_dim)."""
        return np.empty((self.layers, 2, self.kv_heads, positions, self.head_dim), np.float32)

    def logits(self, x, position, cache):
        """The V logits at the last of the n positions from `position` on.

        x are the input embeddings there, (n, D); `cache` holds all positions before, and then these too.
        """
        n = len(x)
        places = np.arange(position, position + n, dtype=np.float32)
        angles = places[:, None] * self.frequencies  # (n, head_dim / 2)
        cos, sin = np.cos(angles), np.sin(angles)
        unseen = np.arange(position + n) > places[:, None]  # (n, position)

        def rotate(heads):  # (head, n, head_dim): dimension i turns with dimension i + head_dim / 2
            a, b = np.split(heads, 2, axis=-1)
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

        for layer in range(self.layers):

            def linear(name, values, layer=layer):
                return values @ self.weights[f"model.layers.{layer}.{name}.weight"].T

            def heads(name, values, linear=linear):
                return linear(name, values).reshape(n, -1, self.head_dim).transpose(1, 0, 2)  # (head, n, head_dim)

            def norm(name, values, layer=layer):
                return self.norm(values, f"model.layers.{layer}.{name}.weight")

            h = norm("input_layernorm", x)  # (n, D)
            cache[layer, 0, :, position : position + n] = rotate(heads("self_attn.k_proj", h))
            cache[layer, 1, :, position : position + n] = heads("self_attn.v_proj", h)
            keys, values = cache[layer, :, :, None, : position + n]  # (kv_head, 1, position, head_dim)
            queries = rotate(heads("self_attn.q_proj", h)).reshape(self.kv_heads, -1, n, self.head_dim)
            scores = queries @ keys.swapaxes(-1, -2) / np.float32(self.head_dim**0.5)
            scores[..., unseen] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))  # (kv_head, group, n, position)
            attended = scores / scores.sum(-1, keepdims=True) @ values  # (kv_head, group, n, head_dim)
            x = x + linear("self_attn.o_proj", attended.transpose(2, 0, 1, 3).reshape(n, -1))

            h = norm("post_attention_layernorm", x)
            gate = linear("mlp.gate_proj", h)
            with np.errstate(over="ignore"):  # silu(-100) is 0 all the same
                gate = gate / (1 + np.exp(-gate))
            x = x + linear("mlp.down_proj", gate * linear("mlp.up_proj", h))
        return self.head @ self.norm(x[-1], "model.norm.weight")  # (V,)

    def norm(self, x, name):
        return self.weights[name] * (x / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(self.epsilon)))
