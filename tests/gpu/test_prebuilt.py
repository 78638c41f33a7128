"""A bundle on a GPU: a fresh process with an empty Triton cache compiles nothing, computes right and starts at once."""

import time
from pathlib import Path

import pytest
import torch
from op_examples import arguments_of, storages

import tuner
from tuner import api
from tuner.catalog import load_kernel
from tuner.measure.environment import device_target
from tuner.prebuild import Prebuild, build_bundle, write_bundle
from tuner.processes import WorkerPool, result
from tuner.verify.agreement import compare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or HIP device"),
]

KERNEL = "fused_inv_rope_fp8_quant"
SIZES: dict[str, int | str] = {"num_heads": 64, "n_groups": 8}
LARGEST = 1024


def serve(folder: Path) -> tuple[list[str], dict[str, int], float, float]:
    """What was wrong at which size, the op's counts, and the milliseconds of the first call and of a steady one."""
    spec = load_kernel(KERNEL).spec
    op, wrong = tuner.load_op(KERNEL, bundle=folder), []
    with tuner.jit_monitor("error"):
        op.warmup(max_num_tokens=LARGEST, **SIZES)
        calls_ms = [timed_ms(op) for _ in range(20)]
        for tokens in (1, 3, 8, 16, 130, 700, LARGEST):
            shape = spec.shape({"num_tokens": tokens, **SIZES})
            for offset in (0, 1):
                tensors = dict(spec.make_inputs(shape, "cuda", tokens))
                moved = torch.empty(tensors["o"].numel() + offset, dtype=torch.bfloat16, device="cuda")[offset:]
                tensors["o"] = moved.view(tensors["o"].shape).copy_(tensors["o"])
                positional, keywords = arguments_of(KERNEL, tensors, shape)
                outputs = storages(KERNEL, op(*positional, **keywords))
                agreement = compare(outputs, spec.reference(tensors, shape), spec.tolerances)
                wrong += [f"{tokens}, {offset}: {agreement.detail}"] * bool(agreement.mismatched)
    return wrong, op.counts, calls_ms[0], sorted(calls_ms)[10]


def timed_ms(op: object) -> float:
    spec = load_kernel(KERNEL).spec
    shape = spec.shape({"num_tokens": 8, **SIZES})
    positional, keywords = arguments_of(KERNEL, spec.make_inputs(shape, "cuda", 0), shape)
    torch.cuda.synchronize()
    start = time.perf_counter()
    op(*positional, **keywords)  # type: ignore[operator]
    return (time.perf_counter() - start) * 1e3


def test_a_server_with_a_bundle_starts_without_a_compile(tmp_path: Path) -> None:
    kernel = load_kernel(KERNEL)
    device, target = api.this_device()
    assert target == device_target()
    tables = api.winner_tables(kernel)
    bundle, _ = build_bundle(Prebuild(kernel, target, (SIZES,), LARGEST, tables, device), tmp_path / "bundles")
    write_bundle(bundle)
    empty = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "TUNER_CACHE": str(tmp_path / "tuner")}
    with WorkerPool(1, empty) as pool:
        found = result(pool.submit(serve, tmp_path / "bundles", timeout_s=240.0))
    assert isinstance(found, tuple), found.log
    wrong, counts, first_ms, steady_ms = found
    assert wrong == []
    assert (counts["compiles"], counts["prebuilt"]) == (0, len(bundle.binaries))
    assert first_ms - steady_ms < 20
