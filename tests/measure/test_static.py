"""The roofline estimate: what it may never do, whatever the binary."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.static import DEVICE_MODELS, estimate, programs_at_once
from tuner.records import KNOWN_TARGETS, Binary, FrozenMapping, Target

targets = st.sampled_from(KNOWN_TARGETS).map(Target.parse)
widths = st.dictionaries(st.sampled_from(["1", "2", "4", "8", "16"]), st.integers(0, 64)).map(FrozenMapping)
binaries = st.builds(
    Binary,
    digest=st.just("0"),
    specialization_key=st.just(""),
    registers=st.integers(0, 128),
    spills=st.integers(0, 200),
    shared_bytes=st.integers(0, 60_000),
    instructions=st.integers(1, 20_000),
    load_bytes=widths,
    store_bytes=widths,
    compile_s=st.just(0.0),
)
# A kernel, its grid and its traffic; every one of them fits each device.
launches: dict[str, Any] = {
    "binary": binaries,
    "programs": st.integers(1, 1_000_000),
    "num_warps": st.sampled_from([1, 2, 4, 8]),
    "bytes_moved": st.integers(1, 10**11),
    "flops": st.integers(0, 10**13),
    "target": targets,
}
SMALL = Binary("0", "", 32, 0, 0, 100, FrozenMapping({"16": 2}), FrozenMapping({"16": 1}), 0.0)
H100 = Target("cuda", "90")


def time_us(binary: Binary, programs: int, num_warps: int, bytes_moved: int, flops: int, target: Target) -> float:
    timing = estimate(binary, programs, num_warps, bytes_moved, flops, target)
    assert timing is not None
    assert timing.low_us == timing.median_us == timing.high_us
    assert timing.count == 1
    return timing.median_us


def test_every_known_target_has_a_device() -> None:
    assert set(DEVICE_MODELS) == set(KNOWN_TARGETS)
    for text in KNOWN_TARGETS:
        device = DEVICE_MODELS[text]
        assert device.shared_bytes_per_program <= device.shared_bytes_per_unit


@given(**launches)
def test_never_faster_than_the_memory(
    binary: Binary, programs: int, num_warps: int, bytes_moved: int, flops: int, target: Target
) -> None:
    device = DEVICE_MODELS[str(target)]
    bandwidth = device.cache_bandwidth_bytes_s if bytes_moved < device.cache_bytes else device.bandwidth_bytes_s
    floor_us = bytes_moved / bandwidth * 1e6 + device.start_us
    assert time_us(binary, programs, num_warps, bytes_moved, flops, target) >= floor_us * (1 - 1e-9)


@given(**launches, more=st.integers(1, 10**11))
def test_more_bytes_are_never_faster(
    binary: Binary, programs: int, num_warps: int, bytes_moved: int, flops: int, target: Target, more: int
) -> None:
    before = time_us(binary, programs, num_warps, bytes_moved, flops, target)
    assert time_us(binary, programs, num_warps, bytes_moved + more, flops, target) >= before * (1 - 1e-9)


@given(**launches, more=st.integers(1, 10**13))
def test_more_arithmetic_is_never_faster(
    binary: Binary, programs: int, num_warps: int, bytes_moved: int, flops: int, target: Target, more: int
) -> None:
    before = time_us(binary, programs, num_warps, bytes_moved, flops, target)
    assert time_us(binary, programs, num_warps, bytes_moved, flops + more, target) >= before * (1 - 1e-9)


@given(**launches, field=st.sampled_from(["spills", "instructions"]), more=st.integers(1, 500))
def test_more_spills_or_instructions_are_never_faster(
    binary: Binary, programs: int, num_warps: int, bytes_moved: int, flops: int, target: Target, field: str, more: int
) -> None:
    needier = dataclasses.replace(binary, **{field: getattr(binary, field) + more})
    before = time_us(binary, programs, num_warps, bytes_moved, flops, target)
    assert time_us(needier, programs, num_warps, bytes_moved, flops, target) >= before * (1 - 1e-9)


@given(**launches, repeats=st.floats(1, 100), more=st.floats(0, 100))
def test_more_repeats_are_never_faster(
    binary: Binary,
    programs: int,
    num_warps: int,
    bytes_moved: int,
    flops: int,
    target: Target,
    repeats: float,
    more: float,
) -> None:
    launch = binary, programs, num_warps, bytes_moved, flops, target
    fewer, many = estimate(*launch, repeats), estimate(*launch, repeats + more)
    assert fewer is not None
    assert many is not None
    assert many.median_us >= fewer.median_us * (1 - 1e-9)


def test_each_limit_can_be_the_one_that_counts() -> None:
    base = time_us(SMALL, 10_000, 4, 10**8, 0, H100)
    assert time_us(SMALL, 10_000, 4, 2 * 10**8, 0, H100) > base * 1.5
    assert time_us(SMALL, 10_000, 4, 10**8, 10**10, H100) > base * 1.5
    assert time_us(dataclasses.replace(SMALL, spills=100), 10_000, 4, 10**8, 0, H100) > base * 1.5
    assert time_us(dataclasses.replace(SMALL, instructions=10**5), 10_000, 4, 10**8, 0, H100) > base * 1.5
    crowded = dataclasses.replace(SMALL, shared_bytes=200 << 10)  # 132 programs at once, of 20 bytes each
    assert time_us(crowded, 10_000, 4, 200_000, 0, H100) > time_us(SMALL, 10_000, 4, 200_000, 0, H100) * 1.5


def test_a_loop_is_seen_by_its_traffic() -> None:
    """The same code, whose accesses touch a hundredth of its program's bytes, runs a hundred times as long."""
    once = 10_000 * 4 * 32 * 48  # programs, warps, threads, bytes that one thread touches
    busy = dataclasses.replace(SMALL, instructions=10_000)
    assert time_us(busy, 10_000, 4, 100 * once, 0, H100) > time_us(busy, 10_000, 4, once, 0, H100) * 50


def test_repeats_are_believed_before_the_traffic() -> None:
    """One program whose traffic tells of no loop takes nearly four times as long when told that it has one."""
    busy = dataclasses.replace(SMALL, instructions=10_000)
    once, told = (estimate(busy, 1, 4, 1000, 0, H100, repeats) for repeats in (None, 4.0))
    assert once is not None
    assert told is not None
    assert 3.5 < told.median_us / once.median_us < 4.0


def test_what_fits_into_the_cache_moves_faster() -> None:
    cache = DEVICE_MODELS[str(H100)].cache_bytes
    quarter, half, whole = (time_us(SMALL, 10_000, 4, cache // part, 0, H100) for part in (4, 2, 1))
    assert half < 2 * quarter
    assert whole > 2.5 * half


def test_a_warp_alone_takes_more_than_a_cycle_for_each_instruction() -> None:
    instructions = 10_000
    cycles_us = instructions / DEVICE_MODELS[str(H100)].clock_hz * 1e6
    assert time_us(dataclasses.replace(SMALL, instructions=instructions), 1, 1, 1000, 0, H100) > 2 * cycles_us


def test_code_that_asks_for_more_at_once_waits_less() -> None:
    """The same traffic, of which each program asks for four times as much before it waits."""
    eager = dataclasses.replace(SMALL, load_bytes=FrozenMapping({"16": 11}))
    waiting_us, eager_us = (time_us(each, 1000, 4, 10**8, 0, H100) for each in (SMALL, eager))
    assert waiting_us > 1.1 * eager_us


def test_narrow_stores_take_longer() -> None:
    """Sixteen stores of one byte against one of sixteen, the same bytes."""
    narrow = dataclasses.replace(SMALL, store_bytes=FrozenMapping({"1": 16}))
    assert time_us(narrow, 100_000, 4, 10**8, 0, H100) > time_us(SMALL, 100_000, 4, 10**8, 0, H100) * 1.05


def test_a_program_alone_on_its_unit_leaves_the_memory_idle() -> None:
    """As many warps at once either way: seven programs of one, or one of seven."""
    seven = dataclasses.replace(SMALL, shared_bytes=31 << 10)
    alone = dataclasses.replace(SMALL, shared_bytes=200 << 10)
    assert programs_at_once(seven, 1, H100) == 7 * programs_at_once(alone, 7, H100)
    assert time_us(alone, 10_000, 7, 10**9, 0, H100) > time_us(seven, 70_000, 1, 10**9, 0, H100) * 1.1


@pytest.mark.parametrize("text", KNOWN_TARGETS)
def test_all_shared_memory_can_be_used(text: str) -> None:
    target = Target.parse(text)
    limit = dataclasses.replace(SMALL, shared_bytes=DEVICE_MODELS[str(target)].shared_bytes_per_program)
    assert estimate(limit, 100, 4, 1000, 0, target) is not None


@pytest.mark.parametrize("text", KNOWN_TARGETS)
def test_what_does_not_fit_has_no_time(text: str) -> None:
    target = Target.parse(text)
    device = DEVICE_MODELS[str(target)]
    over = dataclasses.replace(SMALL, shared_bytes=device.shared_bytes_per_program + 1)
    assert estimate(over, 100, 4, 1000, 0, target) is None
    assert programs_at_once(over, 4, target) == 0
    assert estimate(SMALL, 100, 2 * device.warps_per_unit, 1000, 0, target) is None
    greedy = dataclasses.replace(SMALL, registers=device.registers_per_unit // (4 * target.warp_size) + 1)
    assert estimate(greedy, 100, 4, 1000, 0, target) is None


def test_occupancy_on_an_h100_by_hand() -> None:
    assert programs_at_once(SMALL, 4, H100) == 132 * 16  # 64 warps, 65536 registers: 16 programs of 4 warps each
    assert programs_at_once(SMALL, 1, H100) == 132 * 32  # no more than 32 programs
    assert programs_at_once(dataclasses.replace(SMALL, registers=128), 4, H100) == 132 * 4
    assert programs_at_once(dataclasses.replace(SMALL, shared_bytes=100 << 10), 4, H100) == 132 * 2
