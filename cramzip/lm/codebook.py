"""A codebook that a user gives: a file that is not the model's own, and which readers need again."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..exact.codebook import Codebook, hash_of, require_room, unpack
from ..exact.weights import Shape
from .strict_json import parse_object


@dataclass(frozen=True, eq=False)
class GivenCodebook:
    """The bytes of a file, what they stand for, and what files name them by: Codebook_Hash, all of it."""

    content: bytes
    codebook: Codebook
    hash: bytes

    @classmethod
    def of(cls, content: bytes, shape: Shape, fingerprint: bytes) -> GivenCodebook:
        """For a model of this shape and fingerprint. Raises ModelError for what can be no codebook of it."""
        codebook = unpack(content, shape.width, fingerprint)
        parse_object(content[8 : 8 + int.from_bytes(content[:8], "little")], "codebook")  # no name is there twice
        require_room(codebook, shape)
        return cls(content, codebook, hash_of(content))


def excluded(what: str) -> UsageError:
    """Why a codebook is refused beside something else."""
    return UsageError(f"codebook: {what} exclude it")
