"""Groups of exact files to tokens. Imports no torch; the writer verifies vectors by the same functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ..container import opened
from ..container.description import Chosen
from ..container.opened import Opened
from ..container.records import Group, Header, Kind
from ..container.vectors import QuantizedMem
from ..container.wire import Bytes
from ..exact import lanes
from ..exact.arithmetic import Floats
from ..exact.codebook import Codebook, decode_choices
from ..exact.learner import Learner
from ..exact.probabilities import TOTAL_BITS, total_bits
from ..exact.run import Options
from ..exact.tokencoder import TokenDecoder
from ..exact.vectors import dequantised
from ..lm.exact import ExactLM
from .choosing import spent_on

WORTH_A_THREAD = 16  # lanes: with fewer, waiting for each other at every step takes more time than is saved

Progress = Callable[[int], None]  # is told of tokens


def decode_group(
    lm: ExactLM, group: Group, header: Header, progress: Progress, original: Bytes | None = None
) -> list[int]:
    """The tokens of a group. Raises DamagedFileError.

    `original`: what probably comes out; then the model need not wait for one token after the other.
    """
    assert header.lanes is not None
    entry = group.entry
    n_lanes = header.lanes.count(entry.n_tokens) if entry.kind.is_laned else 1
    mem = opened.vectors(group, header)
    options = Options(
        vectors=embeddings(mem) if mem else None,
        after_start=header.vectors is not None and header.vectors.after_start,
        codebook=codebook_of(lm, header) if entry.kind is Kind.CHOSEN else None,
        threads=max(1, min(lm.threads, n_lanes // WORTH_A_THREAD)),
        progress=_differences(progress),
    )
    if header.dictionary is not None:
        assert lm.dictionary is not None
        options = replace(options, context=lm.dictionary.context)
    coded = opened.corrections(group, header)
    if coded is None:
        return lanes.recite(lm.model, entry.n_tokens, options)

    def decoded(guess: list[int] | None) -> list[int]:
        how = options
        if header.lanes and header.lanes.learning:
            learner = learner_of(lm, n_lanes, has_dictionary=header.dictionary is not None)
            how = replace(options, learner=learner, adapts=header.lanes.adapts(entry.n_tokens))
        return lanes.decode_lanes(lm.model, bytes(coded), entry.n_tokens, n_lanes, how, guess)

    guess = _guess(lm, group, original) if original is not None and n_lanes < WORTH_A_THREAD else None
    if guess is not None:
        with suppress(lanes.OtherTokenError):
            return decoded(guess)
    return decoded(None)


def _guess(lm: ExactLM, group: Group, original: Bytes) -> list[int] | None:
    """The tokens that a writer would make of the original of a group, if they are as many as it has."""
    chain, _ = opened.filters(group)
    content = bytes(original)
    pieces = lm.tokenizer.encode(chain.apply(content)[0] if chain else content)
    ids = pieces[0].ids if len(pieces) == 1 else None
    return ids if ids is not None and len(ids) == group.entry.n_tokens else None


def codebook_of(lm: ExactLM, header: Header) -> Codebook | None:
    """What lanes of a file choose from: the codebook that it names, or else the model's own."""
    if header.codebook is None:
        return lm.codebook
    return lm.given.codebook if lm.given else None


def choices_of(file: Opened, codebook: Codebook, saved: float | None = None, n_bits: int = TOTAL_BITS) -> Chosen | None:
    """What the lanes of a file have chosen; None where none has. Raises DamagedFileError.

    `n_bits`: what the counts of the model add up to, as a power of 2.
    """
    header, found, spent = file.header, [], 0.0
    for group in file:
        if group.entry.kind is Kind.CHOSEN:
            assert header.lanes is not None
            coded = opened.corrections(group, header)
            assert coded is not None
            decoder = TokenDecoder(bytes(coded), n_bits)
            entries = decode_choices(decoder, header.lanes.count(group.entry.n_tokens), codebook)
            spent += spent_on(codebook, entries)
            found += entries
    return Chosen(len(found), len(set(found)), spent, saved) if found else None


def chosen_by(file: Opened, lm: ExactLM, saved: float | None = None) -> Chosen | None:
    """The same for a file of this model."""
    codebook = codebook_of(lm, file.header)
    return choices_of(file, codebook, saved, total_bits(lm.vocabulary_size)) if codebook else None


def learner_of(lm: ExactLM, n_lanes: int, *, has_dictionary: bool) -> Learner:
    """What learns while the lanes of a group are coded, of a file that goes on from the model's dictionary or not."""
    if has_dictionary:
        assert lm.dictionary is not None
        return lm.dictionary.learner(n_lanes)
    return Learner(lm.tokenizer.table, lm.vocabulary_size, n_lanes)


def embeddings(mem: Sequence[QuantizedMem]) -> Floats:
    """The vectors (L, M, D) of lanes, or of the one chunk that is recited."""
    codes = np.concatenate([one.codes for one in mem])
    if levels := mem[0].coding.levels:
        vectors = dequantised(codes, np.concatenate([one.scales for one in mem]), levels)
    else:
        vectors = np.ascontiguousarray(codes).view("<f2").astype(np.float32)
    return vectors.reshape(len(mem), -1, vectors.shape[-1])


def _differences(progress: Progress) -> Progress:
    """Tells `progress` how many more, when it is told how many."""
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        progress(done - told)
        told = done

    return tell
