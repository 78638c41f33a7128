"""Evaluation on this machine's GPU: one worker process owns it."""

from collections.abc import Hashable, Sequence
from concurrent.futures import Future

from tuner.catalog import Kernel
from tuner.compile.builder import Built
from tuner.errors import UserError
from tuner.measure.device import Checked, DeviceJob, check_and_time, time_alternately
from tuner.measure.environment import device_environment
from tuner.measure.statistics import paired_speedup, summarize
from tuner.processes import Failure, WorkerPool, result
from tuner.ranking import Compiles, confirmed_winner, fastest
from tuner.records import Evaluation, Shape, Status, Variant, Winner
from tuner.session.evaluator import Evaluator

_JOB_TIMEOUT_S = 120.0
_FINALISTS = 4


class DeviceEvaluator(Evaluator):
    """Checks and times variants one after another in a worker that is replaced whenever a launch breaks it."""

    capacity = 1

    def __init__(self, kernel: Kernel, cold_l2: bool, seed: int) -> None:
        self._kernel = kernel
        self._cold_l2 = cold_l2
        self._seed = seed
        self._pool = WorkerPool(1)
        self._final = False
        found = result(self._pool.submit(device_environment, "cold" if cold_l2 else "warm", timeout_s=_JOB_TIMEOUT_S))
        if isinstance(found, Failure):
            self._pool.kill()
            raise UserError(f"The GPU cannot be used: {found.log}", hint="`tuner doctor` shows what is missing.")
        self.environment = found

    def sharing_key(self, variant: Variant, shape: Shape, built: Built) -> Hashable:
        return built.binary.digest, variant.config, shape

    def submit(self, variant: Variant, shape: Shape) -> "Future[Checked | Failure]":
        job = DeviceJob(self._kernel.folder, variant, shape, self._cold_l2, self._seed)
        return self._pool.submit(check_and_time, job, timeout_s=_JOB_TIMEOUT_S)

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Checked) -> Evaluation:
        return Evaluation(variant, shape, Status.PASSED, "", built.binary, result.agreement, result.timing)

    def decide(
        self, baseline: Evaluation, evaluations: Sequence[Evaluation], source_digest: str, compiles: Compiles
    ) -> Winner | Failure:
        """Time the fastest variants and the baseline in interleaved rounds of one fresh process."""
        if not self._final:
            self._pool.replace_workers()
            self._final = True
        others = [each for each in evaluations if each.variant != baseline.variant]
        finalists = [each.variant for each in fastest(others, _FINALISTS)]
        variants = (baseline.variant, *finalists)
        shape = baseline.shape
        samples = result(
            self._pool.submit(
                time_alternately, self._kernel.folder, variants, shape, self._cold_l2, self._seed,
                timeout_s=_JOB_TIMEOUT_S,
            )
        )  # fmt: skip
        if isinstance(samples, Failure):
            return samples
        return confirmed_winner(
            baseline.variant,
            shape,
            {variant: summarize(each) for variant, each in zip(variants, samples, strict=True)},
            {variant: paired_speedup(samples[0], each) for variant, each in zip(finalists, samples[1:], strict=True)},
            self.environment,
            source_digest,
            compiles,
        )

    def recover(self, failure: Failure) -> None:
        """A launch that crashed may have left the worker's device context broken for every later one."""
        if failure.status is Status.CRASHED:
            self._pool.replace_workers()

    def close(self) -> None:
        self._pool.kill()
