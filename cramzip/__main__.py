"""`python -m cramzip`, and the `cramzip` command."""

from __future__ import annotations

import signal
import sys

from .cli import commands


def main() -> None:
    """Run the command line. A polite kill cleans up like Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    commands()


if __name__ == "__main__":
    main()
