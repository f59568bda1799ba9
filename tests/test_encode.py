"""Bytes to groups: how they are cut, what is stored, what is tried again, and how work goes on."""

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from models import PROSE, TINY_MODEL, recital, segments_of

from cramzip import CramConfig
from cramzip.coding import corrected, recited
from cramzip.coding.encode import Writer
from cramzip.coding.parameters import choose_parameters, expected
from cramzip.coding.quantize import dequantize, quantize
from cramzip.coding.view import Chunk
from cramzip.container import opened
from cramzip.container.records import STANDARD, Header, Kind, OutsideModel, Vectors
from cramzip.container.stored import stored_content
from cramzip.errors import ModelError, UsageError
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM

NOISE = random.Random(0).randbytes(2**16)
CONFIGS = {
    "no vectors": CramConfig(vectors=0, chunk_tokens=24, context=10),
    "default": CramConfig(vectors=1, effort=1, chunk_tokens=24, context=10),
    "exact": CramConfig(effort=1, vectors=2, exact=True),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 150)


@pytest.fixture
def small_segments(monkeypatch, never_stored):
    """Small ones, all of whose text needs the model."""
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], segment_bytes=60))
    monkeypatch.setattr("cramzip.coding.recited.SEGMENT_BYTES", (20, 20))


def groups_of(data, lm, config, **how):
    return [group for segment in segments_of(data, lm, config, **how) for group in segment.groups]


# -- parameters ------------------------------------------------------------------------------------


def parameters_for(positions, noise=0.0, n_parameters=10**9, after_start=False, **options):
    model = SimpleNamespace(
        model_id="local:x",
        context=positions,
        noise=noise,
        start=0,
        n_parameters=n_parameters,
        vectors_after_start=after_start,
    )
    return choose_parameters(model, CramConfig(**options))


def test_a_small_model_of_a_thousand_positions_and_little_noise_has_the_standard_parameters():
    assert parameters_for(1024, n_parameters=10**7, vectors=0) == STANDARD
    assert parameters_for(1024) == STANDARD


def test_there_is_room_for_a_start_token_before_vectors():
    assert parameters_for(1024, after_start=True).chunk_tokens == 767
    assert parameters_for(1024, after_start=True, vectors=0) == parameters_for(1024, vectors=0)
    assert parameters_for(1024, after_start=True, exact=True).chunk_tokens == 1022


@pytest.mark.parametrize(
    ("positions", "options", "chunk", "context"),
    [
        (1024, {"vectors": 0}, 512, 511),
        (1024, {"vectors": 1}, 768, 255),
        (1024, {"vectors": 24}, 750, 250),
        (512, {"vectors": 0}, 256, 255),
        (4096, {"vectors": 0}, 512, 511),
        (None, {"vectors": 0}, 512, 511),
        (1024, {"vectors": 0, "context": 0}, 1023, 0),
        (1024, {"vectors": 4, "context": 20}, 1000, 20),
        (1024, {"chunk_tokens": 100}, 100, 923),
        (1024, {"chunk_tokens": 100, "context": 50}, 100, 50),
        (1024, {"chunk_tokens": 1, "context": 0}, 1, 0),
        (1024, {"chunk_tokens": 1000, "context": 23}, 1000, 23),
        (4096, {"chunk_tokens": 2000, "context": 1000}, 2000, 1000),
        (4096, {"chunk_tokens": 2000}, 2000, 0),
        (None, {"chunk_tokens": 5000, "context": 5000}, 5000, 5000),
        (4096, {"context": 2000}, 512, 2000),
        (None, {"context": 5000}, 512, 5000),
        (None, {"vectors": 2000}, 384, 128),
        (2, {"vectors": 0}, 1, 0),
        (3, {"vectors": 1}, 2, 0),
        (1024, {"exact": True}, 1023, 0),
        (8192, {"exact": True}, 4096, 0),
        (None, {"exact": True}, 4096, 0),
    ],
)
def test_chunks_and_their_contexts_fill_what_the_model_sees(positions, options, chunk, context):
    found = parameters_for(positions, **options)
    assert (found.chunk_tokens, found.context_tokens) == (chunk, context)


@pytest.mark.parametrize(
    ("positions", "options"),
    [
        (512, {"vectors": 512}),
        (512, {"vectors": 512, "exact": True}),
        (512, {"chunk_tokens": 512}),
        (512, {"chunk_tokens": 500, "context": 12}),
        (512, {"context": 511}),
        (512, {"vectors": 10, "context": 502}),
        (1, {"vectors": 0}),
    ],
)
def test_what_the_model_cannot_see_at_once_is_a_usage_error(positions, options):
    with pytest.raises(UsageError, match=f"{positions} positions"):
        parameters_for(positions, **options)


@pytest.mark.parametrize(
    ("noise", "exponent"),
    [
        (0.0, 14),
        (2.0**-16, 14),
        (2.0**-15, 14),
        (1.01 * 2.0**-15, 13),
        (2.0**-14, 13),
        (2.0**-9, 8),
        (0.1, 2),
        (0.5, 0),
    ],
)
def test_files_withstand_twice_the_noise_that_was_seen(noise, exponent):
    parameters = parameters_for(1024, noise)
    assert parameters.noise_exponent == exponent
    assert parameters.noise_bound >= 2 * noise


@pytest.mark.parametrize("noise", [0.51, float("inf"), float("nan")])
def test_a_model_so_uncertain_that_no_file_could_withstand_it_is_refused(noise):
    with pytest.raises(ModelError, match="more than files can withstand"):
        parameters_for(1024, noise)


def test_the_start_token_is_that_of_the_model(lm):
    assert choose_parameters(lm, CramConfig()).start_token == lm.start == 272


def test_a_noise_exponent_that_is_given_is_taken():
    assert parameters_for(1024, 1.0, noise_exponent=15).noise_exponent == 15


# -- groups ----------------------------------------------------------------------------------------


@every_config
def test_groups_are_in_order_and_cover_all_bytes(lm, text, small_segments, config):
    data = NOISE + (text[:30] if config.exact else text) + b"\xff"
    groups = groups_of(data, lm, config)
    assert len(groups) > 2
    position = 0
    for group in groups:
        content = data[position : position + group.entry.size]
        if group.entry.kind.is_stored:
            assert stored_content(group) == content
        else:
            assert group.entry.n_tokens == len(lm.tokenizer.encode(content)[0].ids)
        position += group.entry.size
    assert position == len(data)


def test_text_is_cut_into_groups_of_equal_length(lm, text, monkeypatch, never_stored):
    monkeypatch.setattr(corrected, "GROUP_TOKENS", 60)
    entries = [group.entry for group in groups_of(text, lm, replace(CONFIGS["no vectors"], chunk_tokens=30))]
    assert [entry.n_tokens for entry in entries] == [50, 50, 50]
    assert {entry.kind for entry in entries} == {Kind.PREDICTED}


def test_every_chunk_has_its_vectors(lm, text, never_stored):
    (group,) = groups_of(text, lm, replace(CONFIGS["default"], vectors=3))
    assert (group.entry.kind, group.entry.n_vectors) == (Kind.CORRECTED, 3)
    parameters = choose_parameters(lm, CONFIGS["default"])
    header = Header(len(text), b"", None, OutsideModel("", "", b"", b""), parameters)
    mem = opened.vectors(group, replace(header, vectors=Vectors(CONFIGS["default"].coding, lm.width)))
    assert [chunk.codes.shape for chunk in mem] == [(3, lm.width)] * -(-150 // 24)


def test_text_after_other_data_needs_the_model_and_the_rest_is_stored(lm, text):
    stored, predicted = groups_of(NOISE + text, lm, CramConfig(vectors=0))
    assert stored.entry.kind is Kind.RAW
    assert predicted.entry.kind is Kind.PREDICTED
    assert stored.entry.size == len(NOISE)


@pytest.mark.parametrize("name", ["no vectors", "default"])
def test_text_that_the_model_makes_larger_is_stored(lm, name):
    (group,) = groups_of(PROSE, lm, CONFIGS[name])
    assert group.entry.kind is Kind.ZSTD


def test_neighbouring_stored_groups_are_one(lm, monkeypatch):
    monkeypatch.setattr(corrected, "GROUP_TOKENS", 20)
    (group,) = groups_of(PROSE * 2, lm, CONFIGS["no vectors"])
    assert stored_content(group) == PROSE * 2


def test_pieces_that_have_no_tokens_are_stored_between_the_others(lm, monkeypatch):
    whole = lm.tokenizer.encode

    def without_question_marks(data):
        for index, part in enumerate(data.split(b"?")):
            if index:
                yield SimpleNamespace(content=b"?", ids=None)
            yield from whole(part)

    monkeypatch.setattr(lm.tokenizer, "encode", without_question_marks)
    groups = groups_of(b"Who? Where?", lm, CONFIGS["exact"])
    assert [stored_content(group) for group in groups if group.entry.kind.is_stored] == [b"?", b"?"]
    assert sum(group.entry.size for group in groups) == 11


# -- work that goes on -----------------------------------------------------------------------------


@every_config
def test_work_that_goes_on_after_finished_segments_gives_the_same_groups(lm, text, small_segments, config):
    text = text[:30] if config.exact else text
    segments = segments_of(text, lm, config)
    assert len(segments) >= 2
    assert any(not group.entry.kind.is_stored for segment in segments for group in segment.groups)
    for done in range(1, len(segments) + 1):
        assert segments_of(text, lm, config, finished=segments[:done]) == segments[done:]


def test_data_before_the_text_teaches_nothing_about_vectors(lm, text, small_segments):
    first, second, *_ = segments_of(NOISE + text[:30], lm, CONFIGS["exact"])
    assert first.capacity == expected(lm).capacity
    assert second.capacity != first.capacity


@pytest.mark.parametrize(("n_bytes", "sizes"), [(60, [60]), (61, [31, 30]), (150, [50, 50, 50])])
def test_segments_of_one_file_are_of_equal_size(lm, small_segments, n_bytes, sizes):
    segments = segments_of(b"x" * n_bytes, lm, CONFIGS["no vectors"])
    assert [segment.size for segment in segments] == sizes


@every_config
@pytest.mark.parametrize("group_tokens", [13, 4096])
def test_progress_adds_up_to_the_size_of_the_data(lm, text, monkeypatch, never_stored, config, group_tokens):
    monkeypatch.setattr(corrected, "GROUP_TOKENS", group_tokens)
    data = NOISE + (PROSE[:20] if config.exact else text + PROSE)
    told = []
    segments_of(data, lm, config, progress=told.append)
    assert sum(told) == len(data)
    assert min(told) >= 0


def test_a_segment_says_what_its_vectors_saved(lm, text, never_stored):
    config = replace(CONFIGS["default"], bits="4", effort=3)
    (segment,) = segments_of(text, lm, config)
    (group,) = segment.groups
    parameters = choose_parameters(lm, config)
    header = Header(len(text), b"", vectors=Vectors(config.coding, lm.width), parameters=parameters)
    ids, bits = lm.tokenizer.encode(text)[0].ids, 0.0
    for index, mem in enumerate(opened.vectors(group, header)):
        first = index * parameters.chunk_tokens
        chunk, context = ids[first : first + parameters.chunk_tokens], ids[max(0, first - 10) : first]
        inputs = torch.cat([dequantize(mem)[None], lm.embed(torch.tensor([[*context, *chunk[:-1]]]).long())], dim=1)
        log_p = lm.logits(inputs, len(chunk))[0].log_softmax(-1)[range(len(chunk)), chunk]
        bits += (lm.score([chunk], [context])[0].sum() + float(log_p.sum())) / math.log(2)
    assert segment.gain == pytest.approx(bits, rel=1e-3)
    assert abs(bits) > 10


@pytest.mark.parametrize("data", [PROSE, NOISE])
def test_a_segment_without_vectors_has_saved_nothing(lm, data):
    assert [segment.gain for segment in segments_of(data, lm, CONFIGS["default"])] == [0.0]


# -- without corrections ---------------------------------------------------------------------------


def test_without_corrections_groups_consist_of_vectors_alone(lm, text):
    config = replace(CONFIGS["exact"], vectors=4)
    groups = [group for group in groups_of(text[:20], lm, config) if not group.entry.kind.is_stored]
    assert len(groups) > 5
    for group in groups:
        assert group.entry.kind is Kind.RECITED
        assert len(group.payload) == group.entry.n_vectors * config.coding.vector_size(lm.width)


def test_what_the_first_vectors_were_found_to_hold_decides_on_all_later_chunks(lm, text, small_segments):
    text = text[:30]
    segments = segments_of(text, lm, CONFIGS["exact"])
    (capacity,) = {segment.capacity for segment in segments}
    assert capacity != expected(lm).capacity
    other = segments[0]._replace(capacity=4 * segments[0].capacity)
    assert segments_of(text, lm, CONFIGS["exact"], finished=[other])[0] != segments[1]


def test_text_that_cannot_be_recited_is_stored(lm, monkeypatch):
    monkeypatch.setattr("cramzip.coding.ranked.faults", lambda goal, chunk, mem: list(range(len(chunk.tokens))))
    (group,) = groups_of(b"Call me Ishmael.", lm, CONFIGS["exact"])
    assert stored_content(group) == b"Call me Ishmael."


@pytest.mark.parametrize("exponent", [14, 3, 0])
def test_faults_are_where_noise_could_change_the_most_likely_token(lm, exponent):
    config = replace(CONFIGS["exact"], noise_exponent=exponent)
    generator = torch.Generator().manual_seed(0)
    mem = quantize(torch.randn(2, lm.width, generator=generator), config.coding)
    tokens = []  # as recited, but for every fifth
    for t in range(40):
        inputs = torch.cat([dequantize(mem), lm.embed(torch.tensor(tokens, dtype=torch.long))])
        tokens.append((lm.logits(inputs[None])[0, -1].argmax().item() + (t % 5 == 4)) % lm.vocabulary_size)
    inputs = torch.cat([dequantize(mem), lm.embed(torch.tensor(tokens[:-1]))])
    faults = []
    for t, logits in enumerate(lm.logits(inputs[None])[0, 1:]):
        others = torch.cat([logits[: tokens[t]], logits[tokens[t] + 1 :]])
        if logits[tokens[t]] - others.max() <= 2 * 2.0**-exponent:
            faults.append(t)
    assert recited.faults(Writer(lm, config).goal, Chunk(tokens), dequantize(mem)) == faults
    assert len(faults) >= 8 + (exponent == 0)


def all_attempts(job, faults_of, n_vectors=1):
    """Everything that is tried if nothing works."""
    yield job
    for retry in job.after_failure(faults_of(job), n_vectors):
        yield from all_attempts(retry, faults_of, n_vectors)


def test_a_chunk_that_fails_is_split_and_then_given_more_vectors():
    job = recited._Job(3, 10, list(range(16)), 1, 0)
    attempts = list(all_attempts(job, lambda job: list(range(len(job.tokens)))))
    assert {attempt.row for attempt in attempts} == {3}
    assert all(
        attempt.tokens == list(range(attempt.first - 10, attempt.first - 10 + len(attempt.tokens)))
        for attempt in attempts
    )
    for token in range(16):
        alone = [attempt.n_vectors for attempt in attempts if attempt.tokens == [token]]
        assert alone == list(range(1, recited.MOST_VECTORS + 1))
    assert all(attempt.n_vectors == 1 for attempt in attempts if len(attempt.tokens) > 1)


def test_a_chunk_that_is_nearly_exact_is_tried_again_before_it_is_split():
    job = recited._Job(0, 0, list(range(16)), 1, 0)
    whole = [attempt for attempt in all_attempts(job, lambda _: [7]) if len(attempt.tokens) == 16]
    assert [attempt.attempt for attempt in whole] == list(range(recited.RESTARTS + 1))


@pytest.mark.parametrize(("fault", "middle"), [(0, 4), (2, 4), (7, 7), (15, 12)])
def test_a_chunk_is_split_at_its_first_fault_into_parts_that_are_not_tiny(fault, middle):
    job = recited._Job(0, 0, list(range(16)), 1, recited.RESTARTS)
    first, second = job.after_failure([fault], 1)
    assert (first.first, len(first.tokens)) == (0, middle)
    assert (second.first, second.tokens[0]) == (middle, middle)
