"""What a file is made of, segment by segment, and what is said of it in the header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..container.records import HASH_SIZES, Group, Header, name_fault
from ..container.wire import Bytes
from ..errors import UsageError

SMALL_ORIGINAL = 2**20  # bytes; of a smaller original the file keeps a part of the hash


@dataclass(frozen=True)
class Original:
    """What a file is made of. `name`: that of the source, if it is to be kept; `ending`: what is kept of it if not.

    `strip`: keep nothing optional.
    """

    data: Bytes
    sha256: bytes
    name: str | None = None
    strip: bool = False
    ending: str | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a name that no header can hold."""
        if self.name is not None and (fault := name_fault(self.name)):
            raise UsageError(f"name: {fault}, found {self.name!r}")

    def header(self) -> Header:
        """A header without a model."""
        if self.strip:
            return Header(len(self.data), self.sha256[: HASH_SIZES[0]], ending=self.ending)
        hash_size = HASH_SIZES[1] if len(self.data) < SMALL_ORIGINAL else HASH_SIZES[-1]
        return Header(len(self.data), self.sha256[:hash_size], self.name, ending=self.ending)


class Segment(NamedTuple):
    """The groups of one segment. `capacity`: the bits that a vector of later segments is given; `gain`: bits saved."""

    groups: tuple[Group, ...]
    capacity: float
    gain: float

    @property
    def size(self) -> int:
        """Bytes of the original."""
        return sum(group.entry.size for group in self.groups)
