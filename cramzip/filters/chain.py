"""Filters by number, and several of them one after the other, as a payload begins with them."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import DamagedFileError
from .base import Filter, check_size, pack_varint, take_varint
from .double_byte import DOUBLE_BYTE
from .encodings import CODE_PAGES, WIDE, Mark
from .escapes import Escapes
from .letters import Blanks, Capitals, Composed
from .lines import CR, CRLF, LineBlanks, LineEnds, Prefix
from .repeats import Repeats
from .strays import StrayBytes

MAX_FILTERS = 8
MOST_GROWTH = 3  # filtered bytes for each byte of the original, at most
MIN_CHAIN_SIZE = 3  # bytes

# In the order in which they are tried.
CERTAIN = (Mark(), LineEnds(2, "crlf", CRLF), LineEnds(3, "cr", CR), Composed(), Blanks())
DOUBTFUL = (Escapes(), LineBlanks(), Prefix(), Capitals())
STRAYS = StrayBytes()
ALL = (*WIDE, *CODE_PAGES, *DOUBLE_BYTE, STRAYS, *CERTAIN, *DOUBTFUL, Repeats())
FILTERS: dict[int, Filter] = {each.id: each for each in ALL}


class Step(NamedTuple):
    """A filter that was applied, and its parameters."""

    filter: Filter
    parameters: bytes


class Chain(NamedTuple):
    """Filters in the order in which they were applied."""

    steps: tuple[Step, ...]

    @property
    def names(self) -> list[str]:
        return [step.filter.name for step in self.steps]

    def pack(self) -> bytes:
        """The bytes that a payload begins with."""
        out = bytes([len(self.steps)])
        for step in self.steps:
            out += bytes([step.filter.id]) + pack_varint(len(step.parameters)) + step.parameters
        return out

    def apply(self, data: bytes) -> tuple[bytes, Chain]:
        """The same filters for other bytes, with the same settings, without those that change nothing."""
        steps = []
        for step in self.steps:
            if (change := step.filter.apply(data, step.parameters)) and change.changed != data:
                data = change.changed
                steps.append(Step(step.filter, change.parameters))
        return data, Chain(tuple(steps))

    def invert(self, filtered: bytes, size: int) -> bytes:
        """The `size` original bytes. Raises DamagedFileError (stage `content`) before much more memory is taken."""
        limit = MOST_GROWTH * size
        check_size(len(filtered), limit)
        for step in reversed(self.steps):
            filtered = step.filter.invert(filtered, step.parameters, limit)
            check_size(len(filtered), limit)
        return filtered

    def restores(self, filtered: bytes, original: bytes) -> bool:
        """Whether the original comes back, without more memory on the way than a reader allows."""
        try:
            return self.invert(filtered, len(original)) == original
        except DamagedFileError:
            return False


def parse(payload: bytes | memoryview) -> tuple[Chain, int]:
    """The filters that a payload begins with, and their size in bytes. Raises DamagedFileError (stage `payload`)."""
    data = bytes(payload)
    if not data or not 1 <= data[0] <= MAX_FILTERS:
        raise DamagedFileError("payload", f"Filter_Count is not in 1 to {MAX_FILTERS}")
    steps, at = [], 1
    for _ in range(data[0]):
        if at >= len(data) or data[at] not in FILTERS:
            raise DamagedFileError("payload", "Filter_ID is reserved, or missing")
        filter_ = FILTERS[data[at]]
        try:
            size, at = take_varint(data, at + 1)
        except DamagedFileError as error:
            raise DamagedFileError("payload", error.message) from None
        if at + size > len(data):
            raise DamagedFileError("payload", f"{size} bytes of filter parameters, {len(data) - at} left")
        steps.append(Step(filter_, data[at : at + size]))
        at += size
    return Chain(tuple(steps)), at


def extended(chain: Chain, data: bytes, change_of: Filter, like: bytes | None = None) -> tuple[bytes, Chain] | None:
    """`chain` and one filter more, applied to `data`, if it changes these and gives them back.

    `like`: parameters whose settings it is to take.
    """
    if len(chain.steps) == MAX_FILTERS or (change := change_of.apply(data, like)) is None:
        return None
    try:
        restored = change_of.invert(change.changed, change.parameters, MOST_GROWTH * len(data))
    except DamagedFileError:
        return None
    if restored != data:
        return None
    return change.changed, Chain((*chain.steps, Step(change_of, change.parameters)))
