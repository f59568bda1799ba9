"""Locks on open files: one process at a time, and no harm where there are none."""

import errno
import os
import subprocess
import sys

import pytest

from cramzip import locks
from cramzip.laboratory.store import Store
from cramzip.locks import lock


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    return path


def refuse(monkeypatch, number):
    def flock(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(locks.fcntl, "flock", flock)


def test_a_file_is_locked_once_and_free_again_when_it_is_closed(path):
    with path.open("r+b") as first, path.open("r+b") as second:
        assert lock(first)
        with pytest.raises(BlockingIOError):
            lock(second)
    with path.open("r+b") as third:
        assert lock(third.fileno())


def test_who_waits_gets_the_lock_when_the_other_process_ends(path):
    program = (
        "import sys\nfrom cramzip.locks import lock\n"
        "file = open(sys.argv[1], 'r+b')\nlock(file)\nprint(flush=True)\nsys.stdin.read()\nfile.write(b'done')"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other, path.open("r+b") as file:
        other.stdout.readline()
        other.stdin.close()
        assert lock(file, wait=True)
        assert file.read() == b"done"


@pytest.mark.parametrize("number", locks.NO_LOCKS, ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_no_error(path, monkeypatch, number):
    refuse(monkeypatch, number)
    with path.open("r+b") as file:
        assert not lock(file)
        assert not lock(file, wait=True)


def test_any_other_failure_is_an_error(path, monkeypatch):
    refuse(monkeypatch, errno.EIO)
    with path.open("r+b") as file, pytest.raises(OSError, match="no"):
        lock(file)


class Windows:
    """What Windows does with locks of bytes; `taken` are those that have one."""

    LK_NBLCK = 2

    def __init__(self):
        self.taken = set()

    def locking(self, descriptor, mode, n_bytes):
        assert (mode, n_bytes) == (self.LK_NBLCK, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == locks.LOCKED_BYTE
        inode = os.fstat(descriptor).st_ino
        if inode in self.taken:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.taken.add(inode)


def test_on_windows_a_byte_far_away_is_locked(path, monkeypatch):
    windows = Windows()
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", windows)
    monkeypatch.setattr(locks, "PATIENCE", 0)
    path.write_bytes(b"twelve bytes")
    with path.open("r+b") as first, path.open("r+b", buffering=0) as second:
        first.read(3)
        assert lock(first)
        assert first.read() == b"lve bytes"
        second.seek(7)
        with pytest.raises(BlockingIOError):
            lock(second)
        assert second.read() == b"bytes"
        monkeypatch.setattr(locks.time, "sleep", lambda _: windows.taken.clear())
        assert lock(second, wait=True)
        monkeypatch.setattr(windows, "locking", lambda *_: os.close(-1))
        with pytest.raises(OSError, match="Bad file"):
            lock(first)
    assert path.stat().st_size == 12


def test_on_a_system_without_locks_nothing_is_locked_and_records_are_kept(path):
    program = (
        "import sys\nsys.modules |= {'fcntl': None, 'msvcrt': None}\nfrom pathlib import Path\n"
        "from cramzip.laboratory.store import Store\nfrom cramzip.locks import lock\n"
        "with Path(sys.argv[1]).open('r+b') as file: assert not lock(file)\n"
        "with Store(Path(sys.argv[1])) as store: store.add({'key': {'n': 1}, 'value': 2})"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    with Store(path, read_only=True) as store:
        assert [record["value"] for record in store] == [2]


def test_records_are_kept_where_there_are_no_locks(path, monkeypatch):
    refuse(monkeypatch, errno.ENOLCK)
    with Store(path) as store:
        store.add({"key": {"n": 1}})
        assert store.get({"n": 1})
