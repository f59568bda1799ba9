"""Independent pieces of work, spread over processes of this machine or over a Ray cluster.

A piece goes to a function of a model and that piece; results come in order, lazily, and only a few pieces are
ahead of the result that is waited for. A worker that dies loses nothing: its pieces are done again by another. Knows
nothing of what the pieces are.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from . import __version__
from .errors import CramError, InputOutputError, ModelError, UsageError, WrongModelError
from .source import ModelSource, find, first_line

if TYPE_CHECKING:
    from .lm import FrozenLM

LOOK_AHEAD = 2  # pieces for each worker that are given out before the first of them is back
MOST_DEATHS = 3  # of workers, one after the other without a result between them
ANSWER_SECONDS = 5.0  # until a cluster is taken to be unreachable

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_HOST_AND_PORT = re.compile(r"(?:ray://)?([^/\s]+):(\d+)")


class Workers(ABC):
    """`n` workers. Each loads the model that a piece needs and keeps it; a context manager that ends them."""

    n: int

    @property
    @abstractmethod
    def conditions(self) -> str:
        """What, besides a piece and its model, results could depend on."""

    def map(
        self, lm: FrozenLM, function: Callable[[FrozenLM, Piece], Result], pieces: Iterable[Piece]
    ) -> Iterator[Result]:
        """`function(lm, piece)` for every piece, in order, with the `lm` of a worker; `function` is one of a module.

        What a worker raises is raised here. Raises CramError if workers die again and again, WrongModelError if the
        model of a worker is not `lm`.
        """
        model = self._model(lm)
        waiting: deque[Any] = deque()
        try:
            for piece in pieces:
                waiting.append(self._begin(_Work(model, function, piece)))
                if len(waiting) == LOOK_AHEAD * self.n:
                    yield _unpacked(self._first(waiting))
            while waiting:
                yield _unpacked(self._first(waiting))
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
    def _model(self, lm: FrozenLM) -> _Model: ...

    @abstractmethod
    def _begin(self, work: _Work) -> Any: ...

    @abstractmethod
    def _first(self, waiting: deque[Any]) -> Any:
        """What came of the first of the work that was begun; it no longer waits."""

    @abstractmethod
    def _abandon(self, waiting: deque[Any]) -> None:
        """Nobody wants what was begun any more."""


# -- in a worker -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    """What a worker has to load, and how; `threads` None: as they are."""

    source: ModelSource
    fingerprint: bytes
    tokenizer_hash: bytes
    device: str
    threads: int | None
    version: str = __version__

    @classmethod
    def of(cls, lm: FrozenLM, device: str, threads: int | None) -> _Model:
        source = ModelSource(lm.source.model_id, lm.source.revision, lm.source.path.absolute())
        return cls(source, lm.fingerprint, lm.tokenizer_hash, device, threads)

    def load(self) -> FrozenLM:
        """Raises ModelError; WrongModelError unless it is the very model of the parent."""
        import torch

        from .lm import FrozenLM

        if self.version != __version__:
            raise ModelError(f"a worker runs cramzip {__version__}, and is to work with {self.version}")
        source = self._locate()
        self._compare("Model_Fingerprint", source.fingerprint, self.fingerprint)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.device == "cuda":
            torch.cuda.set_device(_number % torch.cuda.device_count())
        lm = FrozenLM(source, self.device)
        self._compare("Tokenizer_Hash", lm.tokenizer_hash, self.tokenizer_hash)
        return lm

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
class _Work:
    model: _Model
    function: Callable[[Any, Any], Any]
    piece: Any


@dataclass(frozen=True)
class _Failure:
    """An exception as its parts: classes with arguments of their own do not survive pickling."""

    kind: type[Exception]
    arguments: tuple[Any, ...]
    state: dict[str, Any]
    trace: str


_number = 0  # of this worker among those of its machine
_loaded: tuple[_Model, FrozenLM] | None = None


def _do(work: _Work) -> Any:
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


def _unpacked(result: Any) -> Any:
    if isinstance(result, _Failure):
        error = result.kind.__new__(result.kind, *result.arguments)
        Exception.__init__(error, *result.arguments)
        error.__dict__.update(result.state)
        error.add_note(f"In a worker:\n{result.trace}")
        raise error
    return result


def _start(numbers: SimpleQueue[int], life: Connection) -> None:
    """What a process does first: it takes a number, and from then on ends when its parent does or wants it to."""
    global _number
    _number = numbers.get()
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()


def _end_with(life: Connection) -> None:
    try:
        life.recv_bytes()
    except (EOFError, OSError):  # the other end, which the parent alone has, is closed
        os._exit(0)


# -- processes of this machine ---------------------------------------------------------------------


class LocalWorkers(Workers):
    """Processes, each with its share of the cores, and with its own GPU where there are several."""

    def __init__(self, n: int):
        self.n = n
        self._pool: ProcessPoolExecutor | None = None
        self._life: Connection | None = None
        self._deaths = 0

    @property
    def conditions(self) -> str:
        return f"{self._threads} threads"

    @property
    def _threads(self) -> int:
        import torch

        return max(1, torch.get_num_threads() // self.n)

    def _model(self, lm: FrozenLM) -> _Model:
        return _Model.of(lm, lm.device, self._threads)

    def _begin(self, work: _Work) -> _Begun:
        return _Begun(work, self._submit(work))

    def _submit(self, work: _Work) -> Future[Any]:
        if self._pool is None:
            self._open()
        assert self._pool is not None
        try:
            with _deaf_children():
                return self._pool.submit(_do, work)
        except BrokenProcessPool as error:  # noticed when its result is asked for
            broken: Future[Any] = Future()
            broken.set_exception(error)
            return broken

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        numbers = context.SimpleQueue()
        for number in range(self.n):
            numbers.put(number)
        life, self._life = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.n, context, _start, (numbers, life))

    def _first(self, waiting: deque[Any]) -> Any:
        while True:
            try:
                result = waiting[0].future.result()
            except BrokenProcessPool:
                self._recover(waiting)
            else:
                self._deaths = 0
                waiting.popleft()
                return result

    def _recover(self, waiting: deque[Any]) -> None:
        """New processes for all work whose results are lost. Raises CramError if that has not helped before."""
        self._deaths += 1
        self.close()
        if self._deaths > MOST_DEATHS:
            deaths, self._deaths = self._deaths, 0
            raise CramError(
                f"workers died {deaths} times in a row; if they were short of memory, fewer --jobs need less"
            )
        for begun in waiting:
            if begun.is_lost:
                begun.future = self._submit(begun.work)

    def _abandon(self, waiting: deque[Any]) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once, whatever they are doing.

        No future is cancelled: before Python 3.12, a pool whose processes end after that never comes to an end.
        """
        if self._life is not None:
            self._life.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._pool = self._life = None


@dataclass
class _Begun:
    work: _Work
    future: Future[Any]

    @property
    def is_lost(self) -> bool:
        """Whether the pool ended before it was done; only to be asked after that."""
        return isinstance(self.future.exception(), BrokenProcessPool)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started meanwhile never hear Ctrl-C: their parent does, and ends them."""
    resource_tracker.ensure_running()  # which lifts what blocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def default_jobs() -> int:
    """As many as there are GPUs, or else cores."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


# -- many machines ---------------------------------------------------------------------------------


class RayWorkers(Workers):
    """Tasks on the Ray cluster at `address`: one on each GPU, if it has any and `device` allows it, or else core.

    Raises UsageError where Ray is not installed, InputOutputError if the cluster does not answer.
    """

    def __init__(self, address: str, device: str = "auto", n: int | None = None):
        try:
            import ray
        except ImportError:
            raise UsageError("--ray: Ray is not installed: pip install 'cramzip[ray]'") from None
        _knock(address)
        # What Ray has to say about dead workers it prints on standard output, where data may go.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            raise InputOutputError(f"no Ray cluster answers at {address}: {first_line(error)}") from error
        self._ray = ray
        resources: dict[str, float] = ray.cluster_resources()
        n_gpus = int(resources.get("GPU", 0)) if device in ("auto", "cuda") else 0
        self._device = "cuda" if n_gpus else "cpu"
        room = n_gpus or max(1, int(resources.get("CPU", 1)))
        self.n = min(room, n or room)
        needs = {"num_gpus": 1} if n_gpus else {"num_cpus": 1}
        self._task = ray.remote(_do).options(max_retries=MOST_DEATHS, **needs)

    @property
    def conditions(self) -> str:
        return f"Ray, {self._device}"

    def _model(self, lm: FrozenLM) -> _Model:
        return _Model.of(lm, self._device, None)

    def _begin(self, work: _Work) -> Any:
        return self._task.remote(work)

    def _first(self, waiting: deque[Any]) -> Any:
        try:
            return self._ray.get(waiting.popleft())
        except self._ray.exceptions.RayError as error:
            if isinstance(error, self._ray.exceptions.WorkerCrashedError):
                raise CramError(f"workers died {MOST_DEATHS + 1} times over the same work") from error
            raise CramError(f"Ray: {first_line(error)}") from error

    def _abandon(self, waiting: deque[Any]) -> None:
        for begun in waiting:
            self._ray.cancel(begun)

    def close(self) -> None:
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Raise InputOutputError if nobody listens at `address`, long before Ray would."""
    if not (match := _HOST_AND_PORT.fullmatch(address)):
        return
    try:
        socket.create_connection((match[1], int(match[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputOutputError(f"no Ray cluster answers at {address}: {first_line(error)}") from None
