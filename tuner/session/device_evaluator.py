"""Evaluation on this machine's GPU: one worker process owns it."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future

from tuner.catalog import Kernel
from tuner.compile.builder import Built
from tuner.errors import UserError
from tuner.measure.device import Checked, DeviceJob, check_and_time, time_alternately
from tuner.measure.environment import device_environment
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Binary, Evaluation, Shape, Status, Variant, Winner
from tuner.session.evaluator import Contest, Evaluator, Rules
from tuner.session.final import FinalTimer, hold_finals

_JOB_TIMEOUT_S = 60.0


class DeviceEvaluator(Evaluator):
    """Checks and times variants one after another in a worker that is replaced whenever a launch breaks it."""

    capacity = 1

    def __init__(self, kernel: Kernel, cold_l2: bool, seed: int) -> None:
        self._kernel = kernel
        self._cold_l2 = cold_l2
        self._seed = seed
        self._pool = WorkerPool(1)
        found = result(self._pool.submit(device_environment, "cold" if cold_l2 else "warm", timeout_s=_JOB_TIMEOUT_S))
        if isinstance(found, Failure):
            self._pool.kill()
            raise UserError(f"The GPU cannot be used: {found.log}", hint="`tuner doctor` shows what is missing.")
        self.environment = found

    def sharing_key(self, variant: Variant, shape: Shape, binary: Binary) -> Hashable:
        return binary.digest, variant.config, shape

    def stored_result(self, evaluation: Evaluation) -> Checked | None:
        if evaluation.agreement is None or evaluation.timing is None:
            return None
        return Checked(evaluation.agreement, evaluation.timing)

    def submit(self, variant: Variant, shape: Shape) -> "Future[Checked | Failure]":
        job = DeviceJob(self._kernel.folder, variant, shape, self._cold_l2, self._seed)
        return self._pool.submit(check_and_time, job, timeout_s=_JOB_TIMEOUT_S)

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Checked) -> Evaluation:
        return Evaluation(variant, shape, Status.PASSED, "", built.binary, result.agreement, result.timing)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[tuple[Shape, Winner | Failure]]:
        timer = FinalTimer(self._alternate, self._pool.replace_workers)
        return hold_finals(contests, rules, self.environment, timer)

    def _alternate(self, variants: Sequence[Variant], shape: Shape, number: int) -> list[list[float]] | Failure:
        job = (self._kernel.folder, variants, shape, self._cold_l2, self._seed + number)
        return result(self._pool.submit(time_alternately, *job, timeout_s=_JOB_TIMEOUT_S))

    def recover(self, failure: Failure) -> None:
        """A launch that crashed may have left the worker's device context broken for every later one."""
        if failure.status is Status.CRASHED:
            self._pool.replace_workers()

    def close(self) -> None:
        self._pool.kill()
