"""`python -m cramzip`, and the `cramzip` command."""

from __future__ import annotations

import os
import sys

EXIT_INTERRUPTED = 130
RARELY = 100_000  # new objects between two searches for circles of garbage: what is imported stays


def main() -> None:
    """Run the command line. Ctrl-C is one line and an exit code, also while modules are still being loaded."""
    try:
        _run()
    except KeyboardInterrupt:
        print("cramzip: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _run() -> None:
    """A polite kill cleans up like Ctrl-C does; no name is too strange to be printed."""
    import gc
    import signal

    gc.set_threshold(RARELY)
    _let_threads_sleep()
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


def _let_threads_sleep() -> None:
    """Threads of OpenMP, which torch brings along, shall sleep while they wait, before anything loads it.

    Left to themselves they spin: beside one busy process, work of 5 seconds was seen to take 75.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's; exact arithmetic has threads of its own
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["KMP_BLOCKTIME"] = "0"  # Intel's and LLVM's
    os.environ.pop("GOMP_SPINCOUNT", None)


if __name__ == "__main__":
    main()
