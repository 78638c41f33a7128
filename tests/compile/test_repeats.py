"""How often code runs, from written IR and from that of real kernels."""

import pytest
import triton
from triton.compiler import ASTSource

from tuner.catalog import load_kernel
from tuner.compile.inspect import inspect
from tuner.compile.module import load_variant
from tuner.compile.repeats import code_repeats
from tuner.compile.specialization import bind, gpu_target, meta_launch
from tuner.records import Binary, Config, FrozenMapping, SpecializationSet, Target, Variant

THREADS = 32
CONSTANTS = """
    %c0_i32 = arith.constant 0 : i32 loc(#loc1)
    %c1_i32 = arith.constant 1 : i32 loc(#loc1)
    %size = arith.constant 10 : i32 loc(#loc1)
    %c4_i32 = arith.constant 4 : i32 loc(#loc1)
"""
STORE = "tt.store %p, %x, %mask : tensor<8x16x!tt.ptr<bf16>> loc(#loc2)\n"  # 256 bytes
REDUCE = '%sum = "tt.reduce"(%x) <{axis = 1 : i32}> ({\n ^bb0(%a: f32, %b: f32):\n }) : (f32) -> f32\n'


def binary(**store_bytes: int) -> Binary:
    """Code that stores as many times in so many bytes: `b8=1` is one store of 8 bytes per thread."""
    widths = {width.removeprefix("b"): count for width, count in store_bytes.items()}
    return Binary("0", "", 32, 0, 0, 100, FrozenMapping(), FrozenMapping(widths), 0.0)


def loop(body: str, end: str = "%c4_i32", step: str = "%c1_i32") -> str:
    return (
        f"scf.for %tile = %c0_i32 to {end} step {step} iter_args(%sum = %zeros) -> (f32)  : i32 {{\n{body}"
        f"}} {{tt.num_stages = 2 : i32}} loc(#loc3)\n"
    )


def repeats(code: str, **store_bytes: int) -> float | None:
    return code_repeats(CONSTANTS + code, binary(**store_bytes), THREADS)


def test_code_without_a_loop_runs_once() -> None:
    assert repeats(STORE, b8=1) == 1
    assert repeats(STORE, b4=1) == 1  # whatever became of its stores


def test_a_loop_repeats_its_code() -> None:
    assert repeats(loop(REDUCE + STORE), b8=1) == 4
    assert repeats(loop(STORE, end="%size", step="%c4_i32"), b8=1) == 3
    assert repeats(loop(loop(STORE)), b8=1) == 16
    assert repeats(loop("") + loop(loop("")) + loop("")) == 16


def test_a_loop_that_is_over_repeats_nothing() -> None:
    assert repeats(loop(REDUCE) + STORE, b8=1) == 1


def test_an_unrolled_loop_repeats_less() -> None:
    assert repeats(loop(STORE), b8=4) == 1
    assert repeats(loop(STORE), b8=2) == 2
    assert repeats(loop(STORE), b8=2, b1=1) == 2  # with stores that few threads take part in


def test_scalars_count_as_stores() -> None:
    assert repeats(loop("tt.store %p, %x : !tt.ptr<f32> loc(#loc2)\n"), b4=1) == 1
    assert repeats(loop("tt.store %p, %x : tensor<128x!tt.ptr<i1>> loc(#loc2)\n"), b4=1) == 4


@pytest.mark.parametrize("code", [loop(STORE, end="%arg3"), "scf.while (%i = %c0_i32) : (i32) -> i32 {\n}\n"])
def test_bounds_that_are_not_constant_are_unknown(code: str) -> None:
    assert repeats(code, b8=1) is None


@pytest.mark.triton
@pytest.mark.usefixtures("fresh_caches")
@pytest.mark.parametrize(
    ("name", "config", "shape", "expected"),
    [
        (
            "fused_inv_rope_fp8_quant",
            {
                "BLOCK_TOKENS": 2,
                "BLOCK_HEADS": 2,
                "TOKEN_TILES": 4,
                "LOAD_STAGES": 1,
                "HEADS_FIRST": 1,
                "LAST_FIRST": 0,
            },
            {"num_tokens": 64, "num_heads": 64, "n_groups": 8},
            4,
        ),
        (
            "rms_norm",
            {"BLOCK_ROWS": 1, "BLOCK_COLUMNS": 1024, "ROW_TILES": 2, "LOAD_STAGES": 1, "STREAM": 0},
            {"num_tokens": 64, "hidden_size": 4096},
            2,  # the loop over four blocks of columns inside is unrolled
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_loops_of_a_real_kernel(name: str, config: dict[str, int], shape: dict[str, int], expected: int) -> None:
    kernel, target = load_kernel(name), Target("cuda", "90")
    config_ = Config("tile", FrozenMapping(config), FrozenMapping(num_warps=4, num_stages=1))
    variant = Variant(name, config_, SpecializationSet.of(["num_tokens"]))
    loaded = load_variant(kernel, variant)
    call = bind(loaded, meta_launch(kernel, variant, kernel.spec.shape(shape)).arguments, target)
    source = ASTSource(loaded.function, dict(call.signature), dict(call.constexprs), dict(call.attributes))
    compiled = triton.compile(source, target=gpu_target(target), options=call.options.__dict__)
    found = inspect(compiled, call.key, 0.0)
    assert code_repeats(compiled.asm["ttir"], found, 4 * target.warp_size) == expected
