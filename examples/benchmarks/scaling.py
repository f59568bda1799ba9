#!/usr/bin/env python3
"""How time grows: with the size of the file, the chunks decoded at once, the vectors of a chunk, and its length.

python examples/benchmarks/scaling.py [-m MODEL] [--sizes 6000,12000,24000,48000] [--jobs 1]
"""

import resource

import torch
from common import ids_of, parser, report, seconds, text_of

import cramzip
from cramzip import CramConfig
from cramzip.coding.cram import cram
from cramzip.coding.decode import Recipe, decode_all
from cramzip.coding.encode import Writer
from cramzip.coding.view import Chunk, View
from cramzip.lm.models import as_torch

STEPS = 4


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sizes", default="6000,12000,24000,48000", help="bytes of text")
    options.add_argument("--smallest", action="store_true", help="without vectors")
    options.add_argument("--batches", default="1,2,4,8,16,32,64", help="chunks decoded at once")
    options.add_argument("--vectors", default="1,2,4,8,16,32", help="of 16 chunks of 32 tokens")
    options.add_argument("--lengths", default="16,32,64,128,256,512", help="tokens of 16 chunks")
    arguments = options.parse_args()
    lm = as_torch(cramzip.load(arguments.model, device=arguments.device))
    data = text_of(arguments)
    ids = ids_of(lm, data)
    curves = {"size": [], "batch": [], "vectors": [], "length": []}

    print("bytes      c -1 s   d s   kB/s   kB/s   peak MiB")
    config = CramConfig(vectors=0 if arguments.smallest else 1, effort=1)
    for size in map(int, arguments.sizes.split(",")):
        text = (data * (size // len(data) + 1))[:size]
        blob, compressing = seconds(lambda text=text: cramzip.compress(text, lm, config))
        decoded, decompressing = seconds(lambda blob=blob: cramzip.decompress(blob, lm))
        assert decoded == text
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rates = size / compressing / 1000, size / decompressing / 1000
        print(f"{size:9,} {compressing:7.1f} {decompressing:5.1f} {rates[0]:6.2f} {rates[1]:6.2f} {peak:10,.0f}")
        curves["size"].append([size, len(blob), compressing, decompressing, peak])

    print("chunks decoded at once: tokens/s")
    view = View(chunk_tokens=64, context_tokens=0, start_token=lm.start)
    for n in map(int, arguments.batches.split(",")):
        recipes = [Recipe(64, (torch.randn(1, lm.width) * lm.embedding_scale,)) for _ in range(n)]
        _, took = seconds(lambda recipes=recipes: decode_all(lm, recipes, view, 0.0))
        print(f"{n:9} {64 * n / took:9,.0f}")
        curves["batch"].append([n, 64 * n / took])

    def step_seconds(n_vectors, n_tokens):
        chunks = [Chunk(ids[i * 32 : i * 32 + n_tokens]) for i in range(16)]
        goal = Writer(lm, CramConfig(vectors=n_vectors, max_steps=STEPS)).goal
        return seconds(lambda: cram(goal, chunks))[1] / STEPS

    print("vectors of a chunk: seconds for a step of 16 chunks of 32 tokens")
    for n in map(int, arguments.vectors.split(",")):
        curves["vectors"].append([n, step_seconds(n, 32)])
        print(f"{n:9} {curves['vectors'][-1][1]:9.3f}")
    print("tokens of a chunk: seconds for a step of 16 chunks with one vector")
    for n in map(int, arguments.lengths.split(",")):
        curves["length"].append([n, step_seconds(1, n)])
        print(f"{n:9} {curves['length'][-1][1]:9.3f}")
    report(lm, **curves)


if __name__ == "__main__":
    main()
