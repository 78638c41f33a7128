"""Worker processes on one machine: a lost or hanging worker ends its job, never the run."""

import concurrent.futures
import ctypes
import math
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from tuner.errors import UserError
from tuner.interrupts import interruption_point, uninterrupted
from tuner.records import Status

R = TypeVar("R")
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
# Sets of spare workers: a final takes one every two or three seconds, and one takes about six to import torch.
_SPARES = 3
_POLL_S = 0.2


@dataclass(frozen=True)
class Failure:
    """A job that gave no result: the status that its variant ends in, and why."""

    status: Status
    log: str


def _start_worker(environment: Mapping[str, str], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    os.environ.update(environment)
    # A parent that is killed cannot stop anyone: a worker in an endless launch would keep its GPU for ever.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class WorkerPool:
    """A pool of spawned processes.

    `environment` is set in each worker before a job's module is imported, so variables that Triton reads at
    import take effect. A worker that dies or outlasts its time is replaced. `spare` names a module: workers that
    have imported it are kept ready, so that `replace_workers` costs no start. Within `with`, Ctrl-C acts where jobs are
    waited for (`wait`, `result`): elsewhere it could leave a lock held without which workers cannot be stopped.
    """

    def __init__(self, workers: int, environment: Mapping[str, str] | None = None, spare: str | None = None) -> None:
        self._workers = workers
        self._environment = dict(environment or {})
        self._spare_module = spare
        self._pool = self._new_pool()
        self._held = ExitStack()
        self._unfinished: set[Future[Any]] = set()
        self._spares: deque[Any] = deque()
        for _ in range(_SPARES if spare else 0):
            self._add_spare()

    def _new_pool(self) -> Any:
        return ProcessPool(
            max_workers=self._workers,
            initializer=_start_worker,
            initargs=[self._environment, os.getpid()],
            context=multiprocessing.get_context("spawn"),
        )

    def _add_spare(self) -> None:
        pool = self._new_pool()
        self._spares.append(pool)
        if self._spare_module:
            self._load_into(pool, self._spare_module)

    def load(self, module: str) -> None:
        """Let the workers begin to import a module that jobs will need."""
        self._load_into(self._pool, module)

    def _load_into(self, pool: Any, module: str) -> None:
        for _ in range(self._workers):
            pool.schedule(_load, args=[module])

    def submit(self, function: Callable[..., R], *arguments: object, timeout_s: float) -> "Future[R]":
        """Run a function in a worker; `timeout_s` seconds after it began, the worker is killed."""
        if not self._pool.active:  # a worker died with nothing to do
            self.replace_workers()
        future: Future[R] = self._pool.schedule(function, args=arguments, timeout=timeout_s)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def replace_workers(self) -> None:
        """Kill every worker and go on with fresh ones; jobs in flight are lost."""
        self._stop_jobs()
        while True:
            self._add_spare()
            self._pool = self._spares.popleft()
            if self._pool.active:
                return
            _stop(self._pool)

    def kill(self) -> None:
        """Kill every worker at once."""
        self._stop_jobs()
        for spare in self._spares:
            _stop(spare)

    def _stop_jobs(self) -> None:
        _stop(self._pool)
        for lost in tuple(self._unfinished):  # a stopped pool may leave a job without an answer for ever
            if lost.cancel():
                lost.set_running_or_notify_cancel()  # tells those who wait

    def __enter__(self) -> "WorkerPool":
        self._held.enter_context(uninterrupted())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._held:
            self.kill()


def _load(module: str) -> None:
    import_module(module)  # the module itself could not be sent back


def _stop(pool: Any) -> None:
    pool.stop()
    pool.join()


def wait(jobs: "Iterable[Future[Any]]", until: float = math.inf, *, first: bool = False) -> bool:
    """Wait for all jobs, or for the `first` that ends, until then (monotonic seconds); whether all are done."""
    pending = set(jobs)
    enough = FIRST_COMPLETED if first else ALL_COMPLETED
    while pending:
        left_s = max(0.0, until - time.monotonic())
        done, pending = concurrent.futures.wait(pending, min(left_s, _POLL_S), enough)
        interruption_point()
        if left_s == 0.0 or (first and done):
            break
    return not pending


def result(future: "Future[R]") -> R | Failure:
    """What a job returned, once it has, or how it was lost. A UserError that it raised is no failure and is raised."""
    if not future.done():
        wait([future])
    try:
        return future.result()
    except TimeoutError as error:
        limit = error.args[1] if len(error.args) > 1 else "its limit"
        return Failure(Status.TIMED_OUT, f"stopped after {limit} s")
    except ProcessExpired as error:
        return Failure(Status.CRASHED, f"the worker died with exit code {error.exitcode}")
    except UserError:
        raise
    except CancelledError:
        return Failure(Status.CRASHED, "cancelled: the workers were stopped")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a job raised in its worker ends that job alone
        trace = getattr(error, "traceback", "")
        return Failure(Status.CRASHED, f"{type(error).__name__}: {error}\n{trace}".rstrip())
