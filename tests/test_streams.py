"""Pipes and terminals with O_NONBLOCK, as other programs hand them on: nothing is lost, nothing is an error."""

import fcntl
import io
import os
import select
import subprocess
import sys
import termios
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from models import ROOT

from cramzip.app import files
from cramzip.app.console import Console
from cramzip.app.output import Output
from cramzip.app.streams import PatientFile, patient, patient_text
from cramzip.container import writing
from cramzip.container.records import Header
from cramzip.container.stored import stored_groups

TEXT = b"The harbour master kept two logs: one for the port, and one for himself."


def stored_file(content):
    sink = io.BytesIO()
    writing.write(sink, Header(len(content), sha256(content).digest()), list(stored_groups(content)))
    return sink.getvalue()


BURSTS = (stored_file(TEXT)[:3], stored_file(TEXT)[3:50], stored_file(TEXT)[50:])
MUCH = os.urandom(3 * 2**20)  # more than any pipe holds


@pytest.fixture
def pipe():
    """Both ends of a pipe with O_NONBLOCK; each is closed by whoever has it as a file."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def n_waiting(descriptor):
    """How many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def write_in_bursts(writer, watched, is_over):
    """Each burst comes some time after the one before has been read."""
    for burst in BURSTS:
        is_over.wait(0.2)
        os.write(writer, burst)
        while n_waiting(watched) and not is_over.wait(0.01):
            pass
    os.close(writer)


@pytest.fixture
def bursts(pipe):
    """The reading end of a pipe into which BURSTS come late and one by one."""
    reader, writer = pipe
    watched, is_over = os.dup(reader), threading.Event()
    thread = threading.Thread(target=write_in_bursts, args=(writer, watched, is_over))
    thread.start()
    yield reader
    is_over.set()
    thread.join()
    os.close(watched)


def all_of(descriptor):
    """Everything that comes out of a pipe, and it is read late."""
    select.select([], [], [], 0.2)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


@pytest.fixture
def read_late(pipe):
    """The writing end of a pipe, and a function that gives what came out of the other one."""
    reader, writer = pipe
    found = []
    thread = threading.Thread(target=lambda: found.append(all_of(reader)))
    thread.start()

    def result():
        thread.join()
        return found[0]

    return writer, result


# -- the streams themselves ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, 1, 10, 2**20])
def test_what_comes_late_is_waited_for(bursts, size):
    with io.BufferedReader(PatientFile(bursts, "r")) as stream:
        found = b""
        while piece := stream.read(size):
            found += piece
    assert found == b"".join(BURSTS)


@pytest.mark.parametrize("size", [-1, None, 7])
def test_without_a_buffer_too_nothing_is_taken_for_the_end(bursts, size):
    with PatientFile(bursts, "r") as stream:
        found = b""
        while piece := stream.read(size):
            found += piece
    assert found == b"".join(BURSTS)


def test_what_does_not_fit_at_once_is_written_later(read_late):
    writer, result = read_late
    with io.BufferedWriter(PatientFile(writer, "w")) as stream:
        assert stream.write(MUCH) == len(MUCH)
    assert result() == MUCH


def test_a_pipe_that_nobody_reads_any_more_is_not_waited_for(pipe):
    reader, writer = pipe
    with PatientFile(writer, "w") as stream:
        stream.write(MUCH)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            stream.write(b"more")


def test_streams_in_memory_are_left_as_they_are():
    stream, text = io.BytesIO(), io.TextIOWrapper(io.BytesIO())
    assert patient(stream) is stream
    assert patient_text(text) is text
    assert patient_text(None) is None


def test_a_patient_stream_need_not_be_made_patient_again(pipe):
    for descriptor, mode in zip(pipe, "rw", strict=True):
        with os.fdopen(descriptor, mode) as stream:
            once = patient_text(stream)
            assert once is not stream
            assert patient_text(once) is once
            assert once.encoding == stream.encoding


# -- where they are used ---------------------------------------------------------------------------


def test_standard_input_that_comes_in_bursts_is_read_to_its_end(bursts, monkeypatch):
    with os.fdopen(bursts, "r") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        source = files.read("-")
    assert bytes(source.data) == b"".join(BURSTS)


def test_standard_output_that_is_read_late_gets_the_whole_result(read_late, monkeypatch):
    writer, result = read_late
    with os.fdopen(writer, "w") as stream, Output(None) as output:
        monkeypatch.setattr(sys, "stdout", stream)
        output.file.write(MUCH)
        output.commit()
    assert result() == MUCH


def test_an_answer_at_the_terminal_is_waited_for(terminal):
    with terminal() as user:
        os.set_blocking(sys.stdin.fileno(), False)
        typing = threading.Timer(0.2, lambda: os.write(user.fileno(), b"y\n"))
        typing.start()
        assert Console().ask("sure?")
        typing.join()


def start(*arguments, **streams):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cramzip", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **streams)


def test_a_file_that_comes_in_bursts_is_decompressed(bursts):
    with start("d", "-q", stdin=bursts, stdout=subprocess.PIPE) as process:
        os.close(bursts)
        restored = process.communicate()[0]
    assert process.returncode == 0
    assert restored == TEXT


def test_messages_and_tables_wait_for_their_reader(folder, read_late):
    """With this many names, what `l --json` prints does not fit into a pipe."""
    writer, result = read_late
    with Path("a.cram").open("wb") as sink:
        writing.write(sink, Header(0, bytes(4)), [])
    with start("l", "--json", *["a.cram"] * 500, stdout=writer) as process:
        os.close(writer)
        shown = result()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert shown.count(b'"file": "a.cram"') == 500
