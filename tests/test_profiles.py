"""What was measured of a model, and who makes use of it."""

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import TINY_MODEL, segments_of

from cramzip import CramConfig
from cramzip.coding import corrected, recited
from cramzip.coding.chunking import prior_capacity
from cramzip.coding.parameters import expected
from cramzip.errors import InputOutputError
from cramzip.lm import profiles
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.profiles import SHIPPED, Profile
from cramzip.lm.source import find


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def profile_of(lm, **changes):
    profile = Profile(lm.fingerprint.hex(), lm.model_id, 123.0, 2.5, lm.embedding_scale, 1e-5, {"torch": "2"})
    return replace(profile, **changes)


def test_a_saved_profile_is_found_by_the_fingerprint_of_its_model(lm, home):
    path = profiles.save(profile_of(lm))
    assert path.parent == home / "cramzip" / "profiles"
    assert profiles.find(lm.fingerprint) == profile_of(lm)
    assert profiles.find(bytes(32)) is None


def test_a_later_profile_takes_the_place_of_an_earlier_one(lm, home):
    for bits in (100.0, 200.0):
        path = profiles.save(profile_of(lm, bits_per_vector=bits))
    assert profiles.find(lm.fingerprint).bits_per_vector == 200
    assert [path] == list(path.parent.iterdir())


def test_a_profile_that_there_is_no_room_for_leaves_the_earlier_one(lm, little_room):
    path = profiles.save(profile_of(lm))
    with little_room(100), pytest.raises(InputOutputError, match="cannot be written: File too large"):
        profiles.save(profile_of(lm, bits_per_vector=200.0))
    assert profiles.find(lm.fingerprint) == profile_of(lm)
    assert [path] == list(path.parent.iterdir())


def test_the_profile_of_a_user_comes_before_the_one_that_is_shipped(lm, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "SHIPPED", tmp_path / "shipped")
    profiles.save(profile_of(lm, bits_per_vector=1.0), profiles.SHIPPED)
    assert profiles.find(lm.fingerprint).bits_per_vector == 1
    profiles.save(profile_of(lm, bits_per_vector=2.0))
    assert profiles.find(lm.fingerprint).bits_per_vector == 2


def test_the_origin_is_kept_to_half_precision(lm):
    numbers = torch.randn(lm.width, generator=torch.Generator().manual_seed(0))
    profiles.save(profile_of(lm, origin=tuple(numbers.tolist())))
    assert profiles.find(lm.fingerprint).origin == tuple(numbers.half().tolist())


@pytest.mark.parametrize("origin", ["", "AAA", "AAAA", "Aß==", 3, "AH4="], ids=str)  # the last is infinite
def test_an_origin_that_does_not_fit_is_none(lm, origin):
    path = profiles.save(profile_of(lm))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origin": origin}))
    assert expected(lm).origin is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint": 1}', "\0"])
def test_a_profile_that_cannot_be_read_is_none(lm, content):
    profiles.save(profile_of(lm)).write_text(content)
    assert profiles.find(lm.fingerprint) is None


@pytest.mark.parametrize("changes", [{"bits_per_vector": 0}, {"learning_rate": float("nan")}, {"fingerprint": "00"}])
def test_a_profile_that_makes_no_sense_is_none(lm, changes):
    path = profiles.save(profile_of(lm))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert profiles.find(lm.fingerprint) is None


def test_a_profile_that_cannot_be_written_is_an_error(lm, home):
    (home / "cramzip").write_text("in the way")
    with pytest.raises(InputOutputError):
        profiles.save(profile_of(lm))


def test_without_a_profile_the_capacity_is_the_published_one_or_a_guess(lm):
    assert expected(lm).capacity == prior_capacity(lm.width, lm.vocabulary_size, lm.n_layers)
    assert expected(lm).learning_rate is None


def test_chunks_are_cut_by_the_profile_of_the_model(lm):
    profiles.save(profile_of(lm))
    assert expected(lm).capacity == 123


@pytest.fixture
def crammed_with(monkeypatch):
    """The configurations that chunks are crammed with from now on."""
    configs = []

    def spied(module):
        cram = module.cram

        def spy(goal, chunks, **options):
            configs.append(goal.config)
            return cram(goal, chunks, **options)

        monkeypatch.setattr(module, "cram", spy)

    spied(corrected)
    spied(recited)
    return configs


def encode_a_sentence(lm, config):
    segments_of(b"the cat sat", lm, config)


@pytest.mark.parametrize(("given", "used"), [(None, 2.5), (1.5, 1.5)])
def test_vectors_that_have_to_be_exact_start_with_the_rate_of_the_profile(lm, crammed_with, given, used):
    profiles.save(profile_of(lm, bits_per_vector=20.0))
    encode_a_sentence(lm, CramConfig(vectors=1, effort=1, exact=True, learning_rate=given))
    assert {config.learning_rate for config in crammed_with} == {used}


@pytest.mark.parametrize("exact", [False, True])
def test_all_vectors_start_around_the_origin_of_the_profile(lm, crammed_with, exact):
    profiles.save(profile_of(lm, bits_per_vector=20.0, origin=(0.5,) * lm.width))
    encode_a_sentence(lm, CramConfig(vectors=1, effort=1, exact=exact))
    assert {config.origin for config in crammed_with} == {(0.5,) * lm.width}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_profile_can_be_read(path):
    fingerprint = bytes.fromhex(json.loads(path.read_text())["fingerprint"])
    assert path.name.startswith(fingerprint.hex()[:16])
    assert profiles.find(fingerprint).measured["torch"]


def test_the_shipped_profile_of_the_builtin_model_is_of_its_present_weights():
    found = [json.loads(path.read_text()) for path in SHIPPED.glob("*.json")]
    builtin = [one["fingerprint"] for one in found if one["model"] == "builtin:primer"]
    assert builtin in ([], [find().fingerprint.hex()])


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the list of users, as in some containers."""

    def getpwuid(_):
        raise KeyError("uid not found")

    for variable in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", getpwuid)


def test_a_user_without_a_home_has_the_profiles_that_are_shipped(homeless):
    assert profiles.find(find().fingerprint).model == "builtin:primer"
    assert profiles.find(bytes(32)) is None


def test_a_user_without_a_home_cannot_save_a_profile_but_for_a_folder(lm, homeless, tmp_path):
    with pytest.raises(InputOutputError, match="HOME"):
        profiles.save(profile_of(lm))
    assert profiles.save(profile_of(lm), tmp_path).parent == tmp_path


def test_a_profile_is_on_the_disk_before_it_takes_the_place_of_an_older_one(lm, tmp_path, monkeypatch):
    done, fsync, replace_by = [], os.fsync, Path.replace

    def noted_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", lambda self, target: done.append("replace") or replace_by(self, target))
    profiles.save(profile_of(lm), tmp_path)
    assert done == ["file", "replace", "folder"]


def test_a_profile_that_cannot_be_written_leaves_nothing_behind(lm, tmp_path, monkeypatch):
    path = profiles.save(profile_of(lm), tmp_path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputOutputError, match="No space left"):
        profiles.save(profile_of(lm, bits_per_vector=1.0), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []
