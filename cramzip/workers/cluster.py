"""Workers that are tasks on a Ray cluster."""

from __future__ import annotations

import logging
import re
import socket
from collections import deque
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import CramError, InputOutputError, UsageError, one_line
from ..lm.exact import ExactLM
from .base import MOST_DEATHS, Work, WorkerModel, Workers, do

if TYPE_CHECKING:
    from ..lm.models import LM

ANSWER_SECONDS = 5.0  # until a cluster is taken to be unreachable

KNOWN_ADDRESSES = ("auto", "local")
MAX_PORT = 2**16 - 1

_HOST_AND_PORT = re.compile(r"(?:ray://)?(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


class RayWorkers(Workers):
    """Tasks on the Ray cluster at `address`: one on each GPU, if it has any and `device` allows it, or else core.

    The cluster is called when there is work for it. Raises UsageError where Ray is not installed; whatever asks the
    cluster for something raises InputOutputError if it does not answer, and does not call it again.
    """

    def __init__(self, address: str, device: str = "auto", n: int | None = None):
        if find_spec("ray") is None:
            raise UsageError("--ray: Ray is not installed: pip install 'cramzip[ray]'")
        self._address, self._wanted_device, self._wanted_n = address, device, n
        self._no_answer: InputOutputError | None = None

    @cached_property
    def _ray(self) -> Any:
        """Ray, connected to the cluster."""
        if self._no_answer:
            raise self._no_answer
        try:
            return _connect(self._address)
        except InputOutputError as error:
            self._no_answer = error
            raise

    @cached_property
    def _resources(self) -> dict[str, float]:
        resources: dict[str, float] = self._ray.cluster_resources()
        return resources

    @property
    def _n_gpus(self) -> int:
        return int(self._resources.get("GPU", 0)) if self._wanted_device in ("auto", "cuda") else 0

    @property
    def _device(self) -> str:
        return "cuda" if self._n_gpus else "cpu"

    @property
    def n(self) -> int:
        room = self._n_gpus or max(1, int(self._resources.get("CPU", 1)))
        return min(room, self._wanted_n or room)

    @cached_property
    def _task(self) -> Any:
        needs = {"num_gpus": 1} if self._n_gpus else {"num_cpus": 1}
        return self._ray.remote(do).options(max_retries=MOST_DEATHS, **needs)

    @property
    def conditions(self) -> str:
        return f"Ray, {self._device}"

    def _model(self, lm: LM) -> WorkerModel:
        return WorkerModel.of(lm, self._device, 1 if isinstance(lm, ExactLM) else None)  # a task has one core

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
        if "_ray" in self.__dict__:
            self._ray.shutdown()


def _connect(address: str) -> Any:
    """Ray, connected to the cluster at `address`."""
    import ray

    _knock(address)
    _silence(ray)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        raise InputOutputError(f"no Ray cluster answers at {address}: {one_line(error)}") from error
    return ray


def host_and_port(address: str) -> tuple[str, int] | None:
    """Host (of IPv6 without its brackets) and port of an address, or None if it has another form."""
    if not (match := _HOST_AND_PORT.fullmatch(address)) or not 1 <= int(match[2]) <= MAX_PORT:
        return None
    return match[1].strip("[]"), int(match[2])


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
    if not (place := host_and_port(address)):
        return
    try:
        socket.create_connection(place, ANSWER_SECONDS).close()
    except OSError as error:
        raise InputOutputError(f"no Ray cluster answers at {address}: {one_line(error)}") from None
