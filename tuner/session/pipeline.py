"""Keeps compilers and evaluator busy: trials in, evaluations out, each as soon as it is known."""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tuner.compile.builder import Built, CompileJob, build
from tuner.interrupts import pause
from tuner.processes import Failure, WorkerPool, result, wait
from tuner.ranking import median_us
from tuner.records import Evaluation, Shape
from tuner.session.costs import was_compiled
from tuner.session.evaluator import Evaluator
from tuner.session.ledger import Ledger, Trial
from tuner.session.patience import Patience
from tuner.session.request import RunRequest
from tuner.session.sharing import SharingCount

_POLL_S = 0.2


@dataclass
class _Job:
    trial: Trial
    future: "Future[Any]"
    built: Built | None = None


class Pipeline:
    """Compiles trials in a pool, then checks and times them; variants that share a binary share one result.

    `finish` takes each evaluation.
    """

    def __init__(
        self,
        request: RunRequest,
        ledger: Ledger,
        evaluator: Evaluator,
        compilers: WorkerPool,
        finish: Callable[[Evaluation], None],
    ) -> None:
        self._request = request
        self._ledger = ledger
        self._evaluator = evaluator
        self._compilers = compilers
        self._finish = finish
        self._patience = Patience()
        self.sharing = SharingCount()
        self._results: dict[Hashable, Future[Any]] = {}
        # Not handled yet, done or not: after a crash the evaluator must recover before it gets more.
        self._submitted: set[Future[Any]] = set()
        self._compiling: list[_Job] = []
        self._waiting: list[_Job] = []
        self._checking: list[_Job] = []
        self._elsewhere: list[Trial] = []
        self._checked_at: Shape | None = None

    def share(self, evaluation: Evaluation) -> None:
        """Let variants to come share what another run found for a binary."""
        found = self._evaluator.stored_result(evaluation)
        if evaluation.binary is not None and found is not None:
            future: Future[Any] = Future()
            future.set_result(found)
            key = self._evaluator.sharing_key(evaluation.variant, evaluation.shape, evaluation.binary)
            self._results.setdefault(key, future)

    def run(self, next_trial: Callable[[], Trial | None], deadline: float) -> bool:
        """Evaluate until trials run out and those that other runs have claimed are known too.

        False when the deadline (monotonic seconds) passed first.
        """
        exhausted = False
        while True:
            for job in _take_done(self._compiling):
                self._compiled(job)
            for job in _take_done(self._checking):
                self._checked(job)
            self._ledger.beat()
            if time.monotonic() > deadline:
                self._abandon()
                return False
            while self._waiting and len(self._submitted) < self._evaluator.capacity:
                self._check(self._next_waiting())
            exhausted = exhausted or not self._fill(next_trial)
            if not (self._compiling or self._waiting or self._checking):
                self._take_over()
                if exhausted and not (self._compiling or self._elsewhere):
                    return True
            _wait(self._compiling + self._checking)

    def _fill(self, next_trial: Callable[[], Trial | None]) -> bool:
        """Start trials while compilers are idle; False when there are no more."""
        while len(self._compiling) + len(self._waiting) < 2 * self._request.jobs:
            trial = next_trial()
            if trial is None:
                return False
            if self._ledger.claim(trial):
                self._start(trial)
            else:
                self._elsewhere.append(trial)
        return True

    def _take_over(self) -> None:
        """Drop the trials that others have finished; start those that they have abandoned."""
        self._elsewhere = [(variant, at) for variant, at in self._elsewhere if variant not in self._ledger.done[at]]
        abandoned = [trial for trial in self._elsewhere if self._ledger.claim(trial)]
        for trial in abandoned:
            self._elsewhere.remove(trial)
            self._start(trial)

    def _abandon(self) -> None:
        """Stop compiling: what goes on would disturb the final's timing."""
        for job in self._compiling:
            job.future.cancel()

    def _start(self, trial: Trial) -> None:
        self.sharing.begun(trial[0])
        job = CompileJob(self._request.kernel.folder, *trial, self._evaluator.environment.target)
        self._compiling.append(_Job(trial, self._compilers.submit(build, job, timeout_s=self._patience.limit_s)))

    def _compiled(self, job: _Job) -> None:
        built = result(job.future)
        if isinstance(built, Failure):
            self._finish(self._evaluator.failed(*job.trial, built))
        else:
            if was_compiled(built.binary.compile_s):
                self._patience.learn(built.binary.compile_s)
            self.sharing.built(job.trial[0], built.binary)
            job.built = built
            self._waiting.append(job)

    def _next_waiting(self) -> _Job:
        """The first job at the shape that was checked last, whose inputs the device has, or else the first of all."""
        here = (index for index, job in enumerate(self._waiting) if job.trial[1] == self._checked_at)
        job = self._waiting.pop(next(here, 0))
        self._checked_at = job.trial[1]
        return job

    def _check(self, job: _Job) -> None:
        """Begin the check of a built variant, or join the one that speaks for it too."""
        assert job.built is not None
        variant, shape = job.trial
        key = self._evaluator.sharing_key(variant, shape, job.built.binary)
        if key not in self._results:
            leader = min(self._ledger.passed(shape), key=median_us, default=None)
            start = time.monotonic()
            self._results[key] = self._evaluator.submit(variant, shape, leader)
            self._results[key].add_done_callback(lambda _: self.sharing.measured(time.monotonic() - start))
            self._submitted.add(self._results[key])
        else:
            self.sharing.shared()
        job.future = self._results[key]
        self._checking.append(job)

    def _checked(self, job: _Job) -> None:
        assert job.built is not None
        found = result(job.future)
        first = job.future in self._submitted  # those that share it come later, while others are in flight
        self._submitted.discard(job.future)
        if isinstance(found, Failure):
            if first:
                self._evaluator.recover(found)
            self._finish(self._evaluator.failed(*job.trial, found, job.built))
        else:
            self._finish(self._evaluator.conclude(*job.trial, job.built, found))


def _wait(jobs: Sequence[_Job]) -> None:
    """Until one of the jobs is done, or for a moment."""
    if jobs:
        wait([job.future for job in jobs], time.monotonic() + _POLL_S, first=True)
    else:
        pause(_POLL_S)


def _take_done(jobs: list[_Job]) -> Sequence[_Job]:
    """Remove the finished jobs from a list and return them."""
    done: list[_Job] = []
    rest: list[_Job] = []
    for job in jobs:
        (done if job.future.done() else rest).append(job)
    jobs[:] = rest
    return done
