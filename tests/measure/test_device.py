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
from tuner.errors import UnknownNameError, UserError
from tuner.measure import device
from tuner.measure.benchmark import Samples
from tuner.measure.device import Checked, DeviceJob, Faulty, check_and_time, check_at, shape_bench, time_alternately
from tuner.measure.race import Launches, Raced
from tuner.measure.written import HiddenTimeError
from tuner.processes import Failure
from tuner.records import Agreement, Config, FrozenMapping, L2State, Shape, SpecializationSet, Status, Variant

FOLDER = Path("double")
SHAPE = Shape(count=6)
MIB, GIB = 1 << 20, 1 << 30
TWO_SETS_BYTES = 2 * 6 * (8 + 4)  # of six int64 and six fp32 each


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


def test_where_nothing_is_compared_nothing_passes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = bench.kernel()
    spec = replace(kernel.spec, make_outputs=lambda shape, _: {}, reference=lambda inputs, shape: {})
    monkeypatch.setattr(device, "load_folder", lambda folder: replace(kernel, spec=spec))
    monkeypatch.setattr(Double, "run", lambda self, launch: None)
    with pytest.raises(UserError, match=r"double cannot be checked at count=6: there is no output"):
        check_at(FOLDER, RIGHT, SHAPE, 3)


@pytest.mark.parametrize("what", ["input", "right output"])
def test_what_another_variant_damaged_convicts_nobody(bench: Bench, what: str) -> None:
    """A right one is checked once more, on fresh tensors; the others, which may be damaged too, are gone."""
    check_at(FOLDER, RIGHT, SHAPE, 3)
    case = shape_bench(FOLDER, SHAPE, 3).random_case
    damaged = case.inputs["x"] if what == "input" else case.expected["y"]
    assert isinstance(damaged, torch.Tensor)
    damaged[2] = 7
    other = bench.bench(1)
    assert check_at(FOLDER, OTHER, SHAPE, 3) == Agreement(18, 0, 0)
    assert other() is None
    assert bench.made.count(("random", 3)) == 2


def test_samples_are_taken_over_tensors_that_are_not_damaged(bench: Bench) -> None:
    check_at(FOLDER, RIGHT, SHAPE, 3)
    damaged = shape_bench(FOLDER, SHAPE, 3)
    damaged.buffers[0][0]["x"][2] = 7.0
    assert isinstance(time_alternately(FOLDER, [RIGHT, OTHER], SHAPE, L2State.WARM, 3, placements=1), Samples)
    assert shape_bench(FOLDER, SHAPE, 3) is not damaged
    assert bench.made.count(("random", 3)) == 2


@pytest.mark.parametrize(("earlier", "checks"), [((), 1), ((RIGHT,), 2)])
def test_a_wrong_variant_is_convicted_on_fresh_tensors(bench: Bench, earlier: Sequence[Variant], checks: int) -> None:
    for variant in (*earlier, WRONG):
        found = check_at(FOLDER, variant, SHAPE, 3)
    assert isinstance(found, Failure)
    assert found.status is Status.WRONG_OUTPUT
    assert bench.references == 3 * checks


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


def test_a_time_that_does_not_show_is_no_crash(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash would cost the worker, and its trace would be all that is stored."""

    def hidden(*_: Any, **__: Any) -> Any:
        raise HiddenTimeError("in 128 rounds it does not show")

    monkeypatch.setattr(device, "alternate_over", hidden)
    found = time_alternately(FOLDER, [RIGHT], SHAPE, L2State.WRITTEN, 3)
    assert found == Failure(Status.TIMED_OUT, "in 128 rounds it does not show")


def test_every_launch_has_run_before_it_is_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs of one buffer may ask for a binary that no other asks for, and a graph capture cannot load it."""
    ran: list[float] = []
    run = Double.run
    monkeypatch.setattr(
        Double, "run", lambda self, launch: (ran.append(launch.arguments["x"][0].item()), run(self, launch))
    )
    monkeypatch.setattr(device, "_l2_bytes", lambda: 4 * GIB)
    time_alternately(FOLDER, [RIGHT], SHAPE, L2State.COLD, 3)
    assert ran == [4.0, 4.0, 5.0, 6.0]  # the check, then each


def test_buffers_that_keep_the_cache_cold_take_room_from_other_benches(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for by what they hold, and not by what a launch moves."""
    monkeypatch.setattr(device, "_l2_bytes", lambda: 4 * GIB)
    other = bench.bench(1)
    for seed, room, stays in ((0, TWO_SETS_BYTES, True), (1, TWO_SETS_BYTES - 1, False)):
        check_at(FOLDER, RIGHT, SHAPE, seed)
        bench.total_bytes = device._BYTES_PER_MOVED * GIB + room
        assert isinstance(time_alternately(FOLDER, [RIGHT], SHAPE, L2State.COLD, seed), Samples)
        assert (other() is not None) == stays
        assert len(shape_bench(FOLDER, SHAPE, seed).buffers) == 3
        bench.total_bytes = 1 << 50


def test_buffers_that_cannot_fit_are_not_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_l2_bytes", lambda: 4 * GIB)
    bench.total_bytes = TWO_SETS_BYTES - 1
    found = time_alternately(FOLDER, [RIGHT], SHAPE, L2State.COLD, 3)
    assert isinstance(found, Failure)
    assert found.status is Status.OUT_OF_RESOURCES
    assert found.log == "2 more sets of inputs and outputs at count=6 take 0.0 GiB; 0.0 GiB are free"
    assert bench.made == [("random", 3)] * 2
    assert isinstance(time_alternately(FOLDER, [RIGHT], SHAPE, L2State.WARM, 3, placements=1), Samples)


def test_what_moves_nothing_cannot_be_timed_cold(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = bench.kernel()
    nothing = replace(kernel, spec=replace(kernel.spec, bytes_moved=lambda shape: 0))
    monkeypatch.setattr(device, "load_folder", lambda folder: nothing)
    with pytest.raises(UserError, match=r"double cannot be timed cold at count=6: it moves 0 bytes"):
        time_alternately(FOLDER, [RIGHT], SHAPE, L2State.COLD, 3)


def test_work_that_ran_out_of_memory_holds_none_when_it_is_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error's trace holds the tensors of all calls that it passed."""
    alive: list[bool] = []
    first: list[weakref.ref[torch.Tensor]] = []

    def run(self: Double, launch: Launch) -> None:
        first.append(weakref.ref(launch.arguments["x"]))
        alive.append(first[0]() is not None)
        raise torch.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(Double, "run", run)
    for work in (
        lambda: check_at(FOLDER, RIGHT, SHAPE, 3),
        lambda: time_alternately(FOLDER, [RIGHT], SHAPE, L2State.WARM, 3),
    ):
        alive.clear()
        first.clear()
        work()
        assert alive == [True, False]


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
