"""Threads of our own instead of those of BLAS, which spin while they wait for each other.

Beside a busy process the threads of BLAS cost more time than they save: a product of a millisecond was seen to take
eight to thirty. Ours sleep until they are woken.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_PREFIXES, _SUFFIXES = ("scipy_openblas", "openblas"), ("64_", "")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep the OpenBLAS that came with NumPy to one thread; without effect on the bits, and for any other BLAS."""
    control = _control()
    if control is None:
        yield
        return
    get, put = control
    before = get()
    put(1)
    try:
        yield
    finally:
        put(before)


@contextmanager
def side_by_side(n: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` whose calls run in `n` threads; they share nothing but what is only read."""
    if n == 1:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor  # which takes its time to import

    with ThreadPoolExecutor(n) as pool:
        yield pool.map


@cache
def _control() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """Functions that get and set the number of threads."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            for prefix in _PREFIXES:
                for suffix in _SUFFIXES:
                    get = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                    put = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                    if get and put:
                        return get, put
    return None
