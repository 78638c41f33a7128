"""What a call of the op costs the host, and that it stays right and compiles nothing under load. Needs a GPU.

    python benchmarks/runtime.py [--load-s 60] [-o FILE]

Arms of the host times run in turn, round by round; a time is the median of the rounds, a ratio the median of their
ratios. The GPU keeps up with every arm, so that nobody waits for it.
"""

import argparse
import ctypes
import json
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
        "replay": replay(op, steps),
        "load": under_load(op, options.load_s),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def make_inputs(tokens: int) -> dict[str, Tensor]:
    return dict(load_kernel(KERNEL).spec.make_inputs(shape(tokens), "cuda", 0))


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
    """The upstream call path, the operator's dispatch, and what the op does beside launching."""
    tensors = (inputs["o"], inputs["positions"], inputs["cos_sin_cache"])
    sizes = (GROUPS, HEADS // GROUPS)
    width, rows, padded = HEADS // GROUPS * DIM, HEADS // GROUPS * DIM // 128, (TOKENS + 3) // 4 * 4
    kernel = load_kernel(KERNEL)
    empty = op.plans.of(None, SIZES).empty

    class NoPlan:
        """Takes the place of a plan, so that checks and the search for the plan are left."""

        def empty(self, *_: Any) -> None: ...

        def at(self, _: int) -> Callable[..., None]:
            return nothing

    def nothing(*_: Any) -> None: ...

    def allocate_upstream() -> tuple[Tensor, Tensor]:
        fp8 = torch.empty((GROUPS, TOKENS, width), dtype=torch.float8_e4m3fn, device="cuda").transpose(0, 1)
        flat = torch.empty(GROUPS * rows * padded, dtype=torch.float32, device="cuda")
        return fp8, flat.as_strided((TOKENS, GROUPS, rows), (1, rows * padded, padded))

    def allocate() -> None:
        empty((TOKENS, GROUPS, width), (width, TOKENS * width, 1), torch.float8_e4m3fn)
        empty((padded, GROUPS, rows), (1, rows * padded, padded), torch.float32)

    checks = partial(kernel.host_function.call, dict.fromkeys(op.plans, NoPlan()), *tensors, *sizes)
    checks()
    return {
        "upstream_call": partial(upstream_op(allocate_upstream), *tensors, *sizes),
        "op_through_dispatcher": partial(torch.ops.tuner.fused_inv_rope_fp8_quant, *tensors, *sizes),
        "checks": checks,
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
    spec, outputs = kernel.spec, kernel.spec.make_outputs(shape(TOKENS), "cuda")
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
    """Every step once, in order, after the warm-up."""
    inputs = make_inputs(max(sizes))
    o, positions, cache = inputs["o"], inputs["positions"], inputs["cos_sin_cache"]
    torch.cuda.synchronize()
    times_us = []
    with tuner.jit_monitor() as monitor:
        for size in sizes:
            start = time.perf_counter()
            op(o[:size], positions[:size], cache, GROUPS, HEADS // GROUPS)
            times_us.append((time.perf_counter() - start) * 1e6)
            torch.cuda.synchronize()
    ordered = sorted(times_us)
    return {
        "steps": len(sizes),
        "distinct_sizes": len(set(sizes)),
        "compiles": monitor.count,
        "fallbacks": op.counts["fallbacks"],
        "host_us": {"median": round(statistics.median(ordered), 2), "largest": round(ordered[-1], 2)},
    }


def under_load(op: Op, seconds: float) -> dict[str, Any]:
    """Random sizes from 8 threads on 2 streams; every output must have the bits of its variant's checked output."""
    inputs = make_inputs(LOAD_TOKENS)
    right = checked_outputs(op, inputs)
    streams = [torch.cuda.Stream() for _ in range(STREAMS)]
    torch.cuda.synchronize()
    calls, wrong, errors = [0] * THREADS, [0] * THREADS, []
    memory: list[dict[str, int]] = []
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        try:
            with torch.cuda.stream(streams[number % STREAMS]):
                calls[number], wrong[number] = work_until(end, op, inputs, right, number)
        except Exception as error:  # noqa: BLE001 - a thread's failure must fail the benchmark
            errors.append(repr(error))

    with tuner.jit_monitor() as monitor:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for share in (0.25, 0.95):
            time.sleep(max(0.0, end - seconds * (1 - share) - time.perf_counter()))
            memory.append(memory_bytes())
        for thread in threads:
            thread.join()
    if errors:
        sys.exit(f"under load: {errors[0]}")
    growth = {name: memory[1][name] - memory[0][name] for name in memory[0]}
    return {
        "threads": THREADS,
        "streams": STREAMS,
        "seconds": seconds,
        "calls": sum(calls),
        "wrong_elements": sum(wrong),
        "compiles": monitor.count,
        "growth_bytes": growth,
    }


def memory_bytes() -> dict[str, int]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"gpu_reserved": torch.cuda.memory_reserved(), "resident": pages * 4096}


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
            outputs = kernel.spec.make_outputs(size, "cuda")
            arguments = kernel.spec.launch(inputs, outputs, size, launcher.variant.config).arguments
            launcher.launch(LOAD_TOKENS, *(arguments[name] for name in kernel.host_function.arguments))
            agreement = compare(outputs, expected, kernel.spec.tolerances)
            if agreement.mismatched:
                sys.exit(f"{launcher.variant.config.label}: {agreement.detail}")
            scale = outputs["o_scale"].permute(2, 0, 1)[:LOAD_TOKENS].view(torch.int32)
            found[id(launcher)] = (outputs["o_fp8"].transpose(0, 1).view(torch.uint8), scale)
    return found


def work_until(
    end: float, op: Op, inputs: dict[str, Tensor], right: dict[int, tuple[Tensor, Tensor]], seed: int
) -> tuple[int, int]:
    """Calls made, and elements that were wrong."""
    drawn, plan, calls = random.Random(seed), op.plans.of(None, SIZES), 0
    o, positions, cache = inputs["o"], inputs["positions"], inputs["cos_sin_cache"]
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    while time.perf_counter() < end:
        for _ in range(20):
            tokens = min(LOAD_TOKENS, int(drawn.expovariate(1 / 200)) + 1)
            o_fp8, o_scale = op(o[:tokens], positions[:tokens], cache, GROUPS, HEADS // GROUPS)
            fp8, scale = right[id(plan.launcher(tokens))]
            wrong += (o_fp8.view(torch.uint8) != fp8[:tokens]).sum()
            wrong += (o_scale.view(torch.int32) != scale[:tokens]).sum()
            calls += 1
        torch.cuda.current_stream().synchronize()
    return calls, int(wrong)


if __name__ == "__main__":
    main()
