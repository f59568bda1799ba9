"""What the benchmarks have in common: the model, texts for it, seconds, and the report, JSON in its last line."""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

import cramzip
from cramzip.laboratory.texts import shipped_books


def parser(description):
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("-m", "--model", help="a model as for cramzip; without it, the built-in one")
    made.add_argument("--text", type=Path, help="a text to take chunks from; without it, passages of novels")
    made.add_argument("--device", default="auto")
    return made


def text_of(arguments):
    if arguments.text:
        return arguments.text.read_bytes()
    return b"\n\n".join(passage for _, passage in shipped_books())


def ids_of(lm, data):
    return [token for piece in lm.tokenizer.encode(data) for token in piece.ids or []]


def seconds(work):
    """What `work` gives, and how long it took."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def machine(lm):
    if lm.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


def report(lm, **figures):
    """Print the figures as one line of JSON."""
    facts = {"model": lm.model_id, "machine": machine(lm), "torch": torch.__version__, "cramzip": cramzip.__version__}
    print(json.dumps(facts | figures))
