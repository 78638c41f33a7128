"""Evaluation on this machine's GPU: one worker process owns it."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from tuner.catalog import Kernel
from tuner.compile.builder import Built
from tuner.errors import UserError
from tuner.measure.benchmark import Samples
from tuner.measure.device import Checked, DeviceJob, Faulty, check_and_time, check_at, time_alternately
from tuner.measure.environment import device_environment, device_uuid
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Agreement, Binary, Evaluation, L2State, Shape, Status, Variant
from tuner.session.device_lock import DeviceLock
from tuner.session.evaluator import Contest, Decision, Evaluator, Rules
from tuner.session.final import FinalBench, expected_s, hold_finals
from tuner.session.patience import Patience

R = TypeVar("R")
_START_TIMEOUT_S = 120.0
_FINAL_JOB_S = 60.0


class DeviceEvaluator(Evaluator):
    """Checks and times variants one after another in a worker that is replaced whenever a launch breaks it."""

    capacity = 1

    def __init__(self, kernel: Kernel, l2: L2State, seed: int, on_wait: Callable[[], None], deadline: float) -> None:
        """Takes the GPU, once it is free (see `DeviceLock`); UserError when it cannot be used."""
        self._kernel = kernel
        self._l2 = l2
        self._seed = seed
        self._patience = Patience()
        self._pool = WorkerPool(1, spare=check_and_time.__module__)
        try:
            self.environment = self._start(device_environment, l2)
            self._lock = DeviceLock(self._start(device_uuid))
            self._lock.acquire(on_wait, deadline)
        except BaseException:
            self._pool.kill()
            raise

    def _start(self, function: Callable[..., R], *arguments: object) -> R:
        found = result(self._pool.submit(function, *arguments, timeout_s=_START_TIMEOUT_S))
        if isinstance(found, Failure):
            raise UserError(f"The GPU cannot be used: {found.log}", hint="`tuner doctor` shows what is missing.")
        return found

    def sharing_key(self, variant: Variant, shape: Shape, binary: Binary) -> Hashable:
        return binary.digest, variant.config, shape

    def stored_result(self, evaluation: Evaluation) -> Checked | None:
        if evaluation.agreement is None or evaluation.timing is None:
            return None
        return Checked(evaluation.agreement, evaluation.timing, evaluation.conditions)

    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> "Future[Checked | Failure]":
        known = (leader.variant, leader.timing.median_us) if leader and leader.timing else None
        job = DeviceJob(self._kernel.folder, variant, shape, self._l2, self._seed, known)
        start = time.monotonic()
        future = self._pool.submit(check_and_time, job, timeout_s=self._patience.limit_s)
        future.add_done_callback(lambda done: self._learn(done, start))
        return future

    def _learn(self, done: "Future[Checked | Failure]", start: float) -> None:
        if not done.cancelled() and done.exception() is None and isinstance(done.result(), Checked):
            self._patience.learn(time.monotonic() - start)

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Checked) -> Evaluation:
        return Evaluation(
            variant, shape, Status.PASSED, "", built.binary, result.agreement, result.timing, result.conditions
        )

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        job_s = max(_FINAL_JOB_S, self._patience.limit_s)
        bench = _Bench(self._kernel, self._pool, self._l2, self._seed, job_s, rules.deadline)
        return hold_finals(contests, rules, self.environment, bench)

    def decide_s(self, shapes: int) -> float:
        return expected_s(shapes)

    def recover(self, failure: Failure) -> None:
        """A launch that crashed may have left the worker's device context broken for every later one."""
        if failure.status is Status.CRASHED:
            self._pool.replace_workers()

    def close(self) -> None:
        self._pool.kill()
        self._lock.release()


class _Bench(FinalBench):
    """Obtains what a final needs from the evaluator's worker."""

    def __init__(self, kernel: Kernel, pool: WorkerPool, l2: L2State, seed: int, job_s: float, deadline: float) -> None:
        self._kernel = kernel
        self._pool = pool
        self._l2 = l2
        self._seed = seed
        self._job_s = job_s
        self._deadline = deadline

    def alternate(
        self, variants: Sequence[Variant], shape: Shape, number: int, placements: int
    ) -> Samples | Faulty | Failure:
        job = (self._kernel.folder, variants, shape, self._l2, self._seed + number, placements)
        return result(self._pool.submit(time_alternately, *job, timeout_s=self._limit_s))

    def check(self, variant: Variant, shape: Shape) -> Agreement | Failure:
        job = (self._kernel.folder, variant, shape, self._seed)
        return result(self._pool.submit(check_at, *job, timeout_s=self._limit_s))

    def restart(self) -> None:
        self._pool.replace_workers()

    def out_of_time(self) -> bool:
        return time.monotonic() > self._deadline

    @property
    def _limit_s(self) -> float:
        return max(1.0, min(self._job_s, self._deadline - time.monotonic()))
