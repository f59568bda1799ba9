"""A frozen causal language model: found, fingerprinted, loaded, and asked for logits and costs.

Any decoder-only model of transformers that accepts `inputs_embeds`. Weights come from safetensors or
GGUF, never from pickles, and no code comes with a model. Computing is float32 with TF32 off.
"""

from __future__ import annotations

import inspect
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .errors import MissingModelError, ModelError, WrongModelError
from .fingerprint import folder_fingerprint, gguf_fingerprint, weight_files
from .tokens import ByteExactTokenizer

BUILTIN_MODELS = Path(__file__).parent / "models"
DEFAULT_BUILTIN = "primer"
DOWNLOADED_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.txt")
SCALE_SAMPLE = 4096  # rows of the embedding table that its scale is measured on
SCORED_LOGITS = 2**24  # logits in memory at once while scoring: 64 MiB

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are; `path` is a folder or a GGUF file."""

    model_id: str
    revision: str
    path: Path

    def fingerprint(self) -> bytes:
        return gguf_fingerprint(self.path) if self.is_gguf else folder_fingerprint(self.path)

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()

    @property
    def weight_bytes(self) -> int:
        files = [self.path] if self.is_gguf else weight_files(self.path)
        return sum(file.stat().st_size for file in files)


def find(model: str | None = None, *, revision: str | None = None, download: bool = False) -> ModelSource:
    """The files of a model: None or `builtin:NAME`, a folder, a `.gguf` file, or a Hugging Face id.

    An id as it stands in a `.cram` file (`builtin:`, `hf:`) is never taken for a path. Nothing is
    downloaded without `download`. Raises ModelError, MissingModelError for what a download may bring.
    """
    scheme, _, name = (model or f"builtin:{DEFAULT_BUILTIN}").rpartition(":")
    if scheme == "builtin":
        path = BUILTIN_MODELS / name
        if not re.fullmatch(r"\w[\w.-]*", name) or not path.is_dir():
            raise ModelError(f"no built-in model is called {name!r}")
        return ModelSource(f"builtin:{name}", "", path)
    if scheme == "local":
        raise ModelError(f"the file was made with a local model, {name!r}: say where it is with -m")
    if scheme != "hf":
        assert model is not None
        path = Path(model)
        if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
            return ModelSource(f"local:{path.resolve().name}", "", path)
        if path.exists():
            raise ModelError(f"{model}: expected a model folder or a .gguf file")
        name = model
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{model}: no such folder or file, and not a Hugging Face id")
    return _find_on_hub(name, revision, download)


def _find_on_hub(name: str, revision: str | None, download: bool) -> ModelSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(DOWNLOADED_FILES), local_files_only=not download
            )
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise ModelError(f"{name} cannot be downloaded: {_first_line(error)}") from error
        raise MissingModelError(name) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"{name} cannot be downloaded: {_first_line(error)}") from error
    return ModelSource(f"hf:{name}", folder.name, folder)


def load(
    model: str | None = None, *, revision: str | None = None, device: str = "auto", download: bool = False
) -> FrozenLM:
    """Find and load a model; see `find` for what `model` can be. Raises ModelError."""
    return FrozenLM(find(model, revision=revision, download=download), device)


class FrozenLM:
    """A causal language model in float32 that nothing will train.

    `width` D is the width of an input embedding, `vocabulary_size` V the number of logits, `context`
    the most positions it can see (None: no limit), `embedding_scale` the standard deviation of its
    input embeddings, `bos` the token that texts begin with (None if it has none).
    """

    def __init__(self, source: ModelSource, device: str = "auto"):
        self.model_id, self.revision = source.model_id, source.revision
        self.weight_bytes = source.weight_bytes
        self.fingerprint = source.fingerprint()
        self.device = _pick_device(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

        self._model = _load_model(source).to(self.device).eval().requires_grad_(False)
        self._embed = self._model.get_input_embeddings()
        accepted = inspect.signature(self._model.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

        config = self._model.config.get_text_config()
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.n_layers: int = getattr(config, "num_hidden_layers", 0)
        self.n_parameters = sum(parameter.numel() for parameter in self._model.parameters())
        with _quiet_transformers():  # some models report on the kernels they lack when they are first run
            self.vocabulary_size, self.width = self._probe()
        self.tokenizer = ByteExactTokenizer(_load_tokenizer(source), self.vocabulary_size)
        self.tokenizer_hash = self.tokenizer.hash
        self.embedding_scale = self._measure_scale()
        bos = config.bos_token_id
        self.bos = bos if isinstance(bos, int) and 0 <= bos < self.vocabulary_size else None

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> FrozenLM:
        """The model in a local folder or GGUF file."""
        return load(str(path), device=device)

    def require(self, fingerprint: bytes, tokenizer_hash: bytes) -> None:
        """Raise WrongModelError unless this is the model and the tokenizer that a file asks for."""
        for field, needed, found in (
            ("Model_Fingerprint", fingerprint, self.fingerprint),
            ("Tokenizer_Hash", tokenizer_hash, self.tokenizer_hash),
        ):
            if needed != found:
                raise WrongModelError(
                    f"{field}: the file needs {needed.hex()}, {self.model_id} here is {found.hex()}; "
                    "pass the right model with -m"
                )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings (..., D) of token ids (...), as the model itself looks them up."""
        embedded: torch.Tensor = self._embed(ids)
        return embedded

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, V) at all positions of input embeddings (B, N, D); differentiable."""
        logits: torch.Tensor = self._model(inputs_embeds=inputs, use_cache=False).logits
        return logits

    def step(self, inputs: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        """Logits (B, V) after the last of the input embeddings (B, N, D), and the cache that goes on."""
        output = self._model(inputs_embeds=inputs, use_cache=True, **{self._cache_name: cache}, **self._last_only)
        return output.logits[:, -1].float(), getattr(output, self._cache_name)

    @torch.inference_mode()
    def score(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Cost of each token of each row, in nats, given only the tokens before it in the row.

        The first token is predicted from the beginning-of-text token, or costs log V without one.
        """
        costs: list[np.ndarray | None] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        while order:
            longest = len(rows[order[-1]])
            n_rows = max(1, SCORED_LOGITS // (max(longest, 1) * self.vocabulary_size))
            batch, order = order[-n_rows:], order[:-n_rows]
            for index, cost in zip(batch, self._score_batch([rows[i] for i in batch], longest), strict=True):
                costs[index] = cost[: len(rows[index])]
        return [cost for cost in costs if cost is not None]

    def _score_batch(self, rows: Sequence[Sequence[int]], longest: int) -> np.ndarray:
        tokens = pad(rows, longest).to(self.device)  # (B, T)
        if self.bos is not None:
            start = torch.full_like(tokens[:, :1], self.bos)
            inputs = torch.cat([start, tokens[:, :-1]], dim=1)
            costs = self._costs(inputs, tokens)
        else:
            first = torch.full((len(rows), 1), math.log(self.vocabulary_size), device=self.device)
            rest = self._costs(tokens[:, :-1], tokens[:, 1:]) if longest > 1 else first[:, :0]
            costs = torch.cat([first, rest], dim=1)
        return costs.cpu().numpy()

    def _costs(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return token_costs(self.logits(self.embed(inputs)).float(), targets)

    @torch.inference_mode()
    def _probe(self) -> tuple[int, int]:
        """V and D, found by running the model on one embedding, which shows that it can be run so."""
        try:
            embedding = self.embed(torch.zeros(1, 1, dtype=torch.long, device=self.device))
            logits = self.logits(embedding)
        except Exception as error:
            raise ModelError(f"{self.model_id} does not take input embeddings: {_first_line(error)}") from error
        if not torch.isfinite(logits).all():
            raise ModelError(f"{self.model_id} gives logits that are not finite")
        return logits.shape[-1], embedding.shape[-1]

    @torch.inference_mode()
    def _measure_scale(self) -> float:
        n_rows = min(self.vocabulary_size, len(self.tokenizer.table))
        sample = torch.linspace(0, n_rows - 1, min(n_rows, SCALE_SAMPLE), device=self.device).long()
        return float(self.embed(sample).float().std())


def token_costs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of `targets` (B, T) under `logits` (B, T, V), in nats: (B, T)."""
    costs = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return costs.view(targets.shape)


def pad(rows: Sequence[Sequence[int]], length: int, value: int = 0) -> torch.Tensor:
    """Rows of ids as one tensor (B, length), filled up with `value` on the right."""
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded


def _pick_device(device: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(device):
        raise ModelError(f"device {device} is not available here")
    return device


def _load_model(source: ModelSource) -> Any:
    from transformers import AutoModelForCausalLM

    with _quiet_transformers():
        try:
            return AutoModelForCausalLM.from_pretrained(
                _folder(source),
                **_gguf_argument(source),
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except Exception as error:
            raise ModelError(f"{source.model_id} cannot be loaded: {_first_line(error)}") from error


def _load_tokenizer(source: ModelSource) -> Any:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    if not source.is_gguf and (source.path / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(source.path / "tokenizer.json"))
    with _quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                _folder(source), **_gguf_argument(source), local_files_only=True, trust_remote_code=False
            )
            return tokenizer.backend_tokenizer
        except Exception as error:
            raise ModelError(f"tokenizer of {source.model_id}: {_first_line(error)}") from error


def _folder(source: ModelSource) -> str:
    return str(source.path.parent if source.is_gguf else source.path)


def _gguf_argument(source: ModelSource) -> dict[str, str]:
    return {"gguf_file": source.path.name} if source.is_gguf else {}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting on stderr as if it were the program."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the conversion of GGUF draws a bar of its own
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
