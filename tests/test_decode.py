"""The decoder: cached, batched, chunk after chunk, and deaf to noise that the writer has allowed for."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import PROSE, TINY_MODEL, recital, restored

from cramzip import CramConfig, compress, decompress, read
from cramzip.coding import corrected as corrected_groups
from cramzip.coding import corrections, ranks
from cramzip.coding import decode as decoder
from cramzip.coding.corrections import TokenEncoder
from cramzip.coding.decode import Recipe
from cramzip.coding.ranks import rank
from cramzip.coding.view import View
from cramzip.container.records import Kind, Parameters
from cramzip.errors import DamagedFileError
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.source import find

PARAMETERS = Parameters(noise_exponent=10, chunk_tokens=12, context_tokens=7, start_token=272)


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


def view_of(parameters, after_start=False):
    return View(parameters.chunk_tokens, parameters.context_tokens, parameters.start_token, after_start)


def decode(lm, recipes, parameters, after_start=False):
    return decoder.decode(lm, recipes, view_of(parameters, after_start), parameters.noise_bound)


def batches(lm, recipes, parameters, *batch_size):
    return decoder.batches(lm, recipes, view_of(parameters), *batch_size)


def vectors(lm, n_chunks, n_vectors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n_vectors, lm.width, generator=generator) * 5 for _ in range(n_chunks if n_vectors else 0))


def chunks_of(tokens, parameters):
    """Each chunk with the tokens that it sees."""
    for first in range(0, len(tokens), parameters.chunk_tokens):
        end = first + parameters.chunk_tokens
        yield tokens[max(0, first - parameters.context_tokens) : first], tokens[first:end]


def inputs_of(lm, mem, context, parameters):
    before = mem[None] if mem is not None else lm.embed(torch.tensor([[parameters.start_token]]))
    return torch.cat([before, lm.embed(torch.tensor([context], dtype=torch.long))], dim=1)


def corrected(lm, tokens, parameters=PARAMETERS, n_vectors=0):
    """What makes the decoder say `tokens`, whatever the model would have said."""
    mem = vectors(lm, -(-len(tokens) // parameters.chunk_tokens), n_vectors)
    encoder = TokenEncoder(lm.vocabulary_size, parameters.noise_bound)
    for index, (context, chunk) in enumerate(chunks_of(tokens, parameters)):
        inputs = inputs_of(lm, mem[index] if mem else None, [*context, *chunk[:-1]], parameters)
        encoder.chunk(rank(lm.logits(inputs)[0, -len(chunk) :], torch.tensor(chunk), parameters.noise_bound))
    return Recipe(len(tokens), mem, encoder.finish())


def uncached_greedy(lm, mem, n_tokens, parameters):
    tokens = []
    for chunk in mem:
        context = tokens[max(0, len(tokens) - parameters.context_tokens) :]
        said = []
        while len(said) < parameters.chunk_tokens and len(tokens) + len(said) < n_tokens:
            said.append(lm.logits(inputs_of(lm, chunk, [*context, *said], parameters))[0, -1].argmax().item())
        tokens += said
    return tokens


def random_rows(lm, lengths):
    rng = random.Random(0)
    return [[rng.randrange(lm.vocabulary_size) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("n_vectors", [1, 2])
@pytest.mark.parametrize("context_tokens", [0, 1, 7, 100])
def test_decoding_with_a_cache_is_decoding_without(lm, n_vectors, context_tokens):
    parameters = replace(PARAMETERS, context_tokens=context_tokens)
    mem = vectors(lm, 3, n_vectors)
    (decoded,) = decode(lm, [Recipe(30, mem)], parameters)
    assert decoded == uncached_greedy(lm, mem, 30, parameters)
    assert len(set(decoded)) > 5


@pytest.mark.parametrize("n_vectors", [0, 1, 2])
@pytest.mark.parametrize("context_tokens", [0, 1, 7, 100])
def test_corrections_make_any_tokens_of_any_vectors(lm, n_vectors, context_tokens):
    parameters = replace(PARAMETERS, context_tokens=context_tokens)
    (row,) = random_rows(lm, [40])
    assert decode(lm, [corrected(lm, row, parameters, n_vectors)], parameters) == [row]


@pytest.mark.parametrize("n_vectors", [0, 1, 2])
def test_groups_of_unequal_length_decode_together(lm, n_vectors):
    rows = random_rows(lm, [1, 12, 13, 24, 31, 40])
    recipes = [corrected(lm, row, PARAMETERS, n_vectors) for row in rows]
    assert decode(lm, recipes, PARAMETERS) == rows
    assert decode(lm, recipes[::-1], PARAMETERS) == rows[::-1]


@pytest.mark.parametrize("n_vectors", [1, 2])
def test_a_batch_recites_as_its_rows_do_alone(lm, n_vectors):
    recipes = [Recipe(n, vectors(lm, 4, n_vectors, seed=n)) for n in (1, 12, 13, 24, 31, 40)]
    alone = [decode(lm, [recipe], PARAMETERS)[0] for recipe in recipes]
    assert [len(row) for row in alone] == [recipe.n_tokens for recipe in recipes]
    assert decode(lm, recipes, PARAMETERS) == alone


def test_token_0_is_predicted_by_the_last_vector(lm):
    mem = vectors(lm, 1, 3)
    assert decode(lm, [Recipe(1, mem)], PARAMETERS) == [[lm.logits(mem[0][None])[0, -1].argmax().item()]]


def test_vectors_may_stand_after_the_start_token_of_the_file(lm):
    (mem,) = vectors(lm, 1, 3)
    for start in (272, 5):
        parameters = replace(PARAMETERS, start_token=start)
        inputs = torch.cat([lm.embed(torch.tensor([start])), mem])
        expected = lm.logits(inputs[None])[0, -1].argmax().item()
        assert decode(lm, [Recipe(1, (mem,))], parameters, after_start=True) == [[expected]]


def test_without_vectors_token_0_is_predicted_by_the_start_token_of_the_file(lm):
    recipes = [corrected(lm, [70], replace(PARAMETERS, start_token=start)) for start in (272, 5)]
    assert recipes[0] != recipes[1]
    for recipe, start in zip(recipes, (272, 5), strict=True):
        assert decode(lm, [recipe], replace(PARAMETERS, start_token=start)) == [[70]]


def test_of_equal_logits_the_lowest_token_is_chosen(lm, monkeypatch):
    monkeypatch.setattr(lm, "step", lambda inputs, cache=None: (torch.tensor([[1.0, 7.0, 7.0, 0.0]]), None))
    assert decode(lm, [Recipe(1, vectors(lm, 1, 1))], PARAMETERS) == [[1]]


def test_corrections_with_bytes_left_over_are_damaged(lm):
    (row,) = random_rows(lm, [20])
    recipe = corrected(lm, row)
    with pytest.raises(DamagedFileError, match="bytes"):
        decode(lm, [replace(recipe, corrections=recipe.corrections + b"12345")], PARAMETERS)


@pytest.mark.parametrize("n_vectors", [0, 2])
def test_corrections_of_random_bytes_give_some_tokens_or_are_damaged(lm, n_vectors):
    rng = random.Random(0)
    for _ in range(60):
        mem = vectors(lm, 2, n_vectors)
        recipe = Recipe(16, mem, rng.randbytes(rng.randrange(30)))
        try:
            (row,) = decode(lm, [recipe], PARAMETERS)
        except DamagedFileError:
            continue
        assert len(row) == 16
        assert all(0 <= token < lm.vocabulary_size for token in row)


def test_batches_hold_every_group_once_within_their_limits(lm):
    lengths = [7, 3000, 12, 40_000, 7, 7, 3000] * 20
    recipes = [Recipe(length, corrections=b"") for length in lengths]
    parameters = Parameters(chunk_tokens=2000, context_tokens=1000)
    found = list(batches(lm, recipes, parameters))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    rows, positions = DEVICES["cpu"].groups, DEVICES["cpu"].cached_positions
    for batch in found:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * (1 + min(3000, max(lengths[index] for index in batch))) <= positions
    assert {len(batch) for batch in batches(lm, recipes, parameters, 1)} == {1}


def test_what_cannot_be_decoded_together_is_in_different_batches(lm):
    one, two = vectors(lm, 1, 1), vectors(lm, 1, 2)
    recipes = [Recipe(5, mem, told) for mem in ((), one, two) for told in (None, b"") if mem or told is not None] * 3
    for batch in batches(lm, recipes, PARAMETERS):
        assert len(batch) == 3
        assert len({(recipes[index].n_vectors, recipes[index].corrections is None) for index in batch}) == 1


# -- whole files -----------------------------------------------------------------------------------

CONFIGS = {
    "no vectors": CramConfig(vectors=0, chunk_tokens=30, context=20),
    "default": CramConfig(vectors=1, effort=1, chunk_tokens=30, context=20),
    "two vectors": CramConfig(effort=1, vectors=2, chunk_tokens=30, context=20),
    "exact": CramConfig(effort=3, vectors=2, exact=True),
}
whole_files = pytest.mark.usefixtures("small_groups", "long_chunks", "never_stored")
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(corrected_groups, "GROUP_TOKENS", 70)


@pytest.fixture(scope="module")
def text(lm):
    """Tokens that are likely, unlikely and all but impossible; without corrections, likely ones are enough."""
    likely = recital(lm, 120)
    return {True: likely[:30], False: PROSE + recital(lm, 60, temperature=1.5) + likely}


def assert_worth_decoding(blob, config):
    """The file has several groups of several tokens, of the kind that is wanted."""
    file = read(blob)
    kind = Kind.RECITED if config.exact else Kind.CORRECTED if config.n_vectors else Kind.PREDICTED
    modelled = [entry for entry in file.entries if entry.kind is kind]
    assert len(modelled) > 1
    assert sum(entry.n_tokens for entry in modelled) > 1.5 * len(modelled)
    assert config.exact or all(entry.n_tokens > 2 * file.header.parameters.chunk_tokens for entry in modelled)


@whole_files
@every_config
def test_a_file_opens_with_any_batch_size(lm, text, config):
    text = text[config.exact]
    blob = compress(text, lm, config)
    assert_worth_decoding(blob, config)
    for batch_size in (1, 3, 32):
        assert b"".join(restored(blob, lm, batch_size=batch_size)) == text


# -- noise -----------------------------------------------------------------------------------------


class NoisyLM(FrozenLM):
    """The same model on a machine whose every logit is off by `error`, up or down as `pattern` says.

    It computes in float64, so that there is no other noise than this.
    """

    error = 0.0
    pattern = "random"

    def __init__(self, source):
        super().__init__(source)
        self._model.double()
        self._llama = None  # its norms would be more exact than those of transformers

    def step(self, inputs, cache=None):
        logits, cache = super().step(inputs, cache)
        return logits + self.error * self._signs(logits) if self.error else logits, cache

    def _signs(self, logits):
        place = logits.argsort(dim=1, descending=True).argsort(dim=1)
        up = {
            "random": torch.rand(logits.shape) < 0.5,
            "neighbours change places": place % 2 == 1,
            "the first is less sure": place > 0,
            "the first is surer": place == 0,
        }[self.pattern]
        return torch.where(up, 1.0, -1.0)


PATTERNS = ("random", "neighbours change places", "the first is less sure", "the first is surer")
FINE, COARSE = 14, 8  # noise exponents


@pytest.fixture(scope="module")
def files():
    """Those of the noisy model that were made already, by configuration."""
    return {}


def file_of(noisy, text, config, files):
    if config not in files:
        files[config] = compress(text, noisy, config)
    return files[config]


@pytest.fixture(scope="module")
def noisy():
    return NoisyLM(find(str(TINY_MODEL)))


def broken_by(noisy, blob, text, error):
    """The patterns of noise with which the file does not decode. Never may it decode to other bytes."""
    broken = []
    for pattern in PATTERNS:
        torch.manual_seed(0)
        noisy.error, noisy.pattern = error, pattern
        try:
            assert decompress(blob, noisy) == text
        except DamagedFileError:
            broken.append(pattern)
        finally:
            noisy.error = 0.0
    return broken


def test_the_noisy_model_has_no_noise_of_its_own(noisy, monkeypatch):
    assert noisy.measure_noise() < 1e-9
    monkeypatch.setattr(noisy, "error", 0.5)
    assert noisy.measure_noise() == pytest.approx(0.5, rel=1e-3)


@whole_files
@every_config
@pytest.mark.parametrize("exponent", [FINE, COARSE])
def test_logits_that_are_off_by_the_guaranteed_noise_give_the_exact_bytes(noisy, text, files, config, exponent):
    text = text[config.exact]
    blob = file_of(noisy, text, replace(config, noise_exponent=exponent), files)
    assert_worth_decoding(blob, config)
    assert broken_by(noisy, blob, text, 2.0**-exponent) == []


@whole_files
@pytest.mark.parametrize("exponent", [0, 3])
def test_noise_may_be_so_strong_that_nearly_every_token_is_spelled_out(noisy, text, exponent):
    blob = compress(text[False], noisy, replace(CONFIGS["no vectors"], noise_exponent=exponent))
    assert broken_by(noisy, blob, text[False], 2.0**-exponent) == []


@whole_files
@every_config
def test_logits_that_are_off_by_far_more_are_noticed(noisy, text, files, config):
    text = text[config.exact]
    blob = file_of(noisy, text, replace(config, noise_exponent=COARSE), files)
    assert broken_by(noisy, blob, text, 64 * 2.0**-COARSE)


def without_shifts(patch):
    patch.setattr(TokenEncoder, "_choose_shift", lambda self, ranked, groups: (0, []))


def without_exceptions(patch):
    choose = TokenEncoder._choose_shift
    patch.setattr(TokenEncoder, "_choose_shift", lambda self, *ranks: (choose(self, *ranks)[0], []))


def without_looking_for_near_tokens(patch):
    patch.setattr(
        corrected_groups, "rank", lambda *given: rank(*given)._replace(id_bits=np.zeros(len(given[1]), np.int64))
    )


def without_margins(patch):
    patch.setattr(ranks, "SLACK", 1e-3)
    patch.setattr(corrections, "SLACK", 1e-3)


def for_less_noise(patch):
    patch.setattr(Parameters, "noise_bound", 2.0**-15)


@whole_files
@pytest.mark.parametrize(
    ("careless", "exponent"),
    [
        (without_shifts, FINE),
        (without_shifts, COARSE),
        (without_exceptions, COARSE),
        (without_looking_for_near_tokens, COARSE),
        (without_margins, FINE),
        (without_margins, COARSE),
        (for_less_noise, FINE),
        (for_less_noise, COARSE),
    ],
)
def test_a_careless_writer_would_be_caught(noisy, text, careless, exponent):
    """What the tests above would say of a writer that takes less care."""
    text = text[False]
    config = replace(CONFIGS["no vectors"], noise_exponent=exponent)
    with pytest.MonkeyPatch.context() as patch:
        careless(patch)
        blob = compress(text, noisy, config)
    assert broken_by(noisy, blob, text, 2.0**-exponent)


@whole_files
def test_a_writer_that_takes_any_greedy_recital_for_exact_would_be_caught(noisy):
    text = recital(noisy, 120)
    with pytest.MonkeyPatch.context() as patch:
        for_less_noise(patch)
        blob = compress(text, noisy, replace(CONFIGS["exact"], noise_exponent=COARSE))
    assert broken_by(noisy, blob, text, 4 * 2.0**-COARSE)
