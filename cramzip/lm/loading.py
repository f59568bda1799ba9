"""A model and its tokenizer, loaded with transformers: safetensors or GGUF, never pickles, never code.

Knows nothing of what a model computes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..exact import WEIGHTS_NAME
from ..exact.arithmetic import Floats
from ..exact.weights import parse, read_model
from .gguf_file import GgufFile, read_gguf
from .gguf_view import quick_reader
from .isolation import GGUF_NAME, transformers_alone, view
from .known import versions
from .packages import torch_needed_by
from .source import ModelSource, explained
from .strict_json import parse_object
from .tokens import ByteExactTokenizer, TokenTable, byte_level_table, gguf_token_table, read_tokenizer

# Names of tensors that change what other tensors mean: those of adapters and of quantised weights.
LEFTOVER = re.compile(
    r"lora_|adapter|ia3_|qweight|qzeros|g_idx|absmax|quant_(map|state)|weight_packed|\.SCB$"
    r"|(^|[._])(scales?|scale_inv|zero_points?)$"
)


def load_model(source: ModelSource) -> Any:
    """The transformers model, all of it float32. Raises ModelError, also where a weight is missing from the files."""
    from torch import nn
    from transformers import AutoModelForCausalLM

    if source.is_exact:
        with transformers_alone():
            return _float_model(source)

    def load() -> tuple[Any, dict[str, Any]]:
        with view(source.path) as folder:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                **_gguf_argument(source),
                dtype="float32",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            return nn.Module.float(model), report  # transformers' own refuses models whose weights were quantised

    with transformers_alone(), _reading(source):
        model, report = explained(f"{source.model_id} cannot be loaded", load)
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            names = _some(map(str, report[problem]))
            raise ModelError(f"{source.model_id}: weights are not in its files ({problem}: {names})")
    if leftovers := list(filter(LEFTOVER.search, report["unexpected_keys"])):
        raise ModelError(
            f"{source.model_id}: its configuration says nothing of quantised weights or an adapter, but its files do "
            f"({_some(leftovers)})"
        )
    return model


def _float_model(source: ModelSource) -> Any:
    """A model of integer weights as transformers computes it: nearly what exact arithmetic gives."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    weights = float_weights(source.path)
    with view(source.path) as folder:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {name: torch.from_numpy(values) for name, values in weights.items()}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def float_weights(folder: Path) -> dict[str, Floats]:
    """The tensors of a folder with integer weights, as float32. Raises ModelError."""
    read_model(folder)  # which checks them
    tensors, _ = parse((folder / WEIGHTS_NAME).read_bytes())
    return {
        name: tensor * tensors[f"{name.removesuffix('weight')}scale"][:, None] if tensor.ndim == 2 else tensor.copy()
        for name, tensor in tensors.items()
        if name.endswith("weight")
    }


def _some(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return ", ".join([first, *more[:2], "..."] if more[2:] else [first, *more])


def load_tokenizer(source: ModelSource, vocabulary_size: int, *, when_needed: bool = False) -> ByteExactTokenizer:
    """The tokenizer of a model with so many logits. Raises ModelError.

    What transformers makes of other files than tokenizer.json depends on its version. So it may decide how text is cut,
    but not what tokens stand for; `when_needed`: it is asked when a text is first cut, not now.
    """
    problem = f"the tokenizer of {source.model_id} cannot be loaded"

    def load() -> ByteExactTokenizer:
        if not source.is_gguf and (file := source.path / "tokenizer.json").is_file():
            return ByteExactTokenizer(read_tokenizer(file.read_bytes()), vocabulary_size)
        given = partial(explained, problem, partial(_backend, source))
        stated = given if when_needed else partial(str, given())
        return ByteExactTokenizer(stated, vocabulary_size, _table(source))

    return explained(problem, load)


def _backend(source: ModelSource) -> str:
    """What tokenizer.json would say, for other files."""
    fact = f"tokenizer {versions('transformers', 'tokenizers')}"
    if known_one := source.recall().get(fact):
        return str(known_one)
    with torch_needed_by(source.model_id):
        from transformers import AutoTokenizer

    with ExitStack() as stack:
        stack.enter_context(transformers_alone())
        stack.enter_context(_reading(source))
        folder = stack.enter_context(view(source.path)) if source.is_gguf else source.path
        backend = AutoTokenizer.from_pretrained(
            folder, **_gguf_argument(source), local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    stated: str = backend.to_str()
    source.remember(**{fact: stated})
    return stated


def _reading(source: ModelSource) -> AbstractContextManager[None]:
    return quick_reader() if source.is_gguf else nullcontext()


def _gguf_argument(source: ModelSource) -> dict[str, str]:
    return {"gguf_file": GGUF_NAME} if source.is_gguf else {}


def _table(source: ModelSource) -> TokenTable:
    """What the tokens stand for, read off other files than tokenizer.json."""
    if source.is_gguf:
        return _gguf_table(read_gguf(source.path))
    if not (source.path / "vocab.json").is_file():
        raise ModelError(f"{source.path}: neither tokenizer.json nor vocab.json")
    return byte_level_table(parse_object((source.path / "vocab.json").read_bytes(), "vocab.json"))


def _gguf_table(content: GgufFile) -> TokenTable:
    kind, entries = (content.plain(f"tokenizer.ggml.{key}") for key in ("model", "tokens"))
    types = content.plain("tokenizer.ggml.token_type") if "tokenizer.ggml.token_type" in content.fields else None
    return gguf_token_table(kind, entries, types)
