"""How tokens become groups: what a Writer asks of the method that suits its model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import CramConfig
from ..container.records import Entry, Group, Header
from ..container.wire import Bytes

if TYPE_CHECKING:
    from ..lm.models import LM
    from .cram import Goal

Progress = Callable[[int], None]  # is told of bytes of the original


class Coded(NamedTuple):
    """Groups for some tokens. `gain`: the bits that vectors saved. `held`: bits of text for each vector that recites.

    `held` is None where nothing was learned of that.
    """

    groups: list[Group]
    gain: float = 0.0
    held: float | None = None


class Method(ABC):
    """A way to write what a model predicts.

    `group_tokens`: up to how many tokens of a text make one group.
    `expected`: bits that a vector may be expected to recite. `goal`: what vectors are optimised for, if there are to be
    any.
    """

    lm: LM
    config: CramConfig
    expected: float
    group_tokens: int
    goal: Goal

    @abstractmethod
    def segment_size(self, remaining: int, capacity: float) -> int:
        """Bytes of the next segment of text, of `remaining` that are left."""

    @abstractmethod
    def code(self, ids: Sequence[int], capacity: float, progress: Progress) -> Coded:
        """Groups for the tokens of a text, a vector of which recites `capacity` bits, if any does."""

    @abstractmethod
    def bits(self, ids: Sequence[int], part: slice) -> float:
        """What a part of some tokens costs without vectors."""

    @abstractmethod
    def stored_bits(self, content: bytes, part: slice) -> float:
        """What a part of a segment takes when that is stored, as far as the model cannot know it."""

    @abstractmethod
    def cost(self, ids: Sequence[int]) -> float:
        """Bits of the tokens of a short text without vectors, with what is learned of them on the way."""

    @abstractmethod
    def stored_entry(self, content: Bytes) -> Entry:
        """What this method takes for the entry of a stored group of `content`, when it compares sizes."""

    @abstractmethod
    def described(self, header: Header, gain: float | None) -> Header:
        """The header of a file with groups that need the model. `gain`: bits that vectors saved, None without vectors.

        A negative gain is one that nobody is to know.
        """

    @property
    @abstractmethod
    def conditions(self) -> dict[str, Any]:
        """What, besides the original, the model and the options, groups depend on; as JSON can hold it."""


def versions(*packages: str) -> dict[str, str]:
    """The versions of packages that groups depend on."""
    return {package: version(package) for package in packages}
