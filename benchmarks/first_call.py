"""How long the first call of the op takes with binaries from a bundle, in a fresh process without any cache.

Part of `benchmarks/runtime.py`. Needs a GPU.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import tuner
from tuner import api
from tuner.catalog import load_kernel
from tuner.prebuild import Prebuild, build_bundle, write_bundle
from tuner.processes import Failure, WorkerPool, result
from tuner.runtime.bundle import Bundle

DEVICE = "cuda"
TOKENS, LARGEST = 8, 8192
STEADY_CALLS = 50
PROCESSES = 3
TIMEOUT_S = 240.0


def first_calls(kernel: str, sizes: dict[str, int]) -> dict[str, Any]:
    """What `serve` finds in some processes after a warm-up, and in some without one."""
    found = load_kernel(kernel)
    device, target = api.this_device()
    with tempfile.TemporaryDirectory() as folder:
        request = Prebuild(found, target, (sizes,), LARGEST, api.winner_tables(found), device)
        bundle, report = build_bundle(request, Path(folder, "bundles"))
        write_bundle(bundle)
        served: dict[str, list[dict[str, Any]]] = {"after_warmup": [], "without_warmup": []}
        for number in range(PROCESSES):
            for name, each in served.items():
                caches = Path(folder, f"{name}-{number}")
                each.append(in_fresh_process(caches, kernel, sizes, bundle.folder.parent, name == "after_warmup"))
    return {"binaries": len(bundle.binaries), "build_s": round(report.seconds, 2), **served}


def in_fresh_process(caches: Path, *arguments: Any) -> dict[str, Any]:
    empty = {"TRITON_CACHE_DIR": str(caches / "triton"), "TUNER_CACHE": str(caches / "tuner")}
    with WorkerPool(1, empty) as pool:
        found = result(pool.submit(serve, *arguments, timeout_s=TIMEOUT_S))
    return sys.exit(f"first call: {found.status}: {found.log}") if isinstance(found, Failure) else found


def serve(kernel: str, sizes: dict[str, int], bundle: Path, warm: bool) -> dict[str, Any]:
    """Milliseconds until the GPU has done the first call, beyond a steady one, and what was compiled.

    The process has used the GPU before, as a server has that loaded its model.
    """
    spec = load_kernel(kernel).spec
    inputs = spec.make_inputs(spec.shape({"num_tokens": TOKENS, **sizes}), DEVICE, 0)
    groups = sizes["n_groups"]
    arguments = (inputs["o"], inputs["positions"], inputs["cos_sin_cache"], groups, sizes["num_heads"] // groups)
    with tuner.jit_monitor() as monitor:
        start = time.perf_counter()
        op = tuner.load_op(kernel, bundle=bundle)
        load_ms = (time.perf_counter() - start) * 1e3
        if not isinstance(op.bundle, Bundle):
            sys.exit(f"{op.bundle}")
        warmup = op.warmup(max_num_tokens=LARGEST, **sizes) if warm else None
        calls_ms = [timed_ms(op, arguments) for _ in range(1 + STEADY_CALLS)]
    steady_ms = sorted(calls_ms[1:])[STEADY_CALLS // 2]
    return {
        "beyond_steady_ms": round(calls_ms[0] - steady_ms, 3),
        "first_ms": round(calls_ms[0], 3),
        "steady_ms": round(steady_ms, 3),
        "load_op_ms": round(load_ms, 1),
        "warmup_ms": round(warmup.seconds * 1e3, 1) if warmup else None,
        "compiles": monitor.count,
        "prebuilt": op.counts["prebuilt"],
    }


def timed_ms(op: Any, arguments: tuple[Any, ...]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    op(*arguments)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3
