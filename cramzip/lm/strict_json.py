"""JSON as the format takes it: UTF-8, and no name twice in one object.

Parsers differ in which of two values they take, and a model must not depend on the parser.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ModelError


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """The object that `content` is; `what` names it in messages. Raises ModelError."""
    try:
        value = json.loads(content.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{what}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{what}: expected a JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice in one object")
    return made
