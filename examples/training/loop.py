"""The training loop: steps, averaged weights, log and checkpoints.  A run may be killed at any minute."""

import copy
import json
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from mems import EVERY, Mems
from recipe import fast_bfloat16, make_optimisers, nll
from rounding import rounded_matrices
from texts import valid_sample

LOG_EVERY = 10  # steps
EVALUATE_EVERY = 50  # steps at least: on a busy machine the held-out sample would take a good part of the time


def write_beside(path, write):
    """Let `write` make a file next to `path`, then put it in its place."""
    temporary = path.with_name(path.name + ".new")
    write(temporary)
    with temporary.open("rb") as f:
        os.fsync(f.fileno())
    temporary.replace(path)


def read_log(work):
    """The lines of the log; a last line that a killed run has left unfinished is none."""
    path = work / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def json_lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def autocast(device):
    return torch.autocast(device, torch.bfloat16, enabled=fast_bfloat16(device))


@torch.no_grad()
def sample_bits(model, rows, n_bytes, batch=8):
    """Bits per byte of rows (B, T + 1) of so many bytes, in the precision of a training."""
    nats = 0.0
    for part in rows.split(batch):
        with autocast(rows.device.type):
            nats += nll(model, part).sum().item()
    return round(nats / np.log(2) / n_bytes, 4)


@dataclass(frozen=True)
class Pace:
    """Sizes and rates of a run: `batch` and `micro` in tokens, `save_every` in seconds.

    `average` is the share of the averaged weights that stays from one step to the next; for the last `rounding` minutes
    the model computes with its matrices rounded as exact arithmetic rounds them.
    """

    batch: int
    micro: int
    muon_lr: float
    adam_lr: float
    average: float
    rounding: float
    save_every: float
    compile: bool


class Run:
    """A training in the folder `work`, from its checkpoint there or from `model` as it is.

    With a codebook, its vectors are trained too, by the rows of some steps.
    `state` counts: `step`, `seconds`, `trained` tokens of this run, and `tokens` that the weights have seen in all.
    """

    def __init__(self, work, model, pace, lengths, seen=0, codebook=None):
        self.work, self.pace, self.model = work, pace, model
        self.device = model.device.type
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.optimisers = make_optimisers(model, pace.muon_lr, pace.adam_lr)
        self.loss = torch.compile(nll, dynamic=False) if pace.compile else nll
        self.mems = Mems(codebook, model, pace.compile) if codebook else None
        self.state = {"step": 0, "tokens": seen, "trained": 0, "seconds": 0.0}
        self.valid_rows, self.valid_bytes = valid_sample(work, lengths)
        self.lengths = torch.from_numpy(lengths)
        if self.checkpoint.exists():
            self.load()
        log = [line for line in read_log(work) if line["step"] <= self.state["step"]]
        write_beside(work / "log.jsonl", lambda path: path.write_text(json_lines(log), encoding="utf-8"))

    @property
    def checkpoint(self):
        return self.work / "checkpoint.pt"

    def load(self):
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.state = saved["state"]
        self.model.load_state_dict(saved["model"])
        self.averaged.load_state_dict(saved["averaged"])
        for optimiser, saved_optimiser in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(saved_optimiser)
        if self.mems and "mems" in saved:
            self.mems.load_state_dict(saved["mems"])

    def save(self):
        saved = {
            "state": self.state,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        if self.mems:
            saved["mems"] = self.mems.state_dict()
        write_beside(self.checkpoint, lambda path: torch.save(saved, path))

    def has_begun_rows(self):
        """Whether the next step is one for the vectors of the codebook."""
        return self.mems is not None and self.state["step"] % EVERY == EVERY - 1

    def step(self, rows, lr_share, rounding):
        """One step on rows of shape (B, T + 1); returns the loss in nats per token, and in bits per byte."""
        costs = self.mems.costs if self.has_begun_rows() else self.loss
        for optimiser, lr in zip(self.optimisers, (self.pace.muon_lr, self.pace.adam_lr), strict=True):
            optimiser.param_groups[0]["lr"] = lr * lr_share
        n_targets = int((rows[:, 1:] > 0).sum())
        nats = 0.0
        with rounded_matrices(self.model) if rounding else nullcontext():
            for part in rows.to(self.device).split(max(1, self.pace.micro // (rows.shape[1] - 1))):
                with autocast(self.device):
                    loss = costs(self.model, part).sum()
                (loss / n_targets).backward()
                nats += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if self.has_begun_rows():
            self.mems.step(lr_share)
        self.average()
        n_bytes = int(self.lengths[rows.clamp(min=0)].sum())
        return nats / n_targets, nats / np.log(2) / n_bytes

    @torch.no_grad()
    def average(self):
        """Moves the averaged weights towards the new ones; at the start of a run they follow quickly."""
        share = 1 - min(self.pace.average, (1 + self.state["step"]) / (10 + self.state["step"]))
        for mean, p in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(p, share)
        if self.mems:
            self.mems.average(share)

    def valid_bits(self, model):
        """Bits per byte of the held-out sample, in the precision of the training."""
        return sample_bits(model, self.valid_rows.to(self.device), self.valid_bytes)

    def evaluate(self):
        """What the held-out sample costs with the weights, and with the averaged ones."""
        return {
            "valid_bits_per_byte": self.valid_bits(self.model),
            "averaged_valid_bits_per_byte": self.valid_bits(self.averaged),
        }

    def train(self, rows, schedule):
        """Train to the end of `schedule`, or until SIGTERM, which leaves a checkpoint."""
        stopped = []
        before = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        try:
            self.steps(rows, schedule, stopped)
        finally:
            signal.signal(signal.SIGTERM, before)

    def steps(self, rows, schedule, stopped):
        """Steps until the end of `schedule`, or until something is in the list `stopped`."""
        state, pace, losses = self.state, self.pace, []
        begin = time.monotonic() - state["seconds"]
        evaluated_at = state["step"]
        saved_at, logged = state["seconds"], (state["seconds"], state["tokens"])
        ended = schedule.left(state) <= 0
        while not ended:
            lr_share = schedule.lr_share(state)
            draw = rows.draw_begun if self.has_begun_rows() else rows.draw
            drawn = draw(state["step"], pace.batch)
            losses.append(self.step(drawn, lr_share, schedule.left(state) < 60 * pace.rounding))
            n_tokens = drawn[:, 1:].numel()
            state["step"] += 1
            state["tokens"] += n_tokens
            state["trained"] += n_tokens
            state["seconds"] = round(time.monotonic() - begin, 2)
            ended = bool(stopped) or schedule.left(state) <= 0
            due = ended or state["seconds"] - saved_at >= pace.save_every
            if not (due or state["step"] % LOG_EVERY == 0):
                continue
            loss, bits = np.mean(losses, axis=0).round(4).tolist()
            speed = round((state["tokens"] - logged[1]) / max(state["seconds"] - logged[0], 0.01))
            line = {**state, "lr": round(pace.muon_lr * lr_share, 6), "train_loss": loss, "train_bits_per_byte": bits}
            line["tokens_per_second"] = speed
            losses, logged = [], (state["seconds"], state["tokens"])
            if due:
                self.save()
                saved_at = state["seconds"]
            if ended or (due and state["step"] - evaluated_at >= EVALUATE_EVERY):
                line |= self.evaluate()
                evaluated_at = state["step"]
            with (self.work / "log.jsonl").open("a", encoding="utf-8") as f:
                f.write(json_lines([line]))
