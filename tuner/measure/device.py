"""The jobs of the timing worker: one process that owns the GPU, checks variants and times them."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from triton.runtime.errors import OutOfResources

from tuner.catalog import Kernel, Tensors, load_folder
from tuner.compile.module import load_variant
from tuner.errors import UserError
from tuner.measure.benchmark import Samples, Timed, prepare, probe, warm_up
from tuner.measure.race import Leader, alternate, race
from tuner.measure.statistics import summarize
from tuner.processes import Failure
from tuner.records import Agreement, Conditions, Shape, Status, Timing, Variant
from tuner.verify.check import Case, check_cases, make_cases

# Cold timing rotates buffers until they exceed the L2 cache this many times.
_COLD_FACTOR = 3
# Where buffers lie decides how evenly they spread over the L2 cache: percents where they about fill it (seen on an
# H100). A process that compares variants does so over so many sets of buffers, if not told otherwise.
PLACEMENTS = 4
# Shapes that move more than so many times what the cache holds do not show it.
_FAR_BEYOND = 4

R = TypeVar("R")


@dataclass(frozen=True)
class DeviceJob:
    """One variant to check and time at one shape. `cold_l2`: rotate inputs so that they come from device memory.

    `leader` is the fastest variant there so far with its time in microseconds, to race against.
    """

    folder: Path
    variant: Variant
    shape: Shape
    cold_l2: bool
    seed: int
    leader: tuple[Variant, float] | None = None


@dataclass(frozen=True)
class Checked:
    """A variant that was right, with its time and the GPU's state while it was taken."""

    agreement: Agreement
    timing: Timing
    conditions: Conditions | None


@dataclass(frozen=True)
class Faulty:
    """One of several variants failed, before any was timed."""

    variant: Variant
    failure: Failure


@dataclass
class ShapeBench:
    """Cases, outputs and buffers of one shape, kept on the device between jobs."""

    kernel: Kernel
    shape: Shape
    seed: int
    cases: tuple[Case, ...] = field(init=False)
    buffers: list[tuple[Tensors, Tensors]] = field(init=False)
    leader: tuple[Variant, bool, Timed] | None = None

    def __post_init__(self) -> None:
        self.cases = make_cases(self.kernel, self.shape, "cuda", self.seed)
        self.buffers = [(self.cases[0].inputs, self.kernel.spec.make_outputs(self.shape, "cuda"))]

    def check(self, variant: Variant) -> Agreement:
        loaded = load_variant(self.kernel, variant)
        return check_cases(self.kernel, loaded, variant.config, self.shape, self.cases, self.buffers[0][1])

    def launches(self, variant: Variant, cold_l2: bool, placement: int = 0) -> list[Callable[[], None]]:
        """Launches of the variant over one set of buffers, or from that one on as many as keep the L2 cache cold."""
        loaded, spec = load_variant(self.kernel, variant), self.kernel.spec
        found = [
            partial(loaded.run, spec.launch(inputs, outputs, self.shape, variant.config))
            for inputs, outputs in self._rotated(cold_l2, placement)
        ]
        found[0]()  # loads the binary, which a graph capture must not do
        return list(found)

    def timed_leader(self, variant: Variant, cold_l2: bool, known_us: float) -> Leader:
        """The leader made ready, once for all candidates that race against it."""
        if self.leader is None or self.leader[:2] != (variant, cold_l2):
            launches = self.launches(variant, cold_l2)
            warm_up([probe(launches)])
            self.leader = (variant, cold_l2, prepare(launches))
        return Leader(self.leader[2], known_us)

    def one_placement(self, cold_l2: bool) -> bool:
        """Whether one set of buffers is as good as several: launches rotate them anyway, or far exceed the cache."""
        return cold_l2 or self.kernel.spec.bytes_moved(self.shape) > _FAR_BEYOND * _l2_bytes()

    def _rotated(self, cold_l2: bool, placement: int) -> Sequence[tuple[Tensors, Tensors]]:
        spec, wanted = self.kernel.spec, 1
        if cold_l2:
            wanted += _COLD_FACTOR * _l2_bytes() // max(spec.bytes_moved(self.shape), 1)
        while len(self.buffers) < placement + wanted:
            inputs = spec.make_inputs(self.shape, "cuda", self.seed + len(self.buffers))
            self.buffers.append((inputs, spec.make_outputs(self.shape, "cuda")))
        return self.buffers[placement : placement + wanted]


def _l2_bytes() -> int:
    return int(torch.cuda.get_device_properties(0).L2_cache_size)


@lru_cache(maxsize=32)
def _cached_bench(folder: Path, shape: Shape, seed: int) -> ShapeBench:
    return ShapeBench(load_folder(folder), shape, seed)


def shape_bench(folder: Path, shape: Shape, seed: int) -> ShapeBench:
    """The bench of a shape; when device memory runs low, earlier benches are dropped first."""
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    if free_bytes < total_bytes // 2:
        _cached_bench.cache_clear()
        torch.cuda.empty_cache()
    return _cached_bench(folder, shape, seed)


def check_and_time(job: DeviceJob) -> Checked | Failure:
    """Check one variant on poisoned outputs in every case; when it is right, time it."""
    return _ended(lambda: _check_and_time(job))


def check_at(folder: Path, variant: Variant, shape: Shape, seed: int) -> Agreement | Failure:
    """Check a variant in every case of a shape, without timing it."""
    return _ended(lambda: _checked(shape_bench(folder, shape, seed), variant))


def time_alternately(
    folder: Path, variants: Sequence[Variant], shape: Shape, cold_l2: bool, seed: int, placements: int = PLACEMENTS
) -> Samples | Faulty | Failure:
    """Samples of each variant at a shape, rounds interleaved, in this process; each is checked once more first.

    `placements`: over so many sets of buffers, where their place matters.
    """
    return _ended(lambda: _time_alternately(shape_bench(folder, shape, seed), variants, cold_l2, placements))


def _check_and_time(job: DeviceJob) -> Checked | Failure:
    bench = shape_bench(job.folder, job.shape, job.seed)
    agreement = _checked(bench, job.variant)
    if isinstance(agreement, Failure):
        return agreement
    leader = bench.timed_leader(job.leader[0], job.cold_l2, job.leader[1]) if job.leader else None
    raced = race(bench.launches(job.variant, job.cold_l2), leader)
    return Checked(agreement, summarize(raced.samples_us), raced.conditions)


def _checked(bench: ShapeBench, variant: Variant) -> Agreement | Failure:
    agreement = bench.check(variant)
    if agreement.mismatched:
        _cached_bench.cache_clear()  # whatever it wrote beside its output may lie in the tensors of any bench
        return Failure(Status.WRONG_OUTPUT, agreement.difference)
    return agreement


def _time_alternately(
    bench: ShapeBench, variants: Sequence[Variant], cold_l2: bool, placements: int
) -> Samples | Faulty:
    for variant in variants:
        agreement = _ended(partial(_checked, bench, variant))
        if isinstance(agreement, Failure):
            return Faulty(variant, agreement)
    found = Samples([[] for _ in variants], None)
    for placement in range(1 if bench.one_placement(cold_l2) else placements):
        found = found.joined(alternate([bench.launches(each, cold_l2, placement) for each in variants]))
    return found


def _ended(work: Callable[[], R]) -> R | Failure:
    """What a piece of work on the device returns, or the status in which whatever it raised ends its variant."""
    try:
        return work()
    except UserError:
        raise
    except OutOfResources as error:
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except torch.OutOfMemoryError as error:
        _cached_bench.cache_clear()
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except Exception:  # noqa: BLE001 - a launch may raise anything; the session replaces the worker
        return Failure(Status.CRASHED, traceback.format_exc())
