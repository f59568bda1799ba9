"""Logits to ranks, confidences and near ties."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cramzip.coding import ranks
from cramzip.coding.ranks import DEEP, SINGLE_RANKS, TOP, Step, class_starts, confidences, index_bits, rank
from cramzip.errors import DamagedFileError

EPSILON = 2.0**-14
NEARLY_ALL = 0.98  # of a noise bound, so that the rounding of a logit does not go beyond it

patiently = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([1, 2, 5, 8, 9, 11, TOP, TOP + 1, 300, 1000, DEEP + 1, 2000])


def random_logits(seed, rows, size, spread=3.0):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * spread


def noise(seed, logits, epsilon):
    """Every logit off by as much as allowed, up or down."""
    generator = torch.Generator().manual_seed(seed)
    return logits + NEARLY_ALL * epsilon * (2 * torch.randint(2, logits.shape, generator=generator) - 1)


def log_odds(logits):
    """Confidences by the book, in float64: (T, G), without the last class."""
    ordered = logits.double().sort(dim=1, descending=True).values
    exponentials = (ordered - ordered[:, :1]).exp().numpy()
    sums = [
        (exponentials[:, begin:end].sum(1), exponentials[:, end:].sum(1))
        for begin, end in pairwise(class_starts(logits.shape[1])[:-1])
    ]
    return np.stack([np.log(np.maximum(mass, 1e-30)) - np.log(np.maximum(left, 1e-30)) for mass, left in sums], axis=1)


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 11, 260, 261, 49152])
def test_classes_part_all_ranks(size):
    starts = class_starts(size)
    assert starts[0] == 0
    assert starts[-1] == size
    assert list(starts) == sorted(set(starts))


def test_the_classes_are_those_of_the_specification():
    starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 28, 36, 52, 68, 100, 132, 196, 260, 388]
    assert list(class_starts(10**5))[: len(starts)] == starts


def test_an_index_has_the_bits_that_its_class_needs():
    for rank_class, (begin, end) in enumerate(pairwise(class_starts(2**20)[:-1])):
        assert end - begin == 2 ** index_bits(rank_class)
        assert index_bits(rank_class) > 0 or rank_class < SINGLE_RANKS


@patiently
@given(seeds, sizes)
def test_a_rank_counts_the_larger_logits(seed, size):
    logits = random_logits(seed, 4, size)
    tokens = torch.randint(size, (4,), generator=torch.Generator().manual_seed(seed))
    found = rank(logits, tokens, EPSILON)
    assert found.ranks.tolist() == [sum(row > row[t]).item() for row, t in zip(logits, tokens, strict=True)]
    assert found.tokens.tolist() == tokens.tolist()


@pytest.mark.parametrize("at_once", [1, 2000, 3 * 2000, 7 * 2000 - 1, 2**22])
def test_ranks_are_the_same_however_many_rows_are_sorted_at_once(monkeypatch, at_once):
    logits = random_logits(0, 7, 2000)
    logits[5] = logits[5].round()  # where many are as good as each other
    tokens = torch.arange(7) * 250
    expected = rank(logits, tokens, EPSILON)
    monkeypatch.setattr(ranks, "LOGITS_AT_ONCE", at_once)
    for found, column in zip(rank(logits, tokens, EPSILON), expected, strict=True):
        np.testing.assert_array_equal(found, column)


def test_no_more_is_sorted_at_once_than_fits_into_memory(monkeypatch):
    sizes, sort = [], torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda self, **how: sizes.append(self.numel()) or sort(self, **how))
    rank(torch.randn(8, 2**20), torch.arange(8), EPSILON)
    assert sizes == [ranks.LOGITS_AT_ONCE] * 2


def test_equal_logits_have_equal_ranks_and_are_near():
    logits = torch.tensor([[1.0, 3.0, 1.0, 2.0]]).expand(4, 4)
    found = rank(logits, torch.arange(4), EPSILON)
    assert found.ranks.tolist() == [2, 0, 2, 1]
    assert [bits > 0 for bits in found.id_bits.tolist()] == [True, False, True, False]


@pytest.mark.parametrize(("distance", "near"), [(0.0, True), (2.0, True), (2.09, True), (2.2, False)])
def test_tokens_are_near_within_twice_the_noise(distance, near):
    logits = torch.tensor([[0.0, distance * EPSILON, 5.0]])
    assert (rank(logits, torch.tensor([0]), EPSILON).id_bits[0] > 0) == near


@patiently
@given(seeds, st.integers(2, 300), st.sampled_from([1.0, 10.0, 1000.0]))
def test_id_bits_tell_a_token_from_all_that_noise_can_bring_near(seed, size, gaps):
    logits = (random_logits(seed, 1, size, gaps).round() * EPSILON).expand(size, size)
    found = rank(logits, torch.arange(size), EPSILON)
    for token, n_bits in enumerate(found.id_bits.tolist()):
        similar = ((logits[0] - logits[0, token]).abs() <= 4 * EPSILON).nonzero().flatten().tolist()
        same = [other for other in similar if (other ^ token) & ((1 << n_bits) - 1) == 0]
        assert n_bits == 0 or same == [token]


@patiently
@given(seeds, sizes.filter(lambda size: size > 1), st.sampled_from([1.0, 3.0, 6.0]))
def test_confidences_are_log_odds_however_little_is_left(seed, size, spread):
    logits = random_logits(seed, 3, size, spread)
    found = rank(logits, torch.zeros(3, dtype=torch.long), EPSILON).confidence
    np.testing.assert_allclose(found[:, :-1], log_odds(logits), rtol=0, atol=EPSILON / 20)


@patiently
@given(seeds, sizes, st.sampled_from([1.0, 3.0, 6.0]))
def test_writer_and_reader_are_equally_confident(seed, size, spread):
    logits = random_logits(seed, 3, size, spread)
    whole = rank(logits, torch.zeros(3, dtype=torch.long), EPSILON).confidence[:, :-1]
    step = Step(logits, EPSILON)
    n_classes = min(step.confidence.shape[1], whole.shape[1])
    assert n_classes == whole.shape[1] or class_starts(size)[n_classes] == TOP
    np.testing.assert_allclose(step.confidence[:, :n_classes], whole[:, :n_classes], rtol=0, atol=EPSILON / 20)
    for row in range(3):
        for known in (n_classes - 1, whole.shape[1]):
            deeper = step.deeper(row, known)[: whole.shape[1]]
            assert len(deeper) > known or len(deeper) == whole.shape[1]
            np.testing.assert_allclose(deeper, whole[row][: len(deeper)], rtol=0, atol=EPSILON / 20)


@patiently
@given(seeds, sizes, st.sampled_from([2.0**-6, 2.0**-10, 2.0**-14]), st.sampled_from([1.0, 3.0, 6.0]), st.booleans())
def test_noise_moves_a_confidence_by_no_more_than_twice_as_much(seed, size, epsilon, spread, has_ties):
    logits = random_logits(seed, 3, size, spread)
    logits = logits.mul(4).round().div(4) if has_ties else logits
    none = torch.zeros(3, dtype=torch.long)
    before = rank(logits, none, epsilon).confidence[:, :-1]
    after = rank(noise(seed + 1, logits, epsilon), none, epsilon).confidence[:, :-1]
    assert (np.abs(after - before) <= 2.1 * epsilon).all()


@pytest.mark.parametrize("size", [5, TOP, 500, DEEP + 500])
def test_a_step_knows_the_token_of_every_rank(size):
    logits = random_logits(0, 2, size)
    step = Step(logits, EPSILON)
    for row in range(2):
        assert [step.token(row, r) for r in range(size)] == logits[row].argsort(descending=True).tolist()


@patiently
@given(seeds, st.integers(2, 300))
def test_tokens_keep_their_ranks_under_noise_or_are_found_near_them(seed, size):
    logits = random_logits(seed, 1, size).mul(200).round().mul(EPSILON)
    found = rank(logits.expand(size, size), torch.arange(size), EPSILON)
    step = Step(noise(seed + 1, logits, EPSILON), EPSILON)
    for token, (place, n_bits) in enumerate(zip(found.ranks.tolist(), found.id_bits.tolist(), strict=True)):
        if n_bits:
            assert step.token_near(0, place, token & ((1 << n_bits) - 1), n_bits) == token
        else:
            assert step.token(0, place) == token


@pytest.mark.parametrize(("low_bits", "n_bits"), [(0, 1), (3, 2)])
def test_a_near_token_must_be_the_only_one(low_bits, n_bits):
    step = Step(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), EPSILON)
    assert step.token_near(0, 0, 2, 2) == 2
    with pytest.raises(DamagedFileError, match="where there must be one"):
        step.token_near(0, 0, low_bits, n_bits)


def test_no_mass_is_no_infinity():
    logits = torch.tensor([[0.0, -1000.0, -2000.0]])
    assert np.isfinite(Step(logits, EPSILON).confidence).all()
    assert np.isfinite(confidences(np.zeros((1, 3)), np.zeros(1), class_starts(3))).all()
