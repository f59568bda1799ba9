"""Work that is spread over a Ray cluster: the same results in the same order, whoever dies meanwhile."""

import os
import random
import re
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from models import TINY_MODEL, recital
from test_encode import CONFIGS
from test_workers import HERE, ROOT, command, die, encode_after_a_death, fail, who

from cramzip import codec
from cramzip.coding import encode
from cramzip.container import reading
from cramzip.errors import CramError, DamagedFileError, InputOutputError, UsageError
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.workers import cluster as cluster_of
from cramzip.workers.base import do
from cramzip.workers.cluster import RayWorkers


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 400)


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=150))


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two machines, both of them this one, of one core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT)]))
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        machine = {"num_cpus": 1, "object_store_memory": 2**27}
        machines = cluster_utils.Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
        try:
            machines.add_node(**machine)
            yield machines.address
        finally:
            machines.shutdown()


@pytest.fixture(scope="module")
def ray_workers(cluster):
    with RayWorkers(cluster) as both:
        yield both


def test_ray_gives_results_in_order_from_several_processes(ray_workers, lm):
    assert ray_workers.n == 2
    pids, fingerprints, devices, _, pieces = zip(*ray_workers.map(lm, who, range(12)), strict=True)
    assert pieces == tuple(range(12))
    assert os.getpid() not in pids
    assert (set(fingerprints), set(devices)) == ({lm.fingerprint}, {"cpu"})


def test_errors_of_a_worker_come_through_ray(ray_workers, lm):
    with pytest.raises(DamagedFileError, match="cut short") as raised:
        list(ray_workers.map(lm, fail, [(DamagedFileError, "payload", "cut short")]))
    assert raised.value.stage == "payload"


def test_a_worker_of_ray_that_is_killed_changes_nothing_in_the_file(
    ray_workers, lm, text, small_segments, never_stored, monkeypatch, tmp_path, capfd
):
    alone = codec.compress(text, lm, CONFIGS["default"])
    monkeypatch.setattr(encode, "_encode_share", partial(encode_after_a_death, tmp_path / "died"))
    assert codec.compress(text, lm, CONFIGS["default"], workers=ray_workers) == alone
    assert (tmp_path / "died").exists()
    assert capfd.readouterr().out == ""


def test_a_piece_that_always_kills_its_worker_of_ray_is_an_error(ray_workers, lm, monkeypatch):
    task = ray_workers._ray.remote(do).options(num_cpus=1, max_retries=0)
    monkeypatch.setattr(ray_workers, "_task", task)
    with pytest.raises(CramError, match="workers died"):
        list(ray_workers.map(lm, die, [(None, number) for number in range(3)]))


def test_the_command_line_compresses_over_ray(cluster, folder, cramzip, text):
    Path("a").write_bytes(random.Random(0).randbytes(2**16) + text)  # two segments
    options = ("c", "-m", TINY_MODEL, "--vectors", "0", "--context", "255", "a")
    with command(*options, "--ray", cluster, "-c") as process:
        over_ray, messages = process.communicate(timeout=120)
    assert (process.returncode, messages.count(b"\n")) == (0, 1)
    assert over_ray == cramzip(*options, "-c").stdout_bytes
    assert any(entry.n_tokens for entry in reading.read(over_ray).entries)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "ray://[::1]:1"])
def test_an_address_where_nobody_answers_is_an_error_before_the_model_is_loaded(cramzip, address):
    Path("a").write_bytes(b"text")
    result = cramzip("c", "a", "--ray", address, "-m", "./no/such/model")
    assert result.exit_code == InputOutputError.exit_code
    assert re.fullmatch(rf"cramzip: a: no Ray cluster answers at {re.escape(address)}: .*\n", result.stderr)
    assert "codec" not in result.stderr  # which would be a host that could not even be looked up


def test_an_ipv6_address_is_knocked_at_without_its_brackets():
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6")
        listening.listen()
        cluster_of._knock(f"[::1]:{listening.getsockname()[1]}")


def test_a_cluster_is_called_once_for_all_files_and_only_if_there_is_work(cramzip, monkeypatch):
    called = []

    def unreachable(address):
        called.append(address)
        raise InputOutputError("nobody answers")

    monkeypatch.setattr(cluster_of, "_connect", unreachable)
    assert cramzip("c", "missing", "--ray", "127.0.0.1:1").exit_code == 1
    Path("stored.cram").write_bytes(codec.compress(b"", FrozenLM.load(TINY_MODEL)))
    assert cramzip("t", "stored.cram", "--ray", "127.0.0.1:1").exit_code == 0
    assert called == []
    for name in ("a", "b"):
        Path(name).write_bytes(b"text")
    result = cramzip("c", "a", "b", "--ray", "127.0.0.1:1")
    assert result.stderr == "cramzip: a: nobody answers\ncramzip: b: nobody answers\n"
    assert called == ["127.0.0.1:1"]


@pytest.mark.parametrize(
    "address", ["", "here", "::1:6379", "[::1]", "a b:1", "host:0", "host:65536", "h:1/x", "\udce9:1"]
)
def test_what_is_no_address_is_a_usage_error(cramzip, address):
    result = cramzip("c", "a", "--ray", address)
    assert result.exit_code == UsageError.exit_code
    assert "expected HOST:PORT, ray://HOST:PORT or auto" in result.stderr


def test_ray_that_is_not_installed_is_an_error_that_says_so(cramzip, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = cramzip("c", "a", "--ray", "auto")
    assert result.exit_code == UsageError.exit_code
    assert "pip install 'cramzip[ray]'" in result.stderr
