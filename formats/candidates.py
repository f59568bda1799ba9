"""The candidates of corrections.py: what a group so far says of its next token, before the ranks.

Written from section 6.2 of cram.md, and the sections of exact.md that it names.
"""

import numpy as np
from corrections import Bit
from exact import sigmoids
from learner import Learner


def odds(logits, v):
    """c of the candidate v, from float64 logits of at least -10^9."""
    others = np.delete(logits, v)
    largest = others.max()
    return logits[v] - largest - np.log(np.exp(others - largest).sum())


class Expectations:
    """What a group with Learns 1 knows before the ranks of a token."""

    def __init__(self, table, vocabulary_size):
        self.learner = Learner(table, vocabulary_size, 1)
        self.learner.W = [0.5] * 6

    def candidates(self):
        self.learner.look(0)
        return self.learner.candidates()

    def follow(self, known, logits, decide):
        """-> the candidate for which `decide(v, Bit)` is true, or None; and the logits without those that failed."""
        learner, m, s, logits = self.learner, 1.0, 1.0, logits.copy()
        for v, rank in zip(self.candidates(), learner.ranks, strict=False):
            y = known.middle(known.bucket(odds(logits, v)))
            q = float(sigmoids()[int(y * 128 + 2048.5)])
            by_blend = learner.A * (q * m) + learner.w * learner.S.get(v, 0.0)
            p, learn = learner.choice(rank, v, [q, by_blend / s])
            yes = decide(v, Bit(int(p * 2**22), 0))
            learn(1.0 if yes else 0.0)
            if yes:
                return v, logits
            logits[v] = -1e9
            m, s = max(m - q * m, 2.0**-24), max(s - by_blend, 2.0**-24)
        return None, logits

    def after(self, token):
        self.learner.count(0, token)
