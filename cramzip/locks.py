"""Locks on open files, for all that must not be written by two processes at once.

A lock lasts until its file is closed, also by the death of its process. Where the file system has no such locks,
everything goes on without them.
"""

from __future__ import annotations

import errno
import os
import time
from importlib import import_module
from typing import IO, Any


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl = _module("fcntl")  # of Unix
msvcrt = _module("msvcrt")  # of Windows

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
TAKEN = (errno.EACCES, errno.EDEADLK)  # what Windows says of a byte that another process has locked
LOCKED_BYTE = 2**31 - 2  # which Windows keeps others from; few files have it, and no process reads it of one in use
PATIENCE = 0.1  # seconds between two tries


def lock(file: IO[Any] | int, *, wait: bool = False) -> bool:
    """Lock an open file for this process alone. Returns False where there are no locks.

    Raises BlockingIOError if another has it, unless the caller wants to `wait`.
    """
    descriptor = file if isinstance(file, int) else file.fileno()
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            _lock_byte(descriptor, wait=wait)
        else:
            return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True


def _lock_byte(descriptor: int, *, wait: bool) -> None:
    """Lock one byte, as Windows has no locks of whole files; a byte need not be there to be locked."""
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        while True:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
                if not wait:
                    raise BlockingIOError(error.errno, "another process has locked the file") from error
            time.sleep(PATIENCE)
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)
