"""The learner of exact.md, for reader.py: what came before in a group, beside the model.

Written from section 12 of exact.md alone, to be read beside it; names are those used there. Lists and plain loops: what
a token costs does not matter here.
"""

from math import sqrt

import numpy as np
from exact import TINY, counts, f32, ints, lane_lengths, order, sigmoids, stretches, whole_bits

M, ALL_64 = 0x9E3779B97F4A7C15, 2**64 - 1
MOST_KEYS = 2**17  # of a generation
ORDERS = range(5)  # the keys K1 to K5
FOR = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5.5), (7, 8), (11, 15), (21, 40)]  # the least count, c'
AGAINST = [(0, 0), (1, 1), (2, 2), (3, 3.5), (5, 6), (8, 12), (16, 24), (32, 60)]  # the least count, a'


class Place:
    """Section 12.2, for one lane."""

    def __init__(self):
        self.l, self.line, self.above, self.s, self.s_above = [0] * 8, [], [], [0], [0]
        self.f = self.j = 0

    def nine_keys(self):
        def at(line, j):
            return line[j] + 2 if 0 <= j < len(line) else 1

        def key(*steps):
            """Steps (sign, number): exclusive or with, or plus, this number, and then times M."""
            value = 0
            for sign, number in steps:
                value = (value ^ number if sign == "^" else value + number) * M & ALL_64
            return value

        u, w, r = at(self.above, self.j), at(self.above, self.j - 1), at(self.line, 0)
        k1 = key(("+", self.l[0] + 1))
        k7 = ((k1 ^ u) * M + 1) & ALL_64
        return [
            *(key(*(("+", token + 1) for token in self.l[:n])) for n in (1, 2, 3, 5, 8)),
            ((k7 ^ (self.f + 1)) * M + 2) & ALL_64,
            k7,
            key(("+", k7 ^ w), ("^", self.l[1])),
            ((k1 ^ r) * M + 3) & ALL_64,
        ]

    def move(self, x, content):
        self.l = [x, *self.l[:7]]
        if 0x0A in content:
            self.above, self.s_above = self.line, self.s
            self.line, self.s, self.f, self.j = [], [0], 0, 0
            return
        self.line = [*self.line, x][:256]
        k = sum(byte in b' ",;|\t' for byte in content)
        if k == 0:
            self.j += 1
            return
        self.f = min(self.f + k, 255)
        self.s = (self.s + [len(self.line)] * k)[:256]
        self.j = self.s_above[self.f] if self.f < len(self.s_above) else 256


class Followers:
    """A list of section 12.3: tokens and their counts."""

    def __init__(self):
        self.pairs = []

    def tokens(self):
        return [token for token, _ in self.pairs]

    def n(self, v):
        return next((count for token, count in self.pairs if token == v), 0)

    def total(self):
        return sum(count for _, count in self.pairs)

    def grown(self, x):
        """The list after x."""
        pairs = self.pairs
        if self.total() == 255:
            pairs = [(token, count // 2) for token, count in pairs if count >= 2]
        if all(token != x for token, _ in pairs):
            pairs = [*pairs, (x, 0)]
        new = Followers()
        new.pairs = [(token, count + (token == x)) for token, count in pairs]
        return new


class Rank:
    """What section 12.5 keeps for the candidates of one rank."""

    def __init__(self):
        cells = [(c + 0.3) / (c + a + 1) for _, c in FOR for _, a in AGAINST]
        self.p, self.ages = [list(cells) for _ in range(9)], [[0] * 72 for _ in range(9)]
        self.x = [[0.1, 0.8, 0.0] + 9 * [0.05] for _ in range(6)]
        self.x_ages, self.y = [0] * 6, [None] * 73


def cell(n, others):
    def row(classes, count):
        return max(i for i, (least, _) in enumerate(classes) if least <= count)

    return 8 * row(FOR, n) + row(AGAINST, others)


class Adapter:
    """Section 12.8, for one group."""

    def __init__(self, model):
        self.model, self.D = model, model.width
        self.A, self.G = np.zeros((self.D, self.D), f32), np.ones((self.D, self.D), f32)
        self.rows, self.units = np.zeros((self.D, self.D), np.int64), np.zeros(self.D, f32)
        self.largest = max(np.abs(model.head.scales).max(), TINY)  # Q
        self.n, self.step = 0, []

    def said(self, q, t):
        """y and t from the q and t of the last norm."""
        self.state = q, t
        moved = (self.rows @ q).astype(f32) * self.units + q.astype(f32)
        changed, u = ints(moved * t, self.model.most_state)
        return self.model.head.lin(changed), u

    def after(self, x, shares):
        q, t = self.state
        d = -shares.astype(np.int64)
        d[x] += shares.sum()
        s = np.trunc(d.astype(f32) * (self.model.head.scales / self.largest * f32(2**16 / shares.sum())))
        s = s.astype(np.int64)
        self.step.append((q, (s @ self.model.head.integers).astype(f32) * t))

    def end_step(self):
        n = len(self.step)
        q, r = np.array([q for q, _ in self.step]), np.array([r for _, r in self.step])
        a, u = ints(r, self.model.most_slope(n))
        k = (a.T @ q).astype(f32) * (u * (self.largest * f32(2.0**-16)))
        self.n, self.step = self.n + n, []
        self.G = self.G + k * k
        self.A = self.A + k * (f32(0.0025) * f32(min(self.n, 1024) / 1024)) / np.sqrt(self.G)
        for i, row in enumerate(self.A):
            self.rows[i], self.units[i] = ints(row, 127)


class Learner:
    """One for each group; `table` has the bytes of tokens, or None. Without a `model` nothing learns to change it."""

    def __init__(self, table, vocabulary_size, n_lanes, model=None):
        self.table, self.V, self.adapter = table, vocabulary_size, model and Adapter(model)
        self.whole = 2 ** whole_bits(vocabulary_size)
        self.b, self.g = np.zeros(self.V), np.ones(self.V)
        self.places = [Place() for _ in range(n_lanes)]
        self.young, self.old, self.settled = {}, {}, {}
        self.W, self.W_ages = [0.3] * 6, [20] * 6
        self.ranks = [Rank() for _ in range(3)]
        self.x, self.h = np.zeros(self.V, int), np.zeros(self.V, int)  # of this step, so far

    def counts(self, y, t):
        """The counts of section 12.1 for a lane."""
        return counts(y * t + self.b.astype(f32), f32(1))

    def end_step(self):
        h = self.h * (1 / self.whole)
        self.b = self.b + 0.25 * (self.x - h) / np.sqrt(self.g)
        self.g = self.g + h
        self.x[:] = self.h[:] = 0
        if self.adapter:
            self.adapter.end_step()

    def known(self, key):
        return self.young.get(key) or self.old.get(key) or self.settled.get(key)

    def settle(self):
        """What is known now stays (section 13)."""
        self.settled = self.settled | self.old | self.young
        self.young, self.old = {}, {}

    def intervals(self, lane, shares):
        """(first, width, token, after it) of the candidates of a lane in turn, then `rest`.

        `shares` are the lane's counts; `after it` is what to call with 1 if it is the token, with 0 if it is not.
        """
        self.look(lane)
        self.m = [int(count) / self.whole for count in shares]
        self.C = np.cumsum([0, *shares]).tolist()
        self.first, self.left, m, s, self.past = 0, self.whole - self.V, 1.0, 1.0, []
        for v, rank in zip(self.candidates(), self.ranks, strict=False):
            by_blend = self.A * self.m[v] + self.w * self.S.get(v, 0.0)
            p, learn = self.choice(rank, v, [self.m[v] / m, by_blend / s])
            n = int(self.left * p) + 1
            yield self.first, n, v, learn
            self.first, self.left = self.first + n, self.left - (n - 1)
            m, s = max(m - self.m[v], 1 / self.whole), max(s - by_blend, 1 / self.whole)
            self.past.append(v)

    def look(self, lane):
        """What is known before the next token of a lane."""
        self.lists = [self.known(key) for key in self.places[lane].nine_keys()]
        self.blend()

    def blend(self):
        """Section 12.4: S, which keeps its order, and e, o, W and A."""
        self.S, self.e, self.o = {}, 1.0, 0
        for i in (5, 4, 3, 2, 1):
            known = self.lists[i - 1]
            if not known:
                continue
            self.o = self.o or i
            q = 8 / i * len(known.pairs)
            t = known.total() + q
            for v, n in known.pairs:
                self.S[v] = self.S.get(v, 0.0) + self.e / t * n
            self.e = self.e * (q / t)
            if self.e < 0.001:
                break
        self.w = self.W[self.o] if self.o else 0.0
        self.A = 1 - self.w + self.w * self.e

    def candidates(self):
        likely = dict(self.S)
        for known in self.lists[5:]:
            for v, n in known.pairs if known else []:
                likely[v] = likely.get(v, 0.0) + 0.2 / (known.total() + 1) * n
        return sorted(likely, key=lambda v: -likely[v])[: min(3, self.V - 1)]  # equals stay in order

    def choice(self, rank, v, ratios):
        """Section 12.5: P of a candidate, and what learns whether it is the token."""
        stretch, o = stretches().tolist(), self.o
        inputs, used, z = [stretch[min(int(ratio * 4096), 4095)] for ratio in ratios] + [0.3], [], 0.0
        for i, known in enumerate(self.lists):
            used.append((i, cell(known.n(v), known.total() - known.n(v))) if known else None)
            inputs.append(stretch[int(rank.p[i][used[i][1]] * 4096)] if known else 0.0)
        place = used[o - 1][1] if o else 72
        x = rank.x[o]
        y = rank.y[place] or x
        for a, b, value in zip(x, y, inputs, strict=True):
            z = z + (a + b) * value
        p = float(sigmoids()[int(min(max(z * 0.5, -11.5), 13.5) * 128 + 2048.5)])

        def learn(truth):
            rank.x_ages[o] += 1
            d = (truth - p) * max(0.002, 0.03 / sqrt(rank.x_ages[o]))
            rank.y[place] = [weight + d * value for weight, value in zip(y, inputs, strict=True)]
            rank.x[o] = [weight + d * value for weight, value in zip(x, inputs, strict=True)]
            for i, c in filter(None, used):
                rank.p[i][c] += (truth - rank.p[i][c]) * (1 / (rank.ages[i][c] + 2.5))
                rank.ages[i][c] = min(rank.ages[i][c] + 1, 48)

        return p, learn

    def rest(self):
        """Section 12.6: F_v for all tokens, and the end of the last."""
        past = sorted(self.past)
        held = [self.C[v + 1] - self.C[v] for v in past]
        h = self.whole - sum(held)
        z, more = self.A * (h * (1 / self.whole)), [0] * self.V
        for v, share in self.S.items():
            if v not in past:
                z = z + self.w * share
        for v, share in self.S.items():
            if v not in past:
                more[v] = int(self.left * (self.w * share / z))
        e, borders, extra = self.left - sum(more), [], 0
        for v in range(self.V + 1):
            below = [count for u, count in zip(past, held, strict=True) if u < v]
            borders.append(self.first + v - len(below) + (self.C[v] - sum(below)) * e // h + extra)
            extra += more[v] if v < self.V else 0
        return borders

    def after(self, lane, x, shares):
        """Section 12.7 and what it names."""
        if self.o:
            a = self.w * (self.S.get(x, 0.0) + self.e * self.m[x])
            self.W_ages[self.o] += 1
            step = max(0.01, 1 / self.W_ages[self.o])
            self.W[self.o] += step * (a / ((1 - self.w) * self.m[x] + a) - self.w)
        self.count(lane, x)
        self.x[x] += 1
        self.h += shares
        if self.adapter:
            self.adapter.after(x, shares)

    def count(self, lane, x):
        """Sections 12.3 and 12.2."""
        self.lists = [self.known(key) for key in self.places[lane].nine_keys()]
        knew = [i for i in ORDERS if self.lists[i] and x in self.lists[i].tokens()]
        place = self.places[lane]
        for i, key in enumerate(place.nine_keys()):
            if i >= max(knew, default=0):
                self.young[key] = (self.lists[i] or Followers()).grown(x)
        if len(self.young) >= MOST_KEYS:
            self.young, self.old = {}, self.young
        place.move(x, (self.table[x] if x < len(self.table) else None) or b"")


class LearningDecoder:
    """Tokens of a group out of a decoder of exact.py, with a learner: in place of that decoder in `run_lanes`."""

    def __init__(self, decoder, learner, n_tokens):
        self.decoder, self.learner = decoder, learner
        self.lanes = order(lane_lengths(n_tokens, len(learner.places)))

    def token(self, y, t):
        """The next token, from what the model says of it."""
        learner, lane = self.learner, self.lanes.pop(0)
        shares, target = learner.counts(y, t), self.decoder.target()
        first, n, v = self.interval(lane, shares, target)
        self.decoder.narrow(first, n)
        learner.after(lane, v, shares)
        if not self.lanes or self.lanes[0] <= lane:
            learner.end_step()
        return v

    def interval(self, lane, shares, target):
        """(first, width, token) of the interval that holds the target."""
        for first, n, v, learn in self.learner.intervals(lane, shares):
            learn(1.0 if target < first + n else 0.0)
            if target < first + n:
                return first, n, v
        borders = self.learner.rest()
        v = max(u for u in range(self.learner.V) if borders[u] <= target)
        return borders[v], borders[v + 1] - borders[v], v

    def check_end(self):
        self.decoder.check_end()
