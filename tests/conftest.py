"""Tiny models run fastest on one thread; so do the processes that tests start."""

import io
import os
import select
import shutil
import signal
import sys
import tempfile
import termios
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests side by side, and what they start, would ignore
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"  # no test shall find the profiles of whoever runs it,
os.environ["XDG_CACHE_HOME"] = "/proc/nonexistent"  # nor what is known of models; nothing can be kept there, either


@pytest.fixture(scope="module")
def long_chunks():
    """Give vectors of the tiny model more than they can hold: without corrections, chunks of several tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cramzip.coding.chunking.BITS_PER_DIMENSION", 0.8)
        yield


@pytest.fixture
def never_stored(monkeypatch):
    """Groups of text need the model, however much smaller they would be if they were stored."""

    def size(entries):
        return sum(entry.payload_size + 2**32 * entry.kind.is_stored * entry.size for entry in entries)

    monkeypatch.setattr("cramzip.container.writing.entries_size", size)
    monkeypatch.setattr("cramzip.container.writing.file_size", lambda header, entries: 0)


@pytest.fixture(scope="module")
def short_runs():
    """`bench` does not repeat what is fast until its time is measured well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cramzip.app.bench.LEAST_SECONDS", 0.001)
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def little_room():
    """`with little_room(1000):` no file can grow beyond so many bytes, as on a disk that is full then."""
    import resource

    @contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


class User(io.FileIO):
    """The user's side of a terminal. What a program writes can arrive late: reading ends when nothing more comes."""

    def read(self, size=-1):
        shown = b""
        while select.select([self], [], [], 0.2)[0]:
            shown += super().read(size)
        return shown


@pytest.fixture
def own_folder():
    """A folder of an ordinary user, who root becomes for the time of the test: root may do everything."""
    folder, is_root = Path(tempfile.mkdtemp()), os.geteuid() == 0
    if is_root:
        os.chown(folder, 54321, -1)
        os.seteuid(54321)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


@pytest.fixture
def listings(monkeypatch):
    """The folders that are listed, in order."""
    listed = []

    def noting(original):
        def list_and_note(path="."):
            listed.append(str(path))
            return original(path)

        return list_and_note

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    return listed


@pytest.fixture
def terminal(monkeypatch):
    """A real (pseudo-)terminal as stdin, stdout and stderr: `with terminal() as user:`, its user's side."""

    @contextmanager
    def at_terminal():
        user, program = os.openpty()
        termios.tcsetwinsize(user, (24, 80))
        with monkeypatch.context() as patch, os.fdopen(program, "rb", buffering=0):
            for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
                patch.setattr(sys, name, os.fdopen(os.dup(program), mode, buffering=1))
            with User(user, "r+b") as side:
                yield side

    return at_terminal


@pytest.fixture
def cramzip(folder):
    """The command line, run in `folder`: `cramzip("l", "a.cram")` gives exit_code, stdout_bytes, stdout and stderr.

    No error may escape it, and none may take more than one line for each file.
    """
    from click.testing import CliRunner

    from cramzip.app.cli import commands

    def run(*arguments, stdin=b""):
        result = CliRunner().invoke(commands, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.stderr
        return result

    return run
