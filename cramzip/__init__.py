"""cramzip: text compression by optimised input vectors of a frozen language model.

    blob = cramzip.compress(data)            # bytes of a .cram file, with the built-in model
    data = cramzip.decompress(blob)          # exactly those bytes, or an error
    with cramzip.open("book.cram", "rt") as file: ...
    lm = cramzip.load("model.gguf")          # another model: cramzip.compress(data, lm)

Names are imported on first use, so that `import cramzip` costs nothing before a model is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app.opening import open
    from .codec import CramFile, compress, decompress, read
    from .config import CramConfig
    from .errors import (
        CramError,
        DamagedFileError,
        InputOutputError,
        MissingModelError,
        ModelError,
        UsageError,
        VerificationError,
        WrongModelError,
    )
    from .lm.exact import ExactLM
    from .lm.frozen import FrozenLM
    from .lm.models import load

__version__ = "0.1.0"
__all__ = [
    "CramConfig",
    "CramError",
    "CramFile",
    "DamagedFileError",
    "ExactLM",
    "FrozenLM",
    "InputOutputError",
    "MissingModelError",
    "ModelError",
    "UsageError",
    "VerificationError",
    "WrongModelError",
    "compress",
    "decompress",
    "load",
    "open",
    "read",
]

_HOMES = {
    "CramConfig": "config",
    "CramFile": "codec",
    "ExactLM": "lm.exact",
    "FrozenLM": "lm.frozen",
    "compress": "codec",
    "decompress": "codec",
    "load": "lm.models",
    "open": "app.opening",
    "read": "codec",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
