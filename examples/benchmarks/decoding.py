#!/usr/bin/env python3
"""How fast vectors are recited: cramzip beside `generate` of transformers, chunk by chunk.

    python examples/benchmarks/decoding.py [-m MODEL] [--chunks 64] [--tokens 64]

What is recited is what the model says after random vectors: for the speed it makes no difference. Both take turns. A
second part decodes a text from corrections, and tells how much of that time is not the model's.
"""

import time

import torch
from common import parser, report, seconds, text_of

import cramzip
from cramzip import CramConfig
from cramzip.coding.decode import Recipe, decode_all
from cramzip.coding.view import View
from cramzip.lm.loading import load_model
from cramzip.lm.models import as_torch


def generate(model, mems, n_tokens):
    """Greedy decoding by transformers, a batch of one for every chunk."""
    found = []
    for mem in mems:
        mask = torch.ones(1, len(mem), dtype=torch.long, device=model.device)
        out = model.generate(
            inputs_embeds=mem[None],
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            pad_token_id=0,
            eos_token_id=None,
        )
        found.append(out[0, -n_tokens:].tolist())
    return found


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--chunks", type=int, default=64)
    options.add_argument("--tokens", type=int, default=64, help="of each chunk")
    options.add_argument(
        "--generated", type=int, default=8, help="chunks that `generate` decodes, in each of two rounds"
    )
    options.add_argument("--text-bytes", type=int, default=24_000, help="of the text that is decoded from corrections")
    arguments = options.parse_args()
    lm = as_torch(cramzip.load(arguments.model, device=arguments.device))
    model = load_model(lm.source).to(lm.device).eval()
    generator = torch.Generator().manual_seed(0)
    mems = torch.randn(arguments.chunks, 1, lm.width, generator=generator) * 10 * lm.embedding_scale
    mems = list(mems.to(lm.device))
    recipes = [Recipe(arguments.tokens, (mem,)) for mem in mems]
    view = View(arguments.tokens, context_tokens=0, start_token=lm.start)
    decode_all(lm, recipes[:2], view, 0.0)  # both once, to warm up
    generate(model, mems[:1], 4)
    tokens = arguments.chunks * arguments.tokens
    generated = arguments.generated * arguments.tokens
    rate, plain_rate, same = 0.0, 0.0, 0
    for turn in range(2):
        recited, took = seconds(lambda: decode_all(lm, recipes, view, 0.0))
        rate += tokens / took / 2
        part = slice(turn * arguments.generated, (turn + 1) * arguments.generated)
        found, took = seconds(lambda part=part: generate(model, mems[part], arguments.tokens))
        plain_rate += generated / took / 2
        same += sum(one == other for one, other in zip(found, recited[part], strict=False))
    print(f"{arguments.chunks} chunks of {arguments.tokens} tokens after one vector each")
    print(f"cramzip    {rate:,.0f} tokens/s")
    print(f"generate   {plain_rate:,.0f} tokens/s; {same} of {2 * arguments.generated} chunks the same")

    data = text_of(arguments)[: arguments.text_bytes]
    blob = cramzip.compress(data, lm, CramConfig(vectors=0))
    in_model, step = 0.0, lm.step

    def timed(*inputs):
        nonlocal in_model
        start = time.perf_counter()
        result = step(*inputs)
        in_model += time.perf_counter() - start
        return result

    lm.step = timed
    decoded, took = seconds(lambda: cramzip.decompress(blob, lm))
    assert decoded == data
    print(
        f"{len(data):,} bytes from corrections: {took:.1f} s, {100 * (1 - in_model / took):.0f}% of it not the model's"
    )
    report(
        lm,
        chunks=arguments.chunks,
        tokens=arguments.tokens,
        tokens_per_second=rate,
        generate_tokens_per_second=plain_rate,
        times_faster=rate / plain_rate,
        same_chunks=same,
        text_bytes=len(data),
        text_seconds=took,
        share_outside_model=1 - in_model / took,
    )


if __name__ == "__main__":
    main()
