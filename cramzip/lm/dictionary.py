"""A dictionary: a sample of what is to be compressed, and what a model in exact arithmetic makes of it.

What takes longest, to count a long sample, is kept in the user's cache folder: under a hash of everything that it
depends on, and with a hash of itself, so that nothing else is ever taken for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path

from ..errors import UsageError
from ..exact import dictionary
from ..exact.contexts import Kinds, Place
from ..exact.dictionary import MOST_BYTES, Context, Seen
from ..exact.learner import Learner
from ..exact.llama import Model
from ..whole import write_whole
from . import folders
from .tokens import table_hash

DOMAIN = b"cramzip-dictionary-1"
WORTH_KEEPING = 2**15  # bytes: less is counted as quickly as it is read
MOST_KEPT = 32  # files in the cache folder
HASH_BYTES = 32

Table = Sequence[bytes | None]


class Dictionary:
    """What lanes of one model begin with. `hash` is that of model and `content`: Dictionary_Hash, all of it."""

    def __init__(self, content: bytes, fingerprint: bytes, model: Model, table: Table):
        """Raises UsageError for content that can be no dictionary."""
        if not 1 <= len(content) <= MOST_BYTES:
            raise UsageError(f"dictionary: expected 1 to {MOST_BYTES:,} bytes, found {len(content):,}")
        self.content = content
        self.hash = hashlib.sha256(DOMAIN + fingerprint + content).digest()
        self._model, self._table = model, table[: model.shape.vocabulary]

    @cached_property
    def context(self) -> Context:
        """What lanes go on from. Raises UsageError for content that the model has no tokens for."""
        return dictionary.read(self._model, self._seen(), self._new_learner())

    def learner(self, n_lanes: int) -> Learner:
        """What learns while the lanes of a group are coded."""
        return self.context.learner.forked(n_lanes)

    def _new_learner(self) -> Learner:
        return Learner(self._table, self._model.shape.vocabulary, 1)

    def _counted(self) -> Seen:
        try:
            tokens = dictionary.cut(self.content, self._table)
        except ValueError as error:
            raise UsageError(f"dictionary: {error}") from None
        return dictionary.count(tokens, self._new_learner())

    def _seen(self) -> Seen:
        """What counting has found, now or at an earlier time."""
        folder = cache_folder() if len(self.content) >= WORTH_KEEPING else None
        if folder is None:
            return self._counted()
        file = folder / hashlib.sha256(_program() + table_hash(tuple(self._table)) + self.hash).hexdigest()
        with suppress(Exception):  # what is damaged is made anew
            return _read(file, Place(Kinds([*self._table])))
        seen = self._counted()
        with suppress(OSError):
            _write(file, dictionary.pack(seen))
        return seen


def cache_folder() -> Path | None:
    """Where dictionaries that were counted are kept; None for a user without a home."""
    return folders.user_folder("XDG_CACHE_HOME", ".cache", "dictionaries")


@cache
def _program() -> bytes:
    """A hash of the version and of the code that counts."""
    return folders.program_hash()


def _read(file: Path, place: Place) -> Seen:
    content = file.read_bytes()
    packed = content[HASH_BYTES:]
    if hashlib.sha256(packed).digest() != content[:HASH_BYTES]:
        raise ValueError("damaged")
    seen = dictionary.unpack(packed, place)
    with suppress(OSError):
        os.utime(file)  # it is in use
    return seen


def _write(file: Path, packed: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, hashlib.sha256(packed).digest() + packed)
    folders.keep_latest(file.parent, MOST_KEPT, lambda path: 1)
