"""The dictionary of exact.md, for reader.py: what lanes begin with in its place.

Written from section 13 of exact.md alone, to be read beside it.
"""

import copy
import re
from itertools import pairwise

from llama import Unsupported

READ = 255  # tokens that the model reads, at most


def cut(content, table, vocabulary_size):
    """-> token ids; one step after the other, so this is for short dictionaries."""
    ids = {token: i for i, token in reversed([*enumerate(table[:vocabulary_size])]) if token}
    if any(bytes([byte]) not in ids for byte in content):
        raise Unsupported("the dictionary has a byte that no token stands for")
    pieces = re.split(rb"(?<=[\t-\r ])(?=[\t-\r ][^\t-\r ])", content)
    return [token for piece in pieces for token in joined(piece, ids)]


def joined(piece, ids):
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        pairs = [(ids[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not pairs:
            return [ids[part] for part in parts]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


class Start:
    """Where all lanes of all groups begin: `sequence` has read all tokens but the `last`."""

    def __init__(self, model, tokens, learner):
        """`learner` is a new one, of one lane."""
        for x in tokens[:-READ]:
            learner.count(0, x)
        learner.settle()
        self.sequence = model.sequence(READ)
        state = self.sequence.feed(model.embed(model.start))
        for x in tokens[-READ:]:
            shares = learner.counts(*model.logits(state))
            for _, _, v, learn in learner.intervals(0, shares):
                learn(float(v == x))
                if v == x:
                    break
            learner.after(0, x, shares)
            learner.end_step()
            if self.sequence.position < min(READ, len(tokens)):
                state = self.sequence.feed(model.embed(x))
        learner.settle()
        self.learner, self.last = learner, tokens[-1]

    def learner_of(self, n_lanes):
        learner = copy.deepcopy(self.learner)
        learner.places = [copy.deepcopy(learner.places[0]) for _ in range(n_lanes)]
        return learner
