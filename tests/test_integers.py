"""The integers of outside models, kept from an earlier time: mapped where they are right, else made anew."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from models import PROSE, TINY_MODEL
from wide_models import CONFIGS, Given, weights_of

import cramzip as library
from cramzip.errors import ModelError
from cramzip.exact import layouts, probe
from cramzip.lm import integers
from cramzip.lm.source import find


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of kept integers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cramzip" / "integers"


@pytest.fixture
def made(monkeypatch):
    """The shapes of models whose integers were made from floats."""
    shapes, read = [], layouts.read
    monkeypatch.setattr(layouts, "read", lambda shape, *rest: shapes.append(shape) or read(shape, *rest))
    return shapes


def bits_of(path=TINY_MODEL):
    lm = library.load(str(path))
    return probe.model_hash(lm.model), lm.model.embed([0, 3, 287]).tobytes()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layout_is_the_same_after_it_was_packed(name):
    shape = layouts.shape_of(CONFIGS[name])
    weights = layouts.read(shape, {key: Given(values) for key, values in weights_of(CONFIGS[name]).items()})
    data = memoryview(b"".join(part.tobytes() for part in layouts.pack(weights)))
    again = layouts.unpack(shape, data)
    assert probe.model_hash(probe.load(again)) == probe.model_hash(probe.load(weights))
    assert (again.embedding.integers == weights.embedding.integers).all()
    for wrong in (data[:-1], memoryview(bytes(data) + b"\0")):
        with pytest.raises(ValueError, match=f"expected {len(data)}"):
            layouts.unpack(shape, wrong)


def test_integers_are_made_once(kept, made):
    assert bits_of() == bits_of()
    assert len(made) == len(list(kept.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        lambda content: bytes(32) + content[32:],
    ],
)
def test_what_is_damaged_is_made_anew(kept, made, damage):
    right = bits_of()
    (file,) = kept.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert bits_of() == right
    assert file.read_bytes() == content
    assert len(made) == 2


def test_other_weights_and_another_program_have_other_files(kept, made, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(TINY_MODEL, tmp_path / "model"))
    first = bits_of(folder)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert bits_of(folder) != first
    monkeypatch.setattr(integers, "_program", lambda: b"another")
    bits_of(folder)
    assert len(made) == len(list(kept.iterdir())) == 3


def test_where_nothing_can_be_kept_models_work(kept, made, monkeypatch):
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")  # no folder
    assert bits_of() == bits_of()
    kept.unlink()
    monkeypatch.setattr(integers.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    bits_of()
    assert list(kept.iterdir()) == []
    monkeypatch.setattr(integers, "folder", lambda: None)
    bits_of()
    assert len(made) == 4


def test_the_folder_is_bounded_and_those_used_last_stay(kept, made, monkeypatch):
    bits_of()
    (file,) = kept.iterdir()
    old = [shutil.copy(file, kept / name) for name in ("a", "b")]
    for age, path in enumerate(old):
        os.utime(path, (1000 - age, 1000 - age))
    monkeypatch.setattr(integers, "MOST_BYTES", 2 * file.stat().st_size)
    file.unlink()
    bits_of()
    assert sorted(path.name for path in kept.iterdir()) == sorted([file.name, "a"])
    monkeypatch.setattr(integers, "MOST_BYTES", file.stat().st_size - 1)
    file.unlink()
    bits_of()
    assert not file.exists()


def test_a_model_that_cannot_be_run_is_the_same_error(kept, tmp_path):
    folder = Path(shutil.copytree(TINY_MODEL, tmp_path / "model"))
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ModelError, match="not finite"):
            library.compress(PROSE, library.load(str(folder)))
    assert find(str(folder)).fingerprint
