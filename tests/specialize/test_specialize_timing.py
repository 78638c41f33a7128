"""Times of pairs: three fresh processes, a fourth for what they do not agree on; failures stay with their pair."""

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from tuner.measure.benchmark import Samples
from tuner.measure.device import Faulty
from tuner.processes import Failure
from tuner.records import Config, L2State, Shape, SpecializationSet, Speedup, Status, Variant
from tuner.specialize import timing
from tuner.specialize.workbench import Pair

pytestmark = pytest.mark.triton
STEADY = [10.0, 10.01] * 16
WILD = [5.0, 20.0] * 16


class Processes:
    """A pool whose jobs give prepared samples by process and shape; counts the processes."""

    def __init__(self, results: dict[tuple[int, int], object]) -> None:
        self.results, self.number, self.asked = results, 0, []  # type: ignore[var-annotated]

    def __call__(self, workers: int, spare: str) -> "Processes":
        assert (workers, spare) == (1, "tuner.measure.device")
        return self

    def submit(
        self, _: object, folder: Path, variants: Sequence[Variant], shape: Shape, *rest: object, **__: object
    ) -> "Future[object]":
        size = shape.size("n")
        self.asked.append((self.number, size, *rest))
        future: Future[object] = Future()
        scale = self.results.get((self.number, size), 1.5)
        if isinstance(scale, float):
            scale = Samples([STEADY, [scale * sample for sample in STEADY]], None)
        future.set_result(scale)
        return future

    def replace_workers(self) -> None:
        self.number += 1

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def pair_at(size: int) -> Pair:
    config = Config("rows")
    return Pair(Variant("k", config), Variant("k", config, SpecializationSet.of(["n"])), Shape(n=size))


def measured(monkeypatch: pytest.MonkeyPatch, processes: Processes, *sizes: int) -> dict[int, Speedup | Failure]:
    monkeypatch.setattr(timing, "WorkerPool", processes)
    found = timing.measure_pairs(Path(), [pair_at(size) for size in sizes])
    return {pair.shape.size("n"): ratio for pair, ratio in found.items()}


def test_the_ratio_is_time_with_the_marks_over_time_without(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes({(1, 2): 1.2, (2, 2): 1.3, (0, 2): 1.25})
    found = measured(monkeypatch, processes, 2, 1)
    first, second = found[1], found[2]
    assert isinstance(first, Speedup)
    assert isinstance(second, Speedup)
    assert first.median == pytest.approx(1.5)
    assert (second.low < 1.2) and (second.high > 1.3)
    assert second.median == pytest.approx((1.2 * 1.25 * 1.3) ** (1 / 3))
    # Shape after shape in each process, L2 warm, with inputs of its own.
    assert processes.asked == [(number, size, L2State.WARM, number) for number in range(3) for size in (1, 2)]


def test_a_pair_whose_rounds_disagree_has_a_fourth_process(monkeypatch: pytest.MonkeyPatch) -> None:
    wild = Samples([STEADY, WILD], None)
    processes = Processes({(1, 1): wild, (3, 1): 1.5})
    found = measured(monkeypatch, processes, 1, 2)[1]
    assert isinstance(found, Speedup)
    assert found.high < 1.6
    assert [(number, size) for number, size, *_ in processes.asked if number == 3] == [(3, 1)]


def test_a_failure_stays_with_its_pair_and_its_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(Status.CRASHED, "gone")
    processes = Processes({(0, 1): Faulty(pair_at(1).marked, failure)})
    found = measured(monkeypatch, processes, 1, 2)
    assert found[1] == failure
    assert isinstance(found[2], Speedup)
    assert [size for _, size, *_ in processes.asked] == [1, 2, 2, 2]
    assert [number for number, *_ in processes.asked] == [0, 1, 2, 3]
