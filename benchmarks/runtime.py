"""What a call of the op costs the host, and that it stays right and compiles nothing under load. Needs a GPU.

    python benchmarks/runtime.py [--load-s 60] [-o FILE]

Arms of the host times run in turn, round by round; a time is the median of the rounds, a ratio the median of their
ratios. The GPU keeps up with every arm, so that nobody waits for it. What needs no GPU is in `benchmarks/lookup.py`.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from checks import check_times
from first_call import first_calls
from torch import Tensor

import tuner
from tuner.catalog import load_kernel
from tuner.compile.module import load_variant
from tuner.measure.environment import device_environment
from tuner.records import Shape
from tuner.runtime.dispatch import Plan
from tuner.runtime.launcher import Launcher
from tuner.runtime.op import Op
from tuner.verify.agreement import compare
from tuner.workload import load_workload

KERNEL = "fused_inv_rope_fp8_quant"
DEVICE = "cuda"
HEADS, GROUPS, DIM, ROPE = 64, 8, 512, 64
SIZES = {"num_heads": HEADS, "n_groups": GROUPS}
TOKENS = 8
ROUNDS, CALLS = 25, 400
STEPS = 2000
THREADS, STREAMS = 8, 2
LOAD_TOKENS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load-s", type=float, default=60.0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/runtime.py needs a GPU")
    op = tuner.load_op(KERNEL)
    steps = step_sizes()
    report = op.warmup(max_num_tokens=max(*steps, LOAD_TOKENS), **SIZES)
    print(report, file=sys.stderr)
    where = device_environment()
    found = {
        "environment": {"device": where.device, "torch": where.torch, "triton": where.triton, "driver": where.driver},
        "command": " ".join(["python benchmarks/runtime.py", *sys.argv[1:]]),
        "warmup": {"binaries": len(report.binaries), "seconds": round(report.seconds, 2)},
        "host": host_times(op),
        "checks_us": check_times(DEVICE),
        "first_call": first_calls(KERNEL, SIZES),
        "replay": replay(op, steps),
        "load": under_load(op, options.load_s),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def make_inputs(tokens: int) -> dict[str, Tensor]:
    return dict(load_kernel(KERNEL).spec.make_inputs(shape(tokens), DEVICE, 0))


def shape(tokens: int) -> Shape:
    return load_kernel(KERNEL).spec.shape({"num_tokens": tokens, **SIZES})


def host_times(op: Op) -> dict[str, Any]:
    """Microseconds of host time per call at 8 tokens, and the ratios that count."""
    inputs = make_inputs(TOKENS)
    call = partial(op, inputs["o"], inputs["positions"], inputs["cos_sin_cache"], GROUPS, HEADS // GROUPS)
    call()
    arms = {
        "op": call,
        **call_arms(op, inputs),
        **launch_arms(op, inputs),
    }
    rounds: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        timed(arm)  # warms up
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            rounds[name].append(timed(arm))
    ratios = {
        "op / upstream_call": ratio(rounds["op"], rounds["upstream_call"]),
        "launch / jit_launch": ratio(rounds["launch"], rounds["jit_launch"]),
        "launch / jit_launch_of_baseline": ratio(rounds["launch"], rounds["jit_launch_of_baseline"]),
        "launch / cuLaunchKernel": ratio(rounds["launch"], rounds["cuLaunchKernel"]),
    }
    return {"num_tokens": TOKENS, "us": {name: spread(each) for name, each in rounds.items()}, "ratios": ratios}


def timed(arm: Callable[[], Any]) -> float:
    """Microseconds per call."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        arm()
    elapsed = time.perf_counter() - start
    torch.cuda.synchronize()
    return elapsed / CALLS * 1e6


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def ratio(first: list[float], second: list[float]) -> dict[str, float]:
    return spread([one / other for one, other in zip(first, second, strict=True)])


def call_arms(op: Op, inputs: dict[str, Tensor]) -> dict[str, Callable[[], Any]]:
    """The upstream call path, the operator's dispatch, and the allocations of both."""
    tensors = (inputs["o"], inputs["positions"], inputs["cos_sin_cache"])
    sizes = (GROUPS, HEADS // GROUPS)
    width, rows, padded = HEADS // GROUPS * DIM, HEADS // GROUPS * DIM // 128, (TOKENS + 3) // 4 * 4
    empty = op.plans.of(None, SIZES).empty

    def allocate_upstream() -> tuple[Tensor, Tensor]:
        fp8 = torch.empty((GROUPS, TOKENS, width), dtype=torch.float8_e4m3fn, device=DEVICE).transpose(0, 1)
        flat = torch.empty(GROUPS * rows * padded, dtype=torch.float32, device=DEVICE)
        return fp8, flat.as_strided((TOKENS, GROUPS, rows), (1, rows * padded, padded))

    def allocate() -> None:
        empty((TOKENS, GROUPS, width), (width, TOKENS * width, 1), torch.float8_e4m3fn)
        empty((padded, GROUPS, rows), (1, rows * padded, padded), torch.float32)

    return {
        "upstream_call": partial(upstream_op(allocate_upstream), *tensors, *sizes),
        "op_through_dispatcher": partial(torch.ops.tuner.fused_inv_rope_fp8_quant, *tensors, *sizes),
        "allocation": allocate,
        "upstream_allocation": allocate_upstream,
    }


def upstream_op(allocate: Callable[[], tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """The baseline as serving engines call it: a custom op that allocates, makes views and launches by Triton's JIT."""
    kernel = load_kernel(KERNEL)
    baseline = load_variant(kernel, kernel.spec.baseline_variant)
    function, options = baseline.function, baseline.options

    @torch.library.custom_op("tuner_benchmark::upstream", mutates_args=())
    def call(
        o: Tensor, positions: Tensor, cos_sin_cache: Tensor, n_groups: int, heads_per_group: int
    ) -> tuple[Tensor, Tensor]:
        fp8, scale = allocate()
        tokens, heads = o.shape[0], o.shape[1]
        function[((tokens + 3) // 4 * 4, heads)](
            o, positions, cos_sin_cache, fp8, scale, tokens, o.stride(0), o.stride(1), cos_sin_cache.stride(0),
            fp8.stride(0), fp8.stride(1), scale.stride(1), scale.stride(2),
            HEADS_PER_GROUP=heads_per_group, NOPE_DIM=DIM - ROPE, ROPE_DIM=ROPE,
            PACKED_SCALES=0, POW2_SCALES=1, NEOX=0, **options,
        )  # fmt: skip
        return fp8, scale

    return call


def launch_arms(op: Op, inputs: dict[str, Tensor]) -> dict[str, Callable[[], Any]]:
    """The launch alone: ours, Triton's JIT of the same variant and of the baseline, and the driver's own."""
    kernel = load_kernel(KERNEL)
    spec, outputs = kernel.spec, kernel.spec.make_outputs(shape(TOKENS), DEVICE)
    launcher = launcher_at(op.plans.of(None, SIZES), TOKENS)
    arms: dict[str, Callable[[], Any]] = {}
    for name, variant in (("jit_launch", launcher.variant), ("jit_launch_of_baseline", spec.baseline_variant)):
        launch = spec.launch(inputs, outputs, shape(TOKENS), variant.config)
        loaded = load_variant(kernel, variant)
        arms[name] = partial(loaded.function[launch.grid], **launch.arguments, **loaded.options)
    launch = spec.launch(inputs, outputs, shape(TOKENS), launcher.variant.config)
    values = [launch.arguments[name] for name in kernel.host_function.arguments]
    loaded = load_variant(kernel, launcher.variant)
    compiled = loaded.function[launch.grid](**launch.arguments, **loaded.options)
    arms["launch"] = partial(launcher.launch, TOKENS, *values)
    arms["cuLaunchKernel"] = driver_launch(compiled, launch.grid, launch.arguments)
    return arms


def launcher_at(plan: Plan, tokens: int) -> Launcher:
    found = plan.launcher(tokens)
    assert isinstance(found, Launcher)
    return found


def driver_launch(compiled: Any, grid: tuple[int, ...], arguments: Any) -> Callable[[], Any]:
    """`cuLaunchKernel` through ctypes with arguments that are ready: the least that Python can do."""
    kinds = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}
    values: list[Any] = []
    for name, kind in compiled.src.signature.items():
        if kind != "constexpr":
            value = arguments[name]
            is_pointer = kind.startswith("*")
            values.append(ctypes.c_uint64(value.data_ptr()) if is_pointer else kinds[kind](value))
    values += [ctypes.c_uint64(0)] * 2  # scratch memory, of which these kernels use none
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(each) for each in values))
    metadata = compiled.metadata
    x, y, z = (*grid, 1, 1)[:3]
    block = (32 * metadata.num_warps, 1, 1)
    function, stream = ctypes.c_void_p(compiled.function), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    launch = ctypes.CDLL("libcuda.so.1").cuLaunchKernel

    def call(alive: Any = values) -> None:  # the pointers lead to `values`
        error = launch(function, x, y, z, *block, metadata.shared, stream, pointers, None)
        if error:
            raise RuntimeError(f"cuLaunchKernel: error {error}")

    return call


def step_sizes() -> list[int]:
    """Tokens of the first steps of the shipped conversation workload."""
    return [step.num_tokens for step in load_workload("azure_conversation").steps[:STEPS]]


def replay(op: Op, sizes: list[int]) -> dict[str, Any]:
    """Every step once, in order, after the warm-up; the allocator has memory for the largest."""
    inputs = make_inputs(max(sizes))
    o, positions, cache = inputs["o"], inputs["positions"], inputs["cos_sin_cache"]
    op(o, positions, cache, GROUPS, HEADS // GROUPS)
    torch.cuda.synchronize()
    host_us, step_us = [], []
    with tuner.jit_monitor() as monitor:
        for size in sizes:
            arguments = (o[:size], positions[:size], cache, GROUPS, HEADS // GROUPS)
            start = time.perf_counter()
            op(*arguments)
            called = time.perf_counter()
            torch.cuda.synchronize()
            host_us.append((called - start) * 1e6)
            step_us.append((time.perf_counter() - start) * 1e6)
    return {
        "steps": len(sizes),
        "distinct_sizes": len(set(sizes)),
        "compiles": monitor.count,
        "fallbacks": op.counts["fallbacks"],
        "host_us": slowest(host_us, sizes),
        "until_the_gpu_is_done_us": slowest(step_us, sizes),
    }


def slowest(times_us: list[float], sizes: list[int]) -> dict[str, Any]:
    """Median and slowest step, and those that took more than twice the median."""
    median_us, largest_us = statistics.median(times_us), max(times_us)
    step = times_us.index(largest_us)
    return {
        "median": round(median_us, 2),
        "slowest": round(largest_us, 2),
        "slowest_step": {"number": step, "num_tokens": sizes[step]},
        "over_twice_the_median": sum(each > 2 * median_us for each in times_us),
    }


def under_load(op: Op, seconds: float) -> dict[str, Any]:
    """Random sizes from 8 threads on 2 streams; every output must have the bits of its variant's checked output.

    After each quarter of the time all threads rest, so that nothing but inputs and checked outputs is in use: memory
    that is allocated then and was not at the start is a leak. What PyTorch's allocator has reserved may still grow, as
    it keeps the pieces into which outputs of all sizes cut its blocks.
    """
    inputs = make_inputs(LOAD_TOKENS)
    load = Load(op, inputs, checked_outputs(op, inputs))
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    with tuner.jit_monitor() as monitor:
        memory = load.run(seconds)
    return {
        "threads": THREADS,
        "streams": STREAMS,
        "seconds": seconds,
        "calls": sum(load.calls),
        "wrong_elements": sum(load.wrong),
        "compiles": monitor.count,
        "memory_mib": memory,
    }


class Load:
    """Threads that call an op, and rest together after each quarter of the time."""

    def __init__(self, op: Op, inputs: dict[str, Tensor], right: dict[int, tuple[Tensor, Tensor]]) -> None:
        self.op, self.inputs, self.right = op, inputs, right
        self.calls, self.wrong = [0] * THREADS, [0] * THREADS
        self._plan = op.plans.of(None, SIZES)
        self._streams = [torch.cuda.Stream() for _ in range(STREAMS)]
        self._rest = threading.Barrier(THREADS + 1)
        self._end = 0.0
        self._errors: list[str] = []

    def run(self, seconds: float) -> dict[str, dict[str, float]]:
        """MiB in use when all threads rest: at the start and after each quarter; ends the program where one fails."""
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        memory = {}
        try:
            self._rest.wait()
            for moment in ("start", "quarter", "half", "three_quarters", "end"):
                self._rest.wait()
                torch.cuda.synchronize()
                memory[moment] = memory_mib()
                self._end = time.perf_counter() + seconds / 4
                self._rest.wait()
        except threading.BrokenBarrierError:
            pass  # a thread failed, and says why
        for thread in threads:
            thread.join()
        if self._errors:
            sys.exit(f"under load: {self._errors[0]}")
        return memory

    def _work(self, number: int) -> None:
        try:
            with torch.cuda.stream(self._streams[number % STREAMS]):
                self._hold_largest()
                drawn = random.Random(number)
                for _ in range(4):
                    self._pause()
                    self._call_until_end(number, drawn)
                self._pause()
        except threading.BrokenBarrierError:
            pass  # another thread failed
        except Exception as error:  # noqa: BLE001 - a thread's failure must fail the benchmark
            self._errors.append(repr(error))
            self._rest.abort()

    def _pause(self) -> None:
        """Come to rest, and go on when memory was read."""
        torch.cuda.current_stream().synchronize()
        self._rest.wait()
        self._rest.wait()

    def _hold_largest(self) -> None:
        """Have memory for the largest call, and what compares its outputs, of all threads at once."""
        outputs = self._call(LOAD_TOKENS)
        held = [outputs, *(torch.empty_like(each, dtype=torch.bool) for each in outputs)]
        self._rest.wait()
        del held

    def _call(self, tokens: int) -> tuple[Tensor, Tensor]:
        o, positions, cache = self.inputs["o"], self.inputs["positions"], self.inputs["cos_sin_cache"]
        found: tuple[Tensor, Tensor] = self.op(o[:tokens], positions[:tokens], cache, GROUPS, HEADS // GROUPS)
        return found

    def _call_until_end(self, number: int, drawn: random.Random) -> None:
        """Count calls, and elements that were wrong."""
        wrong = torch.zeros((), dtype=torch.int64, device=DEVICE)
        while time.perf_counter() < self._end:
            for _ in range(20):
                tokens = min(LOAD_TOKENS, int(drawn.expovariate(1 / 200)) + 1)
                o_fp8, o_scale = self._call(tokens)
                fp8, scale = self.right[id(self._plan.launcher(tokens))]
                wrong += (o_fp8.view(torch.uint8) != fp8[:tokens]).sum()
                wrong += (o_scale.view(torch.int32) != scale[:tokens]).sum()
                self.calls[number] += 1
            torch.cuda.current_stream().synchronize()
        self.wrong[number] += int(wrong)


def memory_mib() -> dict[str, float]:
    """In use by tensors, reserved by PyTorch's allocator, and the process's own on the host."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sizes = {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "resident": pages * os.sysconf("SC_PAGE_SIZE"),
    }
    return {name: round(size / 2**20, 2) for name, size in sizes.items()}


def checked_outputs(op: Op, inputs: dict[str, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """By launcher its outputs at the largest size, [T, G, d] and [T, G, S] as bytes, held against the reference.

    A token's results do not depend on the number of tokens, so that these hold for every size.
    """
    kernel, size = load_kernel(KERNEL), shape(LOAD_TOKENS)
    plan, reference = op.plans.of(None, SIZES), kernel.spec.reference
    assert reference is not None
    expected, found = reference(inputs, size), {}
    for tokens in range(1, LOAD_TOKENS + 1):
        launcher = launcher_at(plan, tokens)
        if id(launcher) not in found:
            outputs = kernel.spec.make_outputs(size, DEVICE)
            arguments = kernel.spec.launch(inputs, outputs, size, launcher.variant.config).arguments
            launcher.launch(LOAD_TOKENS, *(arguments[name] for name in kernel.host_function.arguments))
            agreement = compare(outputs, expected, kernel.spec.tolerances)
            if agreement.mismatched:
                sys.exit(f"{launcher.variant.config.label}: {agreement.detail}")
            scale = outputs["o_scale"].permute(2, 0, 1)[:LOAD_TOKENS].view(torch.int32)
            found[id(launcher)] = (outputs["o_fp8"].transpose(0, 1).view(torch.uint8), scale)
    return found


if __name__ == "__main__":
    main()
