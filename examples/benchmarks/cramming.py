#!/usr/bin/env python3
"""How long it takes until vectors recite their chunks: cramzip beside a plain implementation of the paper's recipe.

    python examples/benchmarks/cramming.py [-m MODEL] [--tokens 8] [--chunks 16]

The plain recipe (Kuratov et al. 2025) takes one text at a time through the model as transformers loads it: AdamW, 1e-2,
betas 0.9 and 0.9, weight decay 0.01, up to 5,000 steps, patience 2,000. Two things are in its favour: it stops as soon
as every token is right, and its loss counts the first token, without which nothing could be recited. Both recipes take
the same chunks, one float vector each, by turns.
"""

import time

import torch
from common import ids_of, parser, report, seconds, text_of

import cramzip
from cramzip import CramConfig
from cramzip.coding.cram import cram
from cramzip.coding.encode import Writer
from cramzip.coding.quantize import dequantize
from cramzip.coding.view import Chunk
from cramzip.lm.loading import load_model
from cramzip.lm.models import as_torch

RATE, BETAS, DECAY, STEPS, PATIENCE = 1e-2, (0.9, 0.9), 0.01, 5000, 2000
LENGTHS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def plain(model, ids, scale, limit=float("inf")):
    """The paper's recipe for one text, for at most `limit` seconds. Returns whether it is exact, and the seconds."""

    def optimise():
        embed = model.get_input_embeddings()
        tokens = torch.tensor([ids], device=model.device)
        mem = torch.nn.Parameter(torch.randn(1, 1, embed.weight.shape[1], device=model.device) * scale)
        optimiser = torch.optim.AdamW([mem], lr=RATE, betas=BETAS, weight_decay=DECAY)
        best, best_step = -1, 0
        for step in range(STEPS):
            logits = model(inputs_embeds=torch.cat([mem, embed(tokens[:, :-1])], dim=1)).logits
            right = int((logits.argmax(-1) == tokens).sum())
            if right == len(ids):
                return True
            if right > best:
                best, best_step = right, step
            if step - best_step >= PATIENCE or timer() > limit:
                return False
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits[0], tokens[0]).backward()
            optimiser.step()
        return False

    start = time.perf_counter()

    def timer():
        return time.perf_counter() - start

    return seconds(optimise)


def ours(lm, chunks, config):
    """How many of the chunks are exact, the steps they took on average, and the seconds for all."""
    goal = Writer(lm, config).goal
    results, elapsed = seconds(lambda: cram(goal, [Chunk(chunk) for chunk in chunks]))
    assert all(torch.isfinite(dequantize(result.mem)).all() for result in results)
    exact = [result.wrong == 0 for result in results]
    return exact, sum(result.steps for result in results) / len(results), elapsed


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--tokens", type=int, default=8, help="of each chunk, for seconds until it is exact")
    options.add_argument("--chunks", type=int, default=16)
    options.add_argument(
        "--limit", type=float, default=120.0, help="seconds after which the plain recipe gives up a chunk"
    )
    options.add_argument("--effort", type=int, default=5, help="of cramzip: 1 to 9")
    options.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of chunks, for tokens per vector")
    arguments = options.parse_args()
    torch.manual_seed(0)
    lm = as_torch(cramzip.load(arguments.model, device=arguments.device))
    model = load_model(lm.source).to(lm.device).eval().requires_grad_(False)
    ids = ids_of(lm, text_of(arguments))
    config = CramConfig(exact=True, bits="16", effort=arguments.effort)

    def chunks_of(n_tokens):
        stride = len(ids) // arguments.chunks
        return [ids[i * stride : i * stride + n_tokens] for i in range(arguments.chunks)]

    chunks = chunks_of(arguments.tokens)
    ours(lm, chunks[:2], config)  # once, to warm up
    exact, steps, elapsed = ours(lm, chunks, config)
    found = [plain(model, chunk, lm.embedding_scale, arguments.limit) for chunk in chunks]
    again, _, elapsed_again = ours(lm, chunks, config)
    elapsed = (elapsed + elapsed_again) / 2
    plain_exact, plain_elapsed = sum(is_exact for is_exact, _ in found), sum(took for _, took in found)
    print(f"{len(chunks)} chunks of {arguments.tokens} tokens, one vector each")
    print(f"cramzip        {sum(exact)} exact, {elapsed:.2f} s, {steps:.0f} steps on average")
    print(f"plain recipe   {plain_exact} exact, {plain_elapsed:.2f} s")

    longest, plain_longest = [0] * arguments.chunks, [0] * arguments.chunks
    for n_tokens in map(int, arguments.lengths.split(",")):
        chunks = chunks_of(n_tokens)
        exact, _, took = ours(lm, chunks, config)
        found = [plain(model, chunk, lm.embedding_scale, took / len(chunks))[0] for chunk in chunks]
        longest = [n_tokens if is_exact else best for is_exact, best in zip(exact, longest, strict=True)]
        plain_longest = [n_tokens if is_exact else best for is_exact, best in zip(found, plain_longest, strict=True)]
        print(f"{n_tokens} tokens, {took / len(chunks):.2f} s each: exact {sum(exact)}, plain recipe {sum(found)}")
        if not any(exact) and not any(found):
            break
    per_vector, plain_per_vector = sum(longest) / len(longest), sum(plain_longest) / len(longest)
    print(f"tokens per vector: {per_vector:.1f}; the plain recipe in the same seconds {plain_per_vector:.1f}")
    per_exact = elapsed / sum(again) if any(again) else None
    plain_per_exact = plain_elapsed / plain_exact if plain_exact else None
    report(
        lm,
        chunks=arguments.chunks,
        tokens=arguments.tokens,
        exact=sum(again),
        seconds_per_exact=per_exact,
        plain_exact=plain_exact,
        plain_seconds=plain_elapsed,
        plain_seconds_per_exact=plain_per_exact,
        times_faster=plain_per_exact / per_exact if plain_per_exact and per_exact else None,
        tokens_per_vector=per_vector,
        plain_tokens_per_vector=plain_per_vector,
    )


if __name__ == "__main__":
    main()
