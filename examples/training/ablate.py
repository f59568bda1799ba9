"""What the shape of a small model costs in bits: each variant is trained anew on the same rows, for as many tokens.

    python ablate.py WORK OUT.jsonl [--tokens 2000000] [--rows 0]

WORK is what `train_model.py prepare` made. A line of JSON is written for each variant; one that is there already is not
trained again. Other `--rows` tell how much of a difference is chance. What the shapes cost in seconds is measured by
examples/benchmarks/shapes.py.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from loop import Pace, Run
from recipe import make_model
from report import machine
from rows import Rows
from schedule import Schedule
from texts import token_bytes
from tokenizers import Tokenizer

WINDOW = 128  # tokens that windowed layers see
PACE = {"batch": 8192, "micro": 4096, "muon_lr": 0.02, "adam_lr": 0.01, "average": 0.998, "rounding": 0.0}


@dataclass(frozen=True)
class Variant:
    """A shape; `windowed`: the layers that see WINDOW tokens only."""

    layers: int = 4
    key_heads: int = 1
    intermediate: int = 864
    activation: str = "silu"
    windowed: tuple = ()


VARIANTS = {
    "as it ships": Variant(),
    "relu² in place of SiLU": Variant(activation="relu2"),
    "windows of 128 in layers 1 and 3": Variant(windowed=(0, 2)),
    "3 layers": Variant(layers=3),
    "5 layers": Variant(layers=5),
    "3 layers, a wider MLP": Variant(layers=3, intermediate=1216),
    "5 heads of keys and values": Variant(key_heads=5),
}


def made(variant, vocabulary):
    """A new model of this shape."""
    model = make_model(vocabulary, variant.layers, 320, 5, variant.key_heads, variant.intermediate, variant.activation)
    for number in variant.windowed:
        model.model.layers[number].self_attn.register_forward_pre_hook(within_window, with_kwargs=True)
    return model


def within_window(module, positional, named):
    """Let attention see the WINDOW last tokens only."""
    n = named["hidden_states"].shape[1]
    back = torch.arange(n)[:, None] - torch.arange(n)
    return positional, named | {"attention_mask": ((back >= 0) & (back < WINDOW))[None, None]}


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tokens", default=2e6, show_default=True, help="That each variant is trained on.")
@click.option("--rows", default=0, show_default=True, help="Which rows are drawn: another number, other ones.")
@click.option("--only", multiple=True, type=click.Choice(list(VARIANTS)), help="Train these variants; all without it.")
@click.option("--threads", default=0, help="CPU threads (0: what PyTorch takes).")
def main(work, out, tokens, rows, only, threads):
    if threads:
        torch.set_num_threads(threads)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    done = {(record["variant"], record["rows"]) for record in map(json.loads, lines)}
    for name in only or VARIANTS:
        if (name, rows) not in done:
            variant = VARIANTS[name]
            record = {"variant": name, "rows": rows, **asdict(variant), **trained(variant, work, tokens, rows)}
            record["machine"] = machine()
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            click.echo(f"{name}: {record['bits_per_byte']} bits per byte")


def trained(variant, work, tokens, which_rows):
    """Train a variant; its size, and what the held-out sample costs."""
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    kinds = json.loads((work / "prepare.json").read_text(encoding="utf-8"))["kinds"]
    stream = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
    model = made(variant, tokenizer.get_vocab_size())
    model.set_attn_implementation("sdpa")  # which takes masks of truth values
    with tempfile.TemporaryDirectory() as folder:
        for needed in ("valid.bin", "tokenizer.json"):
            (Path(folder) / needed).symlink_to((work / needed).resolve())
        run = Run(Path(folder), model, Pace(**PACE, save_every=1e9, compile=False), token_bytes(tokenizer))
        run.train(Rows(stream, kinds, {}, tokenizer, dress=False, seen=which_rows), Schedule(tokens=tokens))
        bits = run.valid_bits(model)
    n_parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": n_parameters, "tokens": run.state["trained"], "bits_per_byte": bits}


if __name__ == "__main__":
    main()
