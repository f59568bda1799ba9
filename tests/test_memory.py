"""Freed memory is kept, where the C library can do that."""

import sys
from types import SimpleNamespace

import pytest

from cramzip.lm.speed.memory import LARGEST_KEPT, keep_freed_memory

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # in malloc.h of glibc


@pytest.fixture
def asked(monkeypatch):
    """What a C library is asked for that answers `asked.answer`."""
    calls = SimpleNamespace(answer=1, made=[])

    def mallopt(parameter, value):
        calls.made.append((parameter, value))
        return calls.answer

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    return calls


def test_both_thresholds_are_raised(asked):
    keep_freed_memory()
    assert asked.made == [(MMAP_THRESHOLD, LARGEST_KEPT), (TRIM_THRESHOLD, LARGEST_KEPT)]


def test_where_the_first_threshold_is_refused_the_second_stays_as_it_is(asked):
    asked.answer = 0
    keep_freed_memory()
    assert asked.made == [(MMAP_THRESHOLD, LARGEST_KEPT)]


def test_a_c_library_without_thresholds_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()
