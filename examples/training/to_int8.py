"""Makes a model folder for exact arithmetic: the weights of another folder as int8, in `exact.safetensors`.

    python to_int8.py FOLDER NEW_FOLDER

Reads `config.json` and `model.safetensors` (float16, float32), and copies what belongs to the tokenizer, and a codebook
if there is one. Every step is a correctly rounded float32 operation, so that the file is the same wherever it is made.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from cramzip.exact import WEIGHTS_NAME
from cramzip.exact.codebook import beside
from cramzip.exact.probe import probe_hash
from cramzip.exact.weights import assemble, parse, quantise, read_shape, serialise

COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def int8_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The model's matrices as integers and scales, its vectors as they are."""
    tensors, _ = parse((folder / "model.safetensors").read_bytes())
    found = {}
    for name, tensor in tensors.items():
        values = tensor.astype(np.float32)
        if values.ndim == 2:
            matrix = quantise(values)
            found[name], found[name.removesuffix("weight") + "scale"] = matrix.integers, matrix.scales
        else:
            found[name] = values
    return found


def main(folder: Path, new: Path) -> None:
    shape, tensors = read_shape(folder), int8_tensors(folder)
    data = serialise(tensors, {"format": "cramzip-exact-1", "probe": probe_hash(assemble(shape, tensors))})
    new.mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(folder / name, new / name)
    if codebook := beside(folder):
        shutil.copyfile(codebook, new / codebook.name)
    (new / WEIGHTS_NAME).write_bytes(data)
    print(f"{new / WEIGHTS_NAME}: {len(data)} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
