"""Evaluation without a GPU: interpreter check and roofline estimate."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future

from tuner.catalog import Kernel
from tuner.compile.builder import Built
from tuner.measure.environment import estimated_environment
from tuner.measure.static import estimate_launch
from tuner.processes import Failure, WorkerPool
from tuner.ranking import estimated_winner
from tuner.records import Agreement, Binary, Evaluation, Shape, Status, Target, Variant
from tuner.session.evaluator import Contest, Decision, Evaluator, Rules
from tuner.verify.interpreter import INTERPRETER_ENVIRONMENT, check_in_interpreter

_CHECK_TIMEOUT_S = 120.0


class StaticEvaluator(Evaluator):
    """Checks each implementation and its parameters once in Triton's interpreter, and estimates every launch."""

    def __init__(self, kernel: Kernel, target: Target, jobs: int) -> None:
        self._kernel = kernel
        self._target = target
        self._pool = WorkerPool(jobs, INTERPRETER_ENVIRONMENT)
        self.environment = estimated_environment(target)
        self.capacity = jobs

    def sharing_key(self, variant: Variant, shape: Shape, binary: Binary) -> Hashable:
        return variant.config.implementation, variant.config.parameters

    def stored_result(self, evaluation: Evaluation) -> Agreement | None:
        return evaluation.agreement

    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> "Future[Agreement | Failure]":
        return self._pool.submit(check_in_interpreter, self._kernel.folder, variant, timeout_s=_CHECK_TIMEOUT_S)

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Agreement) -> Evaluation:
        timing = estimate_launch(self._kernel.spec, variant.config, shape, built, built.programs, self._target)
        if isinstance(timing, Failure):
            return self.failed(variant, shape, timing, built)
        return Evaluation(variant, shape, Status.PASSED, "", built.binary, result, timing)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        held = (self.environment, rules.source_digest, rules.compiles, rules.stall_us, rules.kept)
        for contest in contests:
            yield estimated_winner(contest.baseline, contest.evaluations, *held)

    def decide_s(self, shapes: int) -> float:
        return 0.0

    def recover(self, failure: Failure) -> None:
        """Nothing to do: a lost interpreter worker is replaced by its pool."""

    def close(self) -> None:
        self._pool.kill()
