"""Programs that have set PyTorch up in their own way: the same files, and the program finds its settings again."""

from contextlib import contextmanager

import pytest
import torch
from models import TINY_MODEL, recital

from cramzip import CramConfig, compress, decompress, load

CONFIGS = {
    "no vectors": CramConfig(vectors=0),
    "vectors": CramConfig(effort=1),
    "exact": CramConfig(effort=1, vectors=4, exact=True),
}


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
    return load(str(TINY_MODEL), device="cpu")


@pytest.fixture(scope="module")
def text(lm):
    return recital(lm, 24)


@pytest.mark.parametrize("loaded", ["before", "within"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_is_the_same_in_every_program(lm, text, never_stored, program, config, loaded):
    expected = compress(text, lm, CONFIGS[config])
    with PROGRAMS[program]():
        own = load(str(TINY_MODEL), device="cpu") if loaded == "within" else lm
        found = compress(text, own, CONFIGS[config])
        assert found == expected
        assert decompress(found, own) == text
    assert decompress(found, lm) == text


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_finds_its_settings_again(text, program):
    def settings():
        flags = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        return *flags, torch.get_default_dtype(), torch.get_default_device()

    with PROGRAMS[program]():
        before = settings()
        compress(text, load(str(TINY_MODEL), device="cpu"), CONFIGS["vectors"])
        assert settings() == before
