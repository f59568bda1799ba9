"""What happens while a job is running: a Console that meddles stands in for the world outside."""

from contextlib import contextmanager
from pathlib import Path

import pytest
from models import TINY_MODEL

from cramzip import jobs
from cramzip.console import Console
from cramzip.cram import CramConfig
from cramzip.errors import InputOutputError, VerificationError
from cramzip.jobs import Destination
from cramzip.lm import load

TEXT = b"the cat sat on the mat.\n"
SEVERAL_GROUPS = bytes(2 * 2**22) + TEXT


class Meddler(Console):
    """Calls `meddle` when the progress of `label` is past `after` bytes; with -1, before it begins."""

    def __init__(self, label, meddle, after=0):
        super().__init__()
        self.__dict__ |= {"label": label, "meddle": meddle, "after": after}

    @contextmanager
    def progress(self, label, total, *, done=0):
        remaining = [self.after - done]

        def told(n):
            remaining[0] -= n
            if label == self.label and remaining[0] < 0:
                self.meddle()

        told(0)
        yield told


def compress(model, console, **options):
    jobs.compress("a", Destination(**options), lambda: model, CramConfig(effort=1), console)


@pytest.fixture
def model():
    return load(str(TINY_MODEL))


def entries():
    return sorted(path.name for path in Path().iterdir())


def test_a_source_that_changes_meanwhile_is_an_error_and_stays(folder, model):
    Path("a").write_bytes(TEXT)
    with pytest.raises(InputOutputError, match="changed in the meantime; nothing was written"):
        compress(model, Meddler("a", lambda: Path("a").write_bytes(b"")), remove_source=True)
    assert entries() == ["a"]


def test_a_file_that_does_not_decode_is_not_kept(folder, model):
    def forget():
        for parameter in model._model.parameters():
            parameter.zero_()

    Path("a").write_bytes(TEXT)
    with pytest.raises(VerificationError):
        compress(model, Meddler("verifying", forget, after=-1), remove_source=True)
    assert entries() == ["a"]


def test_an_interrupted_job_goes_on_and_gives_the_same_file(folder, model, capsys):
    def interrupt():
        raise KeyboardInterrupt

    Path("a").write_bytes(SEVERAL_GROUPS)
    compress(model, Console(), output=Path("uninterrupted"))
    for after in (2**22, 2 * 2**22):
        with pytest.raises(KeyboardInterrupt):
            compress(model, Meddler("a", interrupt, after))
        assert entries() == [".a.cram.journal", "a", "uninterrupted"]
    compress(model, Console())
    assert entries() == ["a", "a.cram", "uninterrupted"]
    assert Path("a.cram").read_bytes() == Path("uninterrupted").read_bytes()
    assert "a.cram: continuing after 8,388,608 of 8,388,632 bytes" in capsys.readouterr().err


def test_nothing_is_kept_of_a_job_that_got_nowhere(folder, model):
    def interrupt():
        raise KeyboardInterrupt

    Path("a").write_bytes(TEXT)
    with pytest.raises(KeyboardInterrupt):
        compress(model, Meddler("a", interrupt))
    assert entries() == ["a"]


def test_memory_that_runs_out_is_an_error_and_keeps_the_journal(folder, model):
    def run_out():
        raise MemoryError

    Path("a").write_bytes(SEVERAL_GROUPS)
    with pytest.raises(MemoryError):
        compress(model, Meddler("a", run_out, 2**22))
    assert entries() == [".a.cram.journal", "a"]
