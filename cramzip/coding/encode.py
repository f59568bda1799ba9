"""Bytes to groups: what is stored, what is predicted or crammed; and from these the file.

Works segment by segment. A segment depends on nothing but the bytes from its start on and what the first was found to
hold, so that segments can be worked on side by side, and interrupted work can go on and give the same file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import BinaryIO, NamedTuple

from ..config import CramConfig
from ..container import writing
from ..container.records import Entry, Group, Header, Parameters
from ..container.stored import stored_content, stored_group, stored_groups, stored_sizes
from ..container.wire import Bytes
from ..errors import UsageError
from ..lm.devices import DEVICES
from ..lm.frozen import FrozenLM
from ..lm.identity import reference
from ..lm.precision import usual_settings
from ..workers.base import Workers
from .chunking import next_segment
from .corrected import corrected_groups
from .cram import Goal
from .hopeless import is_hopeless
from .original import Original, Segment
from .parameters import choose_parameters, expected
from .recited import recited_groups

# Without corrections, chunks are cut to what vectors have been found to hold, and somewhat more.
EXACT_SEGMENT_BYTES = (2**10, 2**18)  # least and most
BYTES_PER_BIT = 0.5  # a rough guess at text under a good model, for the size of segments only
CHUNKS_PER_SLOT = 2  # chunks in a segment for each slot, so that slots are refilled
EXACT_AMBITION = 1.15
EXACT_CAPACITY_RANGE = (1 / 16, 16.0)  # of what was expected

Progress = Callable[[int], None]  # is told of bytes of the original


class Writer:
    """Who writes: a model, and how a text is crammed. Raises UsageError if the model cannot do it so."""

    def __init__(self, lm: FrozenLM, config: CramConfig):
        self.parameters = choose_parameters(lm, config)
        self.expected = expected(lm)
        if config.origin is not None and len(config.origin) != lm.width:
            raise UsageError(f"origin: expected {lm.width} numbers, found {len(config.origin)}")
        if config.origin is None:
            config = replace(config, origin=self.expected.origin)
        if config.exact and config.learning_rate is None:
            config = replace(config, learning_rate=self.expected.learning_rate)
        self.goal = Goal.of(lm, config, self.parameters)

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
        encoder = _Encoder(self.goal, self.expected.capacity, progress)
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
            parts = (_Share(part, self.goal.config, self.parameters) for part in encoder.parts(data, position))
            for segment in workers.map(self.goal.lm, _encode_share, parts):
                progress(segment.size)
                yield segment

    def write(self, sink: BinaryIO, original: Original, groups: Iterable[Group], gain: float) -> None:
        """Write the file of `groups`, which is walked several times; or that of the stored data, if it is smaller.

        `gain`: the bits that vectors took off the corrections.
        """
        entries = [group.entry for group in groups]
        if not self.goal.config.exact and not _is_stored_at_its_best(entries, len(original.data)):
            size = writing.file_size(self._header(original, entries, gain), entries)
            stored = _stored(original.data, size)
            stored_entries = [group.entry for group in stored]
            if writing.file_size(self._header(original, stored_entries, gain), stored_entries) < size:
                groups, entries = stored, stored_entries
        writing.write(sink, self._header(original, entries, gain), groups)

    def _header(self, original: Original, entries: Sequence[Entry], gain: float) -> Header:
        """With the model block only where a group needs the model."""
        header, goal = original.header(), self.goal
        if all(entry.kind.is_stored for entry in entries):
            return header
        vectors = None
        if any(entry.kind.has_vectors for entry in entries):
            shown_gain = None if original.strip else max(0, round(gain))
            vectors = goal.view.described(goal.config.coding, goal.lm.width, shown_gain)
        return replace(header, model=reference(goal.lm), parameters=self.parameters, vectors=vectors)


def _is_stored_at_its_best(entries: Sequence[Entry], size: int) -> bool:
    """Whether all groups are stored, and are as few as the format allows."""
    return all(entry.kind.is_stored for entry in entries) and [entry.size for entry in entries] == stored_sizes(size)


def _stored(data: Bytes, limit: int) -> list[Group]:
    """The whole of `data` stored; or as much of it as takes `limit` bytes."""
    groups: list[Group] = []
    for group in stored_groups(data):
        groups.append(group)
        limit -= len(group.payload)
        if limit < 0:
            break
    return groups


class _Part(NamedTuple):
    """The bytes of one segment. `expected` and `capacity`: bits of a vector, before anything was learned and now."""

    content: bytes
    is_text: bool
    expected: float
    capacity: float


class _Share(NamedTuple):
    """One segment for a worker, and all else that its groups depend on."""

    part: _Part
    config: CramConfig
    parameters: Parameters


def _encode_share(lm: FrozenLM, share: _Share) -> Segment:
    """The segment that a worker makes of its share."""
    part, config, parameters = share
    encoder = _Encoder(Goal.of(lm, config, parameters), part.expected, lambda _: None)
    encoder.capacity = part.capacity
    return encoder.segment(part)


class _Encoder:
    """What carries over from one segment to the next: `capacity`, the bits of text to give to a vector.

    It is learned once; after that, segments can go side by side.
    """

    def __init__(self, goal: Goal, expected: float, progress: Progress):
        self.goal, self.progress = goal, progress
        self.expected = self.capacity = expected

    @property
    def learns(self) -> bool:
        """Whether nothing is known yet of what vectors hold."""
        return self.goal.config.exact and self.capacity == self.expected

    def parts(self, data: memoryview, start: int) -> Iterator[_Part]:
        """All segments from `start` on."""
        while start < len(data):
            part = self.next_part(data, start)
            yield part
            start += len(part.content)

    def next_part(self, data: memoryview, start: int) -> _Part:
        """The segment that begins at `start`."""
        end, is_text = next_segment(data, start, self._segment_size(len(data) - start))
        return _Part(bytes(data[start:end]), is_text, self.expected, self.capacity)

    def _segment_size(self, remaining: int) -> int:
        """Bytes of the next segment of text. All are about equal in size, but one that is learned from is small."""
        goal = self.goal
        if not goal.config.exact:
            most = DEVICES[goal.lm.device].segment_bytes
            return -(-remaining // max(1, -(-remaining // most)))
        n_chunks = goal.slots * (1 if self.learns else CHUNKS_PER_SLOT)
        expected = self.capacity * goal.config.vectors * BYTES_PER_BIT * n_chunks
        return int(min(max(expected, EXACT_SEGMENT_BYTES[0]), EXACT_SEGMENT_BYTES[1]))

    @usual_settings()
    def segment(self, part: _Part) -> Segment:
        """The groups of a segment."""
        if not part.is_text:
            return Segment(tuple(self._store(part.content)), self.capacity, 0.0)
        groups: list[Group] = []
        gain = 0.0
        pieces = self.goal.lm.tokenizer.encode(part.content)
        if not self.goal.config.exact and is_hopeless(self.goal, part.content, pieces):
            return Segment(tuple(self._store(part.content)), self.capacity, 0.0)
        for piece in pieces:
            if piece.ids is None:
                groups += self._store(piece.content)
                continue
            found, gained = self._code(piece.ids)
            groups += found
            gain += gained
        groups = list(_merge_stored(groups))
        stored = [stored_group(part.content)]
        if not self.goal.config.exact and writing.groups_size(stored) < writing.groups_size(groups):
            return Segment(tuple(stored), self.capacity, 0.0)
        return Segment(tuple(groups), self.capacity, gain)

    def _store(self, content: bytes) -> list[Group]:
        self.progress(len(content))
        return list(stored_groups(content))

    def _code(self, ids: Sequence[int]) -> tuple[list[Group], float]:
        """Groups for tokens, and the bits that vectors saved."""
        if not self.goal.config.exact:
            return corrected_groups(self.goal, ids, self.progress)
        recital = recited_groups(self.goal, ids, self.capacity, self.progress)
        if self.learns and recital.held is not None:
            self._learn(recital.held)
        return recital.groups, recital.gain

    def _learn(self, held: float) -> None:
        """Give each of the next vectors the bits that these have `held`, and somewhat more."""
        if math.isfinite(held):
            low, high = EXACT_CAPACITY_RANGE
            self.capacity = min(max(EXACT_AMBITION * held, low * self.expected), high * self.expected)


def _merge_stored(groups: Iterable[Group]) -> Iterator[Group]:
    """The same groups, neighbouring stored ones as one where the format allows it."""
    for is_stored, run in groupby(groups, key=lambda group: group.entry.kind.is_stored):
        same = list(run)
        if not is_stored or len(same) == 1:
            yield from same
        else:
            yield from stored_groups(b"".join(map(stored_content, same)))
