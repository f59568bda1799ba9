"""What needs torch and transformers, which may not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ModelError
from .source import ModelSource

if TYPE_CHECKING:
    from .frozen import FrozenLM

PACKAGES = ("torch", "transformers", "safetensors")  # of the extra `torch`


def in_torch(source: ModelSource, device: str = "auto") -> FrozenLM:
    """The model of a source in torch, whatever weights it has. Raises ModelError where torch is not installed."""
    with torch_needed_by(source.model_id):
        from .frozen import FrozenLM

        return FrozenLM(source, device)


@contextmanager
def torch_needed_by(what: str) -> Iterator[None]:
    """Say in one line that torch or transformers are not installed, where something needs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise ModelError(f"{what} needs {package}, which is not installed: pip install 'cramzip[torch]'") from None
