"""Where the results of one command go, and what they must never overwrite."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputOutputError, UsageError
from . import files
from .console import Console
from .files import Source
from .output import Leftovers, Output, try_writing
from .streams import STDOUT_LABEL, descriptor_of


class FileSet:
    """Files by whatever name: another spelling, a link or a hard link of a file in it is in it, too."""

    def __init__(self) -> None:
        self._files: set[tuple[int, int]] = set()
        self._paths: set[str] = set()

    def add(self, path: Path) -> None:
        """Add a file, if there is one."""
        with suppress(OSError):
            self._files.add(_identity(path))
            self._paths.add(os.path.realpath(path))

    def discard(self, path: Path) -> None:
        """Forget a file that is about to be removed, since the next one may get its number."""
        with suppress(OSError):
            self._files.discard(_identity(path))
            self._paths.discard(os.path.realpath(path))

    def __contains__(self, path: Path) -> bool:
        if not os.path.lexists(path):
            return False
        with suppress(OSError):
            if _identity(path) in self._files:
                return True
        return os.path.realpath(path) in self._paths  # also if it was replaced in the meantime


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class Destination:
    """Where results go: `output` if it is given, `stdout`, or beside the input under the name that follows from it.

    Neither `inputs` of the same command nor what was `written` by it are overwritten. Neither is what is `needed`
    to restore results, which is never removed. `skip` says why an input is left out, if it is; `-f` takes all of them.
    """

    output: Path | None = None
    stdout: bool = False
    force: bool = False
    remove_source: bool = False
    skip: Callable[[Path], str | None] = lambda _: None
    inputs: FileSet = field(default_factory=FileSet)
    written: FileSet = field(default_factory=FileSet)
    needed: dict[str, FileSet] = field(default_factory=dict)
    leftovers: Leftovers = field(default_factory=Leftovers)
    _named: set[str] = field(default_factory=set)
    _targets: Counter[Path] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)  # inputs that were left out, and why

    def protect(self, path: Path, what: str) -> None:
        """Take note of a dictionary or a codebook, without which nothing can be restored."""
        self.inputs.add(path)
        self.needed.setdefault(what, FileSet()).add(path)

    def foresee(self, console: Console, argument: str) -> bool:
        """Take note of an input that is to come. False if it is skipped, or was named before."""
        if argument == files.STDIN:
            self._named.add(argument)
            return True
        path = Path(argument)
        if not self.force and (reason := self.skip(path)):
            console.say(f"{argument}: {reason}; skipped (-f takes it)")
            self.skipped[argument] = reason
            return False
        place = Path(os.path.realpath(path.parent), path.name)
        is_new = str(place) not in self._named
        self._named.add(str(place))
        if self.stdout:
            return True
        self.inputs.add(path)
        if is_new:
            self._targets.update({files.compressed_path(place, whole_name=whole) for whole in (False, True)})
        return is_new

    def must_keep_whole_name(self, path: Path) -> bool:
        """Whether what `path` is compressed to could be taken for that of another input, without its ending."""
        place = Path(os.path.realpath(path.parent), path.name)
        return self._targets[files.compressed_path(place)] > 1

    @property
    def code_of_nothing(self) -> int:
        """The exit code where nothing else went wrong: 1 if inputs were skipped and none is left."""
        return InputOutputError.exit_code if self.skipped and not self._named else 0

    def check_place(self, argument: str) -> None:
        """Raise UsageError if an input has no place of its own, beside which the result could go, or has to stay."""
        for what, paths in self.needed.items():
            if self.remove_source and argument != files.STDIN and Path(argument) in paths:
                raise UsageError(f"it is the {what}, without which nothing can be restored; --rm does not remove it")
        if self.output or self.stdout or argument == files.STDIN:
            return
        if descriptor_of(Path(argument)) is not None:
            raise UsageError("it is no file with a name of its own; say where to write with -o")

    def check_kept(self, path: Path) -> None:
        """Raise UsageError if the source is to be removed although nothing keeps what is written to `path`."""
        if self.remove_source and files.is_stream(path):
            raise UsageError(f"--rm is for results that are kept in a file, and {path} is none")

    def path_for(self, source: Source, follow: Callable[[Path], Path]) -> Path | None:
        """The path to write to, by default what `follow` makes of that of the source; None is standard output."""
        if self.output is not None:
            return self.output
        if self.stdout or source.path is None:
            return None
        return follow(source.path)

    def may_overwrite(self, path: Path | None, source: Source, console: Console) -> bool:
        """Whether an existing file may be overwritten. Raises InputOutputError if nothing may be written at all."""
        if path is None:
            if sys.stdout is None:
                raise InputOutputError("standard output is closed")
            return False
        self.check_kept(path)
        if path in self.written:
            raise InputOutputError(f"{path} was just made of another file; say where to write with -o")
        if path in self.inputs and not source.is_at(path):
            raise InputOutputError(f"{path} is another input of this command; say where to write with -o")
        try:
            try_writing(path)
        except InputOutputError as error:
            if self.output is not None:
                raise
            raise InputOutputError(f"{error}; say where to write with -o") from None
        ask = console.ask if source.path is not None else lambda _: False
        return files.check_target(path, source, force=self.force, ask=ask)

    def output_at(self, path: Path | None, *, overwrite: bool) -> Output:
        """What a result is written to, at a path that `path_for` has given, or else standard output."""
        return Output(path, overwrite=overwrite, leftovers=self.leftovers)

    def finish(self, path: Path | None, output: Output, source: Source) -> None:
        """What is left to do when a result is in its place. The source is removed only if a file keeps the result."""
        if path is not None:
            self.written.add(path)
        if self.remove_source and output.path is not None and source.path is not None and source.status is not None:
            source.check_unchanged("it is not removed")
            self.inputs.discard(source.path)
            source.path.unlink()


def place(path: Path | None) -> str:
    """How messages call what is written to."""
    return STDOUT_LABEL if path is None else str(path)
