"""Locks on open files, for all that must not be written by two processes at once.

A lock lasts until its file is closed, also by the death of its process. Where the system (Windows) or the file system
has no such locks, everything goes on without them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def lock(file: FileDescriptorLike, *, wait: bool = False) -> bool:
    """Lock an open file for this process alone. Returns False where there are no locks.

    Raises BlockingIOError if another has it, unless the caller wants to `wait`.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True
