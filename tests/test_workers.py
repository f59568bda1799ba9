"""Work that is spread: the same results in the same order, whoever dies meanwhile."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from models import PROSE, TINY_MODEL, make_model, recital, restored, segments_of
from test_encode import CONFIGS, every_config

from cramzip import codec
from cramzip.coding import corrected, encode, restore
from cramzip.container import reading, writing
from cramzip.container.records import Entry, Group, Kind
from cramzip.errors import CramError, DamagedFileError, MissingModelError, UsageError, WrongModelError
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.workers import base as workers
from cramzip.workers import processes
from cramzip.workers.base import LOOK_AHEAD, Work, WorkerModel
from cramzip.workers.processes import LocalWorkers, default_jobs

HERE = Path(__file__).parent
ROOT = HERE.parent


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 900)


PRELOADED = [
    *(f"transformers.models.llama.{name}" for name in ("modeling_llama", "tokenization_llama")),
    *(f"cramzip.coding.{name}" for name in ("encode", "restore")),
]


class ForkedWorkers(LocalWorkers):
    """Workers that are forked off a process that has loaded torch: after a death the next are there at once."""

    def _open(self):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(multiprocessing, "get_context", lambda method: context)
            super()._open()


@pytest.fixture(scope="module")
def two():
    with ForkedWorkers(2) as both:
        yield both


def who(lm, piece):
    return os.getpid(), lm.fingerprint, lm.device, torch.get_num_threads(), piece


def die(lm, piece):
    """What kills a worker that lets nobody know: with `mark`, only the first that comes across it."""
    mark, number = piece
    if number == 2 and (mark is None or not mark.exists()):
        if mark is not None:
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(lm, piece):
    kind, *arguments = piece
    raise kind(*arguments)


def stay(lm, mark):
    """Work that has begun, says by whom, and does not end by itself."""
    mark.with_suffix(".part").write_text(str(os.getpid()))
    mark.with_suffix(".part").rename(mark)
    time.sleep(600)


def encode_after_a_death(mark, lm, part):
    die(lm, (mark, 2))
    return encode_never_stored(lm, part)


def encode_never_stored(lm, part):
    """A segment, all of whose text needs the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "entries_size", lambda entries: sum(entry.kind.is_stored for entry in entries))
        return encode_part(lm, part)


encode_part = encode._encode_share


# -- results ---------------------------------------------------------------------------------------


def test_results_come_in_order_from_several_processes_that_have_the_model(lm):
    with LocalWorkers(2) as spawned:
        found = list(spawned.map(lm, who, range(20)))
    pids, fingerprints, devices, threads, pieces = zip(*found, strict=True)
    assert pieces == tuple(range(20))
    assert os.getpid() not in pids
    assert 1 <= len(set(pids)) <= 2
    assert set(fingerprints) == {lm.fingerprint}
    assert set(devices) == {lm.device}
    assert set(threads) == {max(1, torch.get_num_threads() // 2)}


def test_few_pieces_are_ahead_of_the_result_that_is_waited_for(two, lm):
    drawn = []
    results = two.map(lm, who, (drawn.append(piece) or piece for piece in range(100)))
    for done in range(1, 10):
        next(results)
        assert done <= len(drawn) < done + 2 * LOOK_AHEAD
    results.close()
    assert len(drawn) < 10 + 2 * LOOK_AHEAD


@pytest.mark.parametrize(
    "piece",
    [
        (CramError, "a plain one"),
        (UsageError, "of no use"),
        (DamagedFileError, "payload", "cut short"),
        (MissingModelError, "a/b"),
        (MemoryError, "no more"),
        (FileNotFoundError, 2, "No such file", "book.txt"),
    ],
    ids=lambda piece: piece[0].__name__,
)
def test_errors_of_a_worker_are_raised_as_they_were(two, lm, piece):
    error = piece[0](*piece[1:])
    with pytest.raises(CramError if isinstance(error, CramError) else type(error)) as raised:
        list(two.map(lm, fail, [piece]))
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert raised.value.__dict__.items() >= error.__dict__.items()
    assert "in fail" in raised.value.__notes__[0]


def test_workers_go_on_after_an_error(two, lm):
    with pytest.raises(UsageError):
        list(two.map(lm, fail, [(UsageError, "of no use")] * 9))
    assert [found[-1] for found in two.map(lm, who, "abc")] == ["a", "b", "c"]


# -- models ----------------------------------------------------------------------------------------


def test_workers_take_the_model_that_the_work_needs(two, lm, tmp_path):
    make_model("llama", tmp_path)
    other = FrozenLM.load(tmp_path)
    for model in (other, lm):
        assert {found[1] for found in two.map(model, who, range(3))} == {model.fingerprint}


def test_a_worker_that_finds_another_model_is_an_error(two, tmp_path):
    make_model("llama", tmp_path)
    model = FrozenLM.load(tmp_path)
    model.source.fingerprint  # noqa: B018  as read before the files change
    make_model("qwen3", tmp_path)
    with pytest.raises(WrongModelError, match="Model_Fingerprint"):
        list(two.map(model, who, range(3)))


def test_a_model_that_is_not_where_the_worker_is_is_an_error(two, lm):
    elsewhere = FrozenLM.load(TINY_MODEL)
    elsewhere.source = replace(lm.source, path=Path("/nowhere/model"))
    with pytest.raises(CramError, match="/nowhere/model is not on the machine of a worker"):
        list(two.map(elsewhere, who, range(3)))


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=300))
    monkeypatch.setattr("cramzip.coding.recited.SEGMENT_BYTES", (20, 20))


@every_config
def test_any_number_of_workers_makes_the_same_file(two, lm, text, small_segments, never_stored, monkeypatch, config):
    monkeypatch.setattr(encode, "_encode_share", encode_never_stored)
    data = text[:60] if config.exact else text
    told = []
    alone = codec.compress(data, lm, config)
    segments = segments_of(data, lm, config, workers=two, progress=told.append)
    assert len(segments) > 2
    assert any(group.entry.n_tokens for group in segments[-1].groups)
    assert [group for segment in segments for group in segment.groups] == list(reading.read(alone))
    assert sum(told) == len(data)
    assert codec.compress(data, lm, config, workers=two) == alone


@every_config
def test_work_that_goes_on_with_workers_gives_the_same_groups(two, lm, text, small_segments, config):
    data = text[:60] if config.exact else text
    segments = segments_of(data, lm, config)
    for done in (1, 2, len(segments)):
        assert segments_of(data, lm, config, finished=segments[:done], workers=two) == segments[done:]


@pytest.mark.parametrize("window", [2**22, 400])
def test_groups_are_decoded_by_workers(two, lm, text, small_segments, never_stored, monkeypatch, window):
    monkeypatch.setattr(restore, "WINDOW_BYTES", window)
    monkeypatch.setattr(corrected, "GROUP_TOKENS", 70)
    stored = bytes(range(256)) * 256
    blob = codec.compress(text + stored + PROSE, lm, CONFIGS["no vectors"])
    told, decoded = [], []
    monkeypatch.setattr(restore, "decode_groups", lambda *what: decoded.append(what))
    assert b"".join(restored(blob, lm, workers=two, progress=told.append)) == text + stored + PROSE
    assert not decoded  # here
    assert sum(told) == len(text + stored + PROSE)


def test_data_of_one_segment_and_files_of_one_group_start_no_worker(lm, text):
    with LocalWorkers(2) as idle:
        blob = codec.compress(text[:200], lm, CONFIGS["no vectors"], workers=idle)
        assert b"".join(restored(blob, lm, workers=idle)) == text[:200]
        assert idle._pool is None


@pytest.mark.parametrize(("sizes", "n", "most"), [([5, 4, 3, 2, 1, 1], 2, 1), ([9], 4, 0), ([1] * 7, 3, 1)])
def test_groups_are_dealt_evenly(sizes, n, most):
    groups = [group_of(size) for size in [0, *sizes, 0]]
    dealt = restore._deal(groups, n)
    assert sorted(index for indices in dealt for index in indices) == list(range(1, len(sizes) + 1))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= most
    assert len(dealt) == min(n, len(sizes))


def group_of(n_tokens):
    kind = Kind.PREDICTED if n_tokens else Kind.RAW
    return Group(Entry(kind, n_tokens, n_tokens, None, None, n_tokens), b"")


# -- deaths ----------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_loses_nothing(two, lm, tmp_path):
    assert list(two.map(lm, die, [(tmp_path / "died", number) for number in range(9)])) == list(range(9))
    assert (tmp_path / "died").exists()


def test_a_worker_that_is_killed_changes_nothing_in_the_file(
    two, lm, text, small_segments, never_stored, monkeypatch, tmp_path
):
    alone = codec.compress(text, lm, CONFIGS["default"])
    monkeypatch.setattr(encode, "_encode_share", partial(encode_after_a_death, tmp_path / "died"))
    assert codec.compress(text, lm, CONFIGS["default"], workers=two) == alone
    assert (tmp_path / "died").exists()


def test_a_piece_that_always_kills_its_worker_is_an_error_after_the_results_before_it(two, lm, monkeypatch):
    monkeypatch.setattr(processes, "MOST_DEATHS", 1)
    results = two.map(lm, die, [(None, number) for number in range(9)])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(CramError, match="workers died 2 times"):
        next(results)
    assert [found[-1] for found in two.map(lm, who, "abc")] == ["a", "b", "c"]


def test_closing_ends_workers_in_the_middle_of_their_work(lm, tmp_path):
    with LocalWorkers(1) as one:
        results = one.map(lm, stay, [tmp_path / "begun", tmp_path / "waiting"])
        begun = one._begin(Work(one._model(lm), stay, tmp_path / "begun"))
        pid = int(written(tmp_path / "begun"))
    assert not psutil.pid_exists(pid)
    assert begun.future.exception() is not None
    results.close()


def written(path, seconds=60):
    """What somebody else writes into a file, as soon as it is there."""
    for _ in range(10 * seconds):
        if path.exists():
            return path.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{path} has not appeared")


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
if __name__ == "__main__":
    from cramzip.lm.frozen import FrozenLM
    from cramzip.workers.processes import LocalWorkers
    from test_workers import stay
    with LocalWorkers(1) as one:
        list(one.map(FrozenLM.load({model!r}), stay, [Path("begun")]))
"""


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT.format(tests=str(HERE), model=str(TINY_MODEL)))
    process = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path)
    try:
        worker = psutil.Process(int(written(tmp_path / "begun")))
    finally:
        process.kill()
        process.wait()
    worker.wait(30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_job_ends_it_quietly(folder, number, code):
    """As Ctrl-C at a terminal, while the workers are only beginning; again where Python has lost the first."""
    words = random.Random(0).choices(PROSE.split(), k=10**5)
    Path("a").write_bytes(b" ".join(words))
    with command("c", "-j2", "--ranks", "-m", TINY_MODEL, "a") as process:
        children = started(process.pid, 2)
        for _ in range(3):
            os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
                break
        assert process.returncode == code
        assert not psutil.wait_procs(children, timeout=30)[1]
        assert b"Traceback" not in process.stderr.read()
    assert not Path("a.cram").exists()


@contextmanager
def command(*arguments):
    """The command line as a process that leads a group of its own."""
    line = [sys.executable, "-m", "cramzip", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, **streams, start_new_session=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        process.wait()


def started(pid, n, seconds=30):
    """The workers of a process, as soon as there are `n`."""
    for _ in range(20 * seconds):
        children = [one for one in psutil.Process(pid).children() if "spawn_main" in " ".join(one.cmdline())]
        if len(children) >= n:
            return children
        time.sleep(0.05)
    raise AssertionError("no workers")


# -- the command line ------------------------------------------------------------------------------


def test_files_of_any_number_of_jobs_are_the_same_and_open_with_any(
    cramzip, lm, text, small_segments, never_stored, monkeypatch
):
    monkeypatch.setattr(encode, "_encode_share", encode_never_stored)
    monkeypatch.setattr(processes, "LocalWorkers", ForkedWorkers)
    data = text * 2
    Path("a").write_bytes(data)
    for jobs, name in ((1, "one.cram"), (2, "two.cram")):
        assert cramzip("c", "-m", TINY_MODEL, "--vectors", 0, "-j", jobs, "a", "-o", name).exit_code == 0
    assert Path("one.cram").read_bytes() == Path("two.cram").read_bytes()
    assert cramzip("t", "-m", TINY_MODEL, "--jobs", 2, "one.cram").exit_code == 0
    assert cramzip("d", "-m", TINY_MODEL, "--jobs", 2, "one.cram", "-c").stdout_bytes == data


def test_zero_jobs_are_as_many_as_there_are_gpus_or_cores(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert default_jobs() == 8
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert default_jobs() == len(os.sched_getaffinity(0))


def test_workers_with_a_gpu_each_take_them_in_turn(monkeypatch, lm):
    taken = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setattr("cramzip.lm.frozen.FrozenLM", lambda source, device: lm)
    for number in range(4):
        monkeypatch.setattr(workers, "number", number)
        WorkerModel.of(lm, "cuda", None).load()
    assert taken == [0, 1, 0, 1]


def test_a_worker_of_another_version_is_an_error(lm):
    with pytest.raises(CramError, match="is to work with 99"):
        replace(WorkerModel.of(lm, "cpu", None), version="99").load()


@pytest.mark.parametrize("counted", [3, None])
def test_where_no_system_says_which_cores_are_free_they_are_counted(monkeypatch, counted):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert default_jobs() == (counted or 1)
