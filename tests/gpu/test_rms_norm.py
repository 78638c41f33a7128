"""`rms_norm` on a GPU: both implementations, every element, over the shapes that serving uses."""

from collections.abc import Iterator, Sequence
from itertools import cycle, product

import pytest
import torch

from tuner.catalog.kernels import load_kernel
from tuner.compile.module import load_variant
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Variant
from tuner.verify.check import Case, check_cases, make_case, make_cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or HIP device"),
]

NAME = "rms_norm"
HIDDEN_SIZES = (2048, 2880, 4096, 5120, 7168, 8192, 12288, 16384)
TOKENS = (1, 2, 3, 16, 17, 100, 1000, 4096)


def tile(warps: int, rows: int, columns: int, tiles: int = 1, stages: int = 1, stream: int = 0) -> Config:
    parameters = FrozenMapping(
        BLOCK_ROWS=rows, BLOCK_COLUMNS=columns, ROW_TILES=tiles, LOAD_STAGES=stages, STREAM=stream
    )
    return Config("tile", parameters, FrozenMapping(num_warps=warps, num_stages=1))


CONFIGS = (
    tile(16, 1, 16384),
    tile(16, 1, 16384, tiles=2, stages=2, stream=1),
    tile(4, 1, 1024, stages=3),
    tile(8, 4, 1024, stream=1),
    tile(8, 2, 4096, tiles=4, stages=2),
    tile(1, 1, 512, stages=2, stream=1),
)
PLAN = [(*sizes, config) for sizes, config in zip(product(HIDDEN_SIZES, TOKENS), cycle(CONFIGS), strict=False)]


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def check(shape: Shape, cases: Sequence[Case], *variants: Variant) -> None:
    """Every element of the output, poisoned first, for each case and variant."""
    kernel = load_kernel(NAME)
    outputs = kernel.spec.make_outputs(shape, "cuda")
    for variant in variants:
        loaded = load_variant(kernel, variant)
        agreement = check_cases(kernel, loaded, variant.config, shape, cases, outputs)
        torch.cuda.synchronize()
        assert agreement.mismatched == 0, (variant.config.label, shape.label, agreement)
        assert agreement.elements == len(cases) * outputs["y"].numel()
        assert agreement.undecided <= 0.02 * agreement.elements


def all_cases(shape: Shape, seed: int = 0) -> tuple[Case, ...]:
    return make_cases(load_kernel(NAME), shape, "cuda", seed)


def variant_of(config: Config, *do_not_specialize: str) -> Variant:
    return Variant(NAME, config, SpecializationSet.of(do_not_specialize))


@pytest.mark.parametrize(("hidden", "tokens", "config"), PLAN)
def test_serving_shapes(hidden: int, tokens: int, config: Config) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": tokens, "hidden_size": hidden})
    check(shape, all_cases(shape, tokens + hidden), spec.baseline_variant, variant_of(config, "num_tokens"))


@pytest.mark.parametrize("padding", [0, 8, 7])
@pytest.mark.parametrize("hidden", [4096, 4112])
def test_every_config_with_every_class_of_stride(hidden: int, padding: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 37, "hidden_size": hidden, "row_padding": padding})
    check(shape, all_cases(shape), spec.baseline_variant, *(variant_of(config) for config in CONFIGS))


def test_narrow_accesses_are_right_too() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 33, "hidden_size": 4096})
    names = ("num_tokens", "x_row_stride", "y_row_stride")
    variants = [variant_of(config, *names) for config in CONFIGS]
    check(shape, all_cases(shape), variant_of(spec.baseline, *names, "hidden_size"), *variants)


def test_unaligned_pointers() -> None:
    kernel = load_kernel(NAME)
    shape = kernel.spec.shape({"num_tokens": 19, "hidden_size": 2048})
    inputs = dict(kernel.spec.make_inputs(shape, "cuda", 0))
    buffer = torch.zeros(19, 2051, dtype=torch.bfloat16, device="cuda")
    inputs["x"] = buffer[:, 3:].copy_(inputs["x"])
    cases = [make_case(kernel, shape, "unaligned", inputs)]
    check(shape, cases, kernel.spec.baseline_variant, *(variant_of(config) for config in CONFIGS))


def test_strides_past_32_bits() -> None:
    """Row offsets past 2**31 by a wide stride: seven rows span 3.5 * 2**30 elements."""
    kernel = load_kernel(NAME)
    shape = kernel.spec.shape({"num_tokens": 8, "hidden_size": 4096})
    inputs = dict(kernel.spec.make_inputs(shape, "cuda", 0))
    wide = torch.empty(7 * 2**29 + 4096, dtype=torch.bfloat16, device="cuda").as_strided((8, 4096), (2**29, 1))
    inputs["x"] = wide.copy_(inputs["x"])
    cases = [make_case(kernel, shape, "wide stride", inputs)]
    check(shape, cases, kernel.spec.baseline_variant, *(variant_of(config) for config in CONFIGS))


def test_buffers_past_32_bits() -> None:
    """More than 2**31 elements in `x` and `y`."""
    kernel = load_kernel(NAME)
    shape = kernel.spec.shape({"num_tokens": 131075, "hidden_size": 16384})
    cases = [make_case(kernel, shape, "random", kernel.spec.make_inputs(shape, "cuda", 0))]
    check(shape, cases, kernel.spec.baseline_variant, variant_of(CONFIGS[1]), variant_of(CONFIGS[2]))
