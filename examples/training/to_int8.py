"""Writes `exact.safetensors` into a model folder: its weights as int8, for exact arithmetic.

    python to_int8.py FOLDER

Reads `config.json` and `model.safetensors` (float16, float32). Every step is a correctly rounded float32 operation, so
that the file is the same wherever it is made.
"""

import sys
from pathlib import Path

import numpy as np

from cramzip.exact import WEIGHTS_NAME
from cramzip.exact.probe import probe_hash
from cramzip.exact.weights import assemble, parse, quantise, read_shape, serialise


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


def main(folder: Path) -> None:
    shape, tensors = read_shape(folder), int8_tensors(folder)
    data = serialise(tensors, {"format": "cramzip-exact-1", "probe": probe_hash(assemble(shape, tensors))})
    (folder / WEIGHTS_NAME).write_bytes(data)
    print(f"{folder / WEIGHTS_NAME}: {len(data)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
