"""What cramzip uses although the libraries do not promise it.

A failure here means that a new version of a library has moved something: the message says what. cramzip goes on without
most of it, only slower; whoever raises a version in constraints.txt decides what to do about it.
"""

import importlib.util
import multiprocessing.resource_tracker
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from models import TINY_MODEL

from cramzip.errors import UsageError
from cramzip.lm import devices
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.speed import cache, linear, llama
from cramzip.workers import cluster

LLAMA = (
    "lm_head.weight",
    "model.norm.weight",
    "model.norm.variance_epsilon",
    "model.rotary_emb",
    "model.layers.0.input_layernorm.variance_epsilon",
    "model.layers.0.post_attention_layernorm.variance_epsilon",
    "model.layers.0.self_attn.head_dim",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
)
LAYER = ("is_initialized", "keys", "values", "lazy_initialization", "update", "get_seq_length")


def moved(library, function):
    """What a failure says."""
    installed = platform.python_version() if library == "python" else version(library)
    return f"{library} {installed} has moved or changed {function}"


def require(owner, library, *names):
    """Fail with the first of the names, such as `layers.0.weight`, that `owner` does not have."""
    for name in names:
        part = owner
        for step in name.split("."):
            part = part[int(step)] if step.isdigit() else getattr(part, step, None)
            assert part is not None, moved(library, f"{getattr(owner, '__name__', type(owner).__name__)}.{name}")


def imported(library, module):
    try:
        return importlib.import_module(module)
    except ImportError:
        pytest.fail(moved(library, module))


def has_operators():
    return torch.backends.mkldnn.is_available()


# -- they are where they were ----------------------------------------------------------------------


@pytest.mark.skipif(not has_operators(), reason="this PyTorch has no oneDNN")
def test_pytorch_has_the_operators_of_onednn():
    for name in ("_reorder_linear_weight", "_linear_pointwise"):
        assert hasattr(torch.ops.mkldnn, name), moved("torch", f"torch.ops.mkldnn.{name}")
    assert linear.is_available(), moved("torch", "what the operators of torch.ops.mkldnn take or give")


def test_pytorch_says_whether_the_processor_has_bfloat16():
    names = ("get_capabilities", "_is_avx512_bf16_supported")
    assert any(hasattr(torch.cpu, name) for name in names), moved("torch", f"torch.cpu.{' and torch.cpu.'.join(names)}")


def test_transformers_has_the_layer_of_a_cache():
    module = imported("transformers", "transformers.cache_utils")
    require(module, "transformers", "DynamicLayer")
    require(module.DynamicLayer, "transformers", "lazy_initialization", "update", "get_seq_length")
    layer = module.DynamicLayer()
    layer.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    require(layer, "transformers", *LAYER)
    assert cache.is_available(), moved("transformers", "what DynamicLayer.update takes or gives")


def test_transformers_builds_llamas_of_the_same_parts():
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(TINY_MODEL)
    assert type(model) is transformers.LlamaForCausalLM
    require(model, "transformers", *LLAMA)
    assert llama.is_available(), moved("transformers", "how LlamaForCausalLM computes")


def test_hugging_face_keeps_each_commit_in_a_folder_of_its_name(tmp_path):
    """Where the revision of a model is read off."""
    from huggingface_hub import snapshot_download

    commit = 40 * "a"
    (tmp_path / "models--who--what" / "snapshots" / commit).mkdir(parents=True)
    (tmp_path / "models--who--what" / "refs").mkdir()
    (tmp_path / "models--who--what" / "refs" / "main").write_text(commit)
    found = snapshot_download("who/what", cache_dir=tmp_path, local_files_only=True)
    assert Path(found).name == commit, moved("huggingface_hub", "the folders of its cache")


def test_ray_prints_with_a_function_that_can_be_replaced():
    pytest.importorskip("ray")
    require(imported("ray", "ray._private.worker"), "ray", "print_to_stdstream")


def test_python_starts_its_resource_tracker_on_request():
    require(multiprocessing.resource_tracker, "python", "ensure_running")


# -- cramzip goes on without them ------------------------------------------------------------------


@pytest.fixture
def asked_again():
    """What was found out about the libraries is found out again, before and after."""
    for module in (cache, llama):
        module.is_available.cache_clear()
    yield
    for module in (cache, llama):
        module.is_available.cache_clear()


def logits_of_three_steps(lm):
    inputs = lm.embed(torch.arange(8).reshape(2, 4))
    with torch.inference_mode():
        whole = lm.logits(inputs)
        _, state = lm.step(inputs[:, :2])
        _, state = lm.step(inputs[:, 2:3], state)
        last, state = lm.step(inputs[:, 3:], state)
    torch.testing.assert_close(last, whole[:, -1], rtol=0, atol=1e-3)
    return state


@pytest.mark.usefixtures("asked_again")
def test_layers_of_a_cache_that_are_made_otherwise_stay_as_they_are(monkeypatch):
    monkeypatch.delattr(cache.DynamicLayer, "lazy_initialization")
    assert not cache.is_available()
    monkeypatch.undo()
    monkeypatch.setattr(cache, "is_available", lambda: False)
    state = logits_of_three_steps(FrozenLM.load(TINY_MODEL))
    assert {type(layer) for layer in state.layers} == {cache.DynamicLayer}


def test_a_cache_whose_layers_have_moved_stays_as_it_is(monkeypatch):
    layer = cache.DynamicLayer()
    layer.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    monkeypatch.delattr(sys.modules["transformers.cache_utils"], "DynamicLayer")
    spec = importlib.util.spec_from_file_location("cache_without_layers", cache.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.is_available()
    assert module.with_room(SimpleNamespace(layers=[layer])).layers == [layer]


@pytest.mark.usefixtures("asked_again")
def test_llamas_whose_parts_have_other_names_take_the_steps_of_transformers(monkeypatch):
    monkeypatch.setattr(llama, "_normalize", lambda norm, x: norm.epsilon_under_another_name)
    assert not llama.is_available()


@pytest.mark.usefixtures("asked_again")
def test_llamas_that_compute_otherwise_take_the_steps_of_transformers(monkeypatch):
    attention = imported("transformers", "transformers.models.llama.modeling_llama").LlamaAttention
    make = attention.__init__

    def make_sharper(self, *arguments, **named):
        make(self, *arguments, **named)
        self.scaling *= 2

    monkeypatch.setattr(attention, "__init__", make_sharper)
    assert not llama.is_available()


@pytest.mark.usefixtures("asked_again")
def test_without_steps_of_its_own_a_llama_says_the_same(monkeypatch):
    monkeypatch.setattr(llama, "is_available", lambda: False)
    lm = FrozenLM.load(TINY_MODEL)
    assert lm._llama is None
    logits_of_three_steps(lm)


@pytest.mark.usefixtures("asked_again")
def test_finding_out_draws_no_random_numbers():
    before = torch.get_rng_state()
    assert llama.is_available()
    assert cache.is_available()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_tile", None])
def test_bfloat16_of_a_processor_is_known_from_what_pytorch_says_publicly_or_privately(monkeypatch, feature):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True}, raising=False)
    assert devices.has_fast_bfloat16("cpu") is (feature is not None)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name == feature, raising=False)
    assert devices.has_fast_bfloat16("cpu") is (feature is not None)


def test_a_pytorch_that_says_nothing_of_the_processor_works_in_float32(monkeypatch):
    for name in ("get_capabilities", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not devices.has_fast_bfloat16("cpu")


@pytest.mark.parametrize(
    "private", [{}, {"_private": SimpleNamespace()}, {"_private": SimpleNamespace(worker=SimpleNamespace())}], ids=str
)
def test_a_ray_that_cannot_be_kept_from_printing_is_an_error(private):
    with pytest.raises(UsageError, match=r"Ray 99\.0 would print where data may go"):
        cluster._silence(SimpleNamespace(__version__="99.0", **private))


def test_what_has_moved_is_named_with_library_and_version():
    with pytest.raises(AssertionError, match=rf"^{re.escape(moved('torch', 'torch.cpu._gone'))}"):
        require(torch.cpu, "torch", "_gone")
