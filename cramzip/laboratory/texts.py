"""Texts to cram: passages of books, files of users, random words. Knows nothing of vectors."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import UsageError
from ..lm.frozen import FrozenLM

BOOKS, NEW, RANDOM, FILES = "books", "new", "random words", "files"
KINDS = (BOOKS, NEW, RANDOM, FILES)

BYTES_PER_TOKEN = 6  # rather too many, so that what is cut out of a document is long enough
LEAST_TOKENS = 8
_FOLDER = Path(__file__).parent
_BORDER = re.compile(rb"\s(?=\S)")

Document = tuple[str, bytes]  # name, content


@dataclass(frozen=True)
class Text:
    """One sample: the tokens `ids` that are crammed, or the first of them, and the tokens `before` them."""

    kind: str
    name: str
    before: tuple[int, ...]
    ids: tuple[int, ...]

    @cached_property
    def digest(self) -> str:
        """What identifies the sample in records."""
        return hashlib.sha256(repr((self.before, self.ids)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sampling:
    """How many texts of a kind, of up to `n_tokens` tokens after `n_before` others; `seed` decides which."""

    n_samples: int
    n_tokens: int
    n_before: int
    seed: int = 0


def shipped_books() -> list[Document]:
    """Passages of novels in the public domain, none of which the built-in model was trained on."""
    parts = (_FOLDER / "books.txt").read_text(encoding="utf-8").split("=== ")[1:]
    titled = [part.split("\n", 1) for part in parts]
    return [(title, passage.encode()) for title, passage in titled]


def words() -> list[str]:
    """The 4,000 most frequent words of English novels, in lower case, the most frequent first."""
    return (_FOLDER / "words.txt").read_text(encoding="utf-8").split()


def sample(lm: FrozenLM, kind: str, documents: Sequence[Document], sampling: Sampling) -> list[Text]:
    """Texts of one kind; the same ones for the same arguments.

    Documents take turns. Of random words there are no documents. Raises UsageError for documents that are too short.
    """
    texts = []
    n_before, n_tokens = sampling.n_before, sampling.n_tokens
    for index in range(sampling.n_samples):
        generator = random.Random(f"{kind} {index} {sampling.seed}")
        if kind == RANDOM:
            name, content = f"random words {index}", _random_words(generator, n_tokens + n_before)
        else:
            name, document = documents[index % len(documents)]
            content = _excerpt(generator, document, (n_tokens + n_before) * BYTES_PER_TOKEN)
        ids = max((piece.ids or [] for piece in lm.tokenizer.encode(content)), key=len, default=[])
        if len(ids) < n_before + LEAST_TOKENS:
            raise UsageError(f"{name}: too short a text, {len(ids)} tokens where {n_before + LEAST_TOKENS} are needed")
        texts.append(Text(kind, name, tuple(ids[:n_before]), tuple(ids[n_before : n_before + n_tokens])))
    return texts


def _random_words(generator: random.Random, n_words: int) -> bytes:
    return " ".join(generator.choices(words(), k=n_words)).encode()


def _excerpt(generator: random.Random, document: bytes, size: int) -> bytes:
    """About `size` bytes from a random place on, between words. The place is in the first half of a short document."""
    place = generator.randrange(max(len(document) - size, len(document) // 2, 1))
    border = _BORDER.search(document, place) if place else None
    start = border.end() if border else place
    return document[start : start + size]


def by_kind(texts: Sequence[Text]) -> Iterator[tuple[str, list[Text]]]:
    for kind in KINDS:
        if same := [text for text in texts if text.kind == kind]:
            yield kind, same
