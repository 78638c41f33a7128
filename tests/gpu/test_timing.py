"""The timing worker's jobs on a GPU, called in this process."""

import importlib.util
from pathlib import Path

import pytest
import torch

from tuner.measure.benchmark import Samples, prepare
from tuner.measure.device import Checked, DeviceJob, check_and_time, check_at, shape_bench, time_alternately
from tuner.measure.statistics import paired_ratio
from tuner.processes import Failure
from tuner.records import Agreement, Config, FrozenMapping, L2State, Shape, Status, Variant

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or HIP device"),
]

EXAMPLES = Path(__file__).parents[1] / "examples"
SCALE, FAULTS = EXAMPLES / "scale_rows", EXAMPLES / "planted_faults"
SMALL, LARGE = Shape(num_rows=4096, columns=1024), Shape(num_rows=1 << 20, columns=1024)


def rows(block_rows: int, num_warps: int) -> Variant:
    config = Config("rows", FrozenMapping(BLOCK_ROWS=block_rows), FrozenMapping(num_warps=num_warps))
    return Variant("scale_rows", config)


QUICK, SLOW = rows(1, 4), rows(8, 1)


def timed(
    variant: Variant, shape: Shape, leader: tuple[Variant, float] | None = None, l2: L2State = L2State.WARM
) -> Checked:
    found = check_and_time(DeviceJob(SCALE, variant, shape, l2, 0, leader))
    assert isinstance(found, Checked), found
    return found


def test_a_time_is_what_the_memory_allows() -> None:
    """Reading and writing 4 GB takes longer than at 10 TB/s and less long than at 0.2 TB/s."""
    found = timed(QUICK, LARGE)
    assert 4 * (1 << 30) / 10e12 * 1e6 < found.timing.median_us < 4 * (1 << 30) / 0.2e12 * 1e6
    assert found.agreement == Agreement((1 << 20) * 1024, 0, 0)


def test_a_long_launch_is_timed_by_itself_and_short_ones_together() -> None:
    for shape, least, most in ((LARGE, 1, 1), (SMALL, 2, 100)):
        assert least <= prepare(shape_bench(SCALE, shape, 0).launches(QUICK, L2State.WARM)).launches <= most


def test_cold_is_slower_than_warm_where_the_cache_holds_the_inputs() -> None:
    assert timed(QUICK, SMALL, l2=L2State.COLD).timing.median_us > 1.1 * timed(QUICK, SMALL).timing.median_us


def test_what_writes_the_inputs_is_no_part_of_the_time() -> None:
    """The cache holds all of it, so that a launch finds as much there as behind itself."""
    warm, written = timed(QUICK, SMALL).timing.median_us, timed(QUICK, SMALL, l2=L2State.WRITTEN).timing.median_us
    assert 0.7 * warm < written < 1.5 * warm
    samples = time_alternately(SCALE, [QUICK, QUICK], SMALL, L2State.WRITTEN, 0)
    assert isinstance(samples, Samples)
    assert paired_ratio(*samples.times_us) == pytest.approx(1.0, abs=0.03)


def test_a_candidate_that_is_clearly_slower_is_dropped_and_a_faster_one_is_not() -> None:
    quick, slow = timed(QUICK, SMALL), timed(SLOW, SMALL)
    assert slow.timing.median_us > 1.1 * quick.timing.median_us
    dropped = timed(SLOW, SMALL, (QUICK, quick.timing.median_us))
    assert dropped.timing.count == 8
    assert dropped.timing.median_us == pytest.approx(slow.timing.median_us, rel=0.05)
    assert timed(QUICK, SMALL, (SLOW, slow.timing.median_us)).timing.count >= 32


def test_a_variant_against_itself_is_even() -> None:
    samples = time_alternately(SCALE, [QUICK, QUICK], SMALL, L2State.WARM, 0)
    assert isinstance(samples, Samples)
    assert paired_ratio(*samples.times_us) == pytest.approx(1.0, abs=0.02)


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="needs nvidia-ml-py")
def test_the_conditions_are_those_of_a_busy_gpu() -> None:
    conditions = timed(QUICK, LARGE).conditions
    assert conditions is not None
    assert conditions.sm_clock_mhz > 500
    assert 10 < conditions.temperature_c < 110


def test_a_variant_that_is_wrong_on_an_edge_alone_has_no_time() -> None:
    config = Config("wrong_when_huge", FrozenMapping(ROWS=16), FrozenMapping(num_warps=4))
    found = check_and_time(DeviceJob(FAULTS, Variant("planted_faults", config), Shape(num_rows=64), L2State.WARM, 0))
    assert isinstance(found, Failure)
    assert found.status is Status.WRONG_OUTPUT
    assert "huge" in found.log


def test_a_variant_that_is_wrong_elsewhere_is_found_there() -> None:
    config = Config("wrong_elsewhere", FrozenMapping(ROWS=16), FrozenMapping(num_warps=4))
    variant = Variant("planted_faults", config)
    assert isinstance(check_at(FAULTS, variant, Shape(num_rows=64), 0), Agreement)
    found = check_at(FAULTS, variant, Shape(num_rows=65), 0)
    assert isinstance(found, Failure)
    assert found.status is Status.WRONG_OUTPUT


def test_launches_over_several_buffers_are_all_taken() -> None:
    counts = torch.zeros(3, dtype=torch.int64, device="cuda")
    launches = [lambda index=index: counts[index].add_(1) for index in range(3)]
    for launch in launches:
        launch()  # before a graph captures it
    once = prepare(launches)
    counts.zero_()
    once.run()
    torch.cuda.synchronize()
    assert counts.sum().item() == once.launches
    assert counts.max().item() == counts.min().item()
