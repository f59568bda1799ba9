"""`python -m cramzip`, and the `cramzip` command."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C is one line and an exit code, also while modules are still being loaded."""
    try:
        _run()
    except KeyboardInterrupt:
        print("cramzip: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _run() -> None:
    """A polite kill cleans up like Ctrl-C does; no name is too strange to be printed."""
    import signal

    from .app.cli import commands
    from .app.streams import MessageFile, discard_unwritten, patient_text

    sys.stdin = patient_text(sys.stdin)
    sys.stdout = patient_text(sys.stdout, "backslashreplace")
    sys.stderr = patient_text(sys.stderr, "backslashreplace", MessageFile)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        commands()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # there is nothing left to interrupt
        discard_unwritten(sys.stdout)


if __name__ == "__main__":
    main()
