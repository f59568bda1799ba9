"""The corrections of reader.py: the range coder, and the candidates and ranks that it codes, token by token.

Knows logits and bytes, and nothing of `.cram` files. Section numbers are those of cram.md, from which alone this
was written.
"""

import numpy as np


class Impossible(Exception):
    """What no corrections begin with, or end with."""


def require(truth, message):
    if not truth:
        raise Impossible(message)


def require_range(value, low, high, field):
    require(low <= value <= high, f"{field} is {value}, not {low} to {high}")


def require_decidable(logits):
    """Logits that say which token is next (section 8)."""
    require(not np.isnan(logits).any() and logits.max() < np.inf, "a logit is infinite or not a number")


# ---------------------------------------------------------------- range coder (section 7)


def within_limits(probability):
    return min(max(probability, 512), 2**22 - 512)


class Bit:
    """How probable a yes is, in parts of 2^22; it learns from what is decided."""

    def __init__(self, probability, count):
        self.probability, self.count = within_limits(probability), count

    def learn(self, yes):
        goal = 2**22 if yes else 0
        learnt = self.probability + 2 * (goal - self.probability) // (2 * self.count + 3)
        self.probability, self.count = within_limits(learnt), min(self.count + 1, 1023)


class RangeDecoder:
    def __init__(self, data):
        self.data, self.at = data, 0
        self.range, self.code = 2**32 - 1, 0
        for _ in range(4):
            self.code = self.code * 256 + self.next_byte()

    def next_byte(self):
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def is_below(self, bound):
        below = self.code < bound
        if below:
            self.range = bound
        else:
            self.code, self.range = self.code - bound, self.range - bound
        while self.range < 2**24:
            self.range, self.code = self.range * 256, (self.code * 256 + self.next_byte()) % 2**32
        return below

    def decision(self, bit):
        yes = self.is_below(self.range * (bit.probability // 64) // 65536)
        bit.learn(yes)
        return yes

    def bit(self):
        return 0 if self.is_below(self.range // 2) else 1

    def number(self, n_bits):
        value = 0
        for _ in range(n_bits):
            value = 2 * value + self.bit()
        return value

    def unbounded(self):
        zeros = 0
        while not self.bit():
            zeros += 1
            require(zeros <= 32, "an unbounded number begins with more than 32 bits 0")
        return 2**zeros + self.number(zeros) - 1

    def check_end(self):
        """It has asked for s + 4 bytes, with s multiplications."""
        require(len(self.data) <= self.at, f"corrections of {len(self.data)} bytes end after {self.at}")
        require(self.data[-1:] != b"\0", "the last byte of the corrections is 0")


# ---------------------------------------------------------------- corrections (section 6.2)


def rank_classes(vocabulary_size):
    """-> the first rank of each."""
    sizes = [1] * 8 + [2**z for z in range(1, 32) for _ in range(2)]
    first = np.cumsum([0, *sizes])
    return first[first < vocabulary_size]


def index_bits(g):
    return 0 if g < 8 else (g - 8) // 2 + 1


class Confidences:
    """What reader and writer know of a token before it is coded; V logits, noise bound 2^-k."""

    def __init__(self, vocabulary_size, noise_exponent):
        self.noise_exponent = noise_exponent
        self.first_ranks = rank_classes(vocabulary_size)
        self.id_bits = (vocabulary_size - 1).bit_length()
        self.width = 1 / 2 if noise_exponent >= 13 else 1.0
        self.near = 2.1 * 2.0**-noise_exponent
        self.shift, self.bits = None, {}

    def set_shift(self, i):
        j = int(f"{i:010b}"[::-1], 2)
        self.shift = (j / 1024 - 1 / 2) * self.width / 2

    def confidences(self, falling):
        """c_g of all rank classes but the last, from the logits in falling order."""
        e = np.exp(falling - falling[0])
        mass = np.add.reduceat(e, self.first_ranks)
        left = np.cumsum(mass[:0:-1])[::-1]
        return np.log(np.maximum(mass[:-1], 1e-30)) - np.log(np.maximum(left, 1e-30))

    def bucket(self, confidence):
        h = int(12 / self.width)
        return int(min(max(np.floor((confidence - self.shift) / self.width), -h), h - 1))

    def middle(self, bucket):
        return (bucket + 1 / 2) * self.width + self.shift

    def membership(self, g, bucket):
        """The Bit of the decision whether a rank is in G_g."""
        y = self.middle(bucket)
        return self.bits.setdefault((min(g, 2), bucket), Bit(round(2**22 / (1 + np.exp(-y))), 128))

    def nearness(self, g):
        """The Bit of Near."""
        return self.bits.setdefault(("near", g), Bit(2 ** (22 - max(1, self.noise_exponent - g // 2)), 8))


class Corrections:
    """The corrections of one group, decoded token by token.

    A group of `token_count` tokens that are so many that it may have candidates needs a way to make `Expectations`.
    """

    def __init__(self, data, vocabulary_size, noise_exponent, token_count=0, expectations=None):
        self.coder = RangeDecoder(data)
        self.known = Confidences(vocabulary_size, noise_exponent)
        learns = token_count >= 256 and self.coder.bit()
        self.expectations = expectations() if learns else None

    def begin_chunk(self, token_count):
        shift = self.coder.unbounded()
        require_range(shift, 0, 1023, "Shift")
        self.known.set_shift(shift)
        count = self.coder.unbounded()
        require_range(count, 0, token_count, "Exception_Count")
        self.exceptions = []
        for _ in range(count):
            least = self.exceptions[-1] + 1 if self.exceptions else 0
            self.exceptions.append(self.coder.number((token_count - 1).bit_length()))
            require_range(self.exceptions[-1], least, token_count - 1, "Position")
        self.position = -1

    def token(self, logits):
        token = self.next_token(logits)
        if self.expectations:
            self.expectations.after(token)
        return token

    def next_token(self, logits):
        self.position += 1
        if self.position in self.exceptions:
            token = self.coder.number(self.known.id_bits)
            require_range(token, 0, len(logits) - 1, "the id of an exception")
            return token

        logits = np.maximum(np.float64(logits), -1e9)
        if self.expectations:
            token, logits = self.expectations.follow(self.known, logits, lambda _, bit: self.coder.decision(bit))
            if token is not None:
                return token
        order = np.argsort(-logits)
        g = self.rank_class(self.known.confidences(logits[order]))
        rank = self.known.first_ranks[g] + self.coder.number(index_bits(g))
        require_range(rank, 0, len(logits) - 1, "a rank")
        if not self.coder.decision(self.known.nearness(g)):
            return int(order[rank])
        n = self.coder.unbounded() + 1
        require_range(n, 1, self.known.id_bits, "Bits")
        low_id = self.coder.number(n)
        near = np.flatnonzero(np.abs(logits - logits[order[rank]]) <= self.known.near)
        meant = near[near % 2**n == low_id]
        require(len(meant) == 1, f"Low_ID {low_id} fits {len(meant)} tokens")
        return int(meant[0])

    def rank_class(self, confidences):
        for g, confidence in enumerate(confidences):
            if self.coder.decision(self.known.membership(g, self.known.bucket(confidence))):
                return g
        return len(confidences)
