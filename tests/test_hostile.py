"""Files that ask for what no model says, or for more work than their bytes may ask for."""

import sys

import numpy as np
import pytest
import torch
from models import ROOT

import cramzip
from cramzip import CramConfig
from cramzip.coding import corrected
from cramzip.coding.corrections import TokenDecoder
from cramzip.coding.ranks import Step
from cramzip.container import opened
from cramzip.container.records import Kind
from cramzip.errors import DamagedFileError
from cramzip.lm.frozen import FrozenLM
from cramzip.rangecoder import Bit, Encoder

FORMATS = ROOT / "formats"
sys.path.insert(0, str(FORMATS))

import corrections  # noqa: E402
import make_model  # noqa: E402
import make_vectors  # noqa: E402
import reader  # noqa: E402

BROKEN = 200  # a token whose embedding is infinite: all logits after it are NaN


@pytest.fixture(scope="module")
def broken_model(tmp_path_factory):
    """The folder of the tiny model, with one embedding that is infinite."""
    folder = tmp_path_factory.mktemp("broken")
    make_model.write_model(folder)
    tensors = make_model.weights()
    dtype, embeddings = tensors["model.embed_tokens.weight"]
    embeddings[BROKEN] = np.inf
    tensors["model.embed_tokens.weight"] = (dtype, embeddings)
    with np.errstate(invalid="ignore"):
        (folder / "model.safetensors").write_bytes(make_model.safetensors_file(tensors))
    return folder


@pytest.fixture(scope="module")
def broken(broken_model):
    return FrozenLM.load(broken_model)


def refused_by_both(blob, folder, lm):
    with pytest.raises(DamagedFileError) as by_library:
        cramzip.decompress(blob, lm)
    with np.errstate(all="ignore"), pytest.raises(reader.Damaged) as by_reference:
        reader.read(blob, folder)
    return {by_library.value.stage, by_reference.value.stage}


def file_of(folder, group, start):
    modeller = make_vectors.Modeller(folder)
    return bytes(modeller.file(group, parameters=make_vectors.Parameters(10, start=start)))


@pytest.mark.parametrize("spelt", [False, True], ids=["by its rank", "an exception"])
def test_corrections_of_logits_that_are_not_a_number_are_damage(spelt, broken_model, broken):
    coder = make_vectors.RangeEncoder()
    for value in (0, int(spelt)):  # Shift, Exception_Count
        coder.unbounded(value)
    coder.number(97, 9)
    group = make_vectors.Group(make_vectors.PREDICTED, coder.shortest(), b"a", 1)
    assert refused_by_both(file_of(broken_model, group, BROKEN), broken_model, broken) == {"content"}


def test_a_recital_of_logits_that_are_not_a_number_is_damage(broken_model, broken):
    vectors = make_vectors.draw(0, 4)
    group = make_vectors.Group(make_vectors.RECITED, vectors, b"\0\0", 2, 1)  # what an argmax of NaN would give
    modeller = make_vectors.Modeller(broken_model)
    coding = 4 | make_vectors.AFTER_START
    blob = bytes(modeller.file(group, coding=coding, parameters=make_vectors.Parameters(10, start=BROKEN)))
    assert refused_by_both(blob, broken_model, broken) == {"content"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_logit_that_is_infinite_or_no_number_spoils_all(value):
    logits = np.float32([3, 2, value, 1])
    decoder = TokenDecoder(b"\xc0", 4, 2.0**-10)
    decoder.begin_chunk(1)
    with pytest.raises(DamagedFileError, match="infinite or not a number"):
        decoder.token(0, Step(torch.from_numpy(logits)[None], 2.0**-10), 0)
    with pytest.raises(corrections.Impossible, match="infinite or not a number"):
        corrections.require_decidable(logits)


def test_tokens_that_the_model_rules_out_spoil_nothing(never_stored):
    logits = np.float32([3, -np.inf, 2, -np.inf])
    corrections.require_decidable(logits)
    Step(torch.from_numpy(logits)[None], 2.0**-10).require_decidable(0)
    corrections.require_decidable(np.full(4, -np.inf, np.float32))
    Step(torch.full((1, 4), -torch.inf), 2.0**-10).require_decidable(0)


@pytest.mark.parametrize("config", [CramConfig(vectors=0), CramConfig(effort=1), CramConfig(effort=1, exact=True)])
def test_text_whose_logits_are_not_a_number_is_stored(config, broken, never_stored):
    data = bytes([97, BROKEN, 98, 99])
    assert broken.tokenizer.encode(data)[0].ids == [97, BROKEN, 98, 99]
    blob = cramzip.compress(data, broken, config)
    assert cramzip.decompress(blob, broken) == data
    assert Kind.RAW in {entry.kind for entry in cramzip.read(blob).entries}


def test_with_one_logit_nothing_but_near_is_coded_and_it_is_never_a_yes():
    honest, lying = Encoder(), Encoder()
    for coder in (honest, lying):
        coder.any_number(0)
        coder.any_number(0)
        near = Bit(2**12, 8)
        for said in (False, coder is lying):
            coder.bit(near, said)
    lying.any_number(0)
    lying.number(0, 1)
    logits = np.zeros((2, 1), np.float32)
    for coder, expected in [(honest, [0, 0]), (lying, [0, None])]:
        data = coder.finish()
        assert decoded_by_library(data, logits) == decoded_by_reference(data, logits) == expected


def decoded_by_library(data, logits):
    decoder, out = TokenDecoder(data, logits.shape[1], 2.0**-10), []
    decoder.begin_chunk(len(logits))
    try:
        for t, row in enumerate(logits):
            out.append(decoder.token(t, Step(torch.from_numpy(row)[None], 2.0**-10), 0))
        decoder.finish()
    except DamagedFileError:
        out.append(None)
    return out


def decoded_by_reference(data, logits):
    decoder, out = corrections.Corrections(data, logits.shape[1], 10), []
    decoder.begin_chunk(len(logits))
    try:
        for row in logits:
            out.append(decoder.token(row))
        decoder.coder.check_end()
    except corrections.Impossible:
        out.append(None)
    return out


def test_too_many_tokens_for_their_corrections_are_refused_before_the_model_is_asked(monkeypatch):
    blob = (FORMATS / "vectors" / "content-corrections-too-few.cram").read_bytes()
    (entry,) = cramzip.read(blob).entries
    assert (entry.n_tokens, entry.payload_size) == (opened.TOKENS_PER_BYTE + 1, 1)
    lm, asked = FrozenLM.load(FORMATS / "model"), []
    step = lm.step
    monkeypatch.setattr(lm, "step", lambda *inputs: asked.append(1) or step(*inputs))
    with pytest.raises(DamagedFileError, match="4097 tokens are too many for 1 byte"):
        cramzip.decompress(blob, lm)
    monkeypatch.setattr(reader.Llama, "logits", lambda *inputs: asked.append(1))
    with pytest.raises(reader.Damaged, match="4097 tokens are too many for 1 byte"):
        reader.read(blob, FORMATS / "model")
    assert not asked


def test_the_groups_that_are_written_have_few_enough_tokens_for_any_corrections():
    assert max(corrected.GROUP_TOKENS, corrected.CRAMMED_GROUP_TOKENS) <= opened.TOKENS_PER_BYTE
