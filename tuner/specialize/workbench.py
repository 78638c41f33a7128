"""Compiles and times code with and without marks."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.catalog import Kernel
from tuner.compile.builder import Built, CompileJob, build
from tuner.compile.classes import ClassTable, Key
from tuner.compile.specialization import meta_launch
from tuner.errors import UserError
from tuner.measure.static import DEVICE_MODELS, estimate_launch
from tuner.processes import Failure, WorkerPool, result
from tuner.records import DEFAULT_TARGET, Config, Evidence, Shape, SpecializationSet, Speedup, Target, Variant
from tuner.specialize.effect import Comparison, Effect, TimeRatio
from tuner.specialize.scope import Scope
from tuner.specialize.shapes import Representatives

_COMPILE_TIMEOUT_S = 300.0
_NO_MARKS = SpecializationSet()


@dataclass(frozen=True)
class Pair:
    """Two variants, without and with marks, to be held against each other at a shape."""

    unmarked: Variant
    marked: Variant
    shape: Shape


MeasurePairs = Callable[[Sequence[Pair]], Mapping[Pair, Speedup | Failure]]


@dataclass
class Workbench:
    """Finds effects, each binary compiled once and each pair of binaries timed once at a shape.

    `measure` gives the time of each pair's marked variant over that of the other one; without it times are estimated,
    and with `sized` false, for a kernel that says nothing of its tensors' sizes, there are none.
    """

    kernel: Kernel
    config: Config
    table: ClassTable
    scope: Scope
    target: Target
    pool: WorkerPool
    measure: MeasurePairs | None = None
    sized: bool = True

    def __post_init__(self) -> None:
        self._representatives = Representatives(self.table, self.scope)
        self._built: dict[Key, Built | Failure] = {}
        self._times: dict[tuple[Shape, str, str], Speedup | Failure] = {}

    def of(self, marks: SpecializationSet) -> Effect:
        """The effect of a set, with the times that are known so far."""
        self.compile([marks])
        compared, failures = [], []
        for shape, (near, changed) in self._representatives.changed_by(marks).items():
            before, after = (self._built[self.table.key(each, shape)] for each in (_NO_MARKS, marks))
            if isinstance(before, Failure) or isinstance(after, Failure):
                failures.append(f"does not compile at {shape.label}")
                continue
            time = self._time(shape, before, after)
            if isinstance(time, Failure):
                failures.append(f"cannot be timed at {shape.label}: {time.log.strip().splitlines()[-1]}")
            ratio = time if isinstance(time, TimeRatio) else None
            estimated_us = self._estimate_us(shape, before)
            compared.append(Comparison(shape, near, changed, before.binary, after.binary, estimated_us, ratio))
        return Effect(marks, tuple(compared), "; ".join(failures))

    def timed(self, marks: SpecializationSet) -> Effect:
        """The effect of a set with its times."""
        self.time([marks])
        return self.of(marks)

    def compile(self, sets: Iterable[SpecializationSet]) -> None:
        """Compile what the sets need, all at once; UserError when the code without marks does not compile."""
        jobs: dict[Key, CompileJob] = {}
        for marks in sets:
            for shape in self._representatives.changed_by(marks):
                for each in (_NO_MARKS, marks):
                    job = CompileJob(self.kernel.folder, self._variant(each), shape, self.target)
                    jobs.setdefault(self.table.key(each, shape), job)
        waiting = {
            key: self.pool.submit(build, job, timeout_s=_COMPILE_TIMEOUT_S)
            for key, job in jobs.items()
            if key not in self._built
        }
        for key, future in waiting.items():
            built = self._built[key] = result(future)
            if isinstance(built, Failure) and jobs[key].variant.specialization == _NO_MARKS:
                where = f"{self.kernel.name} at {jobs[key].shape.label} for {self.target}"
                raise UserError(f"{where} does not compile: {(built.log.strip() or 'no reason').splitlines()[-1]}")

    def time(self, sets: Iterable[SpecializationSet]) -> None:
        """Measure what is not known yet of the sets, all at once; nothing where times are estimated."""
        if self.measure is None:
            return
        missing: dict[Pair, tuple[Shape, str, str]] = {}
        for marks in sets:
            for each in self.of(marks).comparisons:
                name = (each.shape, each.unmarked.digest, each.marked.digest)
                if not each.same_code and name not in self._times and name not in missing.values():
                    missing[Pair(self._variant(_NO_MARKS), self._variant(marks), each.shape)] = name
        if missing:
            measured = self.measure(tuple(missing))
            self._times |= {missing[pair]: ratio for pair, ratio in measured.items()}

    def _variant(self, marks: SpecializationSet) -> Variant:
        return Variant(self.kernel.name, self.config, marks)

    def _time(self, shape: Shape, before: Built, after: Built) -> TimeRatio | Failure | None:
        if before.binary.digest == after.binary.digest:
            return None
        if self.measure is not None:
            known = self._times.get((shape, before.binary.digest, after.binary.digest))
            return TimeRatio(known, Evidence.MEASURED) if isinstance(known, Speedup) else known
        times_us = self._estimate_us(shape, before), self._estimate_us(shape, after)
        if times_us[0] is None or times_us[1] is None:
            return None
        ratio = times_us[1] / times_us[0]
        return TimeRatio(Speedup(ratio, ratio, ratio), Evidence.ESTIMATED)

    def _estimate_us(self, shape: Shape, built: Built) -> float | None:
        """Microseconds of a launch by the roofline; on a GPU that it does not know, those of another one."""
        if not self.sized:
            return None
        target = self.target if str(self.target) in DEVICE_MODELS else DEFAULT_TARGET
        programs = math.prod(meta_launch(self.kernel, self._variant(_NO_MARKS), shape).grid)
        timing = estimate_launch(self.kernel.spec, self.config, shape, built, programs, target)
        return None if isinstance(timing, Failure) else timing.median_us
