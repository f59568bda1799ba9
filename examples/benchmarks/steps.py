#!/usr/bin/env python3
"""How many tokens a vector recites after so many steps, and so many seconds: cramzip's optimiser, and others.

    python examples/benchmarks/steps.py [-m MODEL] [--only NAMES] [--plot FOLDER]

Every recipe gets the same texts in several lengths, and a number of steps that it knows beforehand. What counts for a
text is the longest length of which every token is right. The others are the paper's recipe, and what was tried instead
of parts of cramzip's own, which here starts from anywhere, whatever the profile of the model says.
"""

import time
from pathlib import Path

import torch
from common import ids_of, parser, report, text_of

import cramzip
from cramzip import CramConfig
from cramzip.coding.cram import BETAS, EPSILON, Slots
from cramzip.coding.encode import Writer
from cramzip.coding.view import Chunk
from cramzip.laboratory.measures import read
from cramzip.laboratory.recipes import PAPER, Setting, optimise
from cramzip.lm.models import as_torch

STEPS = (10, 30, 100, 300)
LENGTHS = (4, 8, 12, 16, 20, 24, 28)
LESSONS = 32  # texts, none of those measured, whose vectors make the learned start


class Even(Slots):
    """Tokens that are right weigh as much as those that are wrong."""

    RIGHT_WEIGHT = 1.0


class Sign(Slots):
    """Steps of equal size in every dimension, by the sign of a mean of the gradients (Lion, Chen et al. 2023)."""

    SIZE, BETAS = 0.5, (0.9, 0.99)

    def move(self, gradient):
        self.steps = self.steps + 1
        step = torch.sign(self.BETAS[0] * self.mean + (1 - self.BETAS[0]) * gradient)
        self.mean = self.BETAS[1] * self.mean + (1 - self.BETAS[1]) * gradient
        self.x = self.x - self.SIZE * self.rate()[:, None, None] * step


class Overparametrised(Slots):
    """e = W z + b, all three trained for each chunk by Adam, W (D, D) to be thrown away (Tarasov et al. 2026)."""

    SHARE = 1 / 3  # of the learning rate, for each of the three
    PARTS = ("z", "b", "w")
    STATE = (*Slots.STATE, *(f"{part}{suffix}" for part in ("z", "b", "w") for suffix in ("", "_mean", "_square")))

    def __init__(self, goal, *rest):
        lm = goal.lm
        empty = torch.zeros(0, 1, lm.width, device=lm.device)
        for part in self.PARTS:
            for suffix in ("", "_mean", "_square"):
                like = empty if part != "w" else torch.zeros(0, lm.width, lm.width, device=lm.device)
                setattr(self, part + suffix, like)
        super().__init__(goal, *rest)

    def add(self, chunks):
        super().add(chunks)
        start = self.x[-len(chunks) :]  # (S, 1, D)
        width = start.shape[-1]
        w = torch.randn(len(chunks), width, width, device=start.device) / width**0.5
        new = {"w": w, "z": torch.randn_like(start)}
        new["b"] = start - new["z"] @ w.mT
        for part in self.PARTS:
            zeros = torch.zeros_like(new[part])
            for suffix, value in (("", new[part]), ("_mean", zeros), ("_square", zeros)):
                setattr(self, part + suffix, torch.cat([getattr(self, part + suffix), value]))

    def move(self, gradient):
        self.steps = self.steps + 1
        rate = self.SHARE * self.rate()[:, None, None]
        gradients = {"z": gradient @ self.w, "b": gradient, "w": gradient.mT @ self.z}
        rates = {"z": rate, "b": rate, "w": rate / self.lm.width}  # so that each moves e about as far
        k = self.steps[:, None, None]
        for part in self.PARTS:
            mean = BETAS[0] * getattr(self, f"{part}_mean") + (1 - BETAS[0]) * gradients[part]
            square = BETAS[1] * getattr(self, f"{part}_square") + (1 - BETAS[1]) * gradients[part].square()
            moved = (mean / (1 - BETAS[0] ** k)) / ((square / (1 - BETAS[1] ** k)).sqrt() + EPSILON)
            setattr(self, f"{part}_mean", mean)
            setattr(self, f"{part}_square", square)
            setattr(self, part, getattr(self, part) - rates[part] * moved)
        self.x = self.z @ self.w.mT + self.b


def solve(kind, lm, chunks, config):
    """Vectors (M, D) in units of the embedding scale, and which of them are exact."""
    slots = kind(Writer(lm, config).goal, config.vectors, 0)
    slots.add(list(enumerate(chunks)))
    exact, best = [False] * len(chunks), {}
    while slots.chunks:
        slots.step()
        best |= {index: slots.best[row] for row, (index, _) in enumerate(slots.chunks)}
        for index, result in slots.take_finished():
            exact[index] = result.wrong == 0
    return [best[index] for index in range(len(chunks))], exact


def by_slots(kind):
    def recipe(lm, chunks, n_steps):
        return solve(kind, lm, chunks, CramConfig(exact=True, bits="16", max_steps=n_steps))[1]

    return recipe


def published(lm, chunks, n_steps):
    """The paper's recipe never learns the first token: here, in its favour, that does not count."""
    setting = Setting(PAPER, steps=n_steps)
    solved = optimise(lm, chunks, setting)
    return [
        bool(read(lm, setting.view(lm), chunk, one.mem).right[1:].all())
        for chunk, one in zip(chunks, solved, strict=True)
    ]


def learned_start(lm, lessons):
    """A recipe that starts at the mean of vectors that other texts have led to, and not from anywhere."""
    config = CramConfig(exact=True, bits="16", max_steps=STEPS[-1])
    found, exact = solve(Slots, lm, lessons, config)
    mean = torch.stack([x for x, is_exact in zip(found, exact, strict=True) if is_exact]).mean(0)

    class Learned(Slots):
        def initial(self, chunk):
            return mean.cpu() + super().initial(chunk)

    return by_slots(Learned)


def tokens_per_vector(recipe, lm, texts, n_steps):
    """The mean over texts of the longest length that is exact, and the seconds that all lengths took for one text."""
    start = time.perf_counter()
    longest = [0] * len(texts)
    for length in LENGTHS:
        for index, exact in enumerate(recipe(lm, [Chunk(text[:length]) for text in texts], n_steps)):
            longest[index] = length if exact else longest[index]
    return sum(longest) / len(texts), (time.perf_counter() - start) / len(texts)


def draw(curves, folder):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "cramzip"}
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.0), sharey=True, layout="constrained")
    for name, points in curves.items():
        steps, tokens, seconds = zip(*points, strict=True)
        width = 1.8 if name == "cramzip" else 1.0
        for axis, x in zip(axes, (steps, seconds), strict=True):
            axis.plot(x, tokens, marker="o", ms=3, lw=width, label=name)
    axes[0].set(xscale="log", xlabel="steps", ylabel="exact tokens per vector")
    axes[1].set(xscale="log", xlabel=f"seconds for a text in {len(LENGTHS)} lengths")
    axes[0].set_xticks(STEPS, map(str, STEPS))
    axes[0].minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"steps.{suffix}", dpi=200, metadata={"Date": None} if suffix == "svg" else {})


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--texts", type=int, default=8)
    options.add_argument("--only", help="some of the recipes, with commas between them")
    options.add_argument("--steps", default=",".join(map(str, STEPS)))
    options.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the curves into this folder")
    arguments = options.parse_args()
    torch.manual_seed(0)
    lm = as_torch(cramzip.load(arguments.model, device=arguments.device))
    ids = ids_of(lm, text_of(arguments))
    stride = len(ids) // (arguments.texts + LESSONS)
    samples = [ids[i * stride : i * stride + max(LENGTHS)] for i in range(arguments.texts + LESSONS)]
    spread = range(0, len(samples), len(samples) // arguments.texts)[: arguments.texts]
    texts = [samples[i] for i in spread]
    lessons = [Chunk(text[: LENGTHS[2]]) for i, text in enumerate(samples) if i not in spread]
    recipes = {
        "cramzip": by_slots(Slots),
        "equal weights": by_slots(Even),
        "sign of the gradient": by_slots(Sign),
        "e = Wz + b": by_slots(Overparametrised),
        "learned start": None,
        "the paper's recipe, but for token 0": published,
    }
    if arguments.only:
        recipes = {name: recipes[name] for name in arguments.only.split(",")}
    if "learned start" in recipes:
        recipes["learned start"] = learned_start(lm, lessons)
    curves = {name: [] for name in recipes}
    for n_steps in map(int, arguments.steps.split(",")):
        for name, recipe in recipes.items():
            tokens, seconds = tokens_per_vector(recipe, lm, texts, n_steps)
            curves[name].append((n_steps, tokens, seconds))
            print(f"{n_steps:4} steps  {name:34} {tokens:5.1f} tokens per vector  {seconds:6.2f} s a text", flush=True)
    if arguments.plot:
        draw(curves, arguments.plot)
    report(lm, texts=len(texts), lengths=LENGTHS, curves=curves)


if __name__ == "__main__":
    main()
