"""Train a small causal language model on a folder of text, for use as `cramzip -m FOLDER`.

    python train_model.py prepare TEXTS WORK        tokenizer, and the texts as token ids
    python train_model.py train WORK --minutes 90   may be stopped, and resumed by the same command
    python train_model.py export WORK FOLDER        the model, its bits per byte, loss curve and card

`evaluate FOLDER TEXTS` and `plot WORK PNG` make single figures of the card again.  TEXTS holds
files in UTF-8, at any depth; its first level of folders names the kinds of text.

The model is a Llama with tied embeddings; the recipe is Muon for the matrices (Jordan et al. 2024)
and AdamW for the rest, at a learning rate that rises, stays, and falls to zero over the last part.
Every row starts with `<|bos|>` at a random place of a random text, because a compressor's chunks
do too: the model has to predict well from the first token on, knowing nothing of what came before.
"""

import json
import os
import time
from pathlib import Path

import click
import numpy as np
import torch
from recipe import bits_per_byte, fast_bfloat16, lr_scale, make_model, make_optimisers, nll
from report import draw_curve, machine, measure, model_card, read_log
from safetensors.torch import save_file
from texts import (
    CONTEXT,
    LONG_CONTEXT,
    LONG_EVERY,
    SEED,
    balanced_sample,
    draw_rows,
    pack,
    save_tokenizer,
    text_files,
    token_bytes,
    train_tokenizer,
    valid_sample,
)
from tokenizers import Tokenizer


def write_beside(path, write):
    """Let `write` make a file next to `path`, then put it in its place."""
    temporary = path.with_name(path.name + ".new")
    write(temporary)
    with temporary.open("rb") as f:
        os.fsync(f.fileno())
    temporary.replace(path)


def json_lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


@click.group(help=__doc__.split("\n\n")[0])
def cli():
    pass


@cli.command()
@click.argument("texts", type=click.Path(exists=True, file_okay=False))
@click.argument("work", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--valid",
    type=click.Path(exists=True, file_okay=False),
    help="Held-out texts; without it every 50th file of TEXTS is held out.",
)
@click.option(
    "--vocab", type=click.IntRange(257, 65536), default=4096, show_default=True, help="Tokens of the vocabulary."
)
@click.option("--sample-mb", default=30, show_default=True, help="Text the tokenizer sees.")
@click.option(
    "--weight",
    "weights",
    type=(str, click.IntRange(0)),
    multiple=True,
    metavar="KIND N",
    help="Pack the texts of KIND N times; may be given for several kinds.",
)
def prepare(texts, work, valid, vocab, sample_mb, weights):
    """Train the tokenizer on TEXTS and pack the token ids into WORK."""
    work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    files = text_files(texts)
    files = [files[i] for i in rng.permutation(len(files))]
    held_out = text_files(valid) if valid else files[::50]
    files = files if valid else [file for i, file in enumerate(files) if i % 50]
    (work / "prepare.json").write_text(json.dumps({"weights": weights, "vocab": vocab}) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer(balanced_sample(files, sample_mb * 1e6, rng), vocab)
    save_tokenizer(tokenizer, work)
    weights = dict(weights)
    if unknown := weights.keys() - {kind for _, kind in files}:
        raise click.BadParameter(f"no texts of kind {', '.join(sorted(unknown))}", param_hint="--weight")
    files = [file for file in files for _ in range(weights.get(file[1], 1))]
    for name, part in ("train", files), ("valid", held_out):
        paths = [path for path, _ in part]
        n = pack(tokenizer, paths, work / f"{name}.bin")
        size = sum(path.stat().st_size for path in paths)
        click.echo(f"{name}: {len(paths)} files, {size} bytes, {n} tokens", err=True)


@cli.command()
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--minutes", type=float, help="Time to train for, over all resumes.")
@click.option("--tokens", type=float, help="Tokens to train on; or the sooner of the two.")
@click.option("--layers", default=4, show_default=True)
@click.option("--hidden", default=320, show_default=True)
@click.option("--heads", default=5, show_default=True)
@click.option("--intermediate", default=864, show_default=True)
@click.option("--batch", default=8192, show_default=True, help="Tokens of a step.")
@click.option("--micro", default=4096, show_default=True, help="Tokens at once in memory.")
@click.option("--muon-lr", default=0.02, show_default=True)
@click.option("--adam-lr", default=0.01, show_default=True)
@click.option("--compile/--no-compile", default=True, show_default=True)
@click.option("--threads", default=0, help="CPU threads (0: what PyTorch takes).")
@click.option("--save-every", default=300.0, show_default=True, help="Seconds between checkpoints.")
def train(
    work,
    minutes,
    tokens,
    layers,
    hidden,
    heads,
    intermediate,
    batch,
    micro,
    muon_lr,
    adam_lr,
    compile,
    threads,
    save_every,
):
    """Train on what `prepare` left in WORK; go on from the checkpoint there, if there is one."""
    if not (minutes or tokens):
        raise click.UsageError("give --minutes or --tokens")
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    stream = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
    valid_rows, valid_bytes = valid_sample(work, token_bytes(tokenizer))

    shape = [tokenizer.get_vocab_size(), layers, hidden, heads, intermediate]
    model = make_model(*shape).to(device)
    run = torch.compile(nll, dynamic=False) if compile else nll
    optimisers = make_optimisers(model, muon_lr, adam_lr)
    recipe = {k: v for k, v in click.get_current_context().params.items() if k != "work"}
    precision = "bfloat16 products, float32 weights" if fast_bfloat16(device) else "float32"
    recipe |= {"torch": torch.__version__, "machine": machine(), "precision": precision}
    (work / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    state = {"step": 0, "tokens": 0, "seconds": 0.0}
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        state = saved["state"]
        model.load_state_dict(saved["model"])
        for optimiser, saved_optimiser in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(saved_optimiser)
    log = [line for line in read_log(work) if line["step"] <= state["step"]]
    write_beside(work / "log.jsonl", lambda path: path.write_text(json_lines(log), encoding="utf-8"))

    def save():
        saved = {
            "state": state,
            "shape": shape,
            "model": model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        }
        write_beside(checkpoint, lambda path: torch.save(saved, path))

    def progress():
        by_time = state["seconds"] / (60 * minutes) if minutes else 0
        return max(by_time, state["tokens"] / tokens if tokens else 0)

    begin, saved_at, losses = time.monotonic() - state["seconds"], state["seconds"], []
    while progress() < 1:
        scale = lr_scale(progress())
        for optimiser, lr in zip(optimisers, (muon_lr, adam_lr), strict=True):
            optimiser.param_groups[0]["lr"] = lr * scale
        is_long = state["step"] % LONG_EVERY == LONG_EVERY - 1
        length = LONG_CONTEXT if is_long else CONTEXT
        rows = draw_rows(stream, state["step"], batch // length, length).to(device)
        for part in rows.split(max(1, micro // length)):
            with torch.autocast(device, torch.bfloat16, enabled=fast_bfloat16(device)):
                loss = run(model, part).sum() / batch
            loss.backward()
            losses.append(loss.item() * len(rows) / len(part))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        state["step"] += 1
        state["tokens"] += batch
        state["seconds"] = round(time.monotonic() - begin, 2)

        due = progress() >= 1 or state["seconds"] - saved_at >= save_every
        if due or state["step"] % 10 == 0:
            line = {**state, "lr": round(muon_lr * scale, 6), "train_loss": np.mean(losses).round(4)}
            losses = []
            if due:
                save()
                saved_at = state["seconds"]
                bits = bits_per_byte(model, valid_rows.to(device), valid_bytes)
                line["valid_bits_per_byte"] = round(bits, 4)
            with (work / "log.jsonl").open("a", encoding="utf-8") as f:
                f.write(json_lines([line]))


@cli.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.argument("texts", type=click.Path(exists=True, file_okay=False))
def evaluate(folder, texts):
    """Print bits per byte on TEXTS, and the speed, of the model in FOLDER, as JSON."""
    click.echo(json.dumps(measure(folder, texts), indent=2))


@cli.command()
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("png", type=click.Path(dir_okay=False, path_type=Path))
def plot(work, png):
    """Draw the loss curve of the training in WORK."""
    write_beside(png, lambda path: draw_curve(work, path))


@cli.command()
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="Heading of the model card; without it the name of FOLDER.")
@click.option("--about", type=click.File(encoding="utf-8"), help="Markdown for the model card.")
@click.option(
    "--valid",
    type=click.Path(exists=True, file_okay=False),
    help="Held-out texts to evaluate on; they must not have been trained on.",
)
def export(work, folder, name, about, valid):
    """Write the model of the last checkpoint in WORK to FOLDER, in float16."""
    saved = torch.load(work / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = make_model(*saved["shape"])
    model.load_state_dict(saved["model"])
    model.config.dtype = torch.float16
    weights = {k: v.half() for k, v in model.state_dict().items() if k != "lm_head.weight"}

    new = folder.with_name(folder.name + ".new")
    new.mkdir(parents=True)
    save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
    (new / "model.safetensors").chmod(0o644)
    model.config.save_pretrained(new)
    save_tokenizer(Tokenizer.from_file(str(work / "tokenizer.json")), new)
    draw_curve(work, new / "loss.png")
    record = measure(new, valid) if valid else None
    if record:
        (new / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    about = about.read().strip() if about else "A small causal language model."
    card = model_card(name or folder.name, about, work, saved["state"], saved["shape"], record)
    (new / "README.md").write_text(card, encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for path in new.iterdir():
        path.replace(folder / path.name)
    new.rmdir()


if __name__ == "__main__":
    cli()
