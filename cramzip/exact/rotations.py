"""Cosines and sines of rotary position embeddings, rounded to multiples of 2^-14. Section 2.3 of formats/exact.md."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..errors import ModelError
from .arithmetic import Doubles, Floats, table_hash

HALF = 32  # frequencies: half the width of a head
MAX_POSITIONS = 2**16  # beyond, nobody has checked that no entry is near a tie of rounding
PAGE = 1024  # positions that are computed together
RESOLUTION = 2.0**14

FRACTION = 128
_ONE = 1 << FRACTION
_TERMS = 40  # 1 / 40! is below 2^-128
_PAGE_BITS, _POSITION_BITS = PAGE.bit_length() - 1, MAX_POSITIONS.bit_length() - 1
_FIRST_PAGE_HASHES: dict[tuple[int | Fraction, int], str] = {
    (10000, HALF): "f78585f3762e55da8e9231e63aa689ef24349821dbd38e2df44eca7ee7c8c7e5"
}


class Rotations:
    """The rotation of every position below 2^16, by `half` angles theta^(-i / half) a position.

    `slowdowns`, if there are any: what each angle is divided by.
    """

    def __init__(self, theta: int | Fraction, half: int = HALF, slowdowns: Sequence[Fraction] | None = None):
        angles = angles_of(Fraction(theta), half)
        if slowdowns:
            angles = [int(angle / by) for angle, by in zip(angles, slowdowns, strict=True)]
        self._units = [_as_doubles(turns) for turns in _doublings(angles)]
        self._half = half
        self._pages: dict[int, tuple[Floats, Floats]] = {}
        expected = None if slowdowns else _FIRST_PAGE_HASHES.get((theta, half))
        if expected not in (None, table_hash(*self._page(0))):
            raise ModelError(
                "the table of cosines comes out wrong here: exact arithmetic is impossible on this machine"
            )

    def at(self, first: int, n: int) -> tuple[Floats, Floats]:
        """Cosines and sines (n, half) for n positions from `first` on, which may not cross a multiple of 1,024."""
        cosines, sines = self._page(first // PAGE)
        place = first % PAGE
        return cosines[place : place + n], sines[place : place + n]

    def _page(self, number: int) -> tuple[Floats, Floats]:
        page = self._pages.get(number)
        if page is None:
            if number >= MAX_POSITIONS // PAGE:
                raise ModelError(f"exact arithmetic ends at {MAX_POSITIONS} positions")
            page = self._make_page(number)
            self._pages = {**dict(list(self._pages.items())[-1:]), number: page}  # this one and the one before
        return page

    def _make_page(self, number: int) -> tuple[Floats, Floats]:
        turn = np.ones((1, self._half)), np.zeros((1, self._half))
        for bit in range(_PAGE_BITS, _POSITION_BITS):
            if number << _PAGE_BITS >> bit & 1:
                turn = _turned(turn, self._units[bit])
        for bit in range(_PAGE_BITS):
            further = _turned(turn, self._units[bit])
            turn = np.concatenate([turn[0], further[0]]), np.concatenate([turn[1], further[1]])
        return _rounded(turn[0]), _rounded(turn[1])


def angles_of(theta: Fraction, half: int) -> list[int]:
    """theta^(-i / half) for i = 0 ... half - 1, as integers in units of 2^-128."""
    root = _root(theta, half)
    angles = [_ONE]
    while len(angles) < half:
        angles.append((angles[-1] << FRACTION) // root)
    return angles


def _root(x: Fraction, degree: int) -> int:
    """The root of a number of at least 1, in units of 2^-128, by Newton's method from above."""
    radicand = (x.numerator << FRACTION * degree) // x.denominator
    root = int(float(x) ** (1 / degree) * (1 + 2.0**-40) * 2.0**60) + 1 << FRACTION - 60
    while (lower := root - (root - radicand // root ** (degree - 1)) // degree) < root:
        root = lower
    return root


def _doublings(angles: list[int]) -> list[list[tuple[int, int]]]:
    """Cosines and sines of the angles times 1, 2, 4, ..., 2^15, as integers in units of 2^-128."""
    turns = [[_turn(angle) for angle in angles]]
    while len(turns) < _POSITION_BITS:
        turns.append([((c * c - s * s) >> FRACTION, 2 * c * s >> FRACTION) for c, s in turns[-1]])
    return turns


def _turn(angle: int) -> tuple[int, int]:
    """Cosine and sine of an angle of at most 1, by their series."""
    cosine, sine, term = _ONE, 0, _ONE
    for n in range(1, _TERMS):
        term = term * angle // (n << FRACTION)
        if n % 2:
            sine += term if n % 4 == 1 else -term
        else:
            cosine += term if n % 4 == 0 else -term
    return cosine, sine


def _as_doubles(turns: list[tuple[int, int]]) -> tuple[Doubles, Doubles]:
    return np.array([c / _ONE for c, _ in turns]), np.array([s / _ONE for _, s in turns])


def _turned(turn: tuple[Doubles, Doubles], by: tuple[Doubles, Doubles]) -> tuple[Doubles, Doubles]:
    return turn[0] * by[0] - turn[1] * by[1], turn[0] * by[1] + turn[1] * by[0]


def _rounded(x: Doubles) -> Floats:
    return (np.rint(x * RESOLUTION) / RESOLUTION + 0.0).astype(np.float32)  # without negative zeros
