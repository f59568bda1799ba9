"""Cram one sentence into one vector, and let the frozen model recite it from nothing else.

    python examples/recite.py "A sentence of your own."

The same few calls work with any model: cramzip.load("meta-llama/Llama-3.2-1B").
"""

import sys

import torch

import cramzip
from cramzip.cram import cram
from cramzip.decode import FREE, greedy_decode
from cramzip.quantize import dequantize

SENTENCE = "The rain had stopped."


def main(sentence: str) -> None:
    lm = cramzip.load()
    (piece,) = lm.tokenizer.encode(sentence.encode())
    print(f"{lm.model_id}: {lm.n_parameters:,} frozen parameters, vectors of {lm.width} dimensions")
    print(f"to cram: {len(piece.ids)} tokens that cost {lm.score([piece.ids])[0].sum():.1f} nats without a vector")

    (result,) = cram(lm, [piece.ids], cramzip.CramConfig(vectors=1, effort=7))
    print(f"after {result.steps} steps {len(piece.ids) - result.wrong} of {len(piece.ids)} tokens are right")

    mem = dequantize(result.mem)[None]  # (1, 1, D): the only input that the decoder gets
    nothing_given = torch.full((1, len(piece.ids)), FREE)
    decoded = greedy_decode(lm, mem, len(piece.ids), nothing_given)
    print("recited:", lm.tokenizer.decode(decoded.tokens[0].tolist()).decode(errors="replace"))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or SENTENCE)
