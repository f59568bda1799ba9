"""`python -m cramzip`, and the `cramzip` command."""

from __future__ import annotations

import signal
import sys

from .app.cli import commands
from .app.streams import MessageFile, discard_unwritten, patient_text


def main() -> None:
    """Run the command line. A polite kill cleans up like Ctrl-C does; no name is too strange to be printed."""
    sys.stdin = patient_text(sys.stdin)
    sys.stdout = patient_text(sys.stdout, "backslashreplace")
    sys.stderr = patient_text(sys.stderr, "backslashreplace", MessageFile)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        commands()
    finally:
        discard_unwritten(sys.stdout)


if __name__ == "__main__":
    main()
