"""examples/training/blend.py: the mean of two models."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from models import ROOT
from safetensors.torch import load_file

sys.path.insert(0, str(ROOT / "examples" / "training"))

import blend
from test_training import TINY, corpus, prepared, run, trained  # noqa: F401

import cramzip


@pytest.fixture(scope="module")
def folders(trained, corpus, tmp_path_factory):  # noqa: F811
    """A model, and what it becomes when it is trained on."""
    parent = tmp_path_factory.mktemp("models")
    run("export", trained, parent / "before")
    run("train", trained, "--tokens", 16000, *TINY)
    run("export", trained, parent / "after")
    return parent / "before", parent / "after"


def blended(*arguments):
    return CliRunner().invoke(blend.main, [str(a) for a in arguments])


def test_weights_are_mixed_by_their_share(folders, tmp_path):
    assert blended(*folders, tmp_path / "new", "--share", 0.25).exit_code == 0
    one, two, new = (load_file(f / "model.safetensors") for f in (*folders, tmp_path / "new"))
    assert any((one[name] != two[name]).any() for name in one)
    assert all(
        torch.allclose(0.75 * one[name].float() + 0.25 * two[name].float(), new[name].float(), atol=1e-3)
        for name in one
    )
    lm = cramzip.load(str(tmp_path / "new"))
    assert cramzip.decompress(cramzip.compress(b"The licence", lm), lm) == b"The licence"


def test_shares_are_measured_on_the_held_out_sample(folders, trained):  # noqa: F811
    result = blended(*folders, "--work", trained)
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["share"] for line in lines] == list(blend.SHARES)
    assert lines[0]["bits_per_byte"] != lines[-1]["bits_per_byte"]


def test_models_of_different_shapes_are_refused(folders, prepared, tmp_path):  # noqa: F811
    run("train", prepared, "--tokens", 1000, *TINY, "--intermediate", 96)
    run("export", prepared, tmp_path / "wider")
    result = blended(folders[0], tmp_path / "wider", tmp_path / "new")
    assert result.exit_code == 2
    assert "different shapes" in result.output
