"""What a run knows: the evaluations of its shapes, by itself, by earlier runs and by others at the same time."""

import hashlib
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from tuner.errors import UserError
from tuner.records import Environment, Evaluation, Shape, Status, Variant, Winner
from tuner.session.request import RunRequest, served_shapes
from tuner.space import Objective
from tuner.store import Store

# How often a run shows that it is alive and looks at what others have done.
_BEAT_S = 2.0

Trial = tuple[Variant, Shape]


class Ledger:
    """The store as one run sees it: saves its results, claims its work, and learns what others found.

    `learn` is called for every evaluation that becomes known, in the order in which it does.
    """

    def __init__(
        self, request: RunRequest, store: Store, environment: Environment, learn: Callable[[Evaluation], None]
    ) -> None:
        self._store = store
        self._kernel = request.kernel
        self._shapes = request.shapes
        self._baseline = request.baseline
        self._key = (request.kernel.name, request.kernel.source_digest, environment)
        self._learn = learn
        self.served = served_shapes(request.kernel, request.shapes)
        self._served_names = {shape: _digest(others, request) for shape, others in self.served.items()}
        self.done: dict[Shape, dict[Variant, Evaluation]] = {shape: {} for shape in request.shapes}
        self.wrong: set[Variant] = set()
        arguments = {
            "trials": request.trials,
            "timeout_s": request.timeout_s,
            "method": str(request.method),
            "objective": str(request.space.objective),
            "workload": request.workload.name if request.workload else None,
        }
        self._run_id = store.start_run(*self._key, request.seed, arguments)
        # Shapes at which an earlier run's baseline failed, which is tried again: without it a shape has no winner.
        self._retried: set[Shape] | None = None
        self._beat_at = 0.0
        self._had_company = False
        self.saved = 0

    def catch_up(self) -> None:
        """Learn what is stored and not known yet."""
        self.wrong |= self._store.variants_ended(*self._key, Status.WRONG_OUTPUT)
        found = self._store.evaluations(*self._key, self._shapes)
        if self._retried is None:
            self._retried = {each.shape for each in found if self._is_failed_baseline(each)}
        for evaluation in found:
            retried = self._is_failed_baseline(evaluation) and evaluation.shape in self._retried
            if evaluation.variant not in self.done[evaluation.shape] and not retried:
                self._know(evaluation)

    def _is_failed_baseline(self, evaluation: Evaluation) -> bool:
        return evaluation.variant == self._baseline and evaluation.status is not Status.PASSED

    def passed(self, shape: Shape) -> list[Evaluation]:
        """The evaluations of a shape that have a time, without variants that were wrong anywhere."""
        done = self.done[shape].values()
        return [each for each in done if each.timing is not None and each.variant not in self.wrong]

    def save(self, evaluation: Evaluation) -> None:
        """Store an evaluation of this run; UserError where the kernel is another one by now."""
        self._require_the_same_kernel()
        self._store.save(self._run_id, *self._key[1:], evaluation)
        self.saved += 1
        self._know(evaluation)

    def claim(self, trial: Trial) -> bool:
        """Whether this run is the one to evaluate a variant at a shape; False while another does or when one has."""
        variant, shape = trial
        if not self._claim("evaluation", variant.digest, shape.canonical):
            self._had_company = True
            if variant == self._baseline and self._retried is not None:
                self._retried.discard(shape)  # another run tries it again
            return False
        if self._had_company:
            self.catch_up()  # another run may have finished it in between
        return variant not in self.done[shape]

    def claim_final(self, shape: Shape) -> bool:
        """Whether this run is the one to decide a shape."""
        return self._claim("final", shape.canonical)

    def release_final(self, shape: Shape) -> None:
        """Leave a shape that this run could not decide to others."""
        self._store.release(self._run_id, self._name("final", shape.canonical))

    def beat(self) -> None:
        """Show every two seconds that this run is alive, and learn from others that are."""
        now = time.monotonic()
        if now < self._beat_at + _BEAT_S:
            return
        self._beat_at = now
        self._store.beat(self._run_id)
        if self._store.others(self._run_id):
            self._had_company = True
            self.catch_up()

    def standing_winners(self) -> list[Winner]:
        """Winners that were chosen from all that is known at their shape and checked wherever they may serve now."""
        found = self._store.standing_winners(*self._key, self._served_names)
        return [each for each in found if each.baseline == self._baseline]

    def save_winner(self, winner: Winner, drawn_at: datetime) -> None:
        """Store a winner that was chosen from what was known at that time; UserError as for `save`."""
        self._require_the_same_kernel()
        self._store.save_winners([winner], drawn_at=drawn_at, served=self._served_names[winner.shape])

    def finish(self) -> None:
        """Note that the run ended by itself."""
        self._store.finish_run(self._run_id)

    def give_up(self) -> None:
        """Leave what was claimed to others, when the run is broken off."""
        self._store.release(self._run_id)

    def _require_the_same_kernel(self) -> None:
        if self._kernel.is_changed:
            raise UserError(
                f"The files of {self._kernel.name} changed during the run, so that nobody knows what was measured.",
                hint="Start it again: what is stored until now is of the old source, and stays.",
            )

    def _know(self, evaluation: Evaluation) -> None:
        if evaluation.status is Status.WRONG_OUTPUT:
            self.wrong.add(evaluation.variant)
        if evaluation.shape in self.done:  # a finalist may have been wrong elsewhere
            self.done[evaluation.shape][evaluation.variant] = evaluation
            self._learn(evaluation)

    def _claim(self, *parts: str) -> bool:
        return self._store.claim(self._run_id, self._name(*parts))

    def _name(self, *parts: str) -> str:
        kernel, source_digest, environment = self._key
        return "|".join((kernel, source_digest, environment.digest, *parts))


def _digest(shapes: Iterable[Shape], request: RunRequest) -> str:
    """16 hex digits that name a set of shapes, the sizes at which compiles count and, for serving, the steps."""
    parts = sorted(shape.canonical for shape in shapes)
    if request.workload:
        parts += map(str, request.workload.histogram)
    if request.space.objective is Objective.SERVING:
        parts += ["serving", str(request.space.steps)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
