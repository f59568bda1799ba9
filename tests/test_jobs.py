"""What happens while a job is running: a Console that meddles stands in for the world outside."""

import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from models import TINY_MODEL, recital

from cramzip.app import jobs
from cramzip.app.console import Console
from cramzip.app.destination import Destination
from cramzip.coding.parameters import Expectation
from cramzip.config import CramConfig
from cramzip.container import reading
from cramzip.errors import InputOutputError, VerificationError
from cramzip.lm.devices import DEVICES
from cramzip.lm.models import as_torch, load

TEXT = b"the cat sat on the mat.\n"
CONFIG = CramConfig(vectors=1, effort=1)
SEVERAL_GROUPS = bytes(2 * 2**22) + TEXT


class Meddler(Console):
    """Calls `meddle` when the progress of `label` is past `after` bytes; with -1, before it begins."""

    def __init__(self, label, meddle, after=0):
        super().__init__()
        self.__dict__ |= {"label": label, "meddle": meddle, "after": after}

    @contextmanager
    def progress(self, label, total, *, done=0, passes=1):
        remaining = [self.after - done]

        def told(n):
            remaining[0] -= n
            if label == self.label and remaining[0] < 0:
                self.meddle()

        told(0)
        yield told


def interrupt():
    raise KeyboardInterrupt


def compress(model, console, config=CONFIG, *, strip=False, **options):
    naming = jobs.Naming.NOTHING if strip else jobs.Naming.WHOLE
    return jobs.Compression(Destination(**options), lambda: model, config, console, naming, strip).run("a").described


@pytest.fixture(scope="module")
def model():
    return as_torch(load(str(TINY_MODEL)))


def entries():
    return sorted(path.name for path in Path().iterdir())


def test_a_source_that_changes_meanwhile_is_an_error_and_stays(folder, model):
    Path("a").write_bytes(TEXT)
    with pytest.raises(InputOutputError, match="changed in the meantime; nothing was written"):
        compress(model, Meddler("a", lambda: Path("a").write_bytes(b"")), remove_source=True)
    assert entries() == ["a"]


def test_a_result_that_went_into_a_pipe_after_all_is_no_reason_to_remove_the_source(folder, model):
    def appear():
        if not Path("a.cram").exists():
            Path("a.cram").symlink_to("/dev/null")

    Path("a").write_bytes(TEXT)
    compress(model, Meddler("a", appear, after=-1), remove_source=True)
    assert Path("a").read_bytes() == TEXT


def test_a_file_that_does_not_decode_is_not_kept(folder):
    model = as_torch(load(str(TINY_MODEL)))

    def forget():
        for parameter in model._model.parameters():
            parameter.zero_()

    text = recital(model, 300)
    Path("a").write_bytes(text)
    with pytest.raises(VerificationError):
        compress(model, Meddler("a", forget, after=len(text) - 1), remove_source=True)
    assert entries() == ["a"]


def test_an_interrupted_job_goes_on_and_gives_the_same_file(folder, model, capsys):
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


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize("config", [CONFIG, CramConfig(vectors=0)], ids=["vectors", "corrections alone"])
def test_modelled_groups_are_continued_as_if_nothing_had_happened(folder, model, capsys, monkeypatch, config):
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=80))  # several segments of a short text
    text = recital(model, 300)
    Path("a").write_bytes(text)
    compress(model, Console(), config, output=Path("uninterrupted"))
    with pytest.raises(KeyboardInterrupt):
        compress(model, Meddler("a", interrupt, after=200), config)
    compress(model, Console(), config)
    assert Path("a.cram").read_bytes() == Path("uninterrupted").read_bytes()

    continued = int(re.search(rf"continuing after (\d+) of {len(text)} bytes", capsys.readouterr().err)[1])
    file = reading.read(Path("a.cram").read_bytes())
    modelled = [at for at, entry in zip(file.offsets, file.entries, strict=False) if not entry.kind.is_stored]
    assert min(modelled) < continued <= max(modelled)


@pytest.mark.usefixtures("never_stored")
def test_what_vectors_gained_is_added_up_over_interruptions(folder, model, monkeypatch):
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=80))
    monkeypatch.setattr("cramzip.coding.original.Segment.gain", property(lambda segment: 10.0))
    Path("a").write_bytes(recital(model, 300))
    with pytest.raises(KeyboardInterrupt):
        compress(model, Meddler("a", interrupt, after=200))
    described = compress(model, Console())
    assert described.vector_gain == 10 * described.n_groups > 10


@pytest.mark.parametrize("strip", [False, True])
def test_the_journal_serves_a_job_that_is_stripped_or_not(folder, model, capsys, strip):
    Path("a").write_bytes(SEVERAL_GROUPS)
    with pytest.raises(KeyboardInterrupt):
        compress(model, Meddler("a", interrupt, 2**22), strip=not strip, output=Path("b"))
    described = compress(model, Console(), strip=strip, output=Path("b"))
    assert "continuing after" in capsys.readouterr().err
    assert described.header.name == (None if strip else "a")


@pytest.mark.parametrize(
    ("changed", "to", "vectors", "starts_anew"),
    [
        ("torch.get_num_threads", 99, 1, True),
        ("cramzip.coding.method.version", "99", 1, True),
        ("cramzip.coding.ranked.expected", Expectation(99.0, None, None), 1, True),
        ("cramzip.coding.ranked.expected", Expectation(99.0, None, None), 0, False),
    ],
)
def test_a_job_is_continued_only_where_no_other_groups_could_come_out(
    folder, model, capsys, monkeypatch, changed, to, vectors, starts_anew
):
    config = replace(CONFIG, vectors=vectors)
    Path("a").write_bytes(SEVERAL_GROUPS)
    with pytest.raises(KeyboardInterrupt):
        compress(model, Meddler("a", interrupt, 2**22), config)
    monkeypatch.setattr(changed, lambda *_: to)
    compress(model, Console(), config)
    assert ("starting anew" in capsys.readouterr().err) == starts_anew


def test_a_closed_standard_output_is_an_error_before_any_work(folder, model, monkeypatch):
    Path("a").write_bytes(TEXT)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputOutputError, match="standard output is closed"):
        compress(None, Console(), stdout=True)


def test_nothing_is_kept_of_a_job_that_got_nowhere(folder, model):
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
