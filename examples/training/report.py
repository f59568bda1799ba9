"""What came out: bits per byte, speed, loss curve and model card."""

import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from dress import DRESSES
from loop import read_log
from recipe import nll
from rows import LENGTHS
from schedule import DECAY
from texts import BOS_ID, CONTEXT, SEED, chunks, read_text, text_files
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig


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
def bits_of(model, rows, batch=8):
    """Bits of rows of shape (N, T + 1), and for each batch the tokens that were read a second."""
    bits, speeds = 0.0, []
    for part in rows.split(batch):
        begin = time.perf_counter()
        bits += nll(model, part).double().sum().item() / math.log(2)
        speeds.append(part[:, 1:].numel() / (time.perf_counter() - begin))
    return bits, speeds


def dress_costs(model, tokenizer, texts, n_pieces=24, length=2500):
    """Bits of pieces of the texts in each dress, against those of the same pieces as they are; and their kilobytes."""

    def bits(pieces):
        ids = [tokenizer(piece, add_special_tokens=False).input_ids for piece in pieces]
        return bits_of(model, torch.cat([chunks(part) for part in ids]))[0]

    whole = "\n\n".join(texts)
    starts = np.linspace(0, max(0, len(whole) - length), n_pieces).astype(int)
    pieces = [whole[start : start + length] for start in starts]
    plain, rng = bits(pieces), np.random.default_rng(SEED)
    costs = {name: bits([dress(piece, rng) for piece in pieces]) / plain for name, dress, _ in DRESSES}
    return {name: round(cost, 4) for name, cost in costs.items()}, round(sum(map(len, pieces)) / 1000)


@torch.no_grad()
def measure(folder, texts):
    """A record of bits per byte by kind of text, and of the speed, of the model in `folder`.

    A text is cut into chunks of `<|bos|>` and 511 tokens that know nothing of each other; bits per
    byte are the sum of -log2 p over their tokens by the UTF-8 bytes of the texts.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows, by_kind = defaultdict(list), defaultdict(list)
    for path, kind in text_files(texts):
        text = read_text(path)
        rows[kind].append(chunks(tokenizer(text, add_special_tokens=False).input_ids))
        by_kind[kind].append(text)
    n_bytes = {kind: sum(len(text.encode("utf-8")) for text in texts) for kind, texts in by_kind.items()}
    bits, n_tokens, speeds = {}, {}, []
    for kind in sorted(rows, key=n_bytes.get, reverse=True):
        rows_of_kind = torch.cat(rows[kind])
        n_tokens[kind] = int((rows_of_kind > BOS_ID).sum())
        bits[kind], speeds_of_kind = bits_of(model, rows_of_kind)
        speeds += speeds_of_kind
    dress, dress_kb = dress_costs(model, tokenizer, [text for texts in by_kind.values() for text in texts])
    total = sum(n_bytes.values())
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bits_per_byte": {k: round(b / n_bytes[k], 4) for k, b in bits.items()},
        "bits_per_byte_all": round(sum(bits.values()) / total, 4),
        "bytes": {k: n_bytes[k] for k in bits},
        "dress": dress,
        "dress_kb": dress_kb,
        "bytes_per_token": {k: round(n_bytes[k] / n, 3) for k, n in n_tokens.items()},
        "reads_tokens_per_second": round(float(np.median(speeds))),
        "writes_tokens_per_second": round(float(writing_speed(model))),
        "machine": machine(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


USUAL_ALPHA = 0.51  # of the first training of Primer, from 2 to 24 million tokens


def power_law(x, y, weight, alphas):
    """The `E + A * x^-alpha` with the least weighted squares, alpha being one of `alphas`; returns E, A and alpha."""

    def fit(alpha):
        columns = np.stack([np.ones_like(x), x**-alpha], axis=1)
        solution = np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0]
        return float((((columns @ solution - y) * weight) ** 2).sum()), *solution.tolist(), float(alpha)

    return min(map(fit, alphas))[1:]


def law_in_words(log, n_bins=24):
    """What more training would give, in bits per byte of the training rows; None if there is too little to fit.

    The law is fitted to the part at the full learning rate, from a tenth of its tokens on, in bins of equal ratio.  A
    training that has gone on from other weights spans too small a ratio of tokens to tell alpha, which is then held.
    """
    full = max((line["lr"] for line in log), default=0)
    level = [line for line in log if line["lr"] == full]
    if len(level) < 4 * n_bins:
        return None
    tokens = np.array([line["tokens"] for line in level], dtype=float)
    bits = np.array([line["train_bits_per_byte"] for line in level])
    bins = np.digitize(tokens, np.geomspace(max(tokens[0], tokens[-1] / 10), tokens[-1], n_bins))
    kept = [b for b in range(1, n_bins + 1) if (bins == b).any()]
    x = np.array([tokens[bins == b].mean() for b in kept])
    y = np.array([bits[bins == b].mean() for b in kept])
    weight = np.sqrt([(bins == b).sum() for b in kept])
    wide = tokens[-1] >= 4 * tokens[0]
    floor, scale, alpha = power_law(x, y, weight, np.arange(0.05, 1.01, 0.01) if wide else [USUAL_ALPHA])
    gain = scale * tokens[-1] ** -alpha * (1 - 2**-alpha)
    held = "" if wide else " (the exponent is that of the first training)"
    return (
        f"training rows at the full learning rate follow {floor:.2f} + {scale:.3g} * tokens^-{alpha:.2f}{held}; from "
        f"{tokens[-1] / 1e6:.1f} million tokens on, the next doubling takes off {gain:.3f} bits per byte"
    )


def draw_curve(work, target):
    """Bits per byte of training rows and of the held-out sample over tokens, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    log = read_log(work)
    tokens = np.array([line["tokens"] for line in log]) / 1e6
    train_bits = np.array([line["train_bits_per_byte"] for line in log])
    sampled = [line for line in log if "valid_bits_per_byte" in line]
    held_out = [(line["tokens"] / 1e6, line["valid_bits_per_byte"]) for line in sampled]
    averaged = [(line["tokens"] / 1e6, line["averaged_valid_bits_per_byte"]) for line in sampled]

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    axes.plot(tokens, train_bits, color="0.75", linewidth=0.8, label="training rows")
    axes.plot(*np.array(held_out).T, "o-", color="C0", markersize=3, label="held-out sample")
    axes.plot(*np.array(averaged).T, "-", color="C2", linewidth=1, label="held-out sample, averaged weights")
    axes.set(xlabel="million tokens", ylabel="bits per byte")
    lowest = min(train_bits[-1], held_out[-1][1])
    axes.set_ylim(0.8 * lowest, 1.05 * max(held_out[0][1], lowest))  # the first minutes fall off the top
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


def recipe_parts(work, state, weights):
    """The part of the card on shape and recipe: every figure comes from the log, the recipe or the checkpoint."""
    recipe, log = json.loads((work / "recipe.json").read_text(encoding="utf-8")), read_log(work)
    last = [line for line in log if "valid_bits_per_byte" in line][-1]
    config = LlamaConfig.from_json_file(work / "config.json")
    n_packed = sum(
        end - begin for begin, end in json.loads((work / "prepare.json").read_text(encoding="utf-8"))["kinds"].values()
    )
    trained = (
        f"{state['trained'] / 1e6:.1f} million tokens (of {n_packed / 1e6:.0f} million), {state['step']} steps of "
        f"{recipe['batch']}, {state['seconds'] / 60:.0f} minutes, {recipe['precision']}"
    )
    if recipe["origin"]:
        trained += (
            f"; began with the weights of the former {recipe['origin']}, which had seen "
            f"{(state['tokens'] - state['trained']) / 1e6:.1f} million: {state['tokens'] / 1e6:.1f} million in all"
        )
    decay = f"{recipe['decay']:g} minutes" if recipe["decay"] is not None else f"{DECAY:.0%} of the time"
    kinds = ", ".join(f"{kind} x{n:g}" for kind, n in recipe["weights"])
    facts = [
        (
            "architecture",
            f"Llama, {config.num_hidden_layers} layers, hidden {config.hidden_size}, {config.num_attention_heads} "
            f"heads, {config.num_key_value_heads} of keys and values, intermediate {config.intermediate_size}, "
            "tied embeddings",
        ),
        ("tokenizer", f"byte-level BPE, {config.vocab_size} tokens; `<|bos|>` is 0, no text yields it"),
        (
            "context",
            f"{config.max_position_embeddings} tokens; trained on rows of {', '.join(map(str, sorted(set(LENGTHS))))} "
            f"(mostly {CONTEXT}), each from a random place of a random text",
        ),
        ("texts seen more often", kinds or "none"),
        ("texts in another dress", describe_dresses() if recipe["dress"] else "none"),
        ("training", trained),
        (
            "optimiser",
            f"Muon ({recipe['muon_lr']}) for the matrices, AdamW ({recipe['adam_lr']}) "
            f"for embeddings and norms; linear decay to zero over the last {decay}",
        ),
        ("weights", WEIGHTS[weights]),
        ("machine", f"{recipe['machine']}, PyTorch {recipe['torch']}"),
        (
            "held-out sample",
            f"{last['valid_bits_per_byte']} bits per byte at the end, {last['averaged_valid_bits_per_byte']} with the "
            "averaged weights",
        ),
    ]
    if law := law_in_words(log):
        facts.append(("what more would give", law))
    return [
        "## Shape and recipe",
        table(["", ""], facts),
        "![bits per byte over training](loss.png)",
        "Made with `examples/training/train_model.py`: the curve with `plot`, what follows with `evaluate`.",
    ]


WEIGHTS = {"last": "those of the last step", "averaged": "average over the last steps"}


def describe_dresses():
    return ", ".join(f"{name} {share:.1%}" for name, _, share in DRESSES)


def record_parts(record):
    """The part of the card on what `measure` found."""
    if not record:
        return []
    rows = [
        (k, f"{b:.3f}", f"{record['bytes'][k] / 1000:.0f}", record["bytes_per_token"][k])
        for k, b in record["bits_per_byte"].items()
    ]
    total = sum(record["bytes"].values()) / 1000
    rows.append(("**all**", f"**{record['bits_per_byte_all']:.3f}**", f"{total:.0f}", ""))
    return [
        "## Bits per byte on held-out texts",
        f"Chunks of `<|bos|>` and {CONTEXT - 1} tokens, no context across chunks; the sum of "
        "-log2 p over their tokens by the UTF-8 bytes of the texts.  No text of these is in "
        "the training set.",
        table(["kind of text", "bits per byte", "kB", "bytes per token"], rows),
        f"The same text in another dress, bits against those of the plain text ({record['dress_kb']} kB of the above):",
        table(["dress", "times the bits"], [(name, f"{ratio:.3f}") for name, ratio in record["dress"].items()]),
        "## Size and speed",
        f"{record['parameters']:,} parameters, in float16.  Reads "
        f"{record['reads_tokens_per_second']:,} tokens a second (8 chunks at once, median) and "
        f"writes {record['writes_tokens_per_second']:,} (one at a time, median) on "
        f"{record['machine']}; PyTorch {record['torch']}, float32, {record['date']}.",
    ]
