"""The same bits from other kernels of BLAS and other numbers of threads, as other machines would choose them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import hashlib, sys, wide_models
from test_exact_llama import GROUPED, PRIMER, random_model, random_tokens
from cramzip.exact import lanes, probe, weights

print(wide_models.digest())
digest = hashlib.sha256()
for model, n in ((random_model(GROUPED), 50), (probe.load(weights.read_model(PRIMER)), 24)):
    assert model.dtype.__name__ == "float32"
    tokens = random_tokens(model.shape, n).tolist()
    for n_lanes in (1, 7):
        payload = lanes.encode_lanes(model, tokens, n_lanes)
        assert lanes.decode_lanes(model, payload, n, n_lanes) == tokens
        digest.update(payload)
    digest.update(model.logits(model.embed([tokens] * 3), model.new_cache(3, n)).tobytes())
print(digest.hexdigest())
"""
EXPECTED = "d568dadaa740356c287bdc1d636ea3178aad4c430ff4c235b0409e460e1609f5"
WIDE = "6d22469842026cb743321087e68d54df0322372ffc365469c079fd3add969f80"  # of models with float weights
KERNELS = ["Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids"]
VECTORS = {"Haswell": "avx2", "Zen": "avx2", "Sandybridge": "avx", "SkylakeX": "avx512f", "Cooperlake": "avx512_bf16"}
VECTORS |= {"Sapphirerapids": "amx_bf16"}


def has(feature):
    info = Path("/proc/cpuinfo")
    return info.exists() and feature in info.read_text().split()


@pytest.mark.parametrize(("kernel", "threads"), [(None, "1"), (None, "2"), *((kernel, "1") for kernel in KERNELS)])
def test_kernels_and_threads_change_no_bit(kernel, threads):
    if kernel and platform.machine() != "x86_64":
        pytest.skip("kernels of another processor")
    if kernel in VECTORS and not has(VECTORS[kernel]):
        pytest.skip(f"this processor has no {VECTORS[kernel]}")
    chosen = {"OPENBLAS_CORETYPE": kernel} if kernel else {}
    environment = os.environ | chosen | {"OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("OMP_NUM_THREADS", None)
    finished = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == [WIDE, EXPECTED]
