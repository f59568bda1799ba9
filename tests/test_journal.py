"""The journal: what is in it is found again, and work that goes on from it gives the same file."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from models import TINY_MODEL, recital

from cramzip import CramConfig
from cramzip.app.journal import Journal
from cramzip.coding import encode
from cramzip.coding.original import Segment
from cramzip.container.records import Kind
from cramzip.container.stored import stored_group
from cramzip.container.writing import modelled_group
from cramzip.errors import InputOutputError
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.locks import lock

IDENTITY, OTHER = bytes(32), bytes(range(32))
SEGMENTS = [
    Segment((stored_group(b"abc"), stored_group(b"a" * 1000)), 12.5, 0.0),
    Segment((modelled_group(Kind.CORRECTED, b"crammed", 2, 1, bytes(33)),), 1 / 3, 0.1),
    Segment((modelled_group(Kind.PREDICTED, b"said", 3, 0, b"\x07"),), 1 / 3, -2.5e9),
    Segment((modelled_group(Kind.RECITED, b"recited", 2, 4, bytes(range(32))), stored_group(b"end")), 7.0, 1 / 7),
]


@pytest.fixture
def path(folder):
    return folder / ".a.cram.journal"


def fill(path, segments=SEGMENTS):
    journal = Journal(path, IDENTITY)
    for segment in segments:
        journal.append(segment)
    journal.close(remove=False)


def resume(path, identity=IDENTITY):
    journal = Journal(path, identity)
    segments = list(journal.segments)
    journal.close(remove=False)
    return segments


def test_segments_are_found_again(path):
    fill(path)
    assert resume(path) == SEGMENTS


def test_capacities_and_gains_are_found_again_to_the_last_bit(path):
    fill(path)
    found = resume(path)
    assert [segment.capacity for segment in found] == [segment.capacity for segment in SEGMENTS]
    assert [segment.gain for segment in found] == [segment.gain for segment in SEGMENTS]


def test_the_gain_of_a_journal_is_that_of_all_its_segments(path):
    fill(path)
    journal = Journal(path, IDENTITY)
    assert journal.gain == sum(segment.gain for segment in SEGMENTS)
    journal.append(SEGMENTS[1])
    assert journal.gain == sum(segment.gain for segment in SEGMENTS) + SEGMENTS[1].gain
    journal.close(remove=True)


def test_a_journal_can_be_walked_again_and_again(path):
    fill(path)
    journal = Journal(path, IDENTITY)
    groups = [group for segment in SEGMENTS for group in segment.groups]
    assert list(journal) == groups
    assert list(journal) == groups
    assert journal.resumed_bytes == 1024
    assert len(journal) == 4


def test_segments_are_added_after_those_of_earlier_runs(path):
    for index in range(4):
        fill(path, SEGMENTS[index : index + 1])
    assert resume(path) == SEGMENTS


def test_every_torn_tail_is_cut_off(path):
    fill(path)
    whole = path.read_bytes()
    ends = [len(whole) - size for size in range(len(whole))]
    for end in random.Random(0).sample(ends, 100):
        path.write_bytes(whole[:end])
        found = resume(path)
        assert found == SEGMENTS[: len(found)]
        fill(path, SEGMENTS[len(found) :])
        assert path.read_bytes() == whole


def test_a_flipped_bit_ends_the_journal(path):
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert resume(path) == SEGMENTS[:3]


def test_the_journal_of_another_job_is_begun_anew(path):
    fill(path)
    journal = Journal(path, OTHER)
    assert journal.discarded
    assert list(journal) == []
    journal.close(remove=False)
    assert not Journal(path, OTHER).discarded


def test_nothing_remains_of_a_journal_that_there_is_no_room_for(path, little_room):
    for size in (3, 8, 40):
        with little_room(size), pytest.raises(OSError, match="too large") as caught:
            Journal(path, IDENTITY)
        assert caught.value.filename == str(path)
        assert not path.exists()


def test_a_segment_that_there_is_no_room_for_leaves_those_before_it(path, little_room):
    journal = Journal(path, IDENTITY)
    journal.append(SEGMENTS[0])
    size = path.stat().st_size
    with little_room(size + 20), pytest.raises(OSError, match="too large") as caught:
        journal.append(SEGMENTS[1])
    assert caught.value.filename == str(path)
    assert path.stat().st_size == size
    journal.append(SEGMENTS[2])  # there is room again
    journal.close(remove=False)
    assert resume(path) == [SEGMENTS[0], SEGMENTS[2]]


def test_another_file_of_that_name_is_left_alone(path):
    path.write_bytes(b"my own notes")
    with pytest.raises(InputOutputError, match="not a journal"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == b"my own notes"


@pytest.mark.parametrize("name", ["notes", "longer notes"])
def test_another_file_of_that_name_is_let_go(path, name):
    path.write_bytes(name.encode())
    with pytest.raises(InputOutputError, match="not a journal"):
        Journal(path, IDENTITY)
    with path.open("rb") as file:
        lock(file)  # BlockingIOError if the other still had it


@pytest.mark.parametrize("begin", [b"\0" * 8, b"CRAMZIPK", b"garbage!"])
def test_a_journal_whose_beginning_is_damaged_is_continued(path, begin):
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(begin + whole[8:])
    assert resume(path) == SEGMENTS
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [4, 8, 4096])
def test_what_a_power_failure_left_of_a_journal_is_begun_anew(path, size):
    path.write_bytes(bytes(size))
    assert resume(path) == []
    fill(path)
    assert resume(path) == SEGMENTS


def test_two_processes_cannot_have_it_at_once(path):
    first = Journal(path, IDENTITY)
    with pytest.raises(InputOutputError, match="another cramzip"):
        Journal(path, IDENTITY)
    first.close(remove=True)
    Journal(path, IDENTITY).close(remove=True)


def test_links_are_not_followed(path):
    Path("precious").write_bytes(b"")
    path.symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"):
        Journal(path, IDENTITY)


def test_it_is_for_its_owner_alone(path):
    fill(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_goes_when_the_work_is_done(path):
    Journal(path, IDENTITY).close(remove=True)
    assert not path.exists()


def test_without_a_path_it_works_the_same():
    journal = Journal(None, IDENTITY)
    for segment in SEGMENTS:
        journal.append(segment)
    assert list(journal.segments) == SEGMENTS
    journal.close(remove=True)


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize(
    "config",
    [
        CramConfig(vectors=0, chunk_tokens=24, context=10),
        CramConfig(vectors=1, effort=1, chunk_tokens=24, context=10),
        CramConfig(effort=1, vectors=2, exact=True),
    ],
    ids=["no vectors", "default", "exact"],
)
def test_work_that_is_interrupted_after_any_segment_gives_the_same_groups(path, monkeypatch, config):
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=30))
    monkeypatch.setattr("cramzip.coding.recited.SEGMENT_BYTES", (10, 10))
    lm = FrozenLM.load(TINY_MODEL)
    data, writer = recital(lm, 60), encode.Writer(lm, config)
    data = data[:30] if config.exact else data
    whole = list(writer.segments(data))
    assert len(whole) > 2
    while len(done := resume(path)) < len(whole):  # a run for each segment, killed after it
        journal = Journal(path, IDENTITY)
        journal.append(next(writer.segments(data, finished=journal.segments)))
        journal.close(remove=False)
    assert done == whole
