"""Mixes the weights of two models of which one was trained on from the other, or both from a third.

    python blend.py FOLDER OTHER NEW [--share 0.5]

The mean of two trained models is often better than either, as it has less of the noise of both (Wortsman et al. 2022,
"Model soups"). NEW gets `share` of OTHER, and the configuration and the tokenizer of FOLDER. With `--work WORK`, what
`train_model.py prepare` made, it only prints what the held-out sample takes at several shares.
"""

import json
import shutil
from pathlib import Path

import click
import torch
from loop import sample_bits, write_beside
from safetensors.torch import load_file, save_file
from texts import token_bytes, valid_sample
from to_int8 import COPIED
from tokenizers import Tokenizer

from cramzip.lm.loading import load_model
from cramzip.lm.source import find

WEIGHTS = "model.safetensors"
SHARES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)

folder_argument = click.Path(exists=True, file_okay=False, path_type=Path)


def mixed(one, other, share):
    """Named tensors with so much of the other. Raises UsageError for models of different shapes."""
    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        raise click.UsageError("these models have different shapes")
    return {name: torch.lerp(tensor.float(), other[name].float(), share) for name, tensor in one.items()}


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("folder", type=folder_argument)
@click.argument("other", type=folder_argument)
@click.argument("new", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of the second model.")
@click.option("--work", type=folder_argument, help="Print what the held-out sample there takes at several shares.")
def main(folder, other, new, share, work):
    one, two = load_file(folder / WEIGHTS), load_file(other / WEIGHTS)
    if work:
        for tried, bits in measured(folder, one, two, work):
            click.echo(json.dumps({"share": tried, "bits_per_byte": bits}))
    if new:
        new.mkdir(exist_ok=True)
        for name in COPIED:
            shutil.copyfile(folder / name, new / name)
        found = {name: tensor.half() for name, tensor in mixed(one, two, share).items()}
        write_beside(new / WEIGHTS, lambda path: save_file(found, path, metadata={"format": "pt"}))
    elif not work:
        raise click.UsageError("give a NEW folder, or --work")


def measured(folder, one, two, work):
    """Shares, and bits per byte of the held-out sample with so much of the second model."""
    model = load_model(find(str(folder))).float()
    rows, n_bytes = valid_sample(work, token_bytes(Tokenizer.from_file(str(work / "tokenizer.json"))))
    for share in SHARES:
        model.load_state_dict(mixed(one, two, share), strict=False)
        yield share, sample_bits(model, rows, n_bytes)


if __name__ == "__main__":
    main()
