"""The optimiser: what it says of its vectors is what the model says of them."""

import math
from dataclasses import replace

import pytest
import torch
from models import TINY_MODEL

from cramzip import CramConfig
from cramzip.coding.cram import Goal, Slots, seed_of
from cramzip.coding.cram import cram as cram_for
from cramzip.coding.quantize import dequantize, quantize
from cramzip.coding.view import Chunk, View
from cramzip.container.records import BITS, Coding, Parameters
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.source import find

NOISE = 2.0**-10
CHUNKS = [Chunk([80, 81, 82, 83]), Chunk([100, 101], [70]), Chunk([90]), Chunk([120, 80, 99, 73, 82, 84], [5, 6, 7])]
every_coding = pytest.mark.parametrize("bits", BITS)


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


def goal_of(lm, config, noise=NOISE):
    view = View.for_model(lm, Parameters(start_token=lm.start), vectors=True)
    return Goal(lm, config, view, noise)


def cram(lm, chunks, config, noise, **how):
    return cram_for(goal_of(lm, config, noise), chunks, **how)


def config_of(**options):
    """In float32 wherever the tests run, so that what is measured can be measured again."""
    return CramConfig(**{"vectors": 1, "effort": 4, "dtype": "float32"} | options)


def logits_of(lm, chunk, mem):
    """What the model says at each token of a chunk after vectors (M, D)."""
    inputs = torch.cat([mem, lm.embed(torch.tensor([*chunk.context, *chunk.tokens[:-1]], dtype=torch.long))])
    return lm.logits(inputs[None])[0, -len(chunk.tokens) :]


def nats_of(lm, chunk, mem):
    log_p = logits_of(lm, chunk, mem).log_softmax(-1)
    return -float(log_p[range(len(chunk.tokens)), chunk.tokens].sum())


def wrong_of(lm, chunk, mem, gap):
    logits = logits_of(lm, chunk, mem)
    wrong = 0
    for said, token in zip(logits, chunk.tokens, strict=True):
        others = torch.cat([said[:token], said[token + 1 :]])
        wrong += not said[token] - others.max() > gap
    return wrong


@every_coding
@pytest.mark.parametrize("exact", [False, True])
def test_what_was_measured_is_what_the_stored_vectors_give(lm, bits, exact):
    config, noise = config_of(vectors=2, bits=bits, exact=exact, max_steps=12), 0.5
    for chunk, result in zip(CHUNKS, cram(lm, CHUNKS, config, noise), strict=True):
        mem = dequantize(result.mem)
        assert mem.shape == (2, lm.width)
        assert result.mem.coding is config.coding
        assert result.nats_left == pytest.approx(nats_of(lm, chunk, mem), abs=1e-3)
        if exact:
            assert wrong_of(lm, chunk, mem, 2 * noise) <= result.wrong <= len(chunk.tokens)


@every_coding
def test_cramming_lowers_the_cost_below_that_of_random_vectors(lm, bits):
    config = config_of(vectors=2, bits=bits, effort=6)
    for chunk, result in zip(CHUNKS, cram(lm, CHUNKS, config, NOISE), strict=True):
        generator = torch.Generator().manual_seed(0)
        random = [torch.randn(2, lm.width, generator=generator) * lm.embedding_scale for _ in range(10)]
        costs = [nats_of(lm, chunk, dequantize(quantize(mem, config.coding))) for mem in random]
        assert result.nats_left < min(costs)


def test_more_steps_are_never_worse(lm):
    nats = [
        sum(result.nats_left for result in cram(lm, CHUNKS, config_of(effort=effort), NOISE)) for effort in (1, 4, 7)
    ]
    assert nats[2] < nats[1] < nats[0]


def test_without_corrections_fewer_wrong_tokens_matter_more_than_a_lower_cost(lm):
    exact, other = (
        sum(
            wrong_of(lm, chunk, dequantize(result.mem), 2 * NOISE)
            for chunk, result in zip(CHUNKS, cram(lm, CHUNKS, config, NOISE), strict=True)
        )
        for config in (config_of(effort=4, vectors=2, bits="16", exact=is_exact) for is_exact in (True, False))
    )
    assert exact < other


def test_a_chunk_that_is_exact_takes_no_more_steps(lm):
    config = config_of(effort=9, vectors=4, bits="16", exact=True)
    (result,) = cram(lm, [Chunk([90])], config, NOISE)
    assert result.wrong == 0
    assert result.steps < 100


def test_with_corrections_all_steps_are_taken(lm):
    config = config_of(effort=3, vectors=4, bits="16")
    (result,) = cram(lm, [Chunk([90])], config, NOISE)
    assert result.steps == config.steps


def test_the_more_noise_there_may_be_the_larger_is_the_gap_of_what_is_exact(lm):
    config = config_of(effort=7, vectors=4, bits="16", exact=True)
    for noise in (2.0**-14, 2.0**-6, 1.0):
        (result,) = cram(lm, [Chunk([90, 91])], config, noise)
        assert result.wrong == 0
        assert wrong_of(lm, Chunk([90, 91]), dequantize(result.mem), 2 * noise) == 0


def test_context_is_seen():
    lm = FrozenLM(find())
    tokens = lm.tokenizer.encode(b"The ninth of November was a Thursday, and Mr. Pettibone had lost his umbrella.")[
        0
    ].ids
    (alone,) = cram(lm, [Chunk(tokens)], config_of(effort=1), NOISE)
    (repeated,) = cram(lm, [Chunk(tokens, tokens)], config_of(effort=1), NOISE)
    assert repeated.nats_left < 0.8 * alone.nats_left


def test_refilled_slots_give_results_for_every_task_in_order(lm):
    chunks = [Chunk([80 + i] * (1 + i % 3), [70 + i] * (i % 2)) for i in range(9)]
    for exact in (False, True):
        done = [0.0] * 9

        def progress(index, share, done=done):
            done[index] += share

        config = config_of(vectors=4, bits="16", exact=exact)
        results = cram(lm, chunks, config, NOISE, n_slots=2, progress=progress)
        assert done == pytest.approx([1.0] * 9)
        for chunk, result in zip(chunks, results, strict=True):
            assert result.nats_left == pytest.approx(nats_of(lm, chunk, dequantize(result.mem)), abs=1e-3)


def test_the_number_of_vectors_can_be_another_than_that_of_the_configuration(lm):
    (result,) = cram(lm, [Chunk([90])], config_of(effort=1), NOISE, n_vectors=3)
    assert result.mem.codes.shape == (3, lm.width)


def test_results_do_not_depend_on_the_tasks_beside(lm):
    config = config_of(effort=2, vectors=2, bits="16")
    together = cram(lm, [Chunk([80, 81, 82], [70, 71]), Chunk([90, 91])], config, NOISE)
    (alone,) = cram(lm, [Chunk([90, 91])], config, NOISE)
    torch.testing.assert_close(dequantize(together[1].mem), dequantize(alone.mem), rtol=0.02, atol=0.02)


@every_coding
def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(lm, bits):
    first, again, other, retried = (
        cram(lm, CHUNKS, config_of(effort=1, seed=seed, bits=bits), NOISE, seed=attempt)
        for seed, attempt in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    for index in range(len(CHUNKS)):
        codes = [results[index].mem.codes.tobytes() for results in (first, again, other, retried)]
        assert codes[0] == codes[1]
        assert len(set(codes)) == 3


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_vectors_that_were_crammed_in_any_precision_are_exact_in_float32(lm, dtype):
    chunk = Chunk([90])
    (result,) = cram(lm, [chunk], config_of(effort=6, vectors=4, bits="16", exact=True, dtype=dtype), NOISE)
    assert wrong_of(lm, chunk, dequantize(result.mem), 2 * NOISE) == 0


def test_logits_that_are_not_numbers_are_never_right(lm, monkeypatch):
    monkeypatch.setattr(lm, "head", lambda hidden: hidden.sum() * torch.full((len(hidden), 288), torch.nan))
    for exact in (False, True):
        (result,) = cram(lm, [Chunk([90, 91])], config_of(effort=1, bits="16", exact=exact), NOISE)
        assert result.wrong == 2
        assert math.isinf(result.nats_left)
        assert torch.isfinite(dequantize(result.mem)).all()


def test_the_model_is_never_changed(lm):
    before = lm.logits(lm.embed(torch.tensor([[80, 81]])))
    cram(lm, CHUNKS, config_of(effort=1), NOISE)
    assert torch.equal(before, lm.logits(lm.embed(torch.tensor([[80, 81]]))))


def test_every_number_of_bits_is_a_coding_and_exactness_takes_more():
    codings = [config_of(bits=bits).coding for bits in BITS]
    assert codings == list(Coding)
    assert replace(config_of(), exact=True).coding.bits > config_of().coding.bits


@pytest.mark.parametrize("exact", [False, True])
def test_how_many_chunks_go_through_the_model_at_once_changes_nothing(lm, monkeypatch, exact):
    chunks = [Chunk([90] * n, [70] * (n % 3)) for n in (2, 9, 4, 4, 7, 1)]
    config = config_of(effort=1, exact=exact)
    together = cram(lm, chunks, config, NOISE)
    small = replace(DEVICES["cpu"], crammed_positions=12, crammed_logits=3 * lm.vocabulary_size)
    monkeypatch.setitem(DEVICES, "cpu", small)
    for one, other in zip(together, cram(lm, chunks, config, NOISE), strict=True):
        assert (one.wrong, one.steps) == (other.wrong, other.steps)
        assert one.nats_left == pytest.approx(other.nats_left, rel=1e-3)


class Crowded:
    """A model that runs out of memory when more than `room` rows are put into it."""

    def __init__(self, lm, room):
        self.lm, self.room, self.refused = lm, room, 0

    def __getattr__(self, name):
        return getattr(self.lm, name)

    def hidden(self, inputs, n_last):
        if len(inputs) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError
        return self.lm.hidden(inputs, n_last)


def test_what_does_not_fit_into_memory_goes_through_the_model_in_parts(lm):
    chunks = [Chunk([90 + n] * 5) for n in range(9)]
    config = config_of(effort=1)
    crowded = Crowded(lm, room=2)
    results = cram(crowded, chunks, config, NOISE)
    assert 1 <= crowded.refused <= 4
    for one, other in zip(results, cram(lm, chunks, config, NOISE), strict=True):
        assert one.nats_left == pytest.approx(other.nats_left, rel=1e-3)
    with pytest.raises(torch.OutOfMemoryError):
        cram(Crowded(lm, room=0), chunks, config, NOISE)


def test_the_batch_size_is_how_many_chunks_are_crammed_at_once(lm):
    assert goal_of(lm, CramConfig(batch_size=7)).slots == 7
    assert goal_of(lm, CramConfig()).slots > 7


def test_vectors_start_around_the_origin(lm):
    chunk = Chunk([1, 2, 3])
    origin = tuple(torch.linspace(-1, 1, lm.width).tolist())
    anywhere, around = (Slots(goal_of(lm, CramConfig(origin=one)), 2, 0).initial(chunk) for one in (None, origin))
    assert torch.allclose(around - anywhere, torch.tensor(origin).expand(2, -1), atol=1e-6)


def test_a_seed_is_the_same_in_every_version_of_python():
    assert seed_of(0, 0, 90, 91) == 3685422648321805008
    assert len({seed_of(0, 0, 90, 91), seed_of(0, 1, 90, 91), seed_of(0, 0, 90), seed_of(0, 0, 9, 0, 91)}) == 4
