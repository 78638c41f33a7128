"""What a measured run tries first."""

import dataclasses
import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import ModuleType
from typing import Any

import pytest
from session_fakes import (
    BASELINE,
    ENVIRONMENT,
    KERNEL,
    SHAPES,
    SPACE,
    Bench,
    FakeCompilers,
    FakeEvaluator,
    FakeTable,
    config,
    settled,
)

from tuner.compile.builder import Built, CompileJob
from tuner.processes import Failure
from tuner.records import Binary, Config, Shape, SpecializationSet, Status, Target, Variant
from tuner.search import Method
from tuner.session import RunRequest
from tuner.session.compile_counts import CompileCounts
from tuner.session.events import WarmStarting
from tuner.session.machine_code import MachineCode
from tuner.session.warm_start import warm_start

H100 = Target("cuda", "90")
AT_ONCE = 2
LEAST = SpecializationSet.of(["num_rows", "row_stride"])
# The fewer the better; so much decides the estimate at these small shapes.
INSTRUCTIONS = {config(2, 1): 100, config(4, 2): 200, config(1, 1): 400, config(1, 2): 800, config(2, 2): 1600}


def least(of: Config) -> Variant:
    return Variant("scale_rows", of, LEAST)


@dataclasses.dataclass
class Compilers(FakeCompilers):
    """Each config has so many instructions; those not named are as slow as can be."""

    instructions: Mapping[Config, int] = dataclasses.field(default_factory=lambda: INSTRUCTIONS)

    def binary(self, job: CompileJob) -> Binary:
        count = self.instructions.get(job.variant.config, 100_000)
        return dataclasses.replace(super().binary(job), instructions=count)


def request(**changes: Any) -> RunRequest:
    return dataclasses.replace(RunRequest(KERNEL, SPACE, SHAPES, None, 8), **changes)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> CompileCounts:
    monkeypatch.setattr("tuner.compile.class_tables.class_table", FakeTable)
    return CompileCounts(KERNEL, SPACE, SHAPES, H100)


def code(counts: CompileCounts, compilers: FakeCompilers) -> MachineCode:
    def compile_at(variant: Variant, shape: Shape) -> Any:
        built = Built(compilers.binary(CompileJob(KERNEL.folder, variant, shape, H100)), 8)
        return settled(compilers.fault(variant, shape) or built)

    return MachineCode(SHAPES, counts, compile_at, AT_ONCE)


def test_each_shape_gets_its_best_estimates_and_the_best_of_all_shapes_come_first(counts: CompileCounts) -> None:
    found = warm_start(request(), SHAPES, counts, code(counts, Compilers()), H100)
    best = [least(each) for each in list(INSTRUCTIONS)[:4]]  # half of eight trials
    assert found == [(variant, shape) for variant in best for shape in SHAPES]


def test_what_does_not_compile_is_not_proposed(counts: CompileCounts) -> None:
    def fault(variant: Variant, shape: Shape) -> Failure | None:
        broken = variant.config == config(2, 1)
        return Failure(Status.COMPILE_ERROR, "no") if broken else None

    found = warm_start(request(trials=2), SHAPES, counts, code(counts, Compilers(fault=fault)), H100)
    assert found == [(least(config(4, 2)), shape) for shape in SHAPES]


def test_a_first_config_that_is_too_large_does_not_speak_for_the_others(counts: CompileCounts) -> None:
    def fault(variant: Variant, shape: Shape) -> Failure | None:
        too_large = variant.config == config(1, 1)  # the first of the space
        return Failure(Status.OUT_OF_RESOURCES, "too much") if too_large else None

    found = warm_start(request(), SHAPES, counts, code(counts, Compilers(fault=fault)), H100)
    assert found[0] == (least(config(2, 1)), SHAPES[0])


def test_a_module_that_breaks_its_compiler_is_not_imported_here(counts: CompileCounts) -> None:
    looked = code(counts, Compilers(fault=lambda variant, shape: Failure(Status.CRASHED, "aborted")))
    assert warm_start(request(), SHAPES, counts, looked, H100) == []
    assert counts._tables._tables == {}


def test_a_time_limit_cuts_off_configs_and_not_shapes(counts: CompileCounts) -> None:
    begun = list[tuple[Variant, Shape]]()

    def compile_some(variant: Variant, shape: Shape) -> Any:
        begun.append((variant, shape))
        job = CompileJob(KERNEL.folder, variant, shape, H100)
        return settled(Built(Compilers().binary(job), 8)) if len(begun) <= 1 + 4 else Future()  # an example comes first

    found = warm_start(
        request(), SHAPES, counts, MachineCode(SHAPES, counts, compile_some, AT_ONCE), H100, time.monotonic() + 1
    )
    assert {shape: sum(at == shape for _, at in found) for shape in SHAPES} == dict.fromkeys(SHAPES, 2)


def test_what_was_lost_with_its_worker_is_compiled_when_it_is_needed(counts: CompileCounts) -> None:
    """The baseline's twin is one of the configs that were looked at before."""
    begun, inside = list[Future[Any]](), dataclasses.replace(BASELINE, config=config(1, 1))

    def compile_at(variant: Variant, shape: Shape) -> Any:
        binary = Compilers(lambda each: each.config.label).binary(CompileJob(KERNEL.folder, variant, shape, H100))
        begun.append(Future() if len(begun) < len(SHAPES) else settled(Built(binary, 8)))
        return begun[-1]

    looked = MachineCode(SHAPES, counts, compile_at, len(SHAPES))
    trials = [(least(config(1, 1)), shape) for shape in SHAPES]
    assert looked.built(trials, time.monotonic() + 0.2) == {}
    assert len(begun) == len(SHAPES)
    looked.stop()
    assert looked.twin(inside, time.monotonic() + 60) == least(config(1, 1))


def test_a_compile_that_is_under_way_when_time_is_up_goes_on(counts: CompileCounts) -> None:
    """A pool would stop its worker, who would have to start anew. What it gives in the end is known then."""
    trial, under_way, begun = (least(config(1, 1)), SHAPES[0]), Future[Any](), list[Variant]()

    def compile_at(variant: Variant, shape: Shape) -> Any:
        begun.append(variant)
        return under_way

    looked = MachineCode(SHAPES, counts, compile_at, AT_ONCE)
    assert looked.built([trial], time.monotonic() + 0.01) == {}
    built = Built(Compilers().binary(CompileJob(KERNEL.folder, *trial, H100)), 8)
    under_way.set_result(built)
    assert looked.built([trial]) == {trial: built}
    assert begun == [trial[0]]


def test_no_more_is_under_way_than_the_workers_take(counts: CompileCounts) -> None:
    """What a pool has beyond that when time is up stands before the trials."""
    begun, most = list[Future[Any]](), 0
    trials = [(least(each), shape) for each in INSTRUCTIONS for shape in SHAPES]

    def compile_at(variant: Variant, shape: Shape) -> Any:
        nonlocal most
        begun.append(Future())
        most = max(most, sum(not each.done() for each in begun))
        if len(begun) % AT_ONCE == 0:  # as many as may be: the oldest ends a moment later
            built = Built(Compilers().binary(CompileJob(KERNEL.folder, variant, shape, H100)), 8)
            for each in [each for each in begun if not each.done()]:
                threading.Timer(0.01, each.set_result, [built]).start()
        return begun[-1]

    found = MachineCode(SHAPES, counts, compile_at, AT_ONCE).built(trials)
    assert (len(found), most) == (len(trials), AT_ONCE)


def test_when_the_workers_are_busy_until_time_is_up_no_more_begins(counts: CompileCounts) -> None:
    begun = list[Future[Any]]()

    def compile_at(variant: Variant, shape: Shape) -> Any:
        begun.append(Future())
        return begun[-1]

    trials = [(least(each), shape) for each in INSTRUCTIONS for shape in SHAPES]
    assert MachineCode(SHAPES, counts, compile_at, AT_ONCE).built(trials, time.monotonic() + 0.2) == {}
    assert len(begun) == AT_ONCE


def test_without_room_nothing_is_compiled(counts: CompileCounts) -> None:
    compilers = Compilers()
    assert warm_start(request(trials=1), SHAPES, counts, code(counts, compilers), H100) == []


def test_of_configs_with_the_same_code_and_grid_one_is_proposed(counts: CompileCounts) -> None:
    found = warm_start(request(trials=20), SHAPES, counts, code(counts, Compilers(lambda variant: "one code")), H100)
    configs = {variant.config.parameters["BLOCK_ROWS"] for variant, _ in found}
    assert (len(found), configs) == (3 * len(SHAPES), {1, 2, 4})  # the rows of a program decide the grid


def test_what_is_not_compiled_in_time_is_not_proposed(counts: CompileCounts) -> None:
    looked = MachineCode(SHAPES, counts, lambda variant, shape: Future(), AT_ONCE)
    assert warm_start(request(), SHAPES, counts, looked, H100, time.monotonic() + 0.01) == []


def test_of_a_large_space_the_seed_draws_what_is_looked_at(
    counts: CompileCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.session.warm_start._MOST_CONFIGS", 2)
    drawn = [
        frozenset(
            variant.config for variant, _ in warm_start(request(seed=seed, trials=20), SHAPES, counts, looked, H100)
        )
        for seed in (0, 0, 1, 2, 3)
        for looked in [code(counts, Compilers())]
    ]
    assert all(len(each) == 2 for each in drawn)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_nothing_is_proposed_for_a_gpu_whose_limits_are_not_known(counts: CompileCounts) -> None:
    assert warm_start(request(), SHAPES, counts, code(counts, Compilers()), Target("cuda", "70")) == []


# In a run.


def test_a_run_tries_them_after_the_baseline_and_the_search_goes_on_from_there(bench: Bench) -> None:
    compilers = Compilers()
    done = bench.run(compilers=compilers, method=Method.TPE, trials=12)
    assert done.submitted[:2] == [(BASELINE, shape) for shape in SHAPES]
    for at in SHAPES:  # the best first
        variants = [variant for variant, shape in done.submitted if shape == at]
        assert variants[1 : 1 + len(INSTRUCTIONS)] == [least(each) for each in INSTRUCTIONS]
    assert {shape for _, shape in done.submitted[2:6]} == {SHAPES[0]}  # four in a row
    assert len(done.submitted) == len(set(done.submitted)) == 12 * len(SHAPES)
    assert len(done.of(WarmStarting)) == 1
    looks = [job for job in compilers.looks if job.variant.config != BASELINE.config]  # that one's are of the final
    assert done.summary.sharing.compiles == len(looks) + len(compilers.jobs)


def test_a_run_that_has_all_its_trials_does_not_compile_for_it(bench: Bench) -> None:
    bench.run(method=Method.TPE, trials=8)
    again = bench.run(method=Method.TPE, trials=8)
    assert again.of(WarmStarting) == []
    more = bench.run(method=Method.TPE, trials=9)
    assert (len(more.of(WarmStarting)), len(more.submitted)) == (1, len(SHAPES))


@pytest.mark.parametrize(
    "changes", [{"method": Method.GRID}, {"method": Method.RANDOM}, {"method": Method.TPE, "target": H100}]
)
def test_neither_a_given_order_nor_an_estimating_run_begins_with_them(bench: Bench, changes: dict[str, Any]) -> None:
    assert bench.run(evaluator=FakeEvaluator(environment=ENVIRONMENT), **changes).of(WarmStarting) == []


def test_looking_ends_with_its_share_of_the_time(
    bench: Bench, loop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LOOK_SHARE", -math.inf)
    done = bench.run(method=Method.TPE, timeout_s=600.0)
    assert done.of(WarmStarting) == []
    assert done.summary.evaluated == 8 * len(SHAPES)
