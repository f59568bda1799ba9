"""Texts to tokens: the tokenizer, packed token ids, and the rows drawn from them.

This module knows nothing of models.
"""

import json
import math
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BOS, BOS_ID = "<|bos|>", 0
CONTEXT = 512  # tokens of most rows, and of the chunks that bits per byte are measured on
LONG_CONTEXT = 1024  # tokens of the longest rows
SEED = 20240


def text_files(folder):
    """Every file below `folder` that is neither hidden nor empty, with its kind: its first-level folder."""
    folder = Path(folder)
    found = sorted((path, path.relative_to(folder).parts) for path in folder.rglob("[!.]*"))
    files = [(path, p[0] if len(p) > 1 else "text") for path, p in found if path.is_file() and path.stat().st_size]
    if not files:
        raise click.ClickException(f"{folder}: no files")
    return files


def read_text(path):
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path}: expected UTF-8, found {error}") from error


def balanced_sample(files, n_bytes, rng):
    """About `n_bytes` of text in pieces of 4 kB; a kind's share goes with the root of its size."""
    kinds = defaultdict(list)
    for path, kind in files:
        kinds[kind].append(path)
    size = {kind: sum(path.stat().st_size for path in paths) for kind, paths in kinds.items()}
    total = sum(math.sqrt(s) for s in size.values())
    for kind, paths in kinds.items():
        share = min(1.0, n_bytes * math.sqrt(size[kind]) / total / size[kind])
        for path in paths:
            text = read_text(path)
            for start in range(0, len(text), 4096):
                if rng.random() < share:
                    yield text[start : start + 4096]


def train_tokenizer(texts, vocab_size):
    """A byte-level BPE: any text round-trips, and no text yields `<|bos|>`.

    The tokens are trained with `<|bos|>` as a special token, which is then taken off the list of
    strings that are looked for in the text: it stays in the vocabulary, but no merge leads to it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    as_json = json.loads(tokenizer.to_str())
    as_json["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(as_json, ensure_ascii=False))


def save_tokenizer(tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "split_special_tokens": True,  # `<|bos|>` in a text is seven characters like any others
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def token_bytes(tokenizer):
    """Bytes that each token stands for, shape (V,): in a byte-level BPE a character is a byte."""
    vocab = tokenizer.get_vocab()
    lengths = np.zeros(len(vocab), dtype=np.int64)
    for token, i in vocab.items():
        lengths[i] = 0 if i == BOS_ID else len(token)
    return lengths


def pack(tokenizer, files, target, read=read_text, batch=32):
    """Write `<|bos|> text <|bos|> text ...` as 16-bit ids, kind after kind; return {kind: [begin, end]} in ids."""
    kinds, n = {}, 0
    with target.open("wb") as out:
        for kind in sorted({kind for _, kind in files}):
            begin, paths = n, [path for path, k in files if k == kind]
            for i in range(0, len(paths), batch):
                texts = [read(path) for path in paths[i : i + batch]]
                for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                    ids = np.array([BOS_ID, *encoding.ids], dtype=np.uint16)
                    ids.tofile(out)
                    n += len(ids)
            kinds[kind] = [begin, n]
    return kinds


def packed_texts(work):
    """The texts that `pack` wrote to train.bin."""
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    stream = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
    starts = np.flatnonzero(stream == BOS_ID).tolist()
    for begin, end in zip(starts, [*starts[1:], len(stream)], strict=True):
        yield tokenizer.decode(stream[begin + 1 : end].tolist(), skip_special_tokens=False)


def chunks(ids, n_text=CONTEXT - 1):
    """The ids of one text in rows of `<|bos|>` and 511 tokens; -1 fills up the last row."""
    n_rows = max(1, math.ceil(len(ids) / n_text))
    rows = np.full((n_rows, n_text + 1), -1, dtype=np.int64)
    rows[:, 0] = BOS_ID
    for i, row in enumerate(rows):
        part = ids[i * n_text : (i + 1) * n_text]
        row[1 : 1 + len(part)] = part
    return torch.from_numpy(rows)


def valid_sample(work, lengths, n_rows=64):
    """Chunks spread evenly over the held-out texts, and the number of bytes in them."""
    stream = np.fromfile(work / "valid.bin", dtype=np.uint16).astype(np.int64)
    texts = np.split(stream, np.flatnonzero(stream == BOS_ID)[1:])
    rows = torch.cat([chunks(text[1:]) for text in texts])
    rows = rows[torch.linspace(0, len(rows) - 1, min(n_rows, len(rows))).long()]
    return rows, int(lengths[rows.clamp(min=BOS_ID).numpy()].sum())
