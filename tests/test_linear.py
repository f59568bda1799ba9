"""Linear layers laid out for the CPU, and the steps of Llama models: the same numbers as those of the libraries."""

import pytest
import torch
from models import TINY_MODEL, make_model
from torch import nn

from cramzip.lm.frozen import FrozenLM
from cramzip.lm.speed import linear
from cramzip.lm.speed.linear import PackedLinear, pack_layers

needs_onednn = pytest.mark.skipif(not linear.is_available(), reason="this PyTorch has no oneDNN")
SHAPES = [(1, 16), (7, 16), (2, 3, 16), (300, 16)]


@pytest.fixture
def layer(request):
    torch.manual_seed(0)
    return nn.Linear(16, 24, bias=getattr(request, "param", True)).requires_grad_(False)


def result_and_gradient(layer, x, dtype=torch.float32):
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        y = layer(x)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    return y, gradient


@needs_onednn
@pytest.mark.parametrize("layer", [True, False], indirect=True, ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_packed_layer_gives_what_the_layer_gives_and_its_gradient(layer, shape, dtype):
    x = torch.randn(*shape)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    for found, expected in zip(
        result_and_gradient(PackedLinear(layer), x, dtype), result_and_gradient(layer, x, dtype), strict=True
    ):
        assert found.dtype is expected.dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@needs_onednn
def test_other_precisions_and_a_look_at_the_weight_are_slow_but_right(layer):
    packed, x = PackedLinear(layer), torch.randn(3, 16, dtype=torch.float64)
    assert torch.equal(packed.weight, layer.weight)
    torch.testing.assert_close(packed(x), layer.double()(x), rtol=0, atol=1e-6)


@needs_onednn
def test_all_linear_layers_of_a_model_are_packed(tmp_path):
    model = make_model("gpt_neox", tmp_path)
    layers = sum(type(module) is nn.Linear for module in model.modules())
    pack_layers(model)
    assert sum(type(module) is PackedLinear for module in model.modules()) == layers > 0
    assert not any(type(module) is nn.Linear for module in model.modules())


def test_without_onednn_layers_stay_as_they_are(layer, monkeypatch):
    def missing(*_):
        raise AttributeError("there is no such operator")

    monkeypatch.setattr(linear, "_pack", missing)
    module = nn.Sequential(layer)
    pack_layers(module)
    assert module[0] is layer


@pytest.mark.parametrize("architecture", [None, "llama"])
def test_steps_of_llama_models_are_those_of_transformers(architecture, tmp_path):
    """Grouped heads, and so many positions that rotations have to be computed again."""
    if architecture:
        make_model(architecture, tmp_path)
    lm = FrozenLM.load(tmp_path if architecture else TINY_MODEL)
    n = min(lm.context, 300)
    inputs = lm.embed(torch.randint(lm.vocabulary_size, (2, n), generator=torch.Generator().manual_seed(0)))
    assert lm._llama is not None
    lm._llama._rotations = lm._llama._rotate_up_to(4)
    with torch.inference_mode():
        whole = lm.logits(inputs)
        last, cache = lm.step(inputs[:, :3])
        for t in range(3, n):
            last, cache = lm.step(inputs[:, t : t + 1], cache)
            torch.testing.assert_close(last, whole[:, t], rtol=0, atol=1e-3 * float(whole.std()))


def test_other_models_have_no_such_steps(tmp_path):
    make_model("qwen3", tmp_path)
    assert FrozenLM.load(tmp_path)._llama is None
