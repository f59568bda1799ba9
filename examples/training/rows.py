"""The rows that a step learns from: where they begin, how long they are, and in what dress.

A compressor's chunks begin anywhere and know nothing of what came before.  So does every row: `<|bos|>`, then tokens
from a random place of a random text.  The same step of the same run draws the same rows.
"""

from functools import cached_property

import numpy as np
import torch
from dress import draw_dresses, dressed
from texts import BOS_ID, CONTEXT, LONG_CONTEXT, SEED

# Tokens of a row, step by step; the first tokens of a row, which are dear, are learnt from short rows too.
LENGTHS = (CONTEXT, CONTEXT, CONTEXT, LONG_CONTEXT, CONTEXT, CONTEXT, CONTEXT, CONTEXT // 2)
BEGUN = 64  # tokens of the rows that vectors are trained with
BEGINNINGS = 0.4  # of these rows, which begin as a text does
LEAD = 48  # a dressed row begins up to so many tokens into its text, so that not every one begins with a new line


def row_length(step):
    return LENGTHS[step % len(LENGTHS)]


class Rows:
    """Draws rows from the ids that `pack` wrote.

    `kinds` is {kind: [begin, end]}; the chance of a kind is its size times its weight, 1 without one.  `seen` is how
    many tokens the weights saw before this run: a run that goes on from a model draws other rows than the one before.
    """

    def __init__(self, stream, kinds, weights, tokenizer, dress=True, seen=0):
        self.stream, self.tokenizer, self.dress, self.seen = stream, tokenizer, dress, seen
        self.ranges = list(kinds.values())
        share = np.array([(end - begin) * weights.get(kind, 1.0) for kind, (begin, end) in kinds.items()])
        self.chances = share / share.sum()
        self.even_chances = share**0.5 / (share**0.5).sum()

    @cached_property
    def beginnings(self):
        """Where texts begin, in the stream."""
        return np.flatnonzero(self.stream == BOS_ID) + 1

    def draw(self, step, batch):
        """Rows of step `step`, about `batch` tokens, shape (B, length + 1); -1 fills up a row that is short."""
        rng = np.random.default_rng([SEED, self.seen, step])
        length = row_length(step)
        rows = np.full((max(1, batch // length), length + 1), -1, dtype=np.int64)
        rows[:, 0] = BOS_ID
        for row in rows:
            begin, end = self.ranges[rng.choice(len(self.ranges), p=self.chances)]
            start = begin + int(rng.integers(0, max(1, end - begin - length)))
            dresses = draw_dresses(rng) if self.dress else []
            if dresses:
                ids = self.in_dress(self.stream[start : min(end, start + length + LEAD)], dresses, rng)[:length]
            else:
                ids = self.stream[start : min(end, start + length)]
            row[1 : 1 + len(ids)] = ids
        return torch.from_numpy(rows)

    def draw_begun(self, step, batch):
        """Short rows for `mems`, shape (B, BEGUN + 1): kinds that are rare are not as rare here."""
        rng = np.random.default_rng([SEED, self.seen, step, 1])
        rows = np.full((max(1, batch // BEGUN), BEGUN + 1), -1, dtype=np.int64)
        rows[:, 0] = BOS_ID
        for row in rows:
            begin, end = self.ranges[rng.choice(len(self.ranges), p=self.even_chances)]
            start = begin + int(rng.integers(0, max(1, end - begin - BEGUN)))
            if rng.random() < BEGINNINGS:
                first, last = np.searchsorted(self.beginnings, [begin, end])
                start = int(self.beginnings[rng.integers(first, last)])
            ids = self.stream[start : min(end, start + BEGUN)]
            row[1 : 1 + len(ids)] = ids
        return torch.from_numpy(rows)

    def in_dress(self, ids, dresses, rng):
        """The ids of the same texts in another dress; `<|bos|>` between texts stays."""
        new = []
        for part in np.split(ids, np.flatnonzero(ids == BOS_ID)):
            bos = [BOS_ID] if len(part) and part[0] == BOS_ID else []
            text = self.tokenizer.decode(part[len(bos) :].tolist(), skip_special_tokens=False)
            text = text.strip("\ufffd")  # the row may begin or end within a character
            new += bos + self.tokenizer.encode(dressed(text, dresses, rng), add_special_tokens=False).ids
        return new[int(rng.integers(LEAD)) :]
