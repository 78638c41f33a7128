"""Each binary is compiled once and each pair of binaries timed once at a shape."""

from collections.abc import Mapping, Sequence

import pytest
from in_this_process import InThisProcess
from specialize_examples import NORM

from tuner.compile.classes import class_table
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.records import DEFAULT_TARGET, Evidence, SpecializationSet, Speedup, Status
from tuner.specialize import looked_at, workbench
from tuner.specialize.workbench import MeasurePairs, Pair, Workbench

STRIDE, STRIDE_ALIGNED = SpecializationSet.of(["x_row_stride"]), SpecializationSet.of([], ["x_row_stride"])
TOKENS = SpecializationSet.of(["num_tokens"])
SIZES = [{"num_tokens": size} for size in (1, 5, 16, 64, 64 * 16)]


def bench_with(measure: MeasurePairs | None = None, sized: bool = True) -> Workbench:
    scope = looked_at(NORM, SIZES)
    config = NORM.spec.baseline
    table = class_table(NORM, config, scope.shares, DEFAULT_TARGET)
    return Workbench(NORM, config, table, scope, DEFAULT_TARGET, InThisProcess(), measure, sized)  # type: ignore[arg-type]


def test_a_binary_is_compiled_once_whatever_set_reaches_it() -> None:
    bench = bench_with()
    bench.compile([STRIDE, STRIDE_ALIGNED])
    assert len(bench.pool.jobs) == 2  # type: ignore[attr-defined]
    first, second = bench.of(STRIDE), bench.of(STRIDE_ALIGNED)
    assert first.comparisons == second.comparisons
    assert first.cost.startswith("narrows loads 16 -> 2 bytes")
    assert {each.time.evidence for each in first.comparisons if each.time} == {Evidence.ESTIMATED}
    assert len(bench.pool.jobs) == 2  # type: ignore[attr-defined]


def test_a_pair_is_measured_once_at_a_shape_and_what_is_the_same_never() -> None:
    asked: list[list[tuple[int, SpecializationSet]]] = []

    def measure(pairs: Sequence[Pair]) -> Mapping[Pair, Speedup | Failure]:
        asked.append([(pair.shape.size("num_tokens"), pair.marked.specialization) for pair in pairs])
        assert {pair.unmarked.specialization for pair in pairs} == {SpecializationSet()}
        return {pair: Speedup(1.25, 1.2, 1.3) for pair in pairs}

    bench = bench_with(measure)
    assert [each.time for each in bench.of(STRIDE).comparisons] == [None, None]
    bench.time([STRIDE, STRIDE_ALIGNED, TOKENS])
    assert asked == [[(16, STRIDE), (1024, STRIDE), (1, TOKENS)]]
    effect = bench.timed(STRIDE_ALIGNED)
    assert len(asked) == 1
    assert effect.slowdown == pytest.approx(0.25)
    assert effect.cost.endswith("makes the steps 25.0% slower (measured)")
    assert bench.of(TOKENS).slowdown == pytest.approx(0.0, abs=0.1)


def test_a_mark_that_cannot_be_timed_is_not_free() -> None:
    bench = bench_with(lambda pairs: {pair: Failure(Status.WRONG_OUTPUT, "trace\n3 elements differ") for pair in pairs})
    assert bench.timed(TOKENS).cost == (
        "cannot be timed at num_tokens=1,hidden_size=2048,row_padding=64: 3 elements differ"
    )


def test_without_sizes_nothing_is_estimated() -> None:
    effect = bench_with(sized=False).of(STRIDE)
    assert (effect.slowdown, effect.evidence, effect.narrowed) == (None, None, ("loads 16 -> 2 bytes",))


def test_code_that_does_not_compile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "build", lambda job: Failure(Status.COMPILE_ERROR, "trace\nno such thing"))
    with pytest.raises(UserError, match=r"rms_norm at .* for cuda:90 does not compile: no such thing"):
        bench_with().of(STRIDE)


def test_a_mark_under_which_nothing_compiles_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    real = workbench.build

    def build(job: workbench.CompileJob) -> object:
        return Failure(Status.COMPILE_ERROR, "no") if job.variant.specialization == STRIDE else real(job)

    monkeypatch.setattr(workbench, "build", build)
    assert bench_with().of(STRIDE).cost.startswith("does not compile at num_tokens=16,")
