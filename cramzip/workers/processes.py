"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..errors import CramError
from ..lm.exact import ExactLM, n_cores
from . import base as workers
from .base import MOST_DEATHS, Work, WorkerModel, Workers, do

if TYPE_CHECKING:
    from ..lm.models import LM


class LocalWorkers(Workers):
    """Processes, each with its share of the cores, and with its own GPU where there are several."""

    def __init__(self, n: int):
        self._n = n
        self._pool: ProcessPoolExecutor | None = None
        self._life: Connection | None = None
        self._deaths = 0

    @property
    def n(self) -> int:
        return self._n

    @property
    def conditions(self) -> str:
        return f"{self.n} processes"

    def _model(self, lm: LM) -> WorkerModel:
        if isinstance(lm, ExactLM):
            return WorkerModel.of(lm, lm.device, max(1, lm.threads // self.n))
        import torch

        return WorkerModel.of(lm, lm.device, max(1, torch.get_num_threads() // self.n))

    def _begin(self, work: Work) -> _Begun:
        return _Begun(work, self._submit(work))

    def _submit(self, work: Work) -> Future[Any]:
        if self._pool is None:
            self._open()
        assert self._pool is not None
        try:
            with _deaf_children():
                return self._pool.submit(do, work)
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
    work: Work
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


def default_jobs(device: str = "auto") -> int:
    """As many as there are GPUs, if `device` allows them and torch is there to count them, or else cores."""
    if device == "cpu" or find_spec("torch") is None:
        return n_cores()
    import torch

    return torch.cuda.device_count() or n_cores()


# -- in a process ----------------------------------------------------------------------------------


def _start(numbers: SimpleQueue[int], life: Connection) -> None:
    """What a process does first: it takes a number, and from then on ends when its parent does or wants it to."""
    workers.number = numbers.get()
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()


def _end_with(life: Connection) -> None:
    try:
        life.recv_bytes()
    except (EOFError, OSError):  # the other end, which the parent alone has, is closed
        os._exit(0)
