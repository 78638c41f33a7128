"""Estimates a launch's time without a GPU: a roofline over what the binary needs.

The time is the largest of four, plus the cost of starting a kernel:

    memory      bytes over the bandwidth that the launch can reach: by Little's law no more than the bytes in flight
                over the latency of device memory; bytes that spills move are added
    arithmetic  floating point operations over one per lane and cycle
    issue       instructions of all warps over the issue rate; a loop's body counts once, so this is a lower bound
    access      global memory instructions of all warps over the rate of the load/store units

Programs run in waves of as many as fit on the device at once; a last wave that is not full costs as much as a full one.
The limits are the vendors' published ones; bandwidth is what a large copy reaches. An estimate ranks variants; it is
never shown as a measurement.
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
    start_us: float = 2.0
    latency_us: float = 0.8
    reserved_shared_bytes: int = 1024
    lanes: int = 128


_H100 = DeviceModel("H100 SXM", 132, 1.7e9, 3.0e12, 65536, 228 << 10, 227 << 10, 64, 32, 4.0)
_MI300X = DeviceModel("MI300X", 304, 2.1e9, 4.3e12, 131072, 64 << 10, 64 << 10, 32, 32, 4.0, 4.0, 1.0, 0)
DEVICE_MODELS = {
    "cuda:80": DeviceModel("A100 SXM", 108, 1.4e9, 1.7e12, 65536, 164 << 10, 163 << 10, 64, 32, 4.0),
    "cuda:89": DeviceModel("L40S", 142, 2.2e9, 0.75e12, 65536, 100 << 10, 99 << 10, 48, 24, 4.0),
    "cuda:90": _H100,
    "cuda:100": DeviceModel("B200", 148, 1.8e9, 7.0e12, 65536, 228 << 10, 227 << 10, 64, 32, 4.0),
    "hip:gfx942": _MI300X,
    "hip:gfx950": DeviceModel("MI355X", 256, 2.4e9, 6.8e12, 131072, 160 << 10, 160 << 10, 32, 32, 4.0, 4.0, 1.0, 0),
}
# Load/store units take one 128-byte request of a warp per cycle and unit; wider ones take several.
_REQUEST_BYTES = 128


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
    rounds = programs / min(programs, at_once)
    memory_us = max(moved / device.bandwidth_bytes_s * 1e6, rounds * device.latency_us)
    busy_units = min(device.units, programs)
    issue_us = binary.instructions * warps / (busy_units * device.issue_per_clock * device.clock_hz) * 1e6
    arithmetic_us = flops / (busy_units * device.lanes * device.clock_hz) * 1e6
    accesses = {**binary.load_bytes}
    for width, count in binary.store_bytes.items():
        accesses[width] = accesses.get(width, 0) + count
    requests = sum(
        count * max(1.0, int(width) * target.warp_size / _REQUEST_BYTES) for width, count in accesses.items()
    )
    access_us = requests * warps / (busy_units * device.clock_hz) * 1e6
    waves = programs / at_once
    tail = math.ceil(waves) / waves if waves > 1 else 1.0
    # A long run of waves overlaps: only the last one's idle part is lost.
    time_us = device.start_us + device.latency_us + max(memory_us, issue_us, arithmetic_us, access_us) * tail
    return Timing(time_us, time_us, time_us, 1)
