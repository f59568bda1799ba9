"""Float32 stays float32, whatever the environment and the program around have asked for."""

import json
import os
import subprocess
import sys

import pytest
import torch
from models import TINY_MODEL, make_model

from cramzip.errors import ModelError
from cramzip.lm import precision
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.speed import linear

SCORE = """
import sys, cramzip
from cramzip.lm.models import as_torch
for path in sys.argv[1:]:
    as_torch(cramzip.load(path, device="cpu")).score([list(range(60, 90))])
"""
VERBOSE = {"ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"}

# What programs may have asked for before, each in a process of its own; then all settings as they are, within and
# afterwards.
STATES = """
import json, os, sys, torch
from cramzip.lm.precision import plain_float32

def state():
    kinds = [(name, kind) for name in ("cuda", "mkldnn") for kind in ("all", "matmul", "conv", "rnn")]
    read = torch._C._get_fp32_precision_getter
    newer = {f"{name} {kind}": read(name, kind) for name, kind in [("generic", "all"), *kinds]}
    older = {}
    for name, read in {
        "matmul": torch.get_float32_matmul_precision,
        "cublas": lambda: torch.backends.cuda.matmul.allow_tf32,
        "cudnn": lambda: torch.backends.cudnn.allow_tf32,
    }.items():
        try:
            older[name] = read()
        except RuntimeError:
            older[name] = "at odds"
    return newer | older

for asked in sys.argv[1:]:
    if os.fork():
        assert os.wait()[1] == 0
        continue
    exec(asked)
    before = state()
    with plain_float32("cpu"):
        within = state()
    print(json.dumps([before, within, state()]), flush=True)
    os._exit(0)
"""
SETTINGS = [
    "pass",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'ieee'; torch.backends.cudnn.conv.fp32_precision = 'tf32'",
]


@pytest.fixture(scope="module")
def mamba(tmp_path_factory):
    """A model with convolutions."""
    folder = tmp_path_factory.mktemp("mamba")
    make_model("mamba", folder)
    return folder


@pytest.fixture(scope="module")
def all_states():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this PyTorch has only the older settings")
    shown = subprocess.run([sys.executable, "-c", STATES, *SETTINGS], capture_output=True, check=True, text=True).stdout
    return dict(zip(SETTINGS, map(json.loads, shown.splitlines()), strict=True))


@pytest.fixture(params=SETTINGS)
def states(request, all_states):
    return all_states[request.param]


def test_products_are_asked_for_in_float32_whatever_was_set_before(states):
    _, within, _ = states
    kinds = ("cuda matmul", "cuda conv", "cuda rnn", "mkldnn matmul", "mkldnn conv", "mkldnn rnn")
    assert {within[kind] for kind in kinds} == {"ieee"}
    assert within["matmul"] == "highest"
    assert within["cublas"] is False


def test_the_settings_of_the_program_around_are_what_they_were(states):
    before, _, after = states
    assert after == before


@pytest.mark.parametrize("value", ["BF16", "strict"])
def test_products_are_float32_whatever_the_environment_asks_of_onednn(mamba, value):
    """In any of its variables: of those that are left, the library would listen to one."""
    environment = os.environ | VERBOSE | dict.fromkeys(precision.ONEDNN_VARIABLES, value)
    command = [sys.executable, "-c", SCORE, TINY_MODEL, mamba]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    run = [line for line in finished.stdout.splitlines() if ",exec," in line]
    assert [line for line in run if "fpmath" in line] == []
    assert any("inner_product" in line for line in run) is (value == "strict" and linear.is_available())


def rounded(linear):
    """A layer as libraries compute it that round float32 numbers to bfloat16."""
    return lambda x: torch.nn.functional.linear(x.bfloat16(), linear.weight.bfloat16()).float()


def test_products_that_are_rounded_are_told():
    precision.require_float32("cpu")
    with pytest.raises(ModelError, match="ONEDNN_DEFAULT_FPMATH_MODE"):
        precision.require_float32("cpu", rounded)


def test_layers_whose_products_are_rounded_are_not_packed(monkeypatch):
    multiply = linear._multiply
    monkeypatch.setattr(linear, "_multiply", lambda x, weight, bias: multiply(x, weight, bias).bfloat16().float())
    assert not linear.is_available()


def test_a_model_is_not_loaded_where_products_are_rounded(monkeypatch):
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: rounded(self)(x))
    with pytest.raises(ModelError, match="float32"):
        FrozenLM.load(TINY_MODEL, device="cpu")
