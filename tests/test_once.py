"""Nothing is done twice on the way through a command."""

from pathlib import Path

import pytest
from models import TINY_MODEL, recital

from cramzip.container import opened, reading, stored
from cramzip.lm.frozen import FrozenLM


@pytest.fixture(scope="module")
def text():
    return recital(FrozenLM.load(TINY_MODEL), 120)


@pytest.fixture
def counted(monkeypatch):
    """How often functions were called: `counted(module, name)` gives the list of what they were given."""

    def count(module, name):
        function, calls = getattr(module, name), []

        def counting(*arguments):
            calls.append(arguments)
            return function(*arguments)

        monkeypatch.setattr(module, name, counting)
        return calls

    return count


@pytest.fixture
def crammed(cramzip, text, never_stored):
    """A file of several groups with vectors."""
    Path("a.txt").write_bytes(text)
    assert cramzip("c", "-m", TINY_MODEL, "--vectors", 1, "-1", "a.txt").exit_code == 0
    return Path("a.cram")


@pytest.mark.parametrize("command", ["d", "t"])
def test_a_file_is_parsed_once_and_its_vectors_are_unpacked_once(cramzip, crammed, counted, command):
    file = reading.read(crammed.read_bytes())
    n_vectors = sum(len(opened.vectors(group, file.header)) for group in file)
    assert n_vectors
    parsed, unpacked = counted(reading, "read_table"), counted(opened, "unpack")
    how = ["-f"] if command == "d" else []
    assert cramzip(command, *how, "-m", TINY_MODEL, "a.cram").exit_code == 0
    assert len(parsed) == 1
    assert sum(n for _, n, _, _ in unpacked) == n_vectors


def test_listing_unpacks_no_vectors(cramzip, crammed, counted):
    parsed, unpacked = counted(reading, "read_table"), counted(opened, "unpack")
    assert cramzip("l", "-v", "a.cram").exit_code == 0
    assert (len(parsed), len(unpacked)) == (1, 0)


def test_compressing_parses_and_unpacks_once_what_it_verifies(cramzip, text, never_stored, counted):
    Path("a.txt").write_bytes(text)
    parsed, unpacked = counted(reading, "read_table"), counted(opened, "unpack")
    assert cramzip("c", "-m", TINY_MODEL, "--vectors", 1, "-1", "a.txt").exit_code == 0
    file = reading.read(Path("a.cram").read_bytes())
    assert len(parsed) == 2  # by the command, and here
    assert sum(n for _, n, _, _ in unpacked) == sum(len(opened.vectors(group, file.header)) for group in file)


def test_data_that_is_stored_is_packed_once(cramzip):
    Path("a.bin").write_bytes(bytes(range(256)) * 64)
    stored._packed.cache_clear()
    assert cramzip("c", "-m", TINY_MODEL, "a.bin").exit_code == 0
    assert stored._packed.cache_info().misses == 1


def test_bench_decodes_a_file_once(cramzip, text, never_stored, short_runs, counted):
    from cramzip.coding import decode

    Path("a.txt").write_bytes(text)
    decoded = counted(decode, "_decode_chunk")
    assert cramzip("c", "-m", TINY_MODEL, "--vectors", 1, "-1", "a.txt").exit_code == 0
    n_chunks = len(decoded)
    decoded.clear()
    assert cramzip("bench", "--settings", "default", "-m", TINY_MODEL, "--vectors", 1, "-1", "a.txt").exit_code == 0
    assert len(decoded) == n_chunks
