"""Memory of large tensors on the CPU: kept by the process instead of fetched from the system for every one of them."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h of glibc
LARGEST_KEPT = 2**31 - 1  # bytes: the most that mallopt takes


def keep_freed_memory() -> None:
    """Have the C library use freed memory again, however large it was; it gives it back when the process ends.

    By default glibc fetches what is larger than 32 MiB from the system and gives it back at once: every new page
    is cleared and mapped, which takes eight times as long as what a tensor is filled with (examples/results/NOTES.md).
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl has none, and no such threshold. Where the first is refused the second alone would only keep memory: it
    # stops glibc from adjusting the first by itself.
    if mallopt is not None and mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) == 1:
        mallopt(_TRIM_THRESHOLD, LARGEST_KEPT)
