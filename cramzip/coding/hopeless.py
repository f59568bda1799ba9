"""Whether a long text is worth the work of a model at all: tried at a few places, before anything else is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

from ..container import writing
from ..container.stored import stored_group
from ..lm.tokens import Piece
from .chunking import HOPELESS, probes
from .cram import Goal


def is_hopeless(goal: Goal, content: bytes, pieces: Sequence[Piece]) -> bool:
    """Whether the model, without vectors, does worse than zstd wherever it is tried in a long segment.

    The bytes of a probe cost zstd what the segment takes more with them than without them: it has seen all the rest.
    """
    decode = goal.lm.tokenizer.decode
    longest = max(pieces, key=lambda piece: len(piece.ids or ()))
    ids = longest.ids or []
    begin = sum(len(piece.content) for piece in takewhile(lambda piece: piece is not longest, pieces))
    if not (tried := probes(len(ids))):
        return False
    whole = writing.groups_size([stored_group(content)])
    for probe in tried:
        bits = _bits(goal, ids, probe)
        first = begin + len(decode(ids[: probe.start]))
        last = first + len(decode(ids[probe]))
        without = content[:first] + content[last:]
        if bits <= HOPELESS * 8 * (whole - writing.groups_size([stored_group(without)])):
            return False
    return True


def _bits(goal: Goal, ids: Sequence[int], probe: slice) -> float:
    """What the tokens of a probe cost without vectors, in chunks like those of a group."""
    size = goal.view.chunk_tokens
    firsts = range(probe.start, probe.stop, size)
    rows = [ids[first : min(first + size, probe.stop)] for first in firsts]
    seen = [goal.view.context(ids[:first]) for first in firsts]
    return sum(float(cost.sum()) for cost in goal.lm.score(rows, seen)) / math.log(2)
