"""Launches on a GPU, and which of them are kept ready."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from kernel_examples import SCALE_ROWS, scale_rows_variant
from replay_examples import KERNEL, rows

from tuner.catalog import Launch, Tensors
from tuner.records import Config, Shape
from tuner.replay.device_player import DevicePlayer, ReadyLaunches, _size_bytes
from tuner.replay.player import ArmJob, Played, play

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or HIP device"),
]


def made(sizes: tuple[int, ...]) -> list[int]:
    """The numbers of rows for which launches are made, 10 bytes a row, of which 100 bytes may be kept."""
    found: list[int] = []

    def make(shape: Shape) -> tuple[Callable[[], None], int]:
        found.append(shape.size("num_rows"))
        return (lambda: None), 10 * found[-1]

    ready = ReadyLaunches(make, limit_bytes=100)
    for size in sizes:
        ready.get(rows(size))
    return found


def test_launches_are_made_once_and_the_longest_unused_go_first() -> None:
    assert made((2, 5, 2, 4, 2, 5)) == [2, 5, 4, 5]  # the 4 puts the 5 out


def test_a_launch_larger_than_the_limit_is_kept_alone() -> None:
    assert made((1, 50, 50, 1)) == [1, 50, 1]


def test_what_a_launch_holds_is_the_storage_behind_its_views() -> None:
    assert _size_bytes({"x": torch.empty(8, 8, dtype=torch.bfloat16)[:, :2], "y": torch.empty(4)}) == 128 + 16


class TestOnGpu:
    pytestmark = on_gpu

    def test_steps_compile_in_the_launches_that_need_it(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        steps = tuple(map(rows, (5, 1, 5, 16, 1)))
        found = play(ArmJob(SCALE_ROWS, steps, dict.fromkeys(steps, scale_rows_variant(2)), (), None, 0))
        assert isinstance(found, Played), found
        assert [(build.step, build.cached) for build in found.builds] == [(0, False), (1, False), (3, False)]
        assert min(found.host_s[step] for step in (0, 1, 3)) > 10 * max(found.host_s[step] for step in (2, 4))
        assert all(0.1 < time_us < 100 for time_us in found.kernel_us.values())

    def test_a_launch_computes(self) -> None:
        launched: list[tuple[Tensors, Tensors]] = []

        def launch(inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
            launched.append((inputs, outputs))
            return KERNEL.spec.launch(inputs, outputs, shape, config)

        kernel = replace(KERNEL, spec=replace(KERNEL.spec, launch=launch))
        DevicePlayer(kernel, {rows(64): scale_rows_variant(4)}, 0).launch(rows(64))
        ((inputs, outputs),) = launched
        assert torch.equal(outputs["y"], inputs["x"] * 2)
