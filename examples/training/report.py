"""What came out: bits per byte, speed, loss curve and model card."""

import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from recipe import DECAY, nll
from texts import BOS_ID, CONTEXT, LONG_CONTEXT, LONG_EVERY, chunks, read_text, text_files, token_bytes
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer


def machine():
    """The processor or accelerator in words, and the threads in use."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]}, {torch.get_num_threads()} threads"


@torch.no_grad()
def writing_speed(model, n_tokens=200):
    """Tokens a second when they come one at a time, as in decompression (median)."""
    ids, past, seconds = torch.tensor([[BOS_ID]]), None, []
    for _ in range(n_tokens):
        begin = time.perf_counter()
        out = model(input_ids=ids, past_key_values=past, use_cache=True)
        ids, past = out.logits[:, -1:].argmax(-1), out.past_key_values
        seconds.append(time.perf_counter() - begin)
    return 1 / np.median(seconds)


@torch.no_grad()
def measure(folder, texts, batch=8):
    """A record of bits per byte by kind of text, and of the speed, of the model in `folder`.

    A text is cut into chunks of `<|bos|>` and 511 tokens that know nothing of each other; bits per
    byte are the sum of -log2 p over their tokens by the UTF-8 bytes of the texts.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows, n_bytes = defaultdict(list), defaultdict(int)
    for path, kind in text_files(texts):
        text = read_text(path)
        rows[kind].append(chunks(tokenizer(text, add_special_tokens=False).input_ids))
        n_bytes[kind] += len(text.encode("utf-8"))
    bits, n_tokens, speeds = {}, {}, []
    for kind in sorted(rows, key=n_bytes.get, reverse=True):
        rows_of_kind = torch.cat(rows[kind])
        bits[kind], n_tokens[kind] = 0.0, int((rows_of_kind > BOS_ID).sum())
        for part in rows_of_kind.split(batch):
            begin = time.perf_counter()
            bits[kind] += nll(model, part).double().sum().item() / math.log(2)
            speeds.append(part[:, 1:].numel() / (time.perf_counter() - begin))
    total = sum(n_bytes.values())
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bits_per_byte": {k: round(b / n_bytes[k], 4) for k, b in bits.items()},
        "bits_per_byte_all": round(sum(bits.values()) / total, 4),
        "bytes": {k: n_bytes[k] for k in bits},
        "bytes_per_token": {k: round(n_bytes[k] / n, 3) for k, n in n_tokens.items()},
        "reads_tokens_per_second": round(float(np.median(speeds))),
        "writes_tokens_per_second": round(float(writing_speed(model))),
        "machine": machine(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def read_log(work):
    path = work / "log.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def bits_per_nat(work):
    """Bits per byte of the training texts for each nat per token."""
    lengths = token_bytes(Tokenizer.from_file(str(work / "tokenizer.json")))
    stream = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
    return 1 / math.log(2) / lengths[stream[:: max(1, len(stream) // 1_000_000)]].mean()


def doubling(work, n_bins=24):
    """What each doubling of the training gives, in bits per byte of the training rows, by a fitted power law.

    `E + A * tokens^-alpha`, least squares over the part at the full learning rate, from a tenth of its tokens on, in
    bins of equal ratio. Returns E, A, alpha and the gain of the next doubling; None if there is too little to fit.
    """
    log = read_log(work)
    full = max((line["lr"] for line in log), default=0)
    level = [line for line in log if line["lr"] == full]
    if len(level) < 4 * n_bins:
        return None
    tokens = np.array([line["tokens"] for line in level], dtype=float)
    bits = np.array([line["train_loss"] for line in level]) * bits_per_nat(work)
    bins = np.digitize(tokens, np.geomspace(tokens[-1] / 10, tokens[-1], n_bins))
    kept = [b for b in range(1, n_bins + 1) if (bins == b).any()]
    x = np.array([tokens[bins == b].mean() for b in kept])
    y = np.array([bits[bins == b].mean() for b in kept])
    weight = np.sqrt([(bins == b).sum() for b in kept])

    def fit(alpha):
        columns = np.stack([np.ones_like(x), x**-alpha], axis=1)
        solution = np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0]
        return solution, float((((columns @ solution - y) * weight) ** 2).sum())

    alpha = min(np.arange(0.05, 1.01, 0.01), key=lambda alpha: fit(alpha)[1])
    (floor, scale), _ = fit(alpha)
    return {
        "E": round(float(floor), 4),
        "A": float(scale),
        "alpha": round(float(alpha), 2),
        "next_doubling": round(float(scale * tokens[-1] ** -alpha * (1 - 2**-alpha)), 4),
        "million_tokens": round(float(tokens[-1]) / 1e6, 1),
    }


def draw_curve(work, target):
    """Bits per byte of training rows and of the held-out sample over tokens, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    log = read_log(work)
    tokens = np.array([line["tokens"] for line in log]) / 1e6
    train_bits = np.array([line["train_loss"] for line in log]) * bits_per_nat(work)
    held_out = [(line["tokens"] / 1e6, line["valid_bits_per_byte"]) for line in log if "valid_bits_per_byte" in line]

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    axes.plot(tokens, train_bits, color="0.75", linewidth=0.8, label="training rows")
    axes.plot(*np.array(held_out).T, "o-", color="C0", markersize=3, label="held-out sample")
    axes.set(xlabel="million tokens", ylabel="bits per byte")
    axes.set_ylim(0.8 * held_out[-1][1], 1.05 * held_out[0][1])  # the first minutes fall off the top
    axes.annotate(f"{held_out[-1][1]:.3f}", held_out[-1], (0, 8), textcoords="offset points", ha="center")
    rate = axes.twinx()
    rate.plot(tokens, [line["lr"] for line in log], ":", color="C1", linewidth=1)
    rate.set_ylabel("learning rate (Muon)", color="C1")
    rate.set_ylim(0)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(target, dpi=110, format="png")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def model_card(name, about, work, state, shape, record):
    """The README of a model: every figure in it comes from the log, the recipe or the record."""
    recipe, last = json.loads((work / "recipe.json").read_text(encoding="utf-8")), read_log(work)[-1]
    vocab, layers, hidden, heads, intermediate = shape
    n_packed = len(np.memmap(work / "train.bin", dtype=np.uint16, mode="r"))
    facts = [
        (
            "architecture",
            f"Llama, {layers} layers, hidden {hidden}, {heads} heads, intermediate {intermediate}, tied embeddings",
        ),
        ("tokenizer", f"byte-level BPE, {vocab} tokens; `<|bos|>` is 0, no text yields it"),
        (
            "context",
            f"{LONG_CONTEXT} tokens; trained on rows of {CONTEXT}, and of {LONG_CONTEXT} "
            f"in one step of {LONG_EVERY}, each from a random place of a random text",
        ),
        (
            "training",
            f"{state['tokens'] / 1e6:.1f} million tokens (of {n_packed / 1e6:.0f} million), {state['step']} steps of "
            f"{recipe['batch']}, {state['seconds'] / 60:.0f} minutes, {recipe['precision']}",
        ),
        (
            "optimiser",
            f"Muon ({recipe['muon_lr']}) for the matrices, AdamW ({recipe['adam_lr']}) "
            f"for embeddings and norms; linear decay to zero over the last {DECAY:.0%}",
        ),
        ("machine", f"{recipe['machine']}, PyTorch {recipe['torch']}"),
        ("held-out sample", f"{last.get('valid_bits_per_byte', '-')} bits per byte at the end"),
    ]
    weights = json.loads((work / "prepare.json").read_text(encoding="utf-8"))["weights"]
    if weights:
        facts.insert(3, ("texts seen more often", ", ".join(f"{kind} x{n}" for kind, n in weights.items())))
    if fit := doubling(work):
        facts.append(
            (
                "what more would give",
                f"training rows at the full learning rate follow {fit['E']:.2f} + {fit['A']:.3g} * "
                f"tokens^-{fit['alpha']}; from {fit['million_tokens']} million tokens on, the next doubling takes off "
                f"{fit['next_doubling']:.3f} bits per byte",
            )
        )
    parts = [
        f"# {name}",
        about,
        "## Shape and recipe",
        table(["", ""], facts),
        "![bits per byte over training](loss.png)",
        "Made with `examples/training/train_model.py`: the curve with `plot`, what follows with `evaluate`.",
    ]
    if record:
        rows = [
            (k, f"{b:.3f}", f"{record['bytes'][k] / 1000:.0f}", record["bytes_per_token"][k])
            for k, b in record["bits_per_byte"].items()
        ]
        total = sum(record["bytes"].values()) / 1000
        rows.append(("**all**", f"**{record['bits_per_byte_all']:.3f}**", f"{total:.0f}", ""))
        parts += [
            "## Bits per byte on held-out texts",
            f"Chunks of `<|bos|>` and {CONTEXT - 1} tokens, no context across chunks; the sum of "
            "-log2 p over their tokens by the UTF-8 bytes of the texts.  No text of these is in "
            "the training set.",
            table(["kind of text", "bits per byte", "kB", "bytes per token"], rows),
            "## Size and speed",
            f"{record['parameters']:,} parameters, in float16.  Reads "
            f"{record['reads_tokens_per_second']:,} tokens a second (8 chunks at once, median) and "
            f"writes {record['writes_tokens_per_second']:,} (one at a time, median) on "
            f"{record['machine']}; PyTorch {record['torch']}, float32, {record['date']}.",
        ]
    return "\n\n".join(parts) + "\n"
