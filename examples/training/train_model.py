"""Train a small causal language model on a folder of text, for use as `cramzip -m FOLDER`.

    python train_model.py all TEXTS FOLDER --minutes 10     everything below, one after the other

    python train_model.py prepare TEXTS WORK        tokenizer, and the texts as token ids
    python train_model.py train WORK --minutes 90   may be stopped, and resumed by the same command
    python train_model.py export WORK FOLDER        the model, its bits per byte, loss curve and card

`train WORK --from FOLDER` goes on from the weights of a model; `evaluate FOLDER TEXTS` and `plot WORK PNG` make single
figures of the card again. TEXTS holds files in UTF-8, at any depth; its first level of folders names the kinds of text.

The model is a Llama with tied embeddings; the recipe is Muon for the matrices (Jordan et al. 2024)
and AdamW for the rest, at a learning rate that rises, stays, and falls to zero over the last part.
Every row starts with `<|bos|>` at a random place of a random text, because a compressor's chunks
do too: the model has to predict well from the first token on, knowing nothing of what came before.
"""

import json
import shutil
import time
from datetime import datetime
from pathlib import Path

import click
import numpy as np
import torch
from loop import Pace, Run, write_beside
from mems import with_vectors
from recipe import attention, fast_bfloat16, make_model
from report import draw_curve, machine, measure, recipe_parts, record_parts
from rows import Rows
from safetensors.torch import save_file
from schedule import WARM_UP, WARM_UP_FROM_WEIGHTS, Schedule
from texts import (
    SEED,
    balanced_sample,
    pack,
    read_text,
    save_tokenizer,
    text_files,
    token_bytes,
    train_tokenizer,
)
from tokenizers import Tokenizer
from transformers import LlamaConfig
from windows import Windows, letters, window_hashes

from cramzip.exact import CODEBOOK_NAME
from cramzip.exact.codebook import pack as pack_codebook
from cramzip.exact.codebook import read_codebook
from cramzip.lm.loading import load_model
from cramzip.lm.source import find


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
    "--tokenizer",
    "given",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Take the tokenizer of the model in FOLDER instead of a new one.",
)
def prepare(texts, work, valid, vocab, sample_mb, given):
    """Train the tokenizer on TEXTS and pack the token ids into WORK.

    Passages that the training texts share with the held-out ones, of 50 letters or more, are cut out of the former.
    """
    work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    files = text_files(texts)
    files = [files[i] for i in rng.permutation(len(files))]
    held_out = text_files(valid) if valid else files[::50]
    files = files if valid else [file for i, file in enumerate(files) if i % 50]
    if not files:
        raise click.UsageError(f"{texts} has only one file; a second one is needed, or --valid, as held-out text")
    if given:
        tokenizer = Tokenizer.from_file(str(given / "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(balanced_sample(files, sample_mb * 1e6, rng), vocab)
    save_tokenizer(tokenizer, work)
    windows = Windows(np.concatenate([window_hashes(letters(read_text(path))[0]) for path, _ in held_out]))
    packed = {}
    for name, part, read in ("train", files, lambda path: windows.cut(read_text(path))), ("valid", held_out, read_text):
        packed[name] = pack(tokenizer, part, work / f"{name}.bin", read)
        n, size = sum(end - begin for begin, end in packed[name].values()), sum(p.stat().st_size for p, _ in part)
        click.echo(f"{name}: {len(part)} files, {size} bytes, {n} tokens", err=True)
    (work / "prepare.json").write_text(json.dumps({"kinds": packed["train"]}, indent=2) + "\n", encoding="utf-8")


def time_of_clock(context, parameter, value):
    """Seconds since 1970 of HH:MM, today or tomorrow, or of a date and time."""
    if value is None:
        return None
    try:
        if len(value) > 5:
            return datetime.fromisoformat(value).timestamp()
        hour, minute = map(int, value.split(":"))
        then = datetime.now().replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()
    except ValueError as error:
        raise click.BadParameter(f"expected HH:MM or a date and time, found {value!r}") from error
    return then if then > time.time() else then + 86400


@cli.command()
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--minutes", type=float, help="Time to train for, over all resumes.")
@click.option("--until", callback=time_of_clock, metavar="TIME", help="Time of the clock to end at: HH:MM, or ISO.")
@click.option("--tokens", type=float, help="Tokens to train on, over all resumes.")
@click.option("--warm-up", type=float, metavar="MINUTES", help="Without it 1% of the training, 4% with --from.")
@click.option(
    "--decay", type=float, metavar="MINUTES", help="How long before the end the learning rate begins to fall."
)
@click.option(
    "--from",
    "origin",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Begin with the weights of the model in FOLDER; its tokenizer has to be that of WORK.",
)
@click.option("--seen", type=float, default=0, help="Tokens that the weights of --from have been trained on.")
@click.option(
    "--weight",
    "weights",
    type=(str, click.FloatRange(0)),
    multiple=True,
    metavar="KIND N",
    help="Draw the texts of KIND N times as often; may be given for several kinds.",
)
@click.option("--dress/--no-dress", default=True, show_default=True, help="Show some texts in another dress.")
@click.option("--layers", default=4, show_default=True)
@click.option("--hidden", default=320, show_default=True)
@click.option("--heads", default=5, show_default=True)
@click.option("--key-heads", default=1, show_default=True, help="Heads of keys and values, which the others share.")
@click.option("--intermediate", default=864, show_default=True)
@click.option("--batch", default=8192, show_default=True, help="Tokens of a step.")
@click.option("--micro", default=4096, show_default=True, help="Tokens at once in memory.")
@click.option("--muon-lr", default=0.02, show_default=True)
@click.option("--adam-lr", default=0.01, show_default=True)
@click.option("--average", default=0.998, show_default=True, help="What a step leaves of the averaged weights.")
@click.option(
    "--rounding", default=0.0, metavar="MINUTES", help="How long before the end matrices are rounded as in int8 files."
)
@click.option(
    "--codebook",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Train the vectors of this codebook together with the model; export writes them beside it.",
)
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Let torch.compile make the steps a third faster; without either where more than half an hour is left.",
)
@click.option("--threads", default=0, help="CPU threads (0: what PyTorch takes).")
@click.option("--save-every", default=240.0, show_default=True, help="Seconds between checkpoints.")
def train(work, **options):
    """Train on what `prepare` left in WORK; go on from the checkpoint there, if there is one."""
    train_in(work, options)


COMPILE_FROM = 1800.0  # seconds of training; compiling takes minutes on a busy machine


def train_in(work, options):
    if all(options[limit] is None for limit in ("minutes", "until", "tokens")):
        raise click.UsageError("give --minutes, --until or --tokens")
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    kinds = json.loads((work / "prepare.json").read_text(encoding="utf-8"))["kinds"]
    weights = dict(options["weights"])
    if unknown := weights.keys() - kinds.keys():
        raise click.BadParameter(f"no texts of kind {', '.join(sorted(unknown))}", param_hint="--weight")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = first_model(options, tokenizer).to(device)
    model.set_attn_implementation(attention(device))
    recipe = options | {"origin": options["origin"] and options["origin"].name, "machine": machine()}
    recipe["codebook"] = options["codebook"] and options["codebook"].name
    recipe |= {"torch": torch.__version__, "precision": precision(device)}
    write_beside(
        work / "recipe.json", lambda path: path.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    )
    write_beside(work / "config.json", model.config.to_json_file)

    schedule = Schedule(
        **{field: options[field] for field in ("minutes", "until", "tokens", "warm_up", "decay")},
        warm_up_share=WARM_UP_FROM_WEIGHTS if options["origin"] else WARM_UP,
    )
    if options["compile"] is None:
        options["compile"] = schedule.left({"seconds": 0.0, "trained": 0}) > COMPILE_FROM
    pace = Pace(**{field: options[field] for field in Pace.__dataclass_fields__})
    stream = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
    seen = int(options["seen"])
    codebook = None
    if options["codebook"]:
        codebook = read_codebook(options["codebook"], model.config.hidden_size)
        write_beside(work / CODEBOOK_NAME, lambda path: shutil.copyfile(options["codebook"], path))
    run = Run(work, model, pace, token_bytes(tokenizer), seen, codebook)
    run.train(Rows(stream, kinds, weights, tokenizer, options["dress"], seen), schedule)


def precision(device):
    return "bfloat16 products, float32 weights" if fast_bfloat16(device) else "float32"


def first_model(options, tokenizer):
    """The model that a training begins with: that of --from, or a new one."""
    vocab = tokenizer.get_vocab_size()
    if not options["origin"]:
        return make_model(
            vocab, *(options[size] for size in ("layers", "hidden", "heads", "key_heads", "intermediate"))
        )
    theirs = Tokenizer.from_file(str(options["origin"] / "tokenizer.json"))
    if theirs.to_str() != tokenizer.to_str():
        raise click.UsageError(f"the tokenizer in {options['origin']} is another one; give it to prepare --tokenizer")
    return load_model(find(str(options["origin"])))


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
@click.option(
    "--weights",
    type=click.Choice(["last", "averaged"]),
    default="last",
    show_default=True,
    help="Those of the last step, or the average over the last steps, which is better before the learning rate falls.",
)
@click.option("--name", help="Heading of the model card; without it the name of FOLDER.")
@click.option("--about", type=click.File(encoding="utf-8"), help="Markdown for the model card.")
@click.option(
    "--valid",
    type=click.Path(exists=True, file_okay=False),
    help="Held-out texts to evaluate on; they must not have been trained on.",
)
def export(work, folder, weights, name, about, valid):
    """Write the model of the last checkpoint in WORK to FOLDER, in float16."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    state = write_model(work, new, weights)
    draw_curve(work, new / "loss.png")
    record = measure(new, valid) if valid else None
    if record:
        (new / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    about = about.read().strip() if about else "A small causal language model."
    card = [f"# {name or folder.name}", about, *recipe_parts(work, state, weights), *record_parts(record)]
    (new / "README.md").write_text("\n\n".join(card) + "\n", encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for path in new.iterdir():
        path.replace(folder / path.name)
    new.rmdir()


def write_model(work, folder, which):
    """Write configuration, weights, tokenizer and codebook, if any, of the last checkpoint; return its state."""
    saved = torch.load(work / "checkpoint.pt", map_location="cpu", weights_only=True)
    weights = {
        name: tensor.half()
        for name, tensor in saved["averaged" if which == "averaged" else "model"].items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    if "mems" in saved:
        codebook = with_vectors(
            read_codebook(work / CODEBOOK_NAME), saved["mems"]["averaged" if which == "averaged" else "table"]
        )
        (folder / CODEBOOK_NAME).write_bytes(pack_codebook(codebook))
    config = LlamaConfig.from_json_file(work / "config.json")
    config.dtype = torch.float16
    config.save_pretrained(folder)
    save_tokenizer(Tokenizer.from_file(str(work / "tokenizer.json")), folder)
    return saved["state"]


@cli.command("all")
@click.argument("texts", type=click.Path(exists=True, file_okay=False))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--minutes", type=float, default=10, show_default=True, help="Time for everything but the evaluation.")
@click.option("--valid", type=click.Path(exists=True, file_okay=False), help="Held-out texts to evaluate on.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Working files; without it FOLDER.work.")
@click.pass_context
def everything(context, texts, folder, minutes, valid, work):
    """From TEXTS to a model in FOLDER: prepare, train and export, with the default of every option."""
    begin = time.monotonic()
    work = work or folder.with_name(folder.name + ".work")
    if (work / "checkpoint.pt").exists():
        raise click.UsageError(f"{work} holds another training; go on with `train` and `export`, or delete it")
    context.invoke(prepare, texts=texts, work=work, valid=valid)
    left = minutes - (time.monotonic() - begin) / 60
    context.invoke(train, work=work, minutes=max(left, minutes / 2))
    context.invoke(export, work=work, folder=folder, valid=valid)


if __name__ == "__main__":
    cli()
