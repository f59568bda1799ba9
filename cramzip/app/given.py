"""What the options of a command come to: where results go, what folders stand for, who shares the work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputOutputError, UsageError
from .destination import Destination
from .files import STDIN, SUFFIX, inside, is_compressed
from .streams import descriptor_of

if TYPE_CHECKING:
    from ..workers.base import Workers

STDOUT = 1  # as a descriptor


def _skips(path: Path, *, compressed: bool) -> str | None:
    """Why an input is skipped: links as zstd does it, and what is compressed already where the user names no output."""
    if path.is_symlink() and descriptor_of(path) is None:
        return "is a symbolic link"
    return f"has the ending {SUFFIX} already" if compressed and is_compressed(path) else None


def destination_of(given: dict[str, Any], n_files: int, *, compresses: bool = False) -> Destination:
    """Where results go. Raises UsageError for options that contradict each other."""
    output, stdout, recursive = given["output"], given["stdout"], given["recursive"]
    if output == "-" or (output and descriptor_of(Path(output)) == STDOUT):
        output, stdout = None, True
    skip = partial(_skips, compressed=compresses and not output and not stdout)
    if output and stdout:
        raise UsageError("-o and --stdout exclude each other")
    if output and (n_files > 1 or recursive):
        raise UsageError("-o takes the result of one file, not of several")
    if stdout and not given["keep"]:
        raise UsageError("--rm is not for results on standard output")
    destination = Destination(
        Path(output) if output else None,
        stdout,
        given["force"],
        remove_source=not given["keep"],
        skip=skip,
    )
    for what in ("dictionary", "codebook"):
        if given[what]:
            destination.protect(Path(given[what]), what)
    if destination.output:
        destination.check_kept(destination.output)
    return destination


def expansion(verb: str, wanted: Callable[[Path], bool], *, recursive: bool) -> Callable[[str], list[str] | None]:
    """A function that finds what a folder stands for. It raises InputOutputError where nobody has asked for that."""

    def expand(argument: str) -> list[str] | None:
        if argument == STDIN or not Path(argument).is_dir():
            return None
        if not recursive:
            raise InputOutputError(f"is a directory; -r {verb} what is in it")
        return inside(argument, wanted)

    return expand


def workers_of(given: dict[str, Any]) -> AbstractContextManager[Workers | None]:
    """What to share the work with; nothing is started, and no cluster called, before there is work."""
    n = given["jobs"]
    if given["ray"]:
        from ..workers.cluster import RayWorkers

        return RayWorkers(given["ray"], given["device"], n)
    if n in (None, 1):
        return nullcontext()
    from ..workers.processes import LocalWorkers, default_jobs

    n = n or default_jobs(given["device"])
    return LocalWorkers(n) if n > 1 else nullcontext()
