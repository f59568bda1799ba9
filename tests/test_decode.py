"""The decoder: greedy, cached, batched, and deaf to noise that the writer has allowed for."""

from dataclasses import replace

import pytest
import torch
from models import TINY_MODEL

from cramzip import CramConfig, codec, compress, decompress, describe
from cramzip.decode import BATCH_LIMITS, FREE, batches, find_corrections, greedy_decode
from cramzip.errors import DamagedFileError
from cramzip.lm import FrozenLM
from cramzip.source import find

TEXT = b"It is a far, far better thing that I do, than I have ever done; it is a far, far better rest."
CONFIG = CramConfig(effort=1, vectors=16)

pytestmark = pytest.mark.usefixtures("long_chunks")


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


class NoisyLM(FrozenLM):
    """The same model on a machine whose every logit is off by up to `noise`."""

    noise = 0.0

    def step(self, inputs, cache=None):
        logits, cache = super().step(inputs, cache)
        sign = torch.randint(0, 2, logits.shape).float() * 2 - 1  # the worst that is allowed, everywhere
        return logits + self.noise * sign, cache


def free(n_rows, n_tokens):
    return torch.full((n_rows, n_tokens), FREE)


def uncached_greedy(lm, mem, n_tokens):
    inputs = mem
    tokens = []
    for _ in range(n_tokens):
        tokens.append(lm.logits(inputs)[:, -1].argmax(-1))
        inputs = torch.cat([inputs, lm.embed(tokens[-1][:, None])], dim=1)
    return torch.stack(tokens, 1)


def test_decoding_with_a_cache_is_decoding_without(lm):
    mem = torch.randn(4, 2, lm.width) * 5
    assert torch.equal(greedy_decode(lm, mem, 20, free(4, 20)).tokens, uncached_greedy(lm, mem, 20))


def test_a_batch_decodes_as_its_rows_do_alone(lm):
    mem = torch.randn(5, 3, lm.width) * 5
    together = greedy_decode(lm, mem, 16, free(5, 16)).tokens
    alone = [greedy_decode(lm, row[None], 16, free(1, 16)).tokens[0] for row in mem]
    assert torch.equal(together, torch.stack(alone))


def test_token_0_is_predicted_by_the_last_vector(lm):
    mem = torch.randn(1, 3, lm.width) * 5
    assert greedy_decode(lm, mem, 1, free(1, 1)).tokens.item() == lm.logits(mem)[0, -1].argmax().item()


def test_a_forced_token_is_what_the_next_is_predicted_from(lm):
    mem = torch.randn(1, 2, lm.width) * 5
    forced = free(1, 3)
    forced[0, 0] = 99
    decoded = greedy_decode(lm, mem, 3, forced)
    inputs = torch.cat([mem, lm.embed(torch.tensor([[99]]))], dim=1)
    assert decoded.tokens[0, 0] == 99
    assert decoded.tokens[0, 1] == lm.logits(inputs)[0, -1].argmax()


def test_of_equal_logits_the_lowest_token_is_chosen(lm, monkeypatch):
    monkeypatch.setattr(lm, "step", lambda inputs, cache=None: (torch.tensor([[1.0, 7.0, 7.0, 0.0]]), None))
    assert greedy_decode(lm, torch.zeros(1, 1, lm.width), 1, free(1, 1)).tokens.tolist() == [[1]]


def test_tokens_that_are_right_by_less_than_the_noise_allows_are_corrected(lm):
    mem = torch.randn(1, 2, lm.width) * 5
    recited = greedy_decode(lm, mem, 30, free(1, 30), with_gaps=True)
    row = recited.tokens[0].tolist()
    gaps = recited.gaps[0].tolist()
    median = sorted(gaps)[15]
    assert find_corrections(lm, mem, [row], 0.0) == [{}]
    assert find_corrections(lm, mem, [row], median / 2) == [{t: row[t] for t in range(30) if gaps[t] <= median}]


def test_corrections_make_any_text_of_any_vectors(lm):
    mem = torch.randn(1, 2, lm.width)
    row = lm.tokenizer.encode(TEXT)[0].ids
    (fixes,) = find_corrections(lm, mem, [row], 2.0**-8)
    forced = torch.tensor([[fixes.get(t, FREE) for t in range(len(row))]])
    assert lm.tokenizer.decode(greedy_decode(lm, mem, len(row), forced).tokens[0].tolist()) == TEXT


def assert_worth_decoding(blob):
    description = describe.describe(blob)
    assert description.n_crammed > 1
    assert description.n_corrections > 0
    assert description.n_tokens > 4 * description.n_crammed
    assert description.n_tokens > 2 * description.n_corrections


def test_batches_hold_every_row_once_within_their_limits(lm):
    lengths = [7, 3000, 12, 40_000, 7, 7, 3000] * 20
    found = list(batches(lm, lengths))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    rows, positions = BATCH_LIMITS["cpu"]
    for batch in found:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= positions
    assert {len(batch) for batch in batches(lm, lengths, 1)} == {1}


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_file_opens_with_any_batch_size(lm, batch_size):
    blob = compress(TEXT, lm, CONFIG)
    assert_worth_decoding(blob)
    assert b"".join(codec.decode(blob, lm, batch_size=batch_size)) == TEXT


@pytest.mark.parametrize("noise_exponent", [8, 4, 1])
def test_logits_that_are_off_by_the_guaranteed_noise_still_give_the_exact_bytes(noise_exponent):
    noisy = NoisyLM(find(str(TINY_MODEL)))
    blob = compress(TEXT, noisy, replace(CONFIG, noise_exponent=noise_exponent))  # made without noise
    assert_worth_decoding(blob)
    noisy.noise = 0.999 * 2.0**-noise_exponent
    for seed in range(5):
        torch.manual_seed(seed)
        assert decompress(blob, noisy) == TEXT


def test_logits_that_are_off_by_far_more_are_noticed():
    noisy = NoisyLM(find(str(TINY_MODEL)))
    blob = compress(TEXT, noisy, CONFIG)
    noisy.noise = 100.0
    with pytest.raises(DamagedFileError, match="content"):
        decompress(blob, noisy)
