"""Playing an arm without a GPU, in this process: real compiles, each once, when a step first needs it."""

from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS, copy_kernel, scale_rows_variant
from replay_examples import rows
from triton import knobs

from tuner.processes import Failure
from tuner.records import DEFAULT_TARGET, Shape, Status, Variant
from tuner.replay import player
from tuner.replay.player import ArmJob, Played, Player, play

pytestmark = pytest.mark.triton

SIZES = (5, 1, 7, 16, 5, 0)
PLAIN, MARKED = scale_rows_variant(), scale_rows_variant(marks=("num_rows",))


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "tuner"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def job(variant: Variant, warm_up: tuple[int, ...] = (), folder: Path = SCALE_ROWS) -> ArmJob:
    steps = tuple(map(rows, SIZES))
    return ArmJob(folder, steps, dict.fromkeys(steps, variant), tuple(map(rows, warm_up)), DEFAULT_TARGET, 0)


def played(variant: Variant, warm_up: tuple[int, ...] = ()) -> Played:
    found = play(job(variant, warm_up))
    assert isinstance(found, Played), found
    return found


def test_a_step_compiles_where_its_class_is_new() -> None:
    found = played(PLAIN)
    assert [(build.step, build.shape, build.cached) for build in found.builds] == [
        (0, rows(5), False),
        (1, rows(1), False),
        (3, rows(16), False),
    ]
    assert [seconds > 0 for seconds in found.host_s] == [True, True, False, True, False, False]
    for build in found.builds:
        assert build.step is not None
        assert 0 < build.seconds <= found.host_s[build.step]
    assert found.warm_up_s == 0


def test_times_are_estimates_of_each_shape() -> None:
    kernel_us = played(MARKED).kernel_us
    assert set(kernel_us) == set(map(rows, SIZES))
    assert kernel_us[rows(0)] == 0
    assert 0 < kernel_us[rows(1)] < 10


def test_after_a_warm_up_no_step_compiles() -> None:
    found = played(PLAIN, warm_up=(5, 1, 16))
    assert [build.step for build in found.builds] == [None] * 3
    assert found.host_s == (0.0,) * len(SIZES)
    assert found.warm_up_s >= sum(build.seconds for build in found.builds) > 0


def test_each_variant_compiles_for_itself() -> None:
    steps = tuple(map(rows, SIZES))
    variants = {shape: MARKED if shape == rows(5) else scale_rows_variant(2, marks=("num_rows",)) for shape in steps}
    found = play(ArmJob(SCALE_ROWS, steps, variants, (), DEFAULT_TARGET, 0))
    assert isinstance(found, Played)
    assert [build.step for build in found.builds] == [0, 1]


def test_a_binary_from_the_disk_cache_is_told_from_a_compile() -> None:
    played(MARKED)
    (again,) = played(MARKED).builds
    assert again.cached


def test_nothing_listens_to_the_compiler_afterwards() -> None:
    played(MARKED)
    assert knobs.compilation.listener is None


def test_a_kernel_that_does_not_compile_fails_by_name(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": ("tl.store(", "tl.stare(")})
    found = play(job(PLAIN, folder=folder))
    assert isinstance(found, Failure)
    assert found.status is Status.COMPILE_ERROR
    assert "stare" in found.log


def test_a_kernel_that_needs_too_much_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.measure.static.estimate", lambda *given: None)
    found = play(job(PLAIN))
    assert isinstance(found, Failure)
    assert found.status is Status.OUT_OF_RESOURCES
    assert found.log.startswith("num_rows=5: ")


def test_whatever_a_launch_raises_is_a_crash_with_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Player):
        def launch(self, shape: Shape) -> float:
            raise RuntimeError("device gone")

        def kernel_us(self, shape: Shape) -> float:
            return 0.0

    monkeypatch.setattr(player, "_player", lambda job, kernel: Broken())
    found = play(job(PLAIN))
    assert isinstance(found, Failure)
    assert found.status is Status.CRASHED
    assert found.log.endswith("RuntimeError: device gone\n")
    assert "in launch" in found.log
