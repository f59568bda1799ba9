"""compress and decompress as a library: exact for any bytes, or an error."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import TINY_MODEL
from test_tokens import AWKWARD

import cramzip
from cramzip import CramConfig, bench, codec, container, describe, encode
from cramzip.errors import CramError, DamagedFileError, UsageError, WrongModelError
from cramzip.lm import FrozenLM

FAST = CramConfig(effort=1, vectors=16)
TEXT = b"Call me Ishmael. Some years ago - never mind how long precisely - having little or no money in my purse."


pytestmark = pytest.mark.usefixtures("long_chunks")


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(scope="module")
def blob(lm, long_chunks):
    return cramzip.compress(TEXT, lm, FAST)


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
def test_awkward_inputs_come_back(lm, data, exact):
    blob = cramzip.compress(data, lm, CramConfig(effort=1, vectors=2, exact=exact))
    assert cramzip.decompress(blob, lm) == data


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_any_bytes_come_back(lm, data):
    assert cramzip.decompress(cramzip.compress(data, lm, CramConfig(effort=1)), lm) == data


def test_a_hundred_million_zeros_come_back(lm):
    data = bytes(100_000_000)
    blob = cramzip.compress(data, lm, FAST)
    assert len(blob) < 20_000
    assert cramzip.decompress(blob, lm) == data


def test_text_after_other_data_is_crammed_and_the_rest_stored(lm):
    noise = random.Random(0).randbytes(2**16)
    blob = cramzip.compress(noise + TEXT, lm, FAST)
    description = describe.describe(blob)
    assert description.n_crammed > 0
    assert description.stored_bytes > 2**16
    assert cramzip.decompress(blob, lm) == noise + TEXT


def test_a_file_of_stored_chunks_needs_no_model(lm):
    data = random.Random(0).randbytes(5000)
    assert cramzip.decompress(cramzip.compress(data, lm, FAST)) == data


def test_a_file_of_crammed_chunks_needs_its_model(blob):
    with pytest.raises(WrongModelError, match="local:model"):
        cramzip.decompress(blob)


def test_exact_files_have_no_corrections(lm):
    description = describe.describe(cramzip.compress(TEXT, lm, CramConfig(effort=3, vectors=2, exact=True)))
    assert description.n_crammed > 0
    assert description.n_corrections == 0


def test_the_file_of_these_tests_has_chunks_of_several_tokens_and_corrections(blob):
    description = describe.describe(blob)
    assert description.n_crammed > 1
    assert description.n_corrections > 0
    assert description.n_tokens > 3 * description.n_crammed


@pytest.mark.parametrize("start", [-1, len(TEXT) + 1])
def test_a_part_that_begins_outside_the_file_is_a_usage_error(lm, blob, start):
    with pytest.raises(UsageError, match="start"):
        cramzip.decompress(blob, lm, start=start, stop=start + 1)


def test_any_part_can_be_decoded_alone(lm, blob):
    for start, stop in [(0, 5), (17, 60), (60, None), (len(TEXT), None), (50, 50)]:
        assert cramzip.decompress(blob, lm, start=start, stop=stop) == TEXT[start:stop]


def test_work_that_goes_on_after_finished_groups_gives_the_same_file(lm, monkeypatch):
    monkeypatch.setattr(encode, "SEGMENT_BYTES", (40, 40))
    groups = list(codec.encode(TEXT, lm, FAST))
    assert len(groups) >= 3
    for done in range(len(groups)):
        assert list(codec.encode(TEXT, lm, FAST, finished=groups[:done])) == groups[done:]


def test_progress_adds_up_to_the_size_of_the_data(lm):
    for config in (FAST, CramConfig(effort=1, vectors=8, exact=True)):
        told = []
        list(codec.encode(TEXT + random.Random(0).randbytes(9000), lm, config, progress=told.append))
        assert sum(told) == len(TEXT) + 9000


def test_the_overhead_of_a_one_chunk_file_is_under_200_bytes(lm):
    blob = cramzip.compress(b"Hello, Ishmael", lm, CramConfig(effort=1, vectors=128), name="book.txt")
    description = describe.describe(blob)
    assert (description.n_crammed, description.n_stored) == (1, 0)
    assert description.header_bytes < 200


def test_sizes_in_a_description_add_up(blob):
    description = describe.describe(blob)
    parts = description.header_bytes + description.vector_bytes + description.correction_bytes
    assert parts + description.stored_bytes == description.file_size == len(blob)
    assert description.ratio == len(TEXT) / len(blob)


def test_vectors_of_a_file_are_tensors_that_can_be_decoded(lm, blob):
    file = cramzip.read(blob)
    for entry, mem in zip(file.entries, file.vectors, strict=True):
        if entry.kind is container.Kind.CRAMMED:
            assert mem.shape == (entry.n_vectors, lm.width)
            assert torch.isfinite(mem).all()


def test_the_entropy_bound_is_the_cost_of_the_chunks_under_the_model(lm):
    blob = cramzip.compress(b"Hello, Ishmael", lm, CramConfig(effort=1, vectors=128))
    ids = lm.tokenizer.encode(b"Hello, Ishmael")[0].ids
    expected = lm.score([ids])[0].sum() / torch.log(torch.tensor(2.0)).item()
    assert bench.entropy_bound(blob, lm) == pytest.approx(expected, rel=1e-5)


def test_vectors_that_leave_no_room_for_tokens_are_a_usage_error(lm):
    with pytest.raises(UsageError, match="positions"):
        cramzip.compress(TEXT, lm, CramConfig(vectors=lm.context))


def test_every_truncation_and_every_flipped_bit_is_an_error(lm, blob):
    for end in range(len(blob)):
        with pytest.raises(DamagedFileError):
            cramzip.decompress(blob[:end], lm)
    for position in range(len(blob)):
        damaged = bytearray(blob)
        damaged[position] ^= 1 << random.Random(position).randrange(8)
        with pytest.raises(DamagedFileError):
            cramzip.decompress(bytes(damaged), lm)


def test_randomly_damaged_files_give_errors_and_never_wrong_bytes(lm, blob):
    rng = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(blob)
        for _ in range(rng.choice([1, 1, 2, 8])):
            match rng.randrange(4):
                case 0:
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                case 1:
                    del damaged[rng.randrange(len(damaged))]
                case 2:
                    damaged.insert(rng.randrange(len(damaged)), rng.randrange(256))
                case 3:
                    start = rng.randrange(len(damaged))
                    damaged[start : start + 8] = rng.randbytes(8)
        if damaged == blob:
            continue
        with pytest.raises(CramError):
            cramzip.decompress(bytes(damaged), lm)
