"""A text in lanes: stretches of it that go through the model side by side, and into one range coder.

The coder takes step after step, and in a step lane after lane, so that a lane costs no bytes of its own. Every lane
begins with the start token or vectors, and knows nothing of the others. Encoder and decoder get the same numbers from
the model; the encoder, which knows all tokens, asks for many positions at once. Section 9 of formats/exact.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat

import numpy as np

from .arithmetic import Doubles, Floats
from .codebook import decode_choices, encode_choices
from .llama import Model
from .probabilities import Counts, counts, cumulated, total_bits
from .run import USUAL, Options, Run, Tokens, lane_lengths
from .tokencoder import TokenDecoder, TokenEncoder

TOKENS_AT_ONCE = 512  # that an encoder has the model compute

States = tuple[Floats, Floats]  # integers that the head takes (..., D), and what one of them stands for (..., 1)


def encode_lanes(model: Model, tokens: Sequence[int], n_lanes: int, options: Options = USUAL) -> bytes:
    """Code `tokens` in `n_lanes` lanes; the inverse of `decode_lanes`."""
    encoder = TokenEncoder(total_bits(model.shape.vocabulary))
    if options.codebook:
        encode_choices(encoder, options.choices, options.codebook)
    run, learner = Run(model, len(tokens), n_lanes, options), options.learner
    run.fill(tokens)

    def code(lane: int, sums: Counts, token: int) -> None:
        if learner:
            encoder.encode(*learner.encode(lane, sums, token))
        else:
            before = sums.item(token)
            encoder.encode(before, sums.item(token + 1) - before)

    _walk(run, options, repeat(max(1, TOKENS_AT_ONCE // n_lanes)), code)
    return encoder.finish()


def decode_lanes(
    model: Model,
    payload: bytes,
    n_tokens: int,
    n_lanes: int,
    options: Options = USUAL,
    guess: Sequence[int] | None = None,
) -> list[int]:
    """The tokens of `encode_lanes`. Raises DamagedFileError if `payload` cannot come from it.

    `guess`: what they probably are. As long as they are, the model computes many positions at once. That changes
    nothing but time: each token is decoded with what follows from those that were decoded before.
    """
    decoder = TokenDecoder(payload, total_bits(model.shape.vocabulary))
    if options.codebook:
        options = replace(options, choices=decode_choices(decoder, n_lanes, options.codebook))
    run, learner = Run(model, n_tokens, n_lanes, options), options.learner

    def decode(lane: int, sums: Counts) -> int:
        target = decoder.target()
        if learner:
            token, before, count = learner.decode(lane, sums, target)
        else:
            token = int(sums.searchsorted(np.int32(target), side="right")) - 1
            before = sums.item(token)
            count = sums.item(token + 1) - before
        decoder.take(before, count)
        return token

    if guess is None:
        _decode(run, options, decode)
    else:
        run.fill(guess)
        most = max(1, TOKENS_AT_ONCE // n_lanes)
        _walk(run, options, chain((1, 1), repeat(most)), lambda *step: _compare(decode(*step[:2]), step[2]))
    decoder.finish()
    return run.tokens()


class OtherTokenError(Exception):
    """A token is not the one that was guessed."""


def _compare(found: int, guessed: int) -> None:
    if found != guessed:
        raise OtherTokenError


def _walk(run: Run, options: Options, sizes: Iterator[int], code: Callable[[int, Counts, int], object]) -> None:
    """Go through tokens that are known, as many steps of the lanes at once as `sizes` says.

    `code` is told lanes, cumulated counts and tokens.
    """
    learner, adapter = options.learner, run.adapter
    for first, n, lanes in run.steps(sizes, _states if adapter else _logits if learner else _sums):
        for step in range(n):
            known = run.known[: len(lanes), first + step].tolist()
            if adapter:
                assert learner
                states = _stacked([(integers[step], scale[step]) for integers, scale in lanes])
                sums = list(learner.sums(adapter.logits(*states)))
            elif learner:
                sums = list(learner.sums(np.stack([rows[step] for rows in lanes])))
            else:
                sums = [rows[step] for rows in lanes]
            for lane, token in enumerate(known):
                code(lane, sums[lane], token)
            if learner:
                learner.end_step(sums, known)
            if adapter:
                adapter.learn(states, np.stack(sums), known)
        if options.progress:
            options.progress(run.n_tokens_before(first + n))


def _decode(run: Run, options: Options, decode: Callable[[int, Counts], int]) -> None:
    """Go through tokens that are not known yet, step by step; threads make the counts of their lanes."""
    learner, adapter = options.learner, run.adapter

    def learned(units: Floats, scale: Floats) -> Counts:
        assert learner
        return learner.sums(_logits(units, scale)[:, 0])

    def adapted(integers: Floats, scale: Floats) -> list[tuple[Counts, States]]:
        assert learner
        assert adapter
        sums = learner.sums(adapter.logits(integers[:, 0], scale[:, 0]))
        return list(zip(sums, zip(integers[:, 0], scale[:, 0], strict=True), strict=True))

    for step, _, lanes in run.steps(repeat(1), adapted if adapter else learned if learner else _sums_of_one):
        if adapter:
            lanes, states = map(list, zip(*lanes, strict=True))
        found = [decode(lane, sums) for lane, sums in enumerate(lanes)]
        if learner:
            learner.end_step(lanes, found)
        if adapter:
            adapter.learn(_stacked(states), np.stack(lanes), found)
        run.known[: len(found), step] = found
        if options.progress:
            options.progress(run.n_tokens_before(step + 1))


def recite(model: Model, n_tokens: int, options: Options) -> list[int]:
    """The tokens that the model finds likeliest, one after the other, in one lane; of equals the lowest."""
    run = Run(model, n_tokens, 1, options)
    for step, _, likeliest in run.steps(repeat(1), _likeliest):
        run.known[0, step] = likeliest[0].item()
        if options.progress:
            options.progress(step + 1)
    return run.tokens()


def faults(model: Model, tokens: Sequence[int], options: Options) -> list[int]:
    """Where `recite` would not give these tokens, if it gave all those before."""
    run = Run(model, len(tokens), 1, options)
    run.fill(tokens)
    found = np.concatenate([likeliest[0] for _, _, likeliest in run.steps(repeat(TOKENS_AT_ONCE), _likeliest)])
    return [place for place, token in enumerate(tokens) if found[place] != token]


def costs(model: Model, tokens: Sequence[int], n_lanes: int, options: Options = USUAL) -> Doubles:
    """Bits that each of the tokens would cost an ideal coder, by the model's own probabilities."""
    run = Run(model, len(tokens), n_lanes, options)
    run.fill(tokens)
    bits = np.zeros(run.known.shape)
    for first, n, lanes in run.steps(repeat(max(1, TOKENS_AT_ONCE // n_lanes)), counts):
        for lane, rows in enumerate(lanes):
            places = slice(first, first + n)
            bits[lane, places] = total_bits(model.shape.vocabulary) - np.log2(
                rows[np.arange(n), run.known[lane, places]]
            )
    return np.concatenate([bits[lane, :length] for lane, length in enumerate(lane_lengths(len(tokens), n_lanes))])


def _sums(units: Floats, scale: Floats) -> Counts:
    return cumulated(counts(units, scale))


def _sums_of_one(units: Floats, scale: Floats) -> Counts:
    return _sums(units, scale)[:, 0]


def _logits(units: Floats, scale: Floats) -> Floats:
    units *= scale
    return units


def _states(integers: Floats, scale: Floats) -> list[States]:
    return list(zip(integers, scale, strict=True))


def _stacked(states: Sequence[States]) -> States:
    """Those of all lanes (L, D), (L, 1)."""
    integers, scales = zip(*states, strict=True)
    return np.stack(integers), np.stack(scales)


def _likeliest(units: Floats, scale: Floats) -> Tokens:
    found: Tokens = units.argmax(axis=-1)
    return found
