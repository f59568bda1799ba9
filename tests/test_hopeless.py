"""Text that a model has nothing to say of: it is found out by a few trials, and zstd takes it."""

import random

import pytest
from models import ROOT, TINY_MODEL, make_model

import cramzip
from cramzip import CramConfig
from cramzip.coding.chunking import PROBE_PLACES, PROBE_TOKENS, WORTH_PROBING, probes
from cramzip.coding.encode import Writer
from cramzip.coding.hopeless import is_hopeless
from cramzip.container.records import Kind
from cramzip.lm.devices import DEVICES
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.probe import NOISE_TOKENS
from cramzip.lm.source import find

DRAW = random.Random(5)
WORDS = ["".join(DRAW.choices("aeioubcdfglmnprst", k=DRAW.randint(3, 8))) for _ in range(60)]
N_SEGMENTS = -(-300_000 // DEVICES["cpu"].segment_bytes)


@pytest.fixture(scope="module")
def tiny():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture
def positions(monkeypatch):
    """Counts the positions that a model is asked about."""
    asked = []
    for name in ("logits", "hidden", "step"):
        original = getattr(FrozenLM, name)

        def counted(lm, inputs, *rest, original=original):
            asked.append(inputs.shape[0] * inputs.shape[1])
            return original(lm, inputs, *rest)

        monkeypatch.setattr(FrozenLM, name, counted)
    return asked


def line_without_blanks(n):
    return "".join(DRAW.choices(WORDS, k=n // 3))[:n].encode()


def test_a_line_of_300000_letters_without_a_blank_is_tried_at_a_few_places_alone(tiny, positions):
    data = line_without_blanks(300_000)
    blob = cramzip.compress(data, tiny, CramConfig(vectors=0))
    assert sum(positions) < 2 * NOISE_TOKENS + 2 + N_SEGMENTS * len(PROBE_PLACES) * 2 * PROBE_TOKENS
    assert {entry.kind for entry in cramzip.read(blob).entries} == {Kind.ZSTD}
    assert cramzip.decompress(blob) == data


def test_no_vectors_are_made_for_a_line_without_a_blank(tiny, positions):
    cramzip.compress(line_without_blanks(20_000), tiny, CramConfig(vectors=1, effort=1))
    assert sum(positions) < 40_000


def test_one_letter_200000_times_is_not_shown_to_the_model(tiny, positions):
    blob = cramzip.compress(b"a" * 200_000, tiny, CramConfig(vectors=0))
    assert sum(positions) < 2 * NOISE_TOKENS + 2
    assert len(blob) < 60


def test_prose_is_tried_at_one_place_and_found_worth_it(positions):
    lm = FrozenLM(find())
    method = Writer(lm, CramConfig(vectors=0)).method
    content = (ROOT / "README.md").read_bytes() + (ROOT / "formats" / "cram.md").read_bytes()
    positions.clear()
    assert not is_hopeless(method, content, lm.tokenizer.encode(content))
    assert sum(positions) <= 256 + PROBE_TOKENS


@pytest.mark.parametrize("chunk", [None, 24])
def test_probes_keep_to_the_positions_that_a_model_has(chunk, tmp_path):
    make_model("gpt2", tmp_path)  # of 256 positions, each with an embedding of its own
    data = line_without_blanks(2 * WORTH_PROBING)
    blob = cramzip.compress(data, FrozenLM.load(tmp_path), CramConfig(vectors=0, chunk_tokens=chunk))
    assert cramzip.decompress(blob) == data


def test_probes_lie_within_the_text_and_a_short_text_has_none():
    assert probes(WORTH_PROBING - 1) == []
    for n in (WORTH_PROBING, 10 * WORTH_PROBING):
        assert all(0 <= probe.start < probe.stop <= n for probe in probes(n))
        assert len({probe.start for probe in probes(n)}) == len(PROBE_PLACES)
