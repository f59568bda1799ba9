"""Give all heads of a model the same keys and values, so that decoding reads a fraction of them.

    python share_heads.py MODEL WORK FOLDER --steps 300       then: train_model.py train WORK --from FOLDER ...

Attention reads the keys and values of all heads for every token; with one shared head of them (multi-query attention,
Shazeer 2019) decoding takes a quarter to a third less time.  The mean of the heads would be a poor start.  Better:

    keys      Rotary embeddings turn pairs of numbers, which are complex numbers.  For each frequency, the keys of all
              heads are a few linear maps into the complex plane; the one nearest to all of them, by what the queries
              make of it, is shared, and the queries of each head take over the factor that is left.
    values    Each head adds O V x to the state.  The 64 directions of x that matter most for all of these maps
              together are shared, and each head's O takes over the rest.

Both are singular value decompositions, weighted by the second moments of x.  Then the attention learns for some steps
to do what that of the old model did; an ordinary training has to follow.
"""

import shutil
from copy import deepcopy
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from recipe import fast_bfloat16, nll
from texts import BOS_ID, SEED
from transformers import LlamaForCausalLM

from cramzip.lm.loading import load_model
from cramzip.lm.source import find

ROWS, LENGTH = 8, 256  # of a step
CALIBRATION = 48  # rows
RATE, WARM_UP = 1.5e-3, 20  # of Adam, and steps until it is reached
LEAST = 1e-9  # of the largest second moment: what counts as none


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--steps", default=300, show_default=True, help="Steps in which the attention learns from the old one.")
def main(model, work, folder, steps):
    old = load_model(find(str(model))).float().eval()
    rng = np.random.default_rng(SEED)
    train, valid = (np.memmap(work / f"{part}.bin", dtype=np.uint16, mode="r") for part in ("train", "valid"))
    held_out = draw(valid, rng, 2 * ROWS, 2 * LENGTH)
    new, kept = share(old, draw(train, rng, CALIBRATION, LENGTH))
    for layer, (keys, values) in enumerate(kept):
        click.echo(f"layer {layer}: {keys:.3f} of the keys and {values:.3f} of the values are kept")
    click.echo(f"bits a token: {bits(old, held_out):.4f}, with shared heads {bits(new, held_out):.4f}")
    imitate(new, old, (draw(train, rng, ROWS, LENGTH) for _ in range(steps)), steps)
    click.echo(f"after {steps} steps {bits(new, held_out):.4f}")
    new.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder / name)


def draw(stream, rng, n, length):
    """Rows (n, length + 1) from random places of token ids, each after `<|bos|>`."""
    rows = np.full((n, length + 1), BOS_ID, dtype=np.int64)
    for row in rows:
        start = int(rng.integers(0, len(stream) - length))
        row[1:] = stream[start : start + length]
    return torch.from_numpy(rows)


@torch.no_grad()
def bits(model, rows):
    nats = sum(nll(model, part).sum().item() for part in rows.split(4))
    return nats / np.log(2) / int((rows[:, 1:] > BOS_ID).sum())


@torch.no_grad()
def share(old, rows):
    """A model with one head of keys and values, and the shares (keys, values) of each layer's squares that it keeps."""
    config = deepcopy(old.config)
    config.num_key_value_heads = 1
    new = LlamaForCausalLM(config).float().eval()
    weights, kept = dict(old.state_dict()), []
    for layer, inputs in enumerate(attention_inputs(old, rows)):
        root, inverse = roots(inputs)
        names = [f"model.layers.{layer}.self_attn.{name}_proj.weight" for name in "qkvo"]
        query, key, value, out = (weights[name].double() for name in names)
        n_heads = config.num_attention_heads
        query, key, of_keys = shared_keys(query, key, n_heads, root, inverse)
        value, out, of_values = shared_values(value, out, n_heads, root, inverse)
        weights |= zip(names, (matrix.float() for matrix in (query, key, value, out)), strict=True)
        kept.append((of_keys, of_values))
    new.load_state_dict(weights)
    return new, kept


def attention_inputs(model, rows):
    """What the attention of each layer gets (tokens, D), in float64."""
    found = []

    def keep(module, arguments, named):
        found.append(named["hidden_states"].flatten(0, 1).double())

    hooks = [layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True) for layer in model.model.layers]
    model(input_ids=rows[:, :-1], use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def roots(inputs):
    """The square root of the second moments of inputs (tokens, D), and its inverse: both (D, D)."""
    values, vectors = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
    values = values.clamp(min=LEAST * values.max())
    return vectors @ (values.sqrt()[:, None] * vectors.T), vectors @ (values.rsqrt()[:, None] * vectors.T)


def shared_keys(query, key, n_heads, root, inverse):
    """Queries (H 64, D) for one head of keys (64, D), and the share of the old keys' squares that it keeps."""
    queries, keys = as_complex(query, n_heads), as_complex(key, n_heads)  # (H, 32, D)
    root, inverse = root.to(queries.dtype), inverse.to(queries.dtype)
    shared = torch.empty_like(keys[0])
    best = whole = 0.0
    for frequency in range(len(shared)):
        strength = (queries[:, frequency] @ root).abs().square().sum(-1).sqrt().clamp(min=LEAST)  # (H,)
        left, singular, right = torch.linalg.svd(strength[:, None] * (keys[:, frequency] @ root), full_matrices=False)
        size = singular[0].clamp(min=LEAST) / strength.square().mean().sqrt()
        shared[frequency] = size * right[0] @ inverse
        factors = left[:, 0] * singular[0] / (strength * size)  # of each head's keys, as multiples of the shared ones
        queries[:, frequency] *= factors.conj()[:, None]
        best, whole = best + singular[0].square().item(), whole + singular.square().sum().item()
    return as_real(queries), as_real(shared[None]), best / max(whole, LEAST)


def as_complex(matrix, n_heads):
    """Rows i and i + 32 of each head, which rotary embeddings turn together, as one complex row."""
    halves = matrix.view(n_heads, 2, -1, matrix.shape[-1])
    return torch.complex(halves[:, 0], halves[:, 1])


def as_real(rows):
    return torch.stack([rows.real, rows.imag], dim=1).reshape(-1, rows.shape[-1])


def shared_values(value, out, n_heads, root, inverse):
    """One head of values (64, D), what is made of them (D, H 64), and the share of the old squares that is kept."""
    values, outs = value.view(n_heads, -1, value.shape[-1]), out.view(len(out), n_heads, -1)
    width = values.shape[1]
    maps = torch.einsum("dhk,hkx->hdx", outs, values) @ root  # (H, D, D)
    _, singular, right = torch.linalg.svd(maps.flatten(0, 1), full_matrices=False)
    shared, new = right[:width] @ inverse, torch.einsum("hdx,kx->dhk", maps, right[:width])
    size = (new.square().mean() / shared.square().mean()).sqrt().sqrt()  # both matrices as large as each other
    squares = singular.square()
    return shared * size, new.flatten(1) / size, (squares[:width].sum() / squares.sum()).item()


def imitate(new, old, batches, n_steps):
    """Let the attention of `new` learn the states and the predictions of `old`."""
    learning = [parameter for name, parameter in new.named_parameters() if "self_attn" in name]
    optimiser = torch.optim.Adam(learning, lr=RATE, betas=(0.9, 0.95))
    for step, rows in enumerate(batches):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1 - step / n_steps) ** 0.5
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16("cpu")):
            with torch.no_grad():
                wanted = old(input_ids=rows[:, :-1], output_hidden_states=True, use_cache=False)
            found = new(input_ids=rows[:, :-1], output_hidden_states=True, use_cache=False)
        logs = (one.logits.float().log_softmax(-1).flatten(0, 1) for one in (found, wanted))
        loss = F.kl_div(*logs, log_target=True, reduction="batchmean")
        for ours, theirs in zip(found.hidden_states[1:], wanted.hidden_states[1:], strict=True):
            loss = loss + F.mse_loss(ours.float(), theirs.float()) / theirs.float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


if __name__ == "__main__":
    main()
