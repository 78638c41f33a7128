"""Estimates a launch's time without a GPU, from what the binary needs.

Four times bound a launch from below:

    memory      bytes moved, those of spills included, over the bandwidth of a large copy
    arithmetic  floating point operations over one per lane and cycle
    issue       instructions of all warps over the issue rate
    latency     waves of programs, each as long as one access to memory and its own instructions in sequence

They overlap, but not fully: the estimate is their 4-norm, a little over the largest, plus the start of a kernel.
Where a program's accesses touch fewer bytes than its share of the traffic, its code holds a loop that runs as often as
needed.

The limits are the vendors' published ones. `_CYCLES_EACH` and the norm were fitted to 517 measured binaries on an H100
(docs/estimates.md). An estimate ranks variants; it is never shown as a measurement.
"""

import math
from dataclasses import dataclass

from tuner.records import Binary, Target, Timing


@dataclass(frozen=True)
class DeviceModel:
    """Limits of one GPU; a `unit` is a streaming multiprocessor or compute unit."""

    name: str
    units: int
    clock_hz: float
    bandwidth_bytes_s: float
    registers_per_unit: int
    shared_bytes_per_unit: int
    shared_bytes_per_program: int
    warps_per_unit: int
    programs_per_unit: int
    issue_per_clock: float
    start_us: float = 0.5
    latency_us: float = 0.8
    reserved_shared_bytes: int = 1024
    lanes: int = 128


_H100 = DeviceModel("H100 SXM", 132, 1.7e9, 3.0e12, 65536, 228 << 10, 227 << 10, 64, 32, 4.0)
_MI300X = DeviceModel("MI300X", 304, 2.1e9, 4.3e12, 131072, 64 << 10, 64 << 10, 32, 32, 4.0, 1.0, 1.0, 0)
DEVICE_MODELS = {
    "cuda:80": DeviceModel("A100 SXM", 108, 1.4e9, 1.7e12, 65536, 164 << 10, 163 << 10, 64, 32, 4.0),
    "cuda:89": DeviceModel("L40S", 142, 2.2e9, 0.75e12, 65536, 100 << 10, 99 << 10, 48, 24, 4.0),
    "cuda:90": _H100,
    "cuda:100": DeviceModel("B200", 148, 1.8e9, 7.0e12, 65536, 228 << 10, 227 << 10, 64, 32, 4.0),
    "hip:gfx942": _MI300X,
    "hip:gfx950": DeviceModel("MI355X", 256, 2.4e9, 6.8e12, 131072, 160 << 10, 160 << 10, 32, 32, 4.0, 1.0, 1.0, 0),
}
# Cycles from one instruction of a warp to the next that needs its result, on average.
_CYCLES_EACH = 6.0
_NORM = 4
# From so many waves on, a last one that is not full no longer shows.
_MANY_WAVES = 4


def device_model(target: Target) -> DeviceModel:
    """The device that stands for a target; KeyError never, for every known target has one."""
    return DEVICE_MODELS[str(target)]


def programs_at_once(binary: Binary, num_warps: int, target: Target) -> int:
    """How many programs fit on the device together; 0 when one does not fit at all."""
    device = device_model(target)
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
    binary: Binary, programs: int, num_warps: int, bytes_moved: int, flops: int, target: Target
) -> Timing | None:
    """The estimated time of one launch; None when a program needs more than the device has."""
    device = device_model(target)
    at_once = programs_at_once(binary, num_warps, target)
    if at_once == 0:
        return None
    warps = programs * num_warps
    threads = warps * target.warp_size
    moved = bytes_moved + 8 * binary.spills * threads
    touched = threads * sum(int(width) * count for width, count in _accesses(binary))
    instructions = binary.instructions * max(1.0, moved / touched if touched else 1.0)
    units_hz = min(device.units, programs) * device.clock_hz
    waves = max(1.0, programs / at_once)
    program_us = device.latency_us + instructions * _CYCLES_EACH / device.clock_hz * 1e6
    bounds_us = (
        moved / device.bandwidth_bytes_s * 1e6,
        flops / (units_hz * device.lanes) * 1e6,
        instructions * warps / (units_hz * device.issue_per_clock) * 1e6,
        (math.ceil(waves) if waves < _MANY_WAVES else waves) * program_us,
    )
    time_us = device.start_us + sum(bound_us**_NORM for bound_us in bounds_us) ** (1 / _NORM)
    return Timing(time_us, time_us, time_us, 1)


def _accesses(binary: Binary) -> list[tuple[str, int]]:
    """Bytes per thread and number of the instructions that load or store."""
    return [*binary.load_bytes.items(), *binary.store_bytes.items()]
