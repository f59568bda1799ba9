"""Cram one sentence into one vector, and let the frozen model recite it from nothing else.

    python examples/recite.py "A sentence of your own."

The same few calls work with any model: as_torch(cramzip.load("meta-llama/Llama-3.2-1B")).
"""

import sys

import cramzip
from cramzip.coding.cram import cram
from cramzip.coding.decode import Recipe, decode
from cramzip.coding.encode import Writer
from cramzip.coding.quantize import dequantize
from cramzip.coding.view import Chunk
from cramzip.lm.models import as_torch

SENTENCE = "The rain had stopped."


def main(sentence: str) -> None:
    lm = as_torch(cramzip.load())
    (piece,) = lm.tokenizer.encode(sentence.encode())
    n_tokens = len(piece.ids)
    goal = Writer(lm, cramzip.CramConfig(vectors=1, effort=7, exact=True)).goal
    print(f"{lm.model_id}: {lm.n_parameters:,} frozen parameters, vectors of {lm.width} dimensions")
    print(f"to cram: {n_tokens} tokens that cost {lm.score([piece.ids])[0].sum():.1f} nats without a vector")

    (result,) = cram(goal, [Chunk(piece.ids)])
    print(f"after {result.steps} steps {n_tokens - result.wrong} of {n_tokens} tokens are right")

    mem = dequantize(result.mem)  # (1, D): the only input that the decoder gets
    (tokens,) = decode(lm, [Recipe(n_tokens, (mem,))], goal.view, goal.noise_bound)
    print("recited:", lm.tokenizer.decode(tokens).decode(errors="replace"))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or SENTENCE)
