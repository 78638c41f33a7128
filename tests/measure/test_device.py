"""The timing worker's jobs on a kernel that runs in Python, without a GPU: what is checked, made and kept."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.catalog import Dimension, Implementation, Kernel, KernelSpec, Launch, Tensors
from tuner.compile.module import LoadedVariant
from tuner.errors import UnknownNameError
from tuner.measure import device
from tuner.measure.benchmark import Samples
from tuner.measure.device import Checked, DeviceJob, Faulty, check_and_time, check_at, shape_bench, time_alternately
from tuner.measure.race import Launches, Raced
from tuner.processes import Failure
from tuner.records import Agreement, Config, FrozenMapping, L2State, Shape, SpecializationSet, Status, Variant

FOLDER = Path("double")
SHAPE = Shape(count=6)
MIB, GIB = 1 << 20, 1 << 30


def limited(limit: int) -> Variant:
    """The kernel up to a limit."""
    return Variant("double", Config("double", FrozenMapping(LIMIT=limit), FrozenMapping()))


RIGHT, OTHER, WRONG_WHEN_HUGE, WRONG, OUT_OF_MEMORY = map(limited, (1 << 60, 1 << 59, 100, 1, 0))


@dataclass(frozen=True)
class Double(LoadedVariant):
    """Doubles, but not beyond a limit; there is no memory for it when that is 0."""

    function: Any = None
    options: Any = None
    limit: float = torch.inf

    def run(self, launch: Launch) -> None:
        if self.limit == 0:
            raise torch.OutOfMemoryError("no memory is left")
        launch.arguments["y"].copy_((launch.arguments["x"] * 2).clamp(max=self.limit))


@dataclass
class Bench:
    """A kernel that notes the inputs and references made of it, a GPU's memory, and a race that notes its launches.

    A launch moves a GiB per unit of the dimension `count`, and a bench holds as much as is reckoned for it.
    `unused_bytes` are what torch keeps without need.
    """

    total_bytes: int = 1 << 50
    unused_bytes: int = 0
    made: list[tuple[str, int]] = field(default_factory=list)
    references: int = 0
    sets: Sequence[Sequence[Launches]] = ()
    behind_writing: bool = False
    live: list[tuple["weakref.ref[Any]", int]] = field(default_factory=list)

    def maker(self, name: str, factor: float) -> Callable[[Shape, str, int], Tensors]:
        def make(shape: Shape, _: str, seed: int) -> Tensors:
            self.made.append((name, seed))
            return {"x": torch.full((shape.size("count"),), factor * (seed + 1))}

        return make

    def reference(self, inputs: Tensors, shape: Shape) -> Tensors:
        self.references += 1
        return {"y": inputs["x"] * 2}

    def alternate(self, sets: Sequence[Sequence[Launches]], writing: bool = False) -> Samples:
        self.sets, self.behind_writing = sets, writing
        return Samples([[1.0] for _ in sets[0]], None)

    def bench(self, count: int) -> "weakref.ref[Any]":
        """The bench of a shape, which takes memory for as long as it lives."""
        found = shape_bench(FOLDER, Shape(count=count), 0)
        if not any(each() is found for each, _ in self.live):
            self.live.append((weakref.ref(found), device._BYTES_PER_MOVED * count * GIB))
        return weakref.ref(found)

    def memory(self) -> tuple[int, int]:
        held = sum(size for each, size in self.live if each() is not None)
        return self.total_bytes - held - self.unused_bytes, self.total_bytes

    def empty(self) -> None:
        self.unused_bytes = 0

    def kernel(self) -> Kernel:
        spec = KernelSpec(
            name="double",
            summary="Doubles.",
            dimensions=(Dimension("count"),),
            implementations=(Implementation("double", "kernel.py", "double"),),
            baseline=RIGHT.config,
            baseline_specialization=SpecializationSet(),
            make_inputs=self.maker("random", 1),
            edge_inputs=FrozenMapping(huge=self.maker("huge", 1e15), zeros=self.maker("zeros", 0)),
            make_outputs=lambda shape, _: {"y": torch.empty(shape.size("count"))},
            launch=lambda inputs, outputs, shape, config: Launch((1,), {**inputs, **outputs}),
            reference=self.reference,
            written_inputs=("x",),
            bytes_moved=lambda shape: shape.size("count") * GIB,
            flops=lambda shape: 1,
            check_shapes=(SHAPE,),
        )
        return Kernel(FOLDER, spec)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    kernel = made.kernel()
    monkeypatch.setattr(device, "_benches", device._Benches())
    monkeypatch.setattr(device, "load_folder", lambda folder: kernel)
    monkeypatch.setattr(device, "load_variant", lambda _, each: Double(limit=each.config.parameters["LIMIT"]))
    monkeypatch.setattr(device, "alternate_over", made.alternate)
    monkeypatch.setattr(device, "_l2_bytes", lambda: 1 << 60)
    monkeypatch.setattr(torch.cuda, "mem_get_info", made.memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", made.empty)
    return made


# What is checked.


def test_a_check_takes_random_inputs_and_every_edge_once_for_all_variants(bench: Bench) -> None:
    for variant in (RIGHT, OTHER):
        assert check_at(FOLDER, variant, SHAPE, 3) == Agreement(18, 0, 0)
    assert bench.made == [("random", 3), ("huge", 3), ("zeros", 3)]
    assert bench.references == 3


def test_what_is_timed_is_checked_on_random_inputs_and_no_edge_is_made(bench: Bench) -> None:
    assert isinstance(time_alternately(FOLDER, [RIGHT, WRONG_WHEN_HUGE], SHAPE, L2State.WARM, 3, placements=1), Samples)
    assert bench.made == [("random", 3)]
    assert bench.references == 1
    found = check_at(FOLDER, WRONG_WHEN_HUGE, SHAPE, 3)
    assert isinstance(found, Failure)
    assert found.status is Status.WRONG_OUTPUT
    assert "on huge inputs" in found.log


def test_what_is_wrong_on_random_inputs_is_not_timed(bench: Bench) -> None:
    found = time_alternately(FOLDER, [RIGHT, WRONG], SHAPE, L2State.WARM, 3)
    assert isinstance(found, Faulty)
    assert (found.variant, found.failure.status) == (WRONG, Status.WRONG_OUTPUT)
    assert bench.sets == ()


# What is timed.


def test_all_are_timed_over_the_same_sets_of_buffers_the_first_of_which_was_checked(bench: Bench) -> None:
    time_alternately(FOLDER, [RIGHT, OTHER], SHAPE, L2State.WARM, 3, placements=3)
    assert bench.made == [("random", 3), ("random", 4), ("random", 5)]
    outputs = [output["y"] for _, output in shape_bench(FOLDER, SHAPE, 3).buffers]
    assert len(bench.sets) == 3
    for number, candidates in enumerate(bench.sets):
        for (launch,) in candidates:
            for output in outputs:
                output.fill_(-1)
            launch()
            assert [output[0].item() for output in outputs] == [
                2.0 * (4 + number) if index == number else -1 for index in range(3)
            ]


@pytest.mark.parametrize("l2", L2State)
def test_where_buffers_lie_does_not_matter_far_beyond_the_cache(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, l2: L2State
) -> None:
    monkeypatch.setattr(device, "_l2_bytes", lambda: MIB)
    time_alternately(FOLDER, [RIGHT, OTHER], SHAPE, l2, 3, placements=3)
    assert len(bench.sets) == 1


def test_launches_behind_a_writer_leave_alone_what_is_checked(bench: Bench) -> None:
    time_alternately(FOLDER, [RIGHT, OTHER], SHAPE, L2State.WRITTEN, 3, placements=2)
    assert bench.behind_writing
    checked, *timed = shape_bench(FOLDER, SHAPE, 3).buffers
    assert len(timed) == len(bench.sets) == 2
    before = checked[0]["x"]._version
    for (inputs, outputs), arms in zip(timed, bench.sets, strict=True):
        seen = []
        for (launch,) in arms:
            outputs["y"].fill_(-1)
            version = inputs["x"]._version
            launch()
            seen.append((inputs["x"]._version - version, (outputs["y"] == 2 * inputs["x"]).all().item()))
        assert seen == [(1, True), (1, True), (1, False)]  # the last arm is the writing alone
    assert checked[0]["x"]._version == before


def test_an_input_that_the_kernel_lacks_cannot_be_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = bench.kernel()
    wrong = replace(kernel, spec=replace(kernel.spec, written_inputs=("xs",)))
    monkeypatch.setattr(device, "load_folder", lambda folder: wrong)
    with pytest.raises(UnknownNameError, match="written_inputs of double 'xs'"):
        time_alternately(FOLDER, [RIGHT], SHAPE, L2State.WRITTEN, 3)


def test_a_candidate_behind_its_writer_races_a_leader_that_is_so_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[tuple[Any, Any]] = []

    def race(launches: Launches, leader: Any, writing: Any) -> Raced:
        raced.append((leader, writing))
        return Raced([2.0, 2.0, 3.0], None, dropped=False)

    monkeypatch.setattr(device, "race", race)
    monkeypatch.setattr(device, "sample", lambda timed, rounds: Samples([[7.0, 8.0, 7.0]], None))
    for name in ("warm_up", "probe", "prepare"):
        monkeypatch.setattr(device, name, lambda launches: launches)
    job = DeviceJob(FOLDER, RIGHT, SHAPE, L2State.WRITTEN, 3, leader=(OTHER, 1.5))
    for each in (job, replace(job, l2=L2State.WARM), replace(job, leader=None)):
        found = check_and_time(each)
        assert isinstance(found, Checked)
        assert found.timing.median_us == 2.0
    (behind, writing), (alone, nothing), (no_leader, again) = raced
    assert (behind.known_us, alone.known_us, no_leader) == (1.5 + 7.0, 1.5, None)
    assert (nothing, again is writing is shape_bench(FOLDER, SHAPE, 3).timed_writing) == (None, True)


def test_work_that_runs_out_of_memory_is_done_again_without_other_benches(bench: Bench) -> None:
    other = bench.bench(1)
    found = check_at(FOLDER, OUT_OF_MEMORY, SHAPE, 3)
    assert isinstance(found, Failure)
    assert found.status is Status.OUT_OF_RESOURCES
    assert other() is None
    assert bench.made.count(("random", 3)) == 2


# What is kept.


def test_benches_that_fit_stay_however_often_they_take_turns(bench: Bench) -> None:
    """Together they leave less than half of the memory."""
    bench.total_bytes = device._BYTES_PER_MOVED * 10 * GIB + device._RESERVED_BYTES
    first = [bench.bench(count) for count in (1, 2, 3, 4)]
    for _ in range(2):
        assert [bench.bench(count)() for count in (1, 2, 3, 4)] == [each() for each in first]
    assert None not in [each() for each in first]


def test_those_unused_for_longest_give_way_and_no_more_of_them_than_needed(bench: Bench) -> None:
    bench.total_bytes = device._BYTES_PER_MOVED * 10 * GIB + device._RESERVED_BYTES
    benches = {count: bench.bench(count) for count in (1, 3, 2, 4)}
    bench.bench(1)
    bench.bench(5)  # takes as much as 3 and 2
    assert [count for count, each in benches.items() if each() is not None] == [1, 4]


def test_a_bench_too_large_for_the_memory_is_alone(bench: Bench) -> None:
    bench.total_bytes = device._BYTES_PER_MOVED * 10 * GIB
    benches = [bench.bench(count) for count in (1, 2, 20)]
    assert [each() is not None for each in benches] == [False, False, True]


def test_what_torch_keeps_without_need_is_given_back_before_a_bench_is_dropped(bench: Bench) -> None:
    bench.total_bytes = device._BYTES_PER_MOVED * 10 * GIB + device._RESERVED_BYTES
    first = bench.bench(5)
    bench.unused_bytes = GIB
    bench.bench(4)
    assert (first() is None, bench.unused_bytes) == (False, GIB)
    bench.bench(1)
    assert (first() is None, bench.unused_bytes) == (False, 0)


def test_a_bounded_number_is_kept(bench: Bench) -> None:
    benches = [bench.bench(count) for count in range(1, 67)]
    assert [each() is None for each in benches] == [True] * 2 + [False] * 64


@pytest.mark.parametrize(
    ("variant", "status"), [(WRONG, Status.WRONG_OUTPUT), (OUT_OF_MEMORY, Status.OUT_OF_RESOURCES)]
)
def test_a_wrong_output_and_an_end_of_memory_drop_all(bench: Bench, variant: Variant, status: Status) -> None:
    """What a wrong variant wrote beside its output may lie in any."""
    benches = [bench.bench(count) for count in (1, 2, 6)]
    found = check_at(FOLDER, variant, SHAPE, 0)
    assert isinstance(found, Failure)
    assert found.status is status
    assert [each() for each in benches] == [None] * 3
