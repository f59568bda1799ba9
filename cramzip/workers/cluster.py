"""Workers that are tasks on a Ray cluster."""

from __future__ import annotations

import logging
import re
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from ..errors import CramError, InputOutputError, UsageError, one_line
from .base import MOST_DEATHS, Work, WorkerModel, Workers, do

if TYPE_CHECKING:
    from ..lm.frozen import FrozenLM

ANSWER_SECONDS = 5.0  # until a cluster is taken to be unreachable

_HOST_AND_PORT = re.compile(r"(?:ray://)?([^/\s]+):(\d+)")


class RayWorkers(Workers):
    """Tasks on the Ray cluster at `address`: one on each GPU, if it has any and `device` allows it, or else core.

    Raises UsageError where Ray is not installed or of no use, InputOutputError if the cluster does not answer.
    """

    def __init__(self, address: str, device: str = "auto", n: int | None = None):
        try:
            import ray
        except ImportError:
            raise UsageError("--ray: Ray is not installed: pip install 'cramzip[ray]'") from None
        _knock(address)
        _silence(ray)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            raise InputOutputError(f"no Ray cluster answers at {address}: {one_line(error)}") from error
        self._ray = ray
        resources: dict[str, float] = ray.cluster_resources()
        n_gpus = int(resources.get("GPU", 0)) if device in ("auto", "cuda") else 0
        self._device = "cuda" if n_gpus else "cpu"
        room = n_gpus or max(1, int(resources.get("CPU", 1)))
        self.n = min(room, n or room)
        needs = {"num_gpus": 1} if n_gpus else {"num_cpus": 1}
        self._task = ray.remote(do).options(max_retries=MOST_DEATHS, **needs)

    @property
    def conditions(self) -> str:
        return f"Ray, {self._device}"

    def _model(self, lm: FrozenLM) -> WorkerModel:
        return WorkerModel.of(lm, self._device, None)

    def _begin(self, work: Work) -> Any:
        return self._task.remote(work)

    def _first(self, waiting: deque[Any]) -> Any:
        try:
            return self._ray.get(waiting.popleft())
        except self._ray.exceptions.RayError as error:
            if isinstance(error, self._ray.exceptions.WorkerCrashedError):
                raise CramError(f"workers died {MOST_DEATHS + 1} times over the same work") from error
            raise CramError(f"Ray: {one_line(error)}") from error

    def _abandon(self, waiting: deque[Any]) -> None:
        for begun in waiting:
            self._ray.cancel(begun)

    def close(self) -> None:
        self._ray.shutdown()


def _silence(ray: Any) -> None:
    """What Ray has to say about dead workers it prints on standard output, where data may go; no option stops it.

    Raises UsageError where that cannot be helped.
    """
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    if not hasattr(worker, "print_to_stdstream"):
        raise UsageError(f"--ray: Ray {ray.__version__} would print where data may go; cramzip needs another version")
    worker.print_to_stdstream = lambda *_, **__: None  # type: ignore[union-attr]


def _knock(address: str) -> None:
    """Raise InputOutputError if nobody listens at `address`, long before Ray would."""
    if not (match := _HOST_AND_PORT.fullmatch(address)):
        return
    try:
        socket.create_connection((match[1], int(match[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputOutputError(f"no Ray cluster answers at {address}: {one_line(error)}") from None
