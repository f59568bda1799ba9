"""Windows of text: 50 letters and digits in a row, whatever their case and whatever stands between them.

Two texts that share a window have a passage in common.
"""

import numpy as np

WINDOW = 50
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that the hash depends on every letter
SIFT = 26  # leading bits of a hash that the sieve takes in: 64 MB


def letters(text):
    """The letters and digits of a text in lower case as code points, and where each stands in it."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    kept = np.array([c.isalnum() for c in map(chr, range(0x250))])
    places = np.flatnonzero((points >= len(kept)) | kept[np.minimum(points, len(kept) - 1)])
    lower = np.array([ord(chr(c).lower()[0]) for c in range(0x600)], dtype=np.uint32)
    points = points[places]
    return np.where(points < len(lower), lower[np.minimum(points, len(lower) - 1)], points), places


def window_hashes(points):
    """A hash of each window, shape (len(points) - WINDOW + 1,), by doubling: windows of 1, 2, 4, ... letters."""
    whole, done, power, size, base = None, 0, (points.astype(np.uint64) + np.uint64(1)) * BASE, 1, BASE
    base_done = np.uint64(1)
    with np.errstate(over="ignore"):
        while True:
            if WINDOW & size:
                n = len(points) - done - size + 1
                if n <= 0:
                    return np.zeros(0, dtype=np.uint64)
                part = power[done : done + n] * base_done
                whole = part if whole is None else whole[:n] + part
                done, base_done = done + size, base_done * base
            if 2 * size > WINDOW:
                break
            if len(power) <= size:
                return np.zeros(0, dtype=np.uint64)
            power = power[:-size] + base * power[size:]
            size, base = 2 * size, base * base
        whole ^= whole >> np.uint64(32)
        return whole * BASE


def runs(marks):
    """The beginnings and ends of the runs of True."""
    edges = np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


class Windows:
    """A set of hashes: a bitmap sifts what is asked for, a sorted list decides."""

    def __init__(self, hashes):
        self.hashes = np.unique(hashes)
        self.sieve = np.zeros(1 << SIFT, dtype=bool)
        self.sieve[self.hashes >> np.uint64(64 - SIFT)] = True

    def within(self, hashes):
        """Which of `hashes` are in the set, shape (len(hashes),)."""
        marks = self.sieve[hashes >> np.uint64(64 - SIFT)]
        sifted = hashes[marks]
        where = np.minimum(np.searchsorted(self.hashes, sifted), len(self.hashes) - 1)
        marks[marks] = self.hashes[where] == sifted
        return marks

    def cut(self, text):
        """The text without the passages whose windows are in the set, each of which leaves a line break."""
        points, places = letters(text)
        kept, end_before = [], 0
        for begin, end in runs(self.within(window_hashes(points))):
            kept.append(text[end_before : places[begin]])
            end_before = int(places[end + WINDOW - 2]) + 1
        return "\n".join([*kept, text[end_before:]])
