"""What the checks of the op cost the host: its host function, less one that only reads what the launch needs.

    python benchmarks/checks.py [--device cuda]

Neither allocates or launches anything, so that this runs on any machine. Python finds an attribute of a tensor faster
or slower by where its name happens to lie in memory: each of some fresh processes takes the median of its rounds.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import load_kernel
from tuner.processes import Failure, WorkerPool, result

KERNEL = "fused_inv_rope_fp8_quant"
TOKENS, HEADS, GROUPS = 8, 64, 8
PROCESSES, ROUNDS, CALLS = 7, 250, 200  # short rounds: few of them meet another process
TIMEOUT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where the inputs lie (default: cpu)")
    print(json.dumps(check_times(parser.parse_args().device), indent=1))


def check_times(device: str) -> dict[str, dict[str, float]]:
    """Microseconds per call, over the processes: of the host function, of the reads alone, and their difference."""
    found: list[dict[str, float]] = []
    for _ in range(PROCESSES):
        with WorkerPool(1) as pool:
            times = result(pool.submit(in_this_process, device, timeout_s=TIMEOUT_S))
        if isinstance(times, Failure):
            sys.exit(f"checks: {times.status}: {times.log}")
        found.append(times)
    return {name: spread([each[name] for each in found]) for name in found[0]}


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def in_this_process(device: str) -> dict[str, float]:
    """The median of the rounds, in which the two take turns."""
    kernel = load_kernel(KERNEL)
    shape = kernel.spec.shape({"num_tokens": TOKENS, "num_heads": HEADS, "n_groups": GROUPS})
    inputs = kernel.spec.make_inputs(shape, device, 0)
    arguments = (inputs["o"], inputs["positions"], inputs["cos_sin_cache"], GROUPS, HEADS // GROUPS)
    call = kernel.host_function.call
    if asked_of_plan(call, arguments) != asked_of_plan(reads_only, arguments):
        sys.exit("reads_only() asks for other outputs or passes other arguments than the op")
    arms = {name: partial(each, Plans(NoPlan()), *arguments) for name, each in (("op", call), ("reads", reads_only))}
    rounds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(ROUNDS + 1):
        for name, arm in arms.items():
            elapsed_us = timed_us(arm)
            if number:  # the first one warms up
                rounds[name].append(elapsed_us)
    differences = [whole - read for whole, read in zip(rounds["op"], rounds["reads"], strict=True)]
    times = {"host_function": rounds["op"], "reads_only": rounds["reads"], "checks": differences}
    return {name: statistics.median(each) for name, each in times.items()}


def timed_us(arm: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        arm()
    return (time.perf_counter() - start) / CALLS * 1e6


class NoPlan:
    """Takes the place of a plan."""

    def empty(self, *_: Any) -> None: ...

    def at(self, _: int) -> Callable[..., None]:
        return launch_nothing


def launch_nothing(*_: Any) -> None: ...


class Plans(dict[Any, Any]):
    """Whatever is asked for, it is the one plan; checks are made as ever."""

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.plan = plan
        self.latest: tuple[Any, Any] = (None, None)

    def add(self, key: Any, *_: Any) -> Any:
        self.latest = (key, self.plan)
        return self.setdefault(key, self.plan)

    def known(self, key: Any) -> Any:
        return self.get(key)


def asked_of_plan(call: Callable[..., Any], arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The outputs that a host function asks for, and the numbers that it launches with."""
    asked: list[tuple[Any, ...]] = []

    class Noting(NoPlan):
        def empty(self, *output: Any) -> None:
            asked.append(output)

        def at(self, size: int) -> Callable[..., None]:
            return lambda *values: asked.append((size, *(each for each in values if not isinstance(each, Tensor))))

    call(Plans(Noting()), *arguments)
    return asked


def reads_only(
    plans: Plans,
    o: Tensor,
    positions: Tensor,
    cos_sin_cache: Tensor,
    n_groups: int,
    heads_per_group: int,
    nope_dim: int = 448,
    rope_dim: int = 64,
    quant_group_size: int = 128,
    tma_aligned_scales: bool = False,
    *,
    scale_rounding: str = "pow2",
    rope_style: str = "interleaved",
) -> tuple[Any, Any]:
    """The op's host function for inputs that are known to be right and have only one plan."""
    plan = plans.plan
    tokens, _, head_dim = o.shape
    stride_token, stride_head, _ = o.stride()
    cache_stride, _ = cos_sin_cache.stride()

    width = heads_per_group * head_dim
    scale_rows = width // quant_group_size
    scale_type = torch.float32
    if tma_aligned_scales:
        scale_rows, scale_type = (scale_rows + 3) // 4, torch.int32
    padded = (tokens + 3) // 4 * 4
    o_fp8 = plan.empty((tokens, n_groups, width), (width, tokens * width, 1), torch.float8_e4m3fn)
    scale_strides = (1, scale_rows * padded, padded)
    o_scale = plan.empty((padded, n_groups, scale_rows), scale_strides, scale_type)
    if padded != tokens:
        o_scale = o_scale.as_strided((tokens, n_groups, scale_rows), scale_strides)
    if tokens:
        plan.at(tokens)(
            tokens, o, positions, cos_sin_cache, o_fp8, o_scale, tokens, stride_token, stride_head, cache_stride,
            width, tokens * width, scale_rows * padded, padded,
        )  # fmt: skip
    return o_fp8, o_scale


if __name__ == "__main__":
    main()
