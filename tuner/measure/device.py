"""The jobs of the timing worker: one process that owns the GPU, checks variants and times them."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from tuner.catalog import Bounds, Kernel, Tensors, load_folder
from tuner.compile.module import load_variant
from tuner.errors import UserError
from tuner.measure.benchmark import Replay, capture, sample
from tuner.measure.statistics import summarize
from tuner.processes import Failure
from tuner.records import Agreement, Shape, Status, Timing, Variant
from tuner.verify.check import check_variant, expected_outputs

SEARCH_ROUNDS = 30
CONFIRM_ROUNDS = 100
# Cold timing rotates buffers until they exceed the L2 cache this many times.
_COLD_FACTOR = 3


@dataclass(frozen=True)
class DeviceJob:
    """One variant to check and time at one shape. `cold_l2`: rotate inputs so that they come from device memory."""

    folder: Path
    variant: Variant
    shape: Shape
    cold_l2: bool
    seed: int


@dataclass(frozen=True)
class Checked:
    """A variant that was right, with its time."""

    agreement: Agreement
    timing: Timing


@dataclass
class _Bench:
    """Inputs, outputs and expected outputs of one shape, kept on the device between jobs."""

    kernel: Kernel
    shape: Shape
    seed: int
    sets: list[tuple[Tensors, Tensors]] = field(default_factory=list)
    expected: Mapping[str, Tensor | Bounds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add_set()
        self.expected = expected_outputs(self.kernel, self.sets[0][0], self.shape)

    def _add_set(self) -> None:
        spec = self.kernel.spec
        inputs = spec.make_inputs(self.shape, "cuda", self.seed + len(self.sets))
        self.sets.append((inputs, spec.make_outputs(self.shape, "cuda")))

    def buffers(self, cold_l2: bool) -> Sequence[tuple[Tensors, Tensors]]:
        if cold_l2:
            l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
            wanted = 1 + _COLD_FACTOR * l2_bytes // max(self.kernel.spec.bytes_moved(self.shape), 1)
            while len(self.sets) < wanted:
                self._add_set()
            return self.sets
        return self.sets[:1]

    def launches(self, variant: Variant, cold_l2: bool) -> list[Callable[[], None]]:
        loaded = load_variant(self.kernel, variant)
        return [
            partial(loaded.run, self.kernel.spec.launch(inputs, outputs, self.shape, variant.config))
            for inputs, outputs in self.buffers(cold_l2)
        ]

    def check(self, variant: Variant) -> Agreement:
        inputs, outputs = self.sets[0]
        loaded = load_variant(self.kernel, variant)
        return check_variant(self.kernel, loaded, variant.config, self.shape, inputs, outputs, self.expected)


@lru_cache(maxsize=32)
def _cached_bench(folder: Path, shape: Shape, seed: int) -> _Bench:
    return _Bench(load_folder(folder), shape, seed)


def _bench(folder: Path, shape: Shape, seed: int) -> _Bench:
    """The bench of a shape; when device memory runs low, earlier benches are dropped first."""
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    if free_bytes < total_bytes // 2:
        _cached_bench.cache_clear()
        torch.cuda.empty_cache()
    return _cached_bench(folder, shape, seed)


def check_and_time(job: DeviceJob) -> Checked | Failure:
    """Check one variant on poisoned outputs; when it is right, time it."""
    try:
        bench = _bench(job.folder, job.shape, job.seed)
        agreement = bench.check(job.variant)
        if agreement.mismatched:
            share = f"{agreement.mismatched} of {agreement.elements} elements differ"
            return Failure(Status.WRONG_OUTPUT, f"{share}; {agreement.detail}")
        replay = capture(bench.launches(job.variant, job.cold_l2))
        return Checked(agreement, summarize(sample([replay], SEARCH_ROUNDS)[0]))
    except UserError:
        raise
    except OutOfResources as error:
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except torch.OutOfMemoryError as error:
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except Exception:  # noqa: BLE001 - whatever the launch raised ends this variant; the session replaces the worker
        return Failure(Status.CRASHED, traceback.format_exc())


def time_alternately(
    folder: Path, variants: Sequence[Variant], shape: Shape, cold_l2: bool, seed: int
) -> list[list[float]] | Failure:
    """Samples in microseconds of each variant at a shape, taken in interleaved rounds in this process.

    Each is checked once more first; the check also loads its binary, which a graph capture must not do.
    """
    bench = _bench(folder, shape, seed)
    replays: list[Replay] = []
    for variant in variants:
        if bench.check(variant).mismatched:
            return Failure(Status.WRONG_OUTPUT, f"{variant.config.label} was right before and is wrong now")
        replays.append(capture(bench.launches(variant, cold_l2)))
    return sample(replays, CONFIRM_ROUNDS)
