"""Estimates a launch's time without a GPU, from what the binary needs.

Four times bound a launch from below and hide each other, though not fully:

    memory      bytes moved, those of spills included, over the bandwidth of a large copy, or of the last cache where
                they fit into it
    arithmetic  floating point operations over one per lane and cycle
    issue       instructions of all warps over the issue rate
    programs    waves of programs, each as long as its instructions in sequence

The estimate is their 4-norm, a little over the largest, plus what nothing hides:

    start       of a kernel
    rounds      half a memory latency for each time that a wave asks for as many bytes as its code can at once
    stores      the cycles of each store instruction, which grow as stores narrow
    turns       a share of the memory's time where few programs are at work on a unit and wait at the same time

A program runs its code as often as `repeats` says. Where that is unknown, the code's accesses tell: if they touch fewer
bytes than the program's share of the traffic, they run as often as needed.

The limits are the vendors' published ones. The constants below `DEVICE_MODELS` were fitted to measurements of one
kernel on an H100 (docs/estimates.md). An estimate ranks variants; it is never shown as a measurement.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.catalog import KernelSpec
from tuner.compile.builder import Built
from tuner.processes import Failure
from tuner.records import Binary, Config, Shape, Status, Target, Timing


@dataclass(frozen=True)
class DeviceModel:
    """Limits of one GPU; a `unit` is a streaming multiprocessor or compute unit.

    The cache is the last one that all units share, on CDNA the Infinity Cache.
    """

    name: str
    units: int
    clock_hz: float
    bandwidth_bytes_s: float
    cache_bytes: int
    cache_bandwidth_bytes_s: float
    registers_per_unit: int
    shared_bytes_per_unit: int
    shared_bytes_per_program: int
    warps_per_unit: int
    programs_per_unit: int
    issue_per_clock: float
    start_us: float = 0.4
    latency_us: float = 0.8
    reserved_shared_bytes: int = 1024
    lanes: int = 128


# Triton's own, where a config names no number.
_DEFAULT_WARPS = 4
_MB = 1 << 20
_KB = 1 << 10
_CUDA = (64, 32, 4.0)
_CDNA = (32, 32, 4.0, 1.0, 1.0, 0)
DEVICE_MODELS = {
    "cuda:80": DeviceModel("A100 SXM", 108, 1.4e9, 1.7e12, 40 * _MB, 4e12, 65536, 164 * _KB, 163 * _KB, *_CUDA),
    "cuda:89": DeviceModel("L40S", 142, 2.2e9, 0.75e12, 96 * _MB, 4e12, 65536, 100 * _KB, 99 * _KB, 48, 24, 4.0),
    "cuda:90": DeviceModel("H100 SXM", 132, 1.98e9, 3.0e12, 50 * _MB, 5.5e12, 65536, 228 * _KB, 227 * _KB, *_CUDA),
    "cuda:100": DeviceModel("B200", 148, 1.8e9, 7.0e12, 126 * _MB, 10e12, 65536, 228 * _KB, 227 * _KB, *_CUDA),
    "hip:gfx942": DeviceModel("MI300X", 304, 2.1e9, 4.3e12, 256 * _MB, 10e12, 131072, 64 * _KB, 64 * _KB, *_CDNA),
    "hip:gfx950": DeviceModel("MI355X", 256, 2.4e9, 6.8e12, 256 * _MB, 10e12, 131072, 160 * _KB, 160 * _KB, *_CDNA),
}
# Cycles from one instruction of a warp to the next that needs its result, on average.
_CYCLES_EACH = 5.3
# Cycles of a unit for a store instruction of one warp.
_STORE_CYCLES = 0.65
# Share of a memory latency that shows in each round of accesses.
_SHOWN_LATENCY = 0.5
# Share of the memory's time that is lost when a unit holds a single program; n programs lose an n-th of it.
_LOST_ALONE = 0.25
_NORM = 4
# From so many waves on, a last one that is not full no longer shows.
_MANY_WAVES = 4


def programs_at_once(binary: Binary, num_warps: int, target: Target) -> int:
    """How many programs fit on the device together; 0 when one does not fit at all."""
    device = DEVICE_MODELS[str(target)]
    if binary.shared_bytes > device.shared_bytes_per_program:
        return 0
    threads = num_warps * target.warp_size
    registers = max(binary.registers, 1) * threads
    by_shared = (
        device.shared_bytes_per_unit // (binary.shared_bytes + device.reserved_shared_bytes)
        if binary.shared_bytes
        else math.inf
    )
    per_unit = min(
        device.programs_per_unit, device.warps_per_unit // num_warps, device.registers_per_unit // registers, by_shared
    )
    return int(per_unit) * device.units


def estimate(
    binary: Binary,
    programs: int,
    num_warps: int,
    bytes_moved: int,
    flops: int,
    target: Target,
    repeats: float | None = None,
) -> Timing | None:
    """The estimated time of one launch; None when a program needs more than the device has.

    `repeats`: how often a program runs its code; without it the traffic decides.
    """
    device = DEVICE_MODELS[str(target)]
    at_once = programs_at_once(binary, num_warps, target)
    if at_once == 0:
        return None
    threads = programs * num_warps * target.warp_size
    moved = bytes_moved + 8 * binary.spills * threads
    touched = threads * (_bytes(binary.load_bytes) + _bytes(binary.store_bytes))
    rounds = max(1.0, moved / touched if touched else 1.0)
    runs = rounds if repeats is None else repeats
    waves = max(1.0, programs / at_once)
    waves = math.ceil(waves) if waves < _MANY_WAVES else waves
    cycle_us = 1e6 / device.clock_hz
    warps = math.ceil(programs / device.units) * num_warps  # of the unit with the most
    memory_us = _memory_us(moved, device)
    bounds_us = (
        memory_us,
        flops / (min(device.units, programs) * device.lanes) * cycle_us,
        warps * binary.instructions * runs / device.issue_per_clock * cycle_us,
        waves * binary.instructions * runs * _CYCLES_EACH * cycle_us,
    )
    shown_us = (
        device.start_us,
        waves * rounds * device.latency_us * _SHOWN_LATENCY,
        warps * sum(binary.store_bytes.values()) * runs * _STORE_CYCLES * cycle_us,
        memory_us * _LOST_ALONE * device.units / at_once,
    )
    time_us = sum(bound_us**_NORM for bound_us in bounds_us) ** (1 / _NORM) + sum(shown_us)
    return Timing(time_us, time_us, time_us, 1)


def estimate_launch(
    spec: KernelSpec, config: Config, shape: Shape, built: Built, programs: int, target: Target
) -> Timing | Failure:
    """The estimated time of so many programs of a built variant at a shape.

    A Failure when a program needs more than the device has; KeyError for a target that has no model.
    """
    binary, warps = built.binary, config.options.get("num_warps", _DEFAULT_WARPS)
    timing = estimate(binary, programs, warps, spec.bytes_moved(shape), spec.flops(shape), target, built.repeats)
    if timing is None:
        needs = f"{binary.registers} registers, {binary.shared_bytes} bytes shared, {warps} warps: too much"
        return Failure(Status.OUT_OF_RESOURCES, needs)
    return timing


def _memory_us(moved: int, device: DeviceModel) -> float:
    """The time of `moved` bytes, of which the cache still holds all up to half its size, and none from its size on."""
    cached = min(1.0, max(0.0, 2 - 2 * moved / device.cache_bytes))
    return moved * (cached / device.cache_bandwidth_bytes_s + (1 - cached) / device.bandwidth_bytes_s) * 1e6


def _bytes(accesses: Mapping[str, int]) -> int:
    """What one thread touches with instructions that are counted by their bytes."""
    return sum(int(width) * count for width, count in accesses.items())
