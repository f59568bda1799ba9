"""`python -m cramzip`, and the `cramzip` command."""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper

from .cli import commands


def main() -> None:
    """Run the command line. A polite kill cleans up like Ctrl-C does; no name is too strange to be printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    commands()


if __name__ == "__main__":
    main()
