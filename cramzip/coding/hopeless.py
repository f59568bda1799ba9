"""Whether a long text is worth the work of a model at all: tried at a few places, before anything else is done."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ..lm.tokens import Piece
from .chunking import HOPELESS, probes
from .method import Method


def is_hopeless(method: Method, content: bytes, pieces: Sequence[Piece]) -> bool:
    """Whether the model, without vectors, does worse than storing wherever it is tried in a long segment."""
    decode = method.lm.tokenizer.decode
    longest = max(pieces, key=lambda piece: len(piece.ids or ()))
    ids = longest.ids or []
    begin = sum(len(piece.content) for piece in takewhile(lambda piece: piece is not longest, pieces))
    if not (tried := probes(len(ids))):
        return False
    for probe in tried:
        first = begin + len(decode(ids[: probe.start]))
        last = first + len(decode(ids[probe]))
        if method.bits(ids, probe) <= HOPELESS * method.stored_bits(content, slice(first, last)):
            return False
    return True
