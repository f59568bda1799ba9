"""Tiny models run fastest on one thread; so do the processes that tests start."""

import os
import sys
import termios
from contextlib import contextmanager

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def terminal(monkeypatch):
    """A real (pseudo-)terminal as stdin, stdout and stderr: `with terminal() as user:`, its user's side."""

    @contextmanager
    def at_terminal():
        user, program = os.openpty()
        os.set_blocking(user, False)
        termios.tcsetwinsize(user, (24, 80))
        with monkeypatch.context() as patch, os.fdopen(program, "rb", buffering=0):
            for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
                patch.setattr(sys, name, os.fdopen(os.dup(program), mode, buffering=1))
            yield os.fdopen(user, "r+b", buffering=0)

    return at_terminal


@pytest.fixture
def cramzip(folder):
    """The command line, run in `folder`: `cramzip("l", "a.cram")` gives exit_code, stdout_bytes, stdout and stderr.

    No error may escape it, and none may take more than one line for each file.
    """
    from click.testing import CliRunner

    from cramzip.cli import commands

    def run(*arguments, stdin=b""):
        result = CliRunner().invoke(commands, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.stderr
        return result

    return run
