"""What to say where torch or transformers are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ModelError

PACKAGES = ("torch", "transformers", "safetensors")  # of the extra `torch`


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
