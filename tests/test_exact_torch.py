"""The same arithmetic in torch: the same bits, whatever torch chooses to compute them with."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import wide_models
from test_exact_llama import GROUPED, PLAIN, PRIMER, in_pieces, random_model, random_tokens

from cramzip.errors import ModelError
from cramzip.exact import lanes, probe, weights
from cramzip.exact.cache import WINDOW
from cramzip.lm import exact_torch
from cramzip.lm.exact_torch import TorchLlama

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
CODE = """
import sys, torch, wide_models
from test_exact_torch import digest
from test_exact_llama import GROUPED, PRIMER, random_model
from cramzip.exact import weights
from cramzip.lm import exact_torch, exact_torch_wide

torch.set_num_threads(int(sys.argv[1]))
twins = exact_torch.TorchLlama(random_model(GROUPED).weights), exact_torch.load(weights.read_model(PRIMER))
print(digest(*twins), wide_models.digest(exact_torch_wide.load))
"""
SETTINGS = {
    "old processor": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "newer processor": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "this processor": {"THREADS": "2"},
}


@pytest.fixture(scope="module", params=[GROUPED, PLAIN], ids=["grouped", "plain"])
def model(request):
    return random_model(request.param)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", [[90], [1], [7, 1, 64]], ids=str)
def test_torch_gives_the_bits_of_numpy(model, sizes, device):
    x = model.embed(random_tokens(model.shape, 3, 90))
    assert (in_pieces(TorchLlama(model.weights, device), x, sizes) == in_pieces(model, x, [90])).all()


@pytest.mark.parametrize("device", DEVICES)
def test_torch_gives_the_bits_of_numpy_beyond_the_window(device):
    model = random_model(PLAIN)
    x = model.embed(random_tokens(PLAIN, 2, WINDOW + 300))
    assert (in_pieces(TorchLlama(model.weights, device), x, [100]) == in_pieces(model, x, [x.shape[1]])).all()


def test_how_much_is_computed_at_once_changes_nothing(model, monkeypatch):
    x = model.embed(random_tokens(model.shape, 5, 30))
    whole = in_pieces(TorchLlama(model.weights), x, [30])
    monkeypatch.setattr(exact_torch, "KEYS_AT_ONCE", 1)
    assert (in_pieces(TorchLlama(model.weights), x, [30]) == whole).all()


@pytest.mark.parametrize("size", [0.0, 1e-30, 2.0**16])
def test_vectors_of_any_size_have_the_same_logits(model, size):
    x = np.full((1, 3, model.shape.width), size, np.float32)
    assert (in_pieces(TorchLlama(model.weights), x, [1]) == in_pieces(model, x, [3])).all()


def test_lanes_written_with_numpy_are_read_with_torch(model):
    tokens = random_tokens(model.shape, 60).tolist()
    twin = TorchLlama(model.weights)
    payload = lanes.encode_lanes(model, tokens, 4)
    assert lanes.encode_lanes(twin, tokens, 4) == payload
    assert lanes.decode_lanes(twin, payload, 60, 4) == tokens


def test_what_the_program_around_allows_changes_nothing(model):
    x = model.embed(random_tokens(model.shape, 3, 20))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (in_pieces(TorchLlama(model.weights), x, [20]) == in_pieces(model, x, [20])).all()
    finally:
        torch.set_float32_matmul_precision(precision)


def test_wrong_bits_are_an_error(monkeypatch):
    monkeypatch.setattr(exact_torch, "SIGMOID_RANGE", 15)
    with pytest.raises(ModelError, match="come out right"):
        exact_torch.load(weights.read_model(PRIMER))


def digest(*models):
    found = hashlib.sha256()
    for model in models:
        x = model.embed(random_tokens(model.shape, 3, 40))
        for sizes in ([40], [1]):
            found.update((in_pieces(model, x, sizes) + 0).tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def expected():
    return [digest(random_model(GROUPED), probe.load(weights.read_model(PRIMER))), wide_models.digest()]


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_kernels_and_threads_change_no_bit(setting, expected):
    environment = os.environ | setting | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", CODE, setting.get("THREADS", "1")]
    finished = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == expected
