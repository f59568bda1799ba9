"""Models with float weights, from files on disk to files that every machine opens."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from models import PROSE, TINY_MODEL, make_gguf, recital
from wide_models import CONFIGS, PLAIN, weights_of

import cramzip as library
from cramzip import CramConfig
from cramzip.coding.encode import method_of
from cramzip.container import reading
from cramzip.container.records import Kind
from cramzip.errors import ModelError, UsageError, WrongModelError
from cramzip.exact import layouts
from cramzip.lm.exact import ExactLM, floats_of
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.loading import load_model
from cramzip.lm.source import find
from cramzip.lm.tensors import open_floats


def write_folder(folder, config, weights, shards=1):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TINY_MODEL / "tokenizer.json", folder)
    if shards == 1:
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        return folder
    names = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(weights)}
    for file in set(names.values()):
        part = {name: values for name, values in weights.items() if names[name] == file}
        safetensors.numpy.save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def model_like(config):
    """A configuration and weights with the vocabulary of the tiny model."""
    config = config | {"vocab_size": 288}
    weights = weights_of(config)
    weights["model.norm.weight"] *= 16  # so that it is sure of what comes
    return config, weights


@pytest.fixture(scope="module")
def tiny():
    return library.load(str(TINY_MODEL))


@pytest.fixture(scope="module")
def text(tiny):
    """What the model itself would say."""
    return recital(tiny, 300, temperature=0.3)


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize("name", CONFIGS)
def test_every_layout_compresses_and_opens_again(name, tmp_path):
    lm = library.load(str(write_folder(tmp_path / "model", *model_like(CONFIGS[name]))))
    assert isinstance(lm, ExactLM)
    blob = library.compress(PROSE, lm, CramConfig(effort=1))
    header = reading.read(blob).header
    assert header.is_exact
    assert header.probe == lm.probe[:4]
    assert library.decompress(blob, library.load(str(tmp_path / "model"))) == PROSE


def test_shards_and_narrow_types_give_the_weights_of_the_files(tmp_path):
    config, weights = model_like(PLAIN)
    halves = {name: values.astype(np.float16) for name, values in weights.items()}
    for i, kind in enumerate((weights, halves)):
        found = open_floats(write_folder(tmp_path / str(i), config, kind, shards=3)).tensors
        for name, values in kind.items():
            rows = found[name].rows(1, len(values))
            assert rows.dtype == np.float32
            assert (rows == values[1:].astype(np.float32)).all()


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    import torch
    from safetensors.torch import save_file

    config, weights = model_like(PLAIN)
    folder = write_folder(tmp_path / "model", config, weights)
    narrow = {name: torch.from_numpy(values).bfloat16() for name, values in weights.items()}
    save_file(narrow, folder / "model.safetensors")
    found = open_floats(folder).tensors
    for name, values in narrow.items():
        assert (found[name].rows(0, len(values)) == values.float().numpy()).all()


def test_a_gguf_file_gives_the_weights_that_transformers_finds(tmp_path):
    file = tmp_path / "tiny.gguf"
    make_gguf(file)
    source = find(str(file))
    floats = floats_of(source)
    expected = {name: values.numpy() for name, values in load_model(source).state_dict().items()}
    assert floats.shape.epsilon == pytest.approx(1e-5)
    assert floats.tensors.keys() == expected.keys()
    for name, tensor in floats.tensors.items():
        values = expected[name]
        step = max(1, len(values) // 3)
        rows = [tensor.rows(first, min(first + step, len(values))) for first in range(0, len(values), step)]
        assert (np.concatenate(rows) == values).all()


@pytest.mark.usefixtures("never_stored")
def test_a_gguf_file_is_opened_by_another_process_without_torch_and_transformers(tmp_path):
    file = tmp_path / "tiny.gguf"
    make_gguf(file)
    blob = library.compress(PROSE, library.load(str(file)), CramConfig(effort=1))
    assert reading.read(blob).header.probe
    (tmp_path / "text.cram").write_bytes(blob)
    code = (
        "import sys\nsys.modules |= dict.fromkeys(['torch', 'transformers'])\nimport cramzip\n"
        f"blob = open({str(tmp_path / 'text.cram')!r}, 'rb').read()\n"
        f"sys.stdout.buffer.write(cramzip.decompress(blob, cramzip.load({str(file)!r})))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == PROSE


def test_ranks_are_there_for_who_asks_and_where_a_context_is(tiny, text):
    for config in (
        CramConfig(ranks=True, vectors=0),
        CramConfig(ranks=True, vectors=1, effort=1),
        CramConfig(context=9, vectors=0),
    ):
        blob = library.compress(text, tiny, config)
        assert not reading.read(blob).header.is_exact
        assert library.decompress(blob, tiny) == text
    assert reading.read(library.compress(text, tiny)).header.is_exact


@pytest.mark.usefixtures("never_stored")
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Kind.PROMPTED, CramConfig(vectors=1, effort=1)),
        (Kind.PROMPTED, CramConfig(vectors=2, bits="16", effort=1, chunk_tokens=30)),
        (Kind.RECITED, CramConfig(exact=True, max_steps=20)),
        (Kind.RECITED, CramConfig(exact=True, bits="16", max_steps=20)),
    ],
)
def test_vectors_are_found_in_torch_and_decoded_in_exact_arithmetic(tiny, text, kind, config, monkeypatch):
    blob = library.compress(text[:90], tiny, config)
    file = reading.read(blob)
    assert file.header.is_exact
    assert kind in {entry.kind for entry in file.entries}
    alone = library.load(str(TINY_MODEL))
    monkeypatch.setattr(ExactLM, "frozen", None)
    assert library.decompress(blob, alone) == text[:90]


def test_lanes_with_vectors_are_as_long_as_the_model_sees(tiny):
    positions = tiny.frozen.context
    assert method_of(tiny, CramConfig(vectors=2)).lanes.tokens == positions - 3
    assert method_of(tiny, CramConfig(vectors=0)).lanes.tokens == 1024 > positions
    for config in (CramConfig(vectors=positions), CramConfig(vectors=2, chunk_tokens=positions)):
        with pytest.raises(UsageError, match="do not fit"):
            method_of(tiny, config)


def test_levels_dictionaries_and_brief_files_work_as_with_the_built_in_model(tiny, text):
    for effort in (1, 6, 9):
        blob = library.compress(text, tiny, CramConfig(effort=effort), strip=True)
        assert library.decompress(blob, tiny) == text
    sample = text[:300]
    blob = library.compress(text, tiny, strip=True, dictionary=sample)
    assert reading.read(blob).header.dictionary
    assert library.decompress(blob, tiny, dictionary=sample) == text
    with pytest.raises(UsageError, match="ranks"):
        library.compress(text, tiny, CramConfig(ranks=True), dictionary=sample)


def test_a_dictionary_longer_than_a_window_is_gone_on_from(tmp_path, text):
    """The window of this model has 60 positions, of the 256 that it reads."""
    lm = library.load(str(write_folder(tmp_path / "model", *model_like(PLAIN))))
    assert lm.model.shape.block * 3 < 255
    blob = library.compress(text, lm, CramConfig(chunk_tokens=20), dictionary=text * 2)
    assert reading.read(blob).header.dictionary
    assert library.decompress(blob, lm, dictionary=text * 2) == text


def test_a_machine_that_computes_otherwise_says_so_before_it_decodes(tiny, text):
    blob = bytearray(library.compress(text, tiny))
    place = blob.index(tiny.probe[:4])
    blob[place] ^= 1
    import zlib

    file = reading.read_table(bytes(library.compress(text, tiny)))
    end = file.overhead - 4
    payload = bytes(blob[end + 4 :])
    blob[end : end + 4] = zlib.crc32(payload, zlib.crc32(blob[:end])).to_bytes(4, "little")
    with pytest.raises(WrongModelError, match="Probe"):
        library.decompress(bytes(blob), tiny)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_one_error(bad, tmp_path):
    config, weights = model_like(PLAIN)
    weights["model.layers.1.mlp.gate_proj.weight"][3, 5] = bad
    lm = library.load(str(write_folder(tmp_path / "model", config, weights)))
    with pytest.raises(ModelError, match="gate_proj"):
        library.compress(PROSE, lm)


def test_a_model_that_exact_arithmetic_cannot_run_is_computed_in_floats(tmp_path):
    config, weights = model_like(PLAIN)
    folder = write_folder(
        tmp_path / "model", config | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, weights
    )
    with pytest.raises(layouts.Unsuited, match="linear"):
        open_floats(folder)
    assert isinstance(library.load(str(folder)), FrozenLM)


def test_the_command_line_makes_either_kind_of_file_and_says_which(cramzip, folder, text):
    Path("text").write_bytes(text)
    for option, kind in (("--strip", "exact, the same bits on every machine"), ("--ranks", "float32, logits may")):
        assert cramzip("c", "-f", option, "--vectors", 0, "-m", TINY_MODEL, "text").exit_code == 0
        assert kind in cramzip("l", "-v", "text.cram").stdout
        assert cramzip("d", "-f", "-m", TINY_MODEL, "-o", "again", "text.cram").exit_code == 0
        assert Path("again").read_bytes() == text


def test_much_memory_is_said_before_it_is_taken(cramzip, folder, monkeypatch):
    monkeypatch.setattr("cramzip.app.models.MUCH_MEMORY", 1)
    Path("text").write_bytes(PROSE)
    told = cramzip("c", "-m", TINY_MODEL, "text").stderr.splitlines()
    assert re.fullmatch(r"local:model takes about [0-9.]+ kB of memory", told[0])
