"""What a `.cram` file consists of, and what its vectors bought. Needs no model, and no torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from .opened import Opened, filters, split
from .records import Entry, Header, Kind, n_chunks


@dataclass(frozen=True)
class Chosen:
    """What `lanes` have chosen from a codebook: `entries` different ones; bits spent on saying which.

    `saved`: bits that these entries took off the tokens, as far as the writer has counted; None if that is not known.
    """

    lanes: int
    entries: int
    spent: float
    saved: float | None = None

    @property
    def balance(self) -> float | None:
        """Bits by which the entries made the file smaller."""
        return None if self.saved is None else self.saved - self.spent


@dataclass(frozen=True)
class Description:
    """What a file says and what it consists of: sizes in bytes."""

    header: Header
    entries: tuple[Entry, ...]
    file_size: int
    header_bytes: int  # with the table
    vector_bytes: int
    correction_bytes: int
    stored_bytes: int
    filter_bytes: int = 0
    filters: tuple[tuple[str, ...], ...] = ()  # the names of the filters of each filtered group
    chosen: Chosen | None = None  # known only with the codebook

    @property
    def original_size(self) -> int:
        return self.header.original_size

    @property
    def ratio(self) -> float:
        """Original bytes / file bytes."""
        return self.original_size / self.file_size

    @property
    def bits_per_byte(self) -> float:
        return 8 * self.file_size / self.original_size if self.original_size else math.nan

    @property
    def kinds(self) -> dict[Kind, int]:
        """How many groups there are of each kind."""
        return dict(sorted(Counter(entry.kind for entry in self.entries).items()))

    @property
    def modelled(self) -> list[Entry]:
        """The groups that need the model."""
        return [entry for entry in self.entries if not entry.kind.is_stored]

    @property
    def n_groups(self) -> int:
        return len(self.entries)

    @property
    def n_modelled(self) -> int:
        return len(self.modelled)

    @property
    def n_stored(self) -> int:
        return self.n_groups - self.n_modelled

    @property
    def n_tokens(self) -> int:
        """Tokens of modelled groups."""
        return sum(entry.n_tokens for entry in self.modelled)

    @property
    def n_chunks(self) -> int:
        """Chunks of modelled groups; in exact files, lanes."""
        return sum(n_chunks(entry, self.header) for entry in self.modelled)

    @property
    def n_vectors(self) -> int:
        return sum(n_chunks(entry, self.header) * entry.n_vectors for entry in self.modelled)

    @property
    def vectors_per_chunk(self) -> tuple[int, int]:
        """Fewest and most; 0 where there are none."""
        found = [entry.n_vectors for entry in self.modelled if entry.kind.has_vectors]
        return min(found, default=0), max(found, default=0)

    @property
    def tokens_per_vector(self) -> float:
        told = sum(entry.n_tokens for entry in self.modelled if entry.kind.has_vectors)
        return told / self.n_vectors if self.n_vectors else math.nan

    @property
    def vector_bits(self) -> int:
        """Bits spent on vectors."""
        return 8 * self.vector_bytes

    @property
    def spent(self) -> float | None:
        """Bits that vectors take, or that saying which ones of a codebook does; None where there are none."""
        return self.chosen.spent if self.chosen else self.vector_bits if self.n_vectors else None

    @property
    def saved(self) -> float | None:
        """Bits that these took off the text; None where that is not known."""
        return self.chosen.saved if self.chosen else self.vector_gain

    @property
    def vector_gain(self) -> int | None:
        """Bits that vectors took off the corrections; None where that is not known."""
        return self.header.vectors.gain if self.header.vectors else None

    @property
    def vector_balance(self) -> int | None:
        """Bits by which vectors made the file smaller; negative where they made it larger."""
        return None if self.vector_gain is None else self.vector_gain - self.vector_bits


def describe(file: Opened) -> Description:
    """Take a file apart."""
    vector_bytes = correction_bytes = stored_bytes = filter_bytes = 0
    chains = []
    for group in file:
        if group.entry.kind.is_stored:
            stored_bytes += len(group.payload)
        else:
            vectors, corrections = split(group, file.header)
            vector_bytes += len(vectors)
            correction_bytes += len(corrections)
            chain, size = filters(group)
            filter_bytes += size
            if chain is not None:
                chains.append(tuple(chain.names))
    return Description(
        header=file.header,
        entries=file.entries,
        file_size=len(file.blob),
        header_bytes=file.overhead,
        vector_bytes=vector_bytes,
        correction_bytes=correction_bytes,
        stored_bytes=stored_bytes,
        filter_bytes=filter_bytes,
        filters=tuple(chains),
    )
