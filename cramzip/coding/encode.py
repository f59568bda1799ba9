"""Bytes to groups: what is stored, what is predicted or crammed; and from these the file.

Works segment by segment. A segment depends on nothing but the bytes from its start on and what the first was found to
hold, so that segments can be worked on side by side, and interrupted work can go on and give the same file. Imports no
torch: a method knows what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ..config import CramConfig
from ..container import writing
from ..container.records import STANDARD_LANES, Entry, Group, Header, Kind, OutsideModel
from ..container.stored import stored_content, stored_group, stored_groups, stored_sizes
from ..container.wire import Bytes
from ..errors import UsageError
from ..workers.base import Workers
from .chunking import is_redundant, next_segment
from .hopeless import is_hopeless
from .method import Method, Progress
from .original import Original, Segment
from .undress import Undressed, redressed, undressed, without_repeats

if TYPE_CHECKING:
    from ..lm.models import LM
    from ..lm.tokens import Piece
    from .cram import Goal

# Without corrections, chunks are cut to what vectors have been found to hold, and somewhat more.
EXACT_AMBITION = 1.15
EXACT_CAPACITY_RANGE = (1 / 16, 16.0)  # of what was expected


def method_of(lm: LM, config: CramConfig) -> Method:
    """What suits a model. Raises UsageError if it cannot do what is asked for.

    A model that was not made for exact arithmetic has ranks where a context or a noise is asked for.
    """
    from ..lm.codebook import excluded
    from ..lm.exact import ExactLM
    from ..lm.models import as_torch

    if isinstance(lm, ExactLM) and not config.ranks and not (lm.is_wide and config.is_for_floats):
        from .laned import Laned

        return Laned(lm, config)
    if isinstance(lm, ExactLM) and lm.dictionary:
        raise UsageError("dictionary: ranks have none")
    if isinstance(lm, ExactLM) and lm.given:
        raise excluded("ranks")
    frozen = as_torch(lm)
    from .ranked import Ranked

    return Ranked(frozen, config)


class Writer:
    """Who writes: a model, and how a text is crammed. Raises UsageError if the model cannot do it so."""

    def __init__(self, lm: LM, config: CramConfig):
        self.method = method_of(lm, config)
        self.lm = self.method.lm

    @property
    def goal(self) -> Goal:
        """What vectors are optimised for."""
        return self.method.goal

    def segments(
        self,
        data: Bytes,
        *,
        finished: Iterable[Segment] = (),
        progress: Progress | None = None,
        workers: Workers | None = None,
    ) -> Iterator[Segment]:
        """Groups of `data` in order, a segment at a time, after the segments that are `finished` already.

        `progress` is told how many more bytes of the original are done. With `workers`, these make the segments, but
        not those that something is learned from, nor data of a single segment.
        """
        data = memoryview(data)
        progress = progress or (lambda _: None)
        encoder = _Encoder(self.method, progress)
        if workers and len(encoder.next_part(data, 0).content) == len(data):
            workers = None
        position = 0
        for segment in finished:
            encoder.capacity = segment.capacity
            position += segment.size
        while position < len(data) and (encoder.learns or not workers):
            segment = encoder.segment(encoder.next_part(data, position))
            position += segment.size
            yield segment
        if workers:
            parts = (_Share(part, self.method.config) for part in encoder.parts(data, position))
            for segment in workers.map(self.lm, _encode_share, parts):
                progress(segment.size)
                yield segment

    def write(self, sink: BinaryIO, original: Original, groups: Iterable[Group], gain: float) -> None:
        """Write the file of `groups`, which is walked several times; or that of the stored data, if it is smaller.

        `gain`: the bits that vectors took off the corrections.
        """
        entries = [group.entry for group in groups]
        if not self.method.config.exact and not _is_stored_at_its_best(entries, len(original.data)):
            size = writing.file_size(self._header(original, entries, gain), entries)
            if writing.file_size(original.header(), self._stored_entries(original.data, size)) < size:
                groups = list(stored_groups(original.data))
                entries = [group.entry for group in groups]
        writing.write(sink, self._header(original, entries, gain), groups)

    def _stored_entries(self, data: Bytes, limit: int) -> list[Entry]:
        """The entries of all of `data` stored; or of as much of it as takes `limit` bytes."""
        entries: list[Entry] = []
        position = 0
        for size in stored_sizes(len(data)):
            entries.append(self.method.stored_entry(data[position : position + size]))
            position += size
            limit -= entries[-1].payload_size
            if limit < 0:
                break
        return entries

    def _header(self, original: Original, entries: Sequence[Entry], gain: float) -> Header:
        """With the model block only where a group needs the model."""
        header = original.header()
        if all(entry.kind.is_stored for entry in entries):
            return header
        has_vectors = any(entry.kind.has_vectors for entry in entries)
        shown_gain = -1.0 if original.strip else max(0.0, gain)
        described = self.method.described(header, shown_gain if has_vectors else None)
        if all(entry.kind is not Kind.CHOSEN for entry in entries):
            described = replace(described, codebook=None)
        if original.strip and isinstance(described.model, OutsideModel):
            return replace(described, model=described.model.brief)
        return _briefly(described, entries)


def _briefly(header: Header, entries: Iterable[Entry]) -> Header:
    """The header with the standard lanes, which it leaves out, where these give the same groups."""
    lanes = header.lanes
    if lanes is None or not lanes.learning:
        return header
    counts = [entry.n_tokens for entry in entries if entry.kind.is_laned]
    is_same = all(lanes.count(n) == STANDARD_LANES.count(n) and not lanes.adapts(n) for n in counts)
    return replace(header, lanes=STANDARD_LANES) if is_same else header


def _is_stored_at_its_best(entries: Sequence[Entry], size: int) -> bool:
    """Whether all groups are stored, and are as few as the format allows."""
    return all(entry.kind.is_stored for entry in entries) and [entry.size for entry in entries] == stored_sizes(size)


class _Part(NamedTuple):
    """The bytes of one segment. `capacity`: the bits that one of its vectors recites, as far as that is known."""

    content: bytes
    is_text: bool
    capacity: float


class _Share(NamedTuple):
    """One segment for a worker, and all else that its groups depend on."""

    part: _Part
    config: CramConfig


def _encode_share(lm: LM, share: _Share) -> Segment:
    """The segment that a worker makes of its share."""
    encoder = _Encoder(method_of(lm, share.config), lambda _: None)
    encoder.capacity = share.part.capacity
    return encoder.segment(share.part)


class _Encoder:
    """What carries over from one segment to the next: `capacity`, the bits of text to give to a vector.

    It is learned once; after that, segments can go side by side.
    """

    def __init__(self, method: Method, progress: Progress):
        self.method, self.progress = method, progress
        self.capacity = method.expected

    @property
    def learns(self) -> bool:
        """Whether nothing is known yet of what vectors hold."""
        return self.method.config.exact and self.capacity == self.method.expected

    def parts(self, data: memoryview, start: int) -> Iterator[_Part]:
        """All segments from `start` on."""
        while start < len(data):
            part = self.next_part(data, start)
            yield part
            start += len(part.content)

    def next_part(self, data: memoryview, start: int) -> _Part:
        """The segment that begins at `start`."""
        end, is_text = next_segment(data, start, self.method.segment_size(len(data) - start, self.capacity))
        return _Part(bytes(data[start:end]), is_text, self.capacity)

    def segment(self, part: _Part) -> Segment:
        """The groups of a segment."""
        method = self.method
        if not part.is_text:
            return Segment(tuple(self._store(part.content)), self.capacity, 0.0)
        found, pieces = self._filtered(part.content)
        if is_redundant(found.content) or (not method.config.exact and is_hopeless(method, found.content, pieces)):
            return Segment(tuple(self._store(part.content)), self.capacity, 0.0)
        progress = _scaled(self.progress, len(found.content), len(part.content))
        groups, gain = self._coded(pieces, progress)
        redone = redressed(groups, found, part.content)
        if redone is None:
            redone, gain = self._coded(method.lm.tokenizer.encode(part.content), progress)
        groups = list(_merge_stored(redone))
        if not method.config.exact and self._is_smaller_stored(part.content, groups):
            return Segment((stored_group(part.content),), self.capacity, 0.0)
        return Segment(tuple(groups), self.capacity, gain)

    def _filtered(self, content: bytes) -> tuple[Undressed, Sequence[Piece]]:
        """What the model is to see of a segment, and its pieces. A copy needs what it repeats in its own group."""
        found, encode = undressed(self.method, content), self.method.lm.tokenizer.encode
        shorter = without_repeats(found, self.method.config.effort)
        if shorter is not found:
            pieces = encode(shorter.content)
            if len(pieces) == 1 and len(pieces[0].ids or ()) in range(1, self.method.group_tokens + 1):
                return shorter, pieces
        return found, encode(found.content)

    def _coded(self, pieces: Iterable[Piece], progress: Progress) -> tuple[list[Group], float]:
        """The groups of a text, and the bits that vectors saved. `progress` is told of bytes of this text."""
        groups: list[Group] = []
        gain = 0.0
        for piece in pieces:
            if piece.ids is None:
                progress(len(piece.content))
                groups += stored_groups(piece.content)
                continue
            coded = self.method.code(piece.ids, self.capacity, progress)
            groups += coded.groups
            gain += coded.gain
            if self.learns and coded.held is not None:
                self._learn(coded.held)
        return groups, gain

    def _is_smaller_stored(self, content: bytes, groups: Sequence[Group]) -> bool:
        stored = writing.entries_size([self.method.stored_entry(content)])
        return stored < writing.entries_size(group.entry for group in groups)

    def _store(self, content: bytes) -> list[Group]:
        self.progress(len(content))
        return list(stored_groups(content))

    def _learn(self, held: float) -> None:
        """Give each of the next vectors the bits that these have `held`, and somewhat more."""
        if math.isfinite(held):
            low, high = EXACT_CAPACITY_RANGE
            expected = self.method.expected
            self.capacity = min(max(EXACT_AMBITION * held, low * expected), high * expected)


def _scaled(progress: Progress, n_filtered: int, n_original: int) -> Progress:
    """Is told of filtered bytes, and tells `progress` of original ones, in all no more than there are."""
    done = told = 0

    def tell(n: int) -> None:
        nonlocal done, told
        done = min(done + n, n_filtered)
        before, told = told, n_original * done // n_filtered
        progress(told - before)

    return tell


def _merge_stored(groups: Iterable[Group]) -> Iterator[Group]:
    """The same groups, neighbouring stored ones as one where the format allows it."""
    for is_stored, run in groupby(groups, key=lambda group: group.entry.kind.is_stored):
        same = list(run)
        if not is_stored or len(same) == 1:
            yield from same
        else:
            yield from stored_groups(b"".join(map(stored_content, same)))
