"""The codebook of a model, for reader.py: section 15 of exact.md, in plain Python and NumPy. Written from it alone."""

import hashlib

import numpy as np
from exact import MOST_NUMBER, f32, require
from llama import CODEBOOK, Unsupported, parse_json


def parted(arrays):
    """-> the arrays of the model itself, and those of its codebook."""
    own = {name: array for name, array in arrays.items() if name.startswith(CODEBOOK)}
    return {name: array for name, array in arrays.items() if name not in own}, own


def hash_of(content):
    """Codebook_Hash, all of it (section 4 of cram.md)."""
    return hashlib.sha256(b"cramzip-codebook-1" + content).digest()


def of_file(content, width, block):
    """The codebook in a file of its own, for a model that forgets so many positions at once."""
    require(len(content) <= 2**26, "the codebook is too long")
    types = {"I8": np.dtype("i1"), "F32": np.dtype("<f4")}
    try:
        length = int.from_bytes(content[:8], "little")
        require(length <= 2**20, "the codebook has a header that is too long")
        header, body = parse_json(content[8 : 8 + length]), content[8 + length :]
        header.pop("__metadata__", None)
        end, arrays = 0, {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, stop), dtype = entry["data_offsets"], types[entry["dtype"]]
            require(begin == end, "the codebook has gaps")
            require(all(type(n) is int and n >= 0 for n in entry["shape"]), "the codebook has a wrong shape")
            arrays[name], end = np.frombuffer(body[begin:stop], dtype).reshape(entry["shape"]), stop
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise Unsupported(f"the codebook is damaged: {problem}") from problem
    require(end == len(body), "the codebook has bytes left over")
    found = Codebook(arrays, width)
    require(len(found.vectors[0]) <= 3 * block - 64, "the model sees too few positions for a codebook")
    return found


class Codebook:
    """The entries of a model, as vectors (K, M, D) and numbers of how likely they are (2, K)."""

    def __init__(self, arrays, width):
        left = dict(arrays)

        def take(name, dtype, *shape):
            found = left.pop(name, None)
            require(found is not None and found.shape == shape and found.dtype == dtype, f"{name} is wrong or missing")
            if dtype == f32:
                require((np.abs(found) <= MOST_NUMBER).all(), f"{name} has a value beyond 2^16, or none")
            else:
                require((found >= -127).all(), f"{name} has the number -128")
            return found

        shape = arrays["mem.weight"].shape if "mem.weight" in arrays else ()
        require(len(shape) == 3 and 1 <= shape[0] <= 1024 and 1 <= shape[1] <= 16, "mem.weight is wrong or missing")
        n, each = shape[:2]
        integers, scales = take("mem.weight", np.int8, n, each, width), take("mem.scale", f32, n, each)
        require((np.abs(scales) * 127 <= MOST_NUMBER).all(), "mem.scale has a value beyond 2^16 / 127")
        self.vectors = integers.astype(f32) * scales[..., None]
        priors = take("mem.prior", f32, 2, n)
        self.priors = [[int(value) for value in row] for row in priors]
        is_whole = (priors == np.array(self.priors)).all() and min(map(min, self.priors)) >= 1
        require(is_whole and {sum(row) for row in self.priors} == {2**16}, "mem.prior does not add up to 2^16")
        take("selector.weight", np.int8, n, width)
        take("selector.scale", f32, n)
        take("selector.bias", f32, n)
        require(not left, f"{[*left][:1]} has no place in a codebook")

    def intervals(self, before):
        """Where in 2^24 the interval of each entry begins, after the choices of the lanes before; and the end."""
        prior = self.priors[1 if before else 0]
        weights = [prior[k] + 2**17 * before.count(k) for k in range(len(prior))]
        return [k + (2**24 - len(prior)) * sum(weights[:k]) // sum(weights) for k in range(len(prior) + 1)]

    def choices(self, decoder, n_lanes):
        """The entries of all lanes."""
        chosen, times = [], 2 ** (decoder.bits - 24)
        for _ in range(n_lanes):
            begins, target = [begin * times for begin in self.intervals(chosen)], decoder.target()
            entry = max(k for k in range(len(begins) - 1) if begins[k] <= target)
            decoder.narrow(begins[entry], begins[entry + 1] - begins[entry])
            chosen.append(entry)
        return chosen
