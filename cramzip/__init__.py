"""cramzip: text compression by optimised input vectors of a frozen language model.

    lm = cramzip.load()                      # the built-in model
    blob = cramzip.compress(data, lm)        # bytes of a .cram file
    data = cramzip.decompress(blob, lm)      # exactly those bytes, or an error
    file = cramzip.read(blob)                # header, table of groups, vectors as tensors

Names are imported on first use, so that `import cramzip` costs nothing before a model is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codec import compress, decompress, read
    from .config import CramConfig
    from .errors import CramError
    from .lm.exact import ExactLM
    from .lm.frozen import FrozenLM
    from .lm.models import load

__version__ = "0.1.0"
__all__ = ["CramConfig", "CramError", "ExactLM", "FrozenLM", "compress", "decompress", "load", "read"]

_HOMES = {
    "CramConfig": "config",
    "CramError": "errors",
    "ExactLM": "lm.exact",
    "FrozenLM": "lm.frozen",
    "compress": "codec",
    "decompress": "codec",
    "load": "lm.models",
    "read": "codec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
