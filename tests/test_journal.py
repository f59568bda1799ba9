import random
from pathlib import Path

import pytest

from cramzip import container
from cramzip.encode import Group
from cramzip.errors import InputOutputError
from cramzip.journal import Journal

IDENTITY, OTHER = bytes(32), bytes(range(32))
GROUPS = [
    Group((container.stored_chunk(b"abc"), container.stored_chunk(b"a" * 1000)), 12.5),
    Group((container.crammed_chunk(b"crammed", 2, 1, bytes(33)),), 1 / 3),
    Group((container.stored_chunk(b"end"),), 7.0),
]


@pytest.fixture
def path(folder):
    return folder / ".a.cram.journal"


def fill(path, groups=GROUPS):
    journal = Journal(path, IDENTITY)
    for group in groups:
        journal.append(group)
    journal.close(remove=False)


def resume(path, identity=IDENTITY):
    journal = Journal(path, identity)
    groups = list(journal.groups)
    journal.close(remove=False)
    return groups


def test_groups_are_found_again(path):
    fill(path)
    assert resume(path) == GROUPS


def test_a_journal_can_be_walked_again_and_again(path):
    fill(path)
    journal = Journal(path, IDENTITY)
    chunks = [chunk for group in GROUPS for chunk in group.chunks]
    assert list(journal) == chunks
    assert list(journal) == chunks
    assert journal.resumed_bytes == 1013
    assert len(journal) == 3


def test_groups_are_added_after_those_of_earlier_runs(path):
    for index in range(3):
        fill(path, GROUPS[index : index + 1])
    assert resume(path) == GROUPS


def test_every_torn_tail_is_cut_off(path):
    fill(path)
    whole = path.read_bytes()
    ends = [len(whole) - size for size in range(len(whole))]
    for end in random.Random(0).sample(ends, 100):
        path.write_bytes(whole[:end])
        found = resume(path)
        assert found == GROUPS[: len(found)]
        fill(path, GROUPS[len(found) :])
        assert path.read_bytes() == whole


def test_a_flipped_bit_ends_the_journal(path):
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert resume(path) == GROUPS[:2]


def test_the_journal_of_another_job_is_begun_anew(path):
    fill(path)
    journal = Journal(path, OTHER)
    assert journal.discarded
    assert list(journal) == []
    journal.close(remove=False)
    assert not Journal(path, OTHER).discarded


def test_another_file_of_that_name_is_left_alone(path):
    path.write_bytes(b"my own notes")
    with pytest.raises(InputOutputError, match="not a journal"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == b"my own notes"


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
    for group in GROUPS:
        journal.append(group)
    assert list(journal.groups) == GROUPS
    journal.close(remove=True)
