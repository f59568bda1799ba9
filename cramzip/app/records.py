"""What `--json` prints of every input: what became of it, or why nothing did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import DamagedFileError, UsageError
from .details import list_record
from .files import STDIN, label
from .shell import explain

if TYPE_CHECKING:
    from ..container.description import Description
    from .destination import Destination
    from .jobs import Done


class Records:
    """One record for each input of a command, in order; printed as one document at its end, if they are `wanted`."""

    def __init__(self, wanted: bool, destination: Destination | None = None, files: Sequence[str] = ()):
        """Raises UsageError where results and records would both go to standard output."""
        self._wanted, self._found = wanted, list[dict[str, Any]]()
        if wanted and destination and (destination.stdout or (STDIN in files and destination.output is None)):
            raise UsageError("--json prints to standard output, and so would the result; name a file with -o")

    def add(self, file: str, done: Done) -> None:
        """What was made of `file`."""
        record = list_record(label(file), done.described)
        self._found.append({"output": done.place, "seconds": round(done.seconds, 3)} | record)

    def described(self, file: str, description: Description) -> None:
        """What `file` says of itself."""
        self._found.append(list_record(file, description))

    def failed(self, file: str, error: Exception, code: int) -> None:
        stage = error.stage if isinstance(error, DamagedFileError) else None
        about = {"class": type(error).__name__, "message": explain(error), "exit_code": code, "stage": stage}
        self._found.append({"file": file, "error": about})

    def skipped(self, reasons: Mapping[str, str]) -> None:
        """Inputs that were left out, and why."""
        self._found += [{"file": label(file), "skipped": reason} for file, reason in reasons.items()]

    @property
    def document(self) -> str | None:
        """What is to be printed, if anything is."""
        return json.dumps({"cramzip": __version__, "files": self._found}, indent=2) if self._wanted else None
