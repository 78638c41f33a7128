"""Evaluation on this machine's GPU: one worker process owns it."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future

from tuner.catalog import Kernel
from tuner.compile.builder import Built
from tuner.errors import UserError
from tuner.measure.device import Checked, DeviceJob, check_and_time, time_alternately
from tuner.measure.environment import device_environment
from tuner.measure.statistics import paired_ratio, speedup_over_processes, summarize
from tuner.processes import Failure, WorkerPool, result
from tuner.ranking import confirmed_winner, finalists
from tuner.records import Evaluation, Shape, Status, Variant, Winner
from tuner.session.evaluator import Contest, Evaluator, Rules

_JOB_TIMEOUT_S = 120.0
# The fastest binaries that go into the final of a shape, and the fresh processes that hold it.
_FINALISTS = 4
_FINAL_PROCESSES = 5


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

    def sharing_key(self, variant: Variant, shape: Shape, built: Built) -> Hashable:
        return built.binary.digest, variant.config, shape

    def submit(self, variant: Variant, shape: Shape) -> "Future[Checked | Failure]":
        job = DeviceJob(self._kernel.folder, variant, shape, self._cold_l2, self._seed)
        return self._pool.submit(check_and_time, job, timeout_s=_JOB_TIMEOUT_S)

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Checked) -> Evaluation:
        return Evaluation(variant, shape, Status.PASSED, "", built.binary, result.agreement, result.timing)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[tuple[Shape, Winner | Failure]]:
        """Time finalists and baseline alternately at every shape, in several fresh processes one after another."""
        fields = [self._field(contest, rules) for contest in contests]
        finals: list[list[list[list[float]]] | Failure] = [[] for _ in fields]
        for number in range(_FINAL_PROCESSES):
            self._pool.replace_workers()
            for index, (shape, variants) in enumerate(fields):
                samples = self._final(shape, variants, self._seed + number)
                so_far = finals[index]
                if isinstance(samples, Failure):
                    finals[index] = samples
                    self._pool.replace_workers()
                elif not isinstance(so_far, Failure):
                    so_far.append(samples)
        for (shape, variants), final in zip(fields, finals, strict=True):
            if isinstance(final, Failure):
                yield shape, final
            else:
                yield shape, self._winner(shape, variants, final, rules)

    @staticmethod
    def _field(contest: Contest, rules: Rules) -> tuple[Shape, list[Variant]]:
        """The baseline first, then the finalists."""
        baseline = contest.baseline.variant
        others = [each for each in contest.evaluations if each.variant != baseline]
        return contest.baseline.shape, [baseline, *finalists(others, rules.compiles, _FINALISTS)]

    def _final(self, shape: Shape, variants: list[Variant], seed: int) -> list[list[float]] | Failure:
        job = (self._kernel.folder, variants, shape, self._cold_l2, seed)
        return result(self._pool.submit(time_alternately, *job, timeout_s=_JOB_TIMEOUT_S))

    def _winner(self, shape: Shape, variants: list[Variant], final: list[list[list[float]]], rules: Rules) -> Winner:
        """`final` holds, per process, the samples of each variant."""
        timings, speedups = {}, {}
        for index, variant in enumerate(variants):
            timings[variant] = summarize([sample for process in final for sample in process[index]])
            if index:
                ratios = [paired_ratio(process[0], process[index]) for process in final]
                speedups[variant] = speedup_over_processes(ratios)
        return confirmed_winner(
            variants[0], shape, timings, speedups, self.environment, rules.source_digest, rules.compiles
        )

    def recover(self, failure: Failure) -> None:
        """A launch that crashed may have left the worker's device context broken for every later one."""
        if failure.status is Status.CRASHED:
            self._pool.replace_workers()

    def close(self) -> None:
        self._pool.kill()
