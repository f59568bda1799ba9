"""Programs that have set PyTorch up in their own way: the same files, and the program finds its settings again."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from models import ROOT, TINY_MODEL, recital

from cramzip import CramConfig, FrozenLM, compress, decompress, read
from cramzip.container.records import Kind

CONFIGS = {
    "no vectors": CramConfig(vectors=0),
    "vectors": CramConfig(vectors=1, effort=1),
    "exact": CramConfig(effort=1, vectors=4, exact=True),
}

KINDS = {"no vectors": Kind.PREDICTED, "vectors": Kind.CORRECTED, "exact": Kind.RECITED}


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def newer_precision():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this PyTorch has no such setting")
    torch.backends.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.fp32_precision = "none"


PROGRAMS = {
    "float64": default_dtype,
    "another device": default_device,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "newer precision": newer_precision,
}


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.load(TINY_MODEL, device="cpu")


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 24)


@pytest.fixture(scope="module")
def expected(lm):
    """The file that a plain program makes of a text, which is made once."""
    return cache(lambda text, config: compress(text, lm, CONFIGS[config]))


@pytest.mark.parametrize(
    ("config", "loaded"),
    [("no vectors", "before"), ("no vectors", "within"), ("vectors", "within"), ("exact", "before")],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_is_the_same_in_every_program(lm, text, expected, never_stored, program, config, loaded):
    data = text[:10] if config == "exact" else text
    with PROGRAMS[program]():
        own = FrozenLM.load(TINY_MODEL, device="cpu") if loaded == "within" else lm
        found = compress(data, own, CONFIGS[config])
        assert decompress(found, own) == data
    assert {entry.kind for entry in read(found).entries} == {KINDS[config]}
    assert found == expected(data, config)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_finds_its_settings_again(text, program):
    def settings():
        flags = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        return *flags, torch.get_default_dtype(), torch.get_default_device()

    with PROGRAMS[program]():
        before = settings()
        compress(text, FrozenLM.load(TINY_MODEL, device="cpu"), CONFIGS["vectors"])
        assert settings() == before


def test_threads_of_openmp_sleep_while_they_wait_whatever_the_environment_says(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"Call me Ishmael.")
    command = [sys.executable, "-m", "cramzip", "c", "--ranks", "-m", str(ROOT / "formats" / "model"), "a.txt"]
    asked = {**os.environ, "OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "1000", "OMP_DISPLAY_ENV": "verbose"}
    shown = subprocess.run(command, cwd=tmp_path, env=asked, capture_output=True, check=True, text=True).stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown
    assert "GOMP_SPINCOUNT = '1000'" not in shown
