"""The optimiser, on the tiny committed model."""

import pytest
import torch
from models import TINY_MODEL

from cramzip import CramConfig, quantize
from cramzip.cram import cram
from cramzip.decode import find_corrections
from cramzip.lm import FrozenLM

ROWS = [[80, 81, 82, 83], [100, 101], [90], [120, 80, 99, 73, 82, 84]]


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


def corrections_of(lm, rows, results):
    return [
        find_corrections(lm, quantize.dequantize(result.mem)[None], [row], 2.0**-8)[0]
        for row, result in zip(rows, results, strict=True)
    ]


def test_vectors_recite_what_they_were_measured_to_recite(lm):
    results = cram(lm, ROWS, CramConfig(effort=4, vectors=4))
    for row, result, fixes in zip(ROWS, results, corrections_of(lm, ROWS, results), strict=True):
        assert len(fixes) <= result.wrong <= len(row)
    assert results[2].wrong == 0


def test_a_chunk_that_is_exact_takes_no_more_steps(lm):
    (result,) = cram(lm, [[90]], CramConfig(effort=9, vectors=4))
    assert result.wrong == 0
    assert result.steps < 100


def test_more_steps_are_never_worse(lm):
    wrong = [sum(result.wrong for result in cram(lm, ROWS, CramConfig(effort=effort))) for effort in (1, 6)]
    assert wrong[1] <= wrong[0]


def test_refilled_slots_give_results_for_every_row_in_order(lm):
    rows = [[80 + i] for i in range(9)]
    done = [0.0] * 9

    def progress(index, share):
        done[index] += share

    results = cram(lm, rows, CramConfig(effort=5, vectors=4), n_slots=2, progress=progress)
    assert done == pytest.approx([1.0] * 9)
    assert sum(not fixes for fixes in corrections_of(lm, rows, results)) >= 8


def test_results_do_not_depend_on_the_rows_beside(lm):
    config = CramConfig(effort=2, vectors=2)
    together = cram(lm, [[80, 81], [90, 91]], config)
    (alone,) = cram(lm, [[90, 91]], config)
    torch.testing.assert_close(
        quantize.dequantize(together[1].mem), quantize.dequantize(alone.mem), rtol=0.02, atol=0.02
    )


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(lm):
    first, again, other = (
        cram(lm, [[80, 81, 82]], CramConfig(effort=1, seed=seed))[0].mem.codes.tobytes() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_cramming_in_bfloat16_still_gives_vectors_that_decode_in_float32(lm):
    (result,) = cram(lm, [[90]], CramConfig(effort=6, vectors=4, dtype="bfloat16"))
    assert corrections_of(lm, [[90]], [result]) == [{}]


def test_logits_that_are_not_numbers_are_never_right(lm, monkeypatch):
    monkeypatch.setattr(lm, "logits", lambda inputs: inputs.sum() * torch.full((*inputs.shape[:2], 288), torch.nan))
    (result,) = cram(lm, [[90, 91]], CramConfig(effort=1))
    assert result.wrong == 2
    assert torch.isfinite(quantize.dequantize(result.mem)).all()


def test_the_model_is_never_changed(lm):
    before = lm.logits(lm.embed(torch.tensor([[80, 81]])))
    cram(lm, ROWS, CramConfig(effort=1))
    assert torch.equal(before, lm.logits(lm.embed(torch.tensor([[80, 81]]))))
