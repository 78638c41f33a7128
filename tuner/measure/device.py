"""The jobs of the timing worker: one process that owns the GPU, checks variants and times them."""

import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from tuner.catalog import Kernel, Tensors, load_folder
from tuner.compile.module import load_variant
from tuner.errors import UnknownNameError, UserError
from tuner.measure.benchmark import Samples, Timed, prepare, probe, sample, warm_up
from tuner.measure.race import Leader, alternate_over, race
from tuner.measure.statistics import summarize
from tuner.measure.written import HiddenTimeError, behind, writing
from tuner.processes import Failure
from tuner.records import Agreement, Conditions, L2State, Shape, Status, Timing, Variant
from tuner.verify.check import RANDOM, Case, check_cases, make_case, make_edge_cases

# Cold timing rotates buffers until they exceed the L2 cache this many times.
_COLD_FACTOR = 3
# Where buffers lie decides how evenly they spread over the L2 cache: percents where they about fill it (seen on an
# H100). A process that compares variants does so over so many sets of buffers, if not told otherwise.
PLACEMENTS = 4
# Shapes that move more than so many times what the cache holds do not show it.
_FAR_BEYOND = 4
# Device memory per byte that a launch moves: about 4.5 to hold three cases, each with its inputs and the lowest and the
# highest right outputs, and 1 for the buffers that are written again.
_BYTES_PER_MOVED = 6
_WRITING_ROUNDS = 16
# The float64 temporaries of a reference that works in chunks, and those of a comparison.
_RESERVED_BYTES = 6 << 30
_MOST_BENCHES = 64
_GIB = 1 << 30

R = TypeVar("R")


@dataclass(frozen=True)
class DeviceJob:
    """One variant to check and time at one shape.

    `leader` is the fastest variant there so far with its time in microseconds, to race against.
    """

    folder: Path
    variant: Variant
    shape: Shape
    l2: L2State
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
    """Cases and buffers of one shape, made when they are needed first and kept on the device between jobs."""

    kernel: Kernel
    shape: Shape
    seed: int
    buffers: list[tuple[Tensors, Tensors]] = field(init=False, default_factory=list)
    leader: tuple[Variant, L2State, Timed] | None = None

    @cached_property
    def random_case(self) -> Case:
        """The inputs of the first set of buffers, with what must come out."""
        inputs, _ = self._first_buffers(1)[0]
        return make_case(self.kernel, self.shape, RANDOM, inputs)

    @cached_property
    def edge_cases(self) -> tuple[Case, ...]:
        return make_edge_cases(self.kernel, self.shape, "cuda", self.seed)

    def check(self, variant: Variant, edges: bool = True) -> Agreement:
        """Hold the variant against the reference on random inputs and, unless told otherwise, on every edge.

        UserError where there is nothing to compare.
        """
        loaded = load_variant(self.kernel, variant)
        cases = [self.random_case, *(self.edge_cases if edges else ())]
        _, outputs = self._first_buffers(1)[0]
        found = check_cases(self.kernel, loaded, variant.config, self.shape, cases, outputs)
        if not (found.elements or found.mismatched):
            raise UserError(
                f"{self.kernel.name} cannot be checked at {self.shape.label}: there is no output to compare.",
                hint="Let `make_outputs` and `reference` of its KernelSpec name what the kernel writes.",
            )
        return found

    def launches(self, variant: Variant, l2: L2State, placement: int = 0) -> list[Callable[[], None]]:
        """Launches of the variant over one set of buffers, or from that one on as many as keep the L2 cache cold.

        Each comes behind what writes its inputs where the cache is to hold these; that changes them, so that the first
        set of buffers is left to checks.
        """
        loaded, spec = load_variant(self.kernel, variant), self.kernel.spec
        found = [
            partial(loaded.run, spec.launch(inputs, outputs, self.shape, variant.config))
            for inputs, outputs in self._rotated(l2, placement)
        ]
        for launch in found:  # loads the binary, which a graph capture must not do; inputs may ask for another one
            launch()
        return [behind(self.writing(placement), each) for each in found] if l2 is L2State.WRITTEN else list(found)

    def writing(self, placement: int = 0) -> Callable[[], None]:
        """Writes the inputs of such a set of buffers, as the kernel in front of this one does.

        UserError for an input that the kernel lacks.
        """
        ((inputs, _),) = self._rotated(L2State.WRITTEN, placement)
        spec = self.kernel.spec
        for name in spec.written_inputs:
            if name not in inputs:
                raise UnknownNameError(f"input among written_inputs of {spec.name}", name, inputs)
        return writing([inputs[name] for name in spec.written_inputs])

    @cached_property
    def timed_writing(self) -> Timed:
        """The writing made ready, once for all candidates that come behind it."""
        return _ready([self.writing()])

    @cached_property
    def writing_us(self) -> float:
        """About how long the writing takes: by it a process knows whether its clocks are up."""
        return median(sample([self.timed_writing], _WRITING_ROUNDS).times_us[0])

    def writer(self, l2: L2State) -> Timed | None:
        """What is timed beside launches that come behind it; None where nothing is written in front of them."""
        return self.timed_writing if l2 is L2State.WRITTEN else None

    def timed_leader(self, variant: Variant, l2: L2State, known_us: float) -> Leader:
        """The leader, whose own time is known, made ready once for all candidates that race against it."""
        if self.leader is None or self.leader[:2] != (variant, l2):
            self.leader = (variant, l2, _ready(self.launches(variant, l2)))
        return Leader(self.leader[2], known_us + (self.writing_us if self.writer(l2) else 0.0))

    def one_placement(self, l2: L2State) -> bool:
        """Whether one set of buffers is as good as several: launches rotate them anyway, or far exceed the cache."""
        return l2 is L2State.COLD or self.kernel.spec.bytes_moved(self.shape) > _FAR_BEYOND * _l2_bytes()

    def _rotated(self, l2: L2State, placement: int) -> Sequence[tuple[Tensors, Tensors]]:
        spec, wanted = self.kernel.spec, 1
        if l2 is L2State.COLD:
            moved = spec.bytes_moved(self.shape)
            if moved < 1:
                raise UserError(
                    f"{spec.name} cannot be timed cold at {self.shape.label}: it moves {moved} bytes there.",
                    hint="Let `bytes_moved` of its KernelSpec say how much one call moves.",
                )
            wanted += _COLD_FACTOR * _l2_bytes() // moved
        first = placement + (l2 is L2State.WRITTEN)
        return self._first_buffers(first + wanted)[first:]

    def _first_buffers(self, count: int) -> Sequence[tuple[Tensors, Tensors]]:
        if not self.buffers:
            self._add_buffers()
        if (missing := count - len(self.buffers)) > 0:
            self._require_room(missing)
        while len(self.buffers) < count:
            self._add_buffers()
        return self.buffers[:count]

    def _require_room(self, sets: int) -> None:
        """For so many sets of buffers like the first; OutOfMemoryError where that cannot be had."""
        inputs, outputs = self.buffers[0]
        needed_bytes = sets * _held_bytes([*inputs.values(), *outputs.values()])
        _benches.make_room(needed_bytes)
        if (free_bytes := _free_bytes()) < needed_bytes:
            raise torch.OutOfMemoryError(
                f"{sets} more sets of inputs and outputs at {self.shape.label} take {needed_bytes / _GIB:.1f} GiB;"
                f" {free_bytes / _GIB:.1f} GiB are free"
            )

    def _add_buffers(self) -> None:
        inputs = self.kernel.spec.make_inputs(self.shape, "cuda", self.seed + len(self.buffers))
        self.buffers.append((inputs, self.kernel.spec.make_outputs(self.shape, "cuda")))


def _ready(launches: Sequence[Callable[[], None]]) -> Timed:
    warm_up([probe(launches)])
    return prepare(launches)


class _Benches:
    """The benches of this process in the order of their last use; the first give way to what a new one needs."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, Shape, int], ShapeBench] = OrderedDict()

    def get(self, folder: Path, shape: Shape, seed: int) -> ShapeBench:
        key = folder, shape, seed
        if key not in self._kept:
            kernel = load_folder(folder)
            if len(self._kept) == _MOST_BENCHES:
                self._kept.popitem(last=False)
            self.make_room(_BYTES_PER_MOVED * kernel.spec.bytes_moved(shape) + _RESERVED_BYTES)
            self._kept[key] = ShapeBench(kernel, shape, seed)
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        self._kept.clear()

    def make_room(self, needed_bytes: int) -> None:
        """Drop those unused for longest until so much is free, or none is left."""
        if _free_bytes() < needed_bytes:
            torch.cuda.empty_cache()  # what torch keeps of earlier checks is free too
        while self._kept and _free_bytes() < needed_bytes:
            self._kept.popitem(last=False)
            torch.cuda.empty_cache()


_benches = _Benches()


def _free_bytes() -> int:
    return torch.cuda.mem_get_info()[0]


def _held_bytes(tensors: Iterable[Tensor]) -> int:
    """What the tensors' storages take, each counted once."""
    return sum({each.data_ptr(): each.nbytes() for each in (tensor.untyped_storage() for tensor in tensors)}.values())


def _l2_bytes() -> int:
    return int(torch.cuda.get_device_properties(0).L2_cache_size)


def shape_bench(folder: Path, shape: Shape, seed: int) -> ShapeBench:
    """The bench of a shape; those unused for longest are dropped when a new one needs their memory."""
    return _benches.get(folder, shape, seed)


def check_and_time(job: DeviceJob) -> Checked | Failure:
    """Check one variant on poisoned outputs in every case; when it is right, time it."""
    return _ended(lambda: _check_and_time(job))


def check_at(folder: Path, variant: Variant, shape: Shape, seed: int) -> Agreement | Failure:
    """Check a variant in every case of a shape, without timing it."""
    return _ended(lambda: _checked(folder, variant, shape, seed))


def time_alternately(
    folder: Path, variants: Sequence[Variant], shape: Shape, l2: L2State, seed: int, placements: int = PLACEMENTS
) -> Samples | Faulty | Failure:
    """Samples of each variant at a shape, rounds interleaved, in this process.

    Each is checked first, on random inputs alone: for the edges see `check_at`. `placements`: over so many sets of
    buffers, where their place matters.
    """
    return _ended(lambda: _time_alternately(folder, variants, shape, l2, seed, placements))


def _check_and_time(job: DeviceJob) -> Checked | Failure:
    agreement = _checked(job.folder, job.variant, job.shape, job.seed)
    if isinstance(agreement, Failure):
        return agreement
    bench = shape_bench(job.folder, job.shape, job.seed)
    leader = bench.timed_leader(job.leader[0], job.l2, job.leader[1]) if job.leader else None
    raced = race(bench.launches(job.variant, job.l2), leader, writing=bench.writer(job.l2))
    return Checked(agreement, summarize(raced.samples_us), raced.conditions)


def _checked(folder: Path, variant: Variant, shape: Shape, seed: int, edges: bool = True) -> Agreement | Failure:
    """Check a variant; what is wrong on tensors that another may have damaged is checked once more, on fresh ones."""
    while True:
        bench = shape_bench(folder, shape, seed)
        is_fresh = not bench.buffers
        agreement = bench.check(variant, edges)
        if not agreement.mismatched:
            return agreement
        del bench
        _benches.clear()  # whatever was written beside an output may lie in the tensors of any bench
        if is_fresh:
            return Failure(Status.WRONG_OUTPUT, agreement.difference)


def _time_alternately(
    folder: Path, variants: Sequence[Variant], shape: Shape, l2: L2State, seed: int, placements: int
) -> Samples | Faulty:
    for variant in variants:
        agreement = _ended(partial(_checked, folder, variant, shape, seed, edges=False))
        if isinstance(agreement, Failure):
            return Faulty(variant, agreement)
    bench = shape_bench(folder, shape, seed)
    count = 1 if bench.one_placement(l2) else placements
    sets = [[bench.launches(each, l2, number) for each in variants] for number in range(count)]
    if l2 is not L2State.WRITTEN:
        return alternate_over(sets)
    return alternate_over([[*each, [bench.writing(number)]] for number, each in enumerate(sets)], writing=True)


def _ended(work: Callable[[], R], again: bool = True) -> R | Failure:
    """What a piece of work on the device returns, or the status in which whatever it raised ends its variant.

    Work that runs out of memory is done once more, with no bench but its own, made anew.
    """
    try:
        return work()
    except UserError:
        raise
    except OutOfResources as error:
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except HiddenTimeError as error:
        return Failure(Status.TIMED_OUT, str(error))
    except torch.OutOfMemoryError as error:
        failure = Failure(Status.OUT_OF_RESOURCES, str(error))
    except Exception:  # noqa: BLE001 - a launch may raise anything; the session replaces the worker
        return Failure(Status.CRASHED, traceback.format_exc())
    _benches.clear()  # only here, for the error's traceback held the tensors of the bench at work
    if not again:
        return failure
    torch.cuda.empty_cache()
    return _ended(work, again=False)
