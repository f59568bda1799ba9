"""Independent pieces of work for workers, and what a worker does with them.

A piece goes to a function of a model and that piece; results come in order, lazily, and only a few pieces are
ahead of the result that is waited for. A worker that dies loses nothing: its pieces are done again by another. Knows
nothing of what the pieces are, nor of where the workers are: `processes` and `cluster` do.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..errors import ModelError, WrongModelError
from ..lm.exact import ExactLM
from ..lm.models import loaded, with_codebook, with_dictionary
from ..lm.source import ModelSource, find
from ..lm.with_torch import in_torch

if TYPE_CHECKING:
    from ..lm.models import LM

LOOK_AHEAD = 2  # pieces for each worker that are given out before the first of them is back
MOST_DEATHS = 3  # of workers, one after the other without a result between them

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Workers(ABC):
    """`n` workers. Each loads the model that a piece needs and keeps it; a context manager that ends them."""

    @property
    @abstractmethod
    def n(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def conditions(self) -> str:
        """What, besides a piece and its model, results could depend on."""

    def map(self, lm: LM, function: Callable[[LM, Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """`function(lm, piece)` for every piece, in order, with the `lm` of a worker; `function` is one of a module.

        What a worker raises is raised here. Raises CramError if workers die again and again, WrongModelError if the
        model of a worker is not `lm`.
        """
        model = self._model(lm)
        waiting: deque[Any] = deque()
        try:
            for piece in pieces:
                waiting.append(self._begin(Work(model, function, piece)))
                if len(waiting) == LOOK_AHEAD * self.n:
                    yield unpacked(self._first(waiting))
            while waiting:
                yield unpacked(self._first(waiting))
        finally:
            if waiting:
                self._abandon(waiting)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End all workers at once, whatever they are doing."""

    @abstractmethod
    def _model(self, lm: LM) -> WorkerModel: ...

    @abstractmethod
    def _begin(self, work: Work) -> Any: ...

    @abstractmethod
    def _first(self, waiting: deque[Any]) -> Any:
        """What came of the first of the work that was begun; it no longer waits."""

    @abstractmethod
    def _abandon(self, waiting: deque[Any]) -> None:
        """Nobody wants what was begun any more."""


# -- in a worker -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerModel:
    """What a worker has to load, and how; `threads` None: as they are."""

    source: ModelSource
    fingerprint: bytes
    tokenizer_hash: bytes
    device: str
    threads: int | None
    is_exact: bool
    dictionary: bytes | None = None
    codebook: bytes | None = None
    version: str = __version__

    @classmethod
    def of(cls, lm: LM, device: str, threads: int | None) -> WorkerModel:
        source = ModelSource(lm.source.model_id, lm.source.revision, lm.source.path.absolute())
        content = lm.dictionary.content if isinstance(lm, ExactLM) and lm.dictionary else None
        codebook = lm.given.content if isinstance(lm, ExactLM) and lm.given else None
        is_exact = isinstance(lm, ExactLM)
        return cls(source, lm.fingerprint, lm.tokenizer_hash, device, threads, is_exact, content, codebook)

    def load(self) -> LM:
        """Raises ModelError; WrongModelError unless it is the very model of the parent."""
        if self.version != __version__:
            raise ModelError(f"a worker runs cramzip {__version__}, and is to work with {self.version}")
        source = self._locate()
        self._compare("Model_Fingerprint", source.fingerprint, self.fingerprint)
        lm: LM
        if self.is_exact and self.device != "cuda":
            lm = ExactLM(source, self.device, self.threads)
        else:
            self._prepare_torch()
            lm = loaded(source, self.device) if self.is_exact else in_torch(source, self.device)
        self._compare("Tokenizer_Hash", lm.tokenizer_hash, self.tokenizer_hash)
        lm = lm if self.codebook is None else with_codebook(lm, self.codebook)
        return lm if self.dictionary is None else with_dictionary(lm, self.dictionary)

    def _prepare_torch(self) -> None:
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.device == "cuda":
            torch.cuda.set_device(number % torch.cuda.device_count())

    def _locate(self) -> ModelSource:
        """The files: where they are on the machine of the parent, or else by the name of the model."""
        if self.source.path.exists():
            return replace(self.source)  # with a fingerprint of its own
        if self.source.model_id.startswith("local:"):
            raise ModelError(f"{self.source.path} is not on the machine of a worker")
        return find(self.source.model_id, revision=self.source.revision or None)

    def _compare(self, field: str, found: bytes, expected: bytes) -> None:
        if found != expected:
            raise WrongModelError(
                f"{field}: {self.source.model_id} is {expected.hex()} here, and {found.hex()} where a worker found it"
            )


@dataclass(frozen=True)
class Work:
    model: WorkerModel
    function: Callable[[Any, Any], Any]
    piece: Any


@dataclass(frozen=True)
class _Failure:
    """An exception as its parts: classes with arguments of their own do not survive pickling."""

    kind: type[Exception]
    arguments: tuple[Any, ...]
    state: dict[str, Any]
    trace: str


number = 0  # of this worker among those of its machine
_loaded: tuple[WorkerModel, LM] | None = None


def do(work: Work) -> Any:
    """What the function makes of the piece, or a _Failure."""
    global _loaded
    try:
        if _loaded is None or _loaded[0] != work.model:
            _loaded = None  # before the next takes its memory
            _loaded = work.model, work.model.load()
        return work.function(_loaded[1], work.piece)
    except Exception as error:
        kind, arguments = tuple(error.__reduce__())[:2]
        return _Failure(kind, arguments, dict(error.__dict__), traceback.format_exc())


def unpacked(result: Any) -> Any:
    if isinstance(result, _Failure):
        error = result.kind.__new__(result.kind, *result.arguments)
        Exception.__init__(error, *result.arguments)
        error.__dict__.update(result.state)
        error.add_note(f"In a worker:\n{result.trace}")
        raise error
    return result
