"""transformers, shown nothing of a model but what its fingerprint covers, and kept from fetching or running more.

A configuration can name code of several kinds: kernels of the Hub for attention, experts or whole layers, Python files
beside it, adapters, quantisation. Nothing of that is followed. What only chooses between ways to compute the same is
left out; what changes the output is refused.
"""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import InputOutputError, ModelError, one_line
from .weights import INDEX, weight_files

# Keys, at any depth of a configuration, that say how or where to compute, or where to get more, and not what.
LEFT_OUT = re.compile(
    r"_?\w+_implementation(_\w+)?|auto_map|custom_pipelines|(torch_)?dtype|_?name_or_path"
    r"|use_kernels|kernel_config|fusion_config|distributed_config|device_map|tp_plan|tp_size"
)
REFUSED = ("quantization_config", "compression_config")
GGUF_NAME = "model.gguf"


@contextmanager
def view(path: Path) -> Iterator[Path]:
    """A folder that holds the weights and the plain configuration of a model folder, or a GGUF file, and nothing else.

    Raises ModelError, InputOutputError. What is raised within names `path` instead of the folder.
    """
    with _temporary_folder() as folder:
        if path.is_file():
            (folder / GGUF_NAME).symlink_to(path.resolve())
        else:
            config = json.dumps(_plain(json.loads((path / "config.json").read_text(encoding="utf-8"))))
            _write(folder / "config.json", config)
            index = [path / INDEX] if (path / INDEX).is_file() else []
            for file in [*weight_files(path), *index]:
                (folder / file.name).symlink_to(file.resolve())
        try:
            yield folder
        except Exception as error:
            if str(folder) not in str(error):
                raise
            raise ModelError(one_line(error).replace(str(folder), str(path))) from error


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = TemporaryDirectory(prefix="cramzip-")
    except OSError as error:
        raise InputOutputError(f"the temporary folder cannot be written: {error.strerror or error}") from error
    with folder as name:
        yield Path(name)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputOutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _plain(config: Any) -> Any:
    """A configuration, or a part of it, that says what to compute. Raises ModelError."""
    if isinstance(config, list):
        return [_plain(part) for part in config]
    if not isinstance(config, dict):
        return config
    for key in REFUSED:
        if config.get(key):
            method = config[key].get("quant_method") if isinstance(config[key], dict) else None
            raise ModelError(f"{key}: quantised weights ({method or 'of an unknown kind'}) are not supported")
    return {key: _plain(part) for key, part in config.items() if key not in REFUSED and not LEFT_OUT.fullmatch(key)}


@contextmanager
def transformers_alone() -> Iterator[None]:
    """Keep transformers from the network, from the package `kernels`, which runs code of the Hub, and from stderr."""
    from transformers.integrations import hub_kernels
    from transformers.utils import import_utils

    available = import_utils._is_package_available
    kernels_available = import_utils.is_kernels_available

    def without_kernels(name: str, *arguments: Any, **options: Any) -> Any:
        found = available(name, *arguments, **options)
        if name != "kernels":
            return found
        return (False, "N/A") if isinstance(found, tuple) else False

    def refuse(name: str, *_: Any, **__: Any) -> None:
        raise FileNotFoundError(f"{name}: no kernels are fetched")

    with ExitStack() as stack:
        stack.callback(kernels_available.cache_clear)
        stack.enter_context(_replaced(import_utils, "_is_package_available", without_kernels))
        stack.enter_context(_replaced(hub_kernels, "get_kernel_hub", refuse))
        stack.enter_context(_replaced(importlib.import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", True))
        stack.enter_context(quiet_transformers())
        kernels_available.cache_clear()
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Something else in the place of what a module calls `name`, if it has it."""
    if not hasattr(module, name):
        yield
        return
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting on stderr as if it were the program."""
    from transformers.utils import logging

    level, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the conversion of GGUF draws a bar of its own
            yield
    finally:
        logging.set_verbosity(level)
        if shows_progress:
            logging.enable_progress_bar()
