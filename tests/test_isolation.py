"""Nothing but the files of a model decides what it computes; nothing is fetched for it, and no code is run."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from models import TINY_MODEL, make_gguf, make_model
from safetensors.torch import load_file, save_file

from cramzip.errors import InputOutputError, ModelError
from cramzip.lm.frozen import FrozenLM
from cramzip.lm.isolation import view
from cramzip.lm.source import find

KERNELS = """
import enum, types
__version__ = "{}"
asked = []

def ask(*arguments, **options):
    asked.append(arguments)
    return types.ModuleType("kernel")

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "get_kernel":
        return ask
    if name.startswith("use_kernel"):
        return lambda *names: lambda decorated: decorated
    if name == "Mode":
        return enum.Flag("Mode", "INFERENCE TRAINING TORCH_COMPILE")
    methods = {{"load": ask, "__init__": lambda *_, **__: None, "__getattr__": lambda *_: None}}
    return type(name, (), methods | {{"ALL": 3}})
"""
LOADED = """
import json, sys
import cramzip, kernels
from cramzip.lm.models import as_torch
from transformers.utils import is_kernels_available
for path in sys.argv[1:]:
    assert is_kernels_available()
    kernels.asked.clear()
    try:
        lm = as_torch(cramzip.load(path))
        found = [lm._model.config._attn_implementation, lm.noise]
    except cramzip.CramError as error:
        found = [str(error)]
    print(json.dumps([bool(kernels.asked), *found]))
"""
NAMING_KERNELS = {
    f"{key} {value}": {key: value}
    for key in (
        "attn_implementation",
        "_attn_implementation",
        "experts_implementation",
        "_attn_implementation_internal",
    )
    for value in ("kernels-community/flash-attn2", "flash_attention_2")
} | {"a dictionary": {"attn_implementation": {"": "acme/attention"}}}
OTHERS = ("gguf", "mamba")


@pytest.fixture
def copy_of_tiny_model(tmp_path):
    return shutil.copytree(TINY_MODEL, tmp_path / "copy")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def with_kernels(tmp_path_factory):
    """Where the package `kernels` is installed, of every model: whether that was asked for any, attention, noise."""
    from transformers.utils import import_utils

    work = tmp_path_factory.mktemp("kernels")
    (work / "packages" / "kernels").mkdir(parents=True)
    (work / "packages" / "kernels" / "__init__.py").write_text(KERNELS.format(import_utils.KERNELS_MIN_VERSION))
    about = work / "packages" / f"kernels-{import_utils.KERNELS_MIN_VERSION}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {import_utils.KERNELS_MIN_VERSION}\n")
    paths = {name: work / str(number) for number, name in enumerate([*NAMING_KERNELS, "mamba"])}
    for name, changes in NAMING_KERNELS.items():
        change_config(shutil.copytree(TINY_MODEL, paths[name]), **changes)
    make_model("mamba", paths["mamba"])
    paths["gguf"] = make_gguf(work / "x.gguf")

    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(work / "packages"), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-c", LOADED, *paths.values()]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return dict(zip(paths, map(json.loads, finished.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", NAMING_KERNELS)
def test_no_kernel_of_the_hub_is_fetched_for_a_configuration_that_names_one(with_kernels, name):
    assert with_kernels[name] == [False, "sdpa", FrozenLM.load(TINY_MODEL).noise]


@pytest.mark.parametrize("name", OTHERS)
def test_no_kernel_of_the_hub_is_fetched_for_a_model_that_has_some(with_kernels, name):
    assert with_kernels[name][0] is False


def test_code_beside_a_known_architecture_is_not_run(copy_of_tiny_model):
    trap = copy_of_tiny_model / "run"
    change_config(copy_of_tiny_model, auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    (copy_of_tiny_model / "evil.py").write_text(f"open({str(trap)!r}, 'w')")
    assert FrozenLM.load(copy_of_tiny_model).noise == FrozenLM.load(TINY_MODEL).noise
    assert not trap.exists()


def test_how_to_compute_is_left_out_at_any_depth(copy_of_tiny_model):
    before = json.loads((copy_of_tiny_model / "config.json").read_text())
    parts = [{"attn_implementation": "acme/x", "dtype": "bfloat16", "kept": 1}]
    change_config(copy_of_tiny_model, parts=parts, use_kernels=True, fusion_config={"x": True})
    with view(copy_of_tiny_model) as folder:
        shown = json.loads((folder / "config.json").read_text())
    assert shown == {key: value for key, value in before.items() if key != "dtype"} | {"parts": [{"kept": 1}]}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "auto", "no such type"])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_model_is_float32_whatever_its_configuration_says(copy_of_tiny_model, key, dtype):
    change_config(copy_of_tiny_model, **{key: dtype})
    lm = FrozenLM.load(copy_of_tiny_model)
    assert {str(parameter.dtype) for parameter in lm._model.parameters()} == {"torch.float32"}


@pytest.mark.parametrize("method", ["fp8", "gptq", "bitsandbytes", "gguf", "mine"])
@pytest.mark.parametrize("part", [None, "text_config"])
def test_quantised_weights_are_refused(copy_of_tiny_model, method, part):
    quantisation = {"quantization_config": {"quant_method": method}}
    change_config(copy_of_tiny_model, **({part: quantisation} if part else quantisation))
    with pytest.raises(ModelError, match=f"quantised weights \\({method}\\) are not supported"):
        FrozenLM.load(copy_of_tiny_model)


def test_what_lies_beside_a_gguf_file_has_no_part_in_the_model(tmp_path):
    path = make_gguf(tmp_path / "x.gguf")
    before = FrozenLM.load(path)
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "adapter_config.json",
        "generation_config.json",
    ):
        (tmp_path / name).write_text('{"model_type": "gpt2", "base_model_name_or_path": "acme/base"}')
    after = FrozenLM.load(path)
    assert after.tokenizer_hash == before.tokenizer_hash
    assert after.noise == before.noise


def test_a_message_names_the_folder_of_the_model(copy_of_tiny_model):
    config = json.loads((copy_of_tiny_model / "config.json").read_text())
    del config["model_type"]
    (copy_of_tiny_model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=str(copy_of_tiny_model)):
        FrozenLM.load(copy_of_tiny_model)


def test_a_temporary_folder_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputOutputError, match="temporary folder"):
        FrozenLM.load(TINY_MODEL)


def test_a_program_that_has_loaded_a_model_is_as_free_as_before():
    import huggingface_hub.constants
    from transformers.utils import import_utils

    before = huggingface_hub.constants.HF_HUB_OFFLINE, import_utils._is_package_available
    FrozenLM(find(str(TINY_MODEL)))
    assert (huggingface_hub.constants.HF_HUB_OFFLINE, import_utils._is_package_available) == before


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


PROJECTION = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32], ids=str
)
def test_weights_of_a_type_that_needs_a_scale_are_refused(copy_of_tiny_model, dtype):
    change_weights(copy_of_tiny_model, lambda weights: weights.update({PROJECTION: weights[PROJECTION].to(dtype)}))
    with pytest.raises(ModelError, match=f"quantised weights are not supported \\({PROJECTION}"):
        FrozenLM.load(copy_of_tiny_model)


def test_masks_of_older_models_are_no_quantised_weights(copy_of_tiny_model):
    mask = {"model.layers.0.self_attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)}
    change_weights(copy_of_tiny_model, lambda weights: weights.update(mask))
    assert FrozenLM.load(copy_of_tiny_model).noise == FrozenLM.load(TINY_MODEL).noise


@pytest.mark.parametrize(
    "name",
    [
        f"{PROJECTION}_scale_inv",
        f"{PROJECTION}_scale",
        f"{PROJECTION}.absmax",
        "model.layers.0.mlp.up_proj.SCB",
        "model.layers.0.mlp.up_proj.scales",
        "model.layers.0.mlp.up_proj.qzeros",
        "model.layers.0.mlp.up_proj.lora_A.weight",
    ],
)
def test_what_quantised_weights_or_an_adapter_left_behind_is_told(copy_of_tiny_model, name):
    change_weights(copy_of_tiny_model, lambda weights: weights.update({name: torch.ones(4, 4)}))
    with pytest.raises(ModelError, match=name):
        FrozenLM.load(copy_of_tiny_model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_any_precision_become_float32(copy_of_tiny_model, dtype):
    change_weights(copy_of_tiny_model, lambda weights: weights.update({PROJECTION: weights[PROJECTION].to(dtype)}))
    model = FrozenLM.load(copy_of_tiny_model)._model
    assert {tensor.dtype for tensor in [*model.parameters(), *model.buffers()]} == {torch.float32}
