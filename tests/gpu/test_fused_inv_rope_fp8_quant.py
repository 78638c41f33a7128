"""`fused_inv_rope_fp8_quant` on a GPU: both implementations, every element, over the shapes that serving uses."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from tuner.catalog import Tensors
from tuner.catalog.kernels import load_kernel
from tuner.compile.module import load_variant
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Variant
from tuner.verify.check import Case, check_cases, make_case, make_cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or HIP device"),
]

NAME = "fused_inv_rope_fp8_quant"
MODELS = ((8, 1), (16, 2), (32, 4), (64, 8), (128, 8))
TOKENS = (1, 2, 3, 4, 5, 16, 17, 64, 100, 256, 1000, 1024, 4096, 32768)
# With more rows (heads of tokens) than this, one model alone is checked on the edges too: the reference takes the time.
MANY_ROWS = 1 << 16
ALL_CASES_HEADS = 16
OPTIONS = (
    {},
    {"tma_aligned_scales": 1},
    {"scale_rounding": "none", "position_bits": 32},
    {"rope_style": "neox"},
    {"tma_aligned_scales": 1, "rope_style": "neox", "position_bits": 32},
    {"scale_rounding": "none", "rope_style": "neox"},
)


HAS_LAUNCH_PDL = (
    torch.cuda.is_available() and torch.version.hip is None and torch.cuda.get_device_capability() >= (9, 0)
)


def tile(
    tokens: int,
    heads: int,
    warps: int,
    tiles: int = 1,
    stages: int = 1,
    heads_first: int = 1,
    last_first: int = 0,
    early: bool = False,
) -> Config:
    tile = {"BLOCK_TOKENS": tokens, "BLOCK_HEADS": heads, "TOKEN_TILES": tiles, "LOAD_STAGES": stages}
    parameters = FrozenMapping({**tile, "HEADS_FIRST": heads_first, "LAST_FIRST": last_first})
    options = {"num_warps": warps, "num_stages": 1, **({"launch_pdl": 1} if early and HAS_LAUNCH_PDL else {})}
    return Config("tile", parameters, FrozenMapping(options))


CONFIGS = (
    tile(1, 8, 4),
    tile(1, 4, 2, heads_first=0, last_first=1, early=True),
    tile(4, 2, 4),
    tile(1, 8, 4, tiles=4, stages=3, early=True),
    tile(16, 1, 8, tiles=2, stages=2, heads_first=0),
    tile(2, 16, 8, tiles=2, stages=1, last_first=1),
    tile(1, 1, 1),
)
# Options and tile configs go round with different periods, so that they meet in many pairs.
PLAN = [
    (heads, groups, tokens, options, config)
    for ((heads, groups), tokens), options, config in zip(
        ((model, tokens) for model in MODELS for tokens in TOKENS), cycle(OPTIONS), cycle(CONFIGS), strict=False
    )
]


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Elements compared and undecided; written at the end of the module."""
    counts: Counter[str] = Counter()
    yield counts
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\n{NAME}: {counts['undecided']} of {counts['elements']} elements were undecided")


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def check(tally: Counter[str], shape: Shape, cases: Sequence[Case], *variants: Variant) -> None:
    """Every element of both outputs, poisoned first, for each case and variant."""
    kernel = load_kernel(NAME)
    outputs = kernel.spec.make_outputs(shape, "cuda")
    for variant in variants:
        loaded = load_variant(kernel, variant)
        agreement = check_cases(kernel, loaded, variant.config, shape, cases, outputs)
        torch.cuda.synchronize()
        assert agreement.mismatched == 0, (variant.config.label, shape.label, agreement)
        assert agreement.elements >= len(cases) * outputs["o_fp8"].numel()
        # fp32 scales that are not rounded count here too: one element in 129, about a seventh of them undecided.
        assert agreement.undecided <= 2e-3 * agreement.elements + 512
        tally["elements"] += agreement.elements
        tally["undecided"] += agreement.undecided


def all_cases(shape: Shape, seed: int = 0) -> tuple[Case, ...]:
    return make_cases(load_kernel(NAME), shape, "cuda", seed)


def one_case(shape: Shape, name: str, inputs: Tensors) -> tuple[Case, ...]:
    return (make_case(load_kernel(NAME), shape, name, inputs),)


def variant_of(config: Config, *do_not_specialize: str) -> Variant:
    return Variant(NAME, config, SpecializationSet.of(do_not_specialize))


@pytest.mark.parametrize(("heads", "groups", "tokens", "options", "config"), PLAN)
def test_serving_shapes(
    tally: Counter[str], heads: int, groups: int, tokens: int, options: Mapping[str, Any], config: Config
) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": tokens, "num_heads": heads, "n_groups": groups, **options})
    seed, many = tokens + heads, tokens * heads > MANY_ROWS and heads != ALL_CASES_HEADS
    cases = one_case(shape, "random", spec.make_inputs(shape, "cuda", seed)) if many else all_cases(shape, seed)
    check(tally, shape, cases, spec.baseline_variant, variant_of(config, "num_tokens", "scale_stride_block"))


@triton.jit
def _write_late(to_ptr, from_ptr, zero_ptr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Lets the next kernel start at once, and takes its time before it writes."""
    gdc_wait()
    gdc_launch_dependents()
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    value = tl.load(from_ptr + place)
    for _ in range(200):
        value += tl.load(zero_ptr, volatile=True)
    tl.store(to_ptr + place, value)


@pytest.mark.skipif(not HAS_LAUNCH_PDL, reason="needs programmatic dependent launch")
@pytest.mark.parametrize("tokens", [1, 64])
@pytest.mark.parametrize("config", [config for config in CONFIGS if "launch_pdl" in config.options])
def test_a_kernel_that_starts_early_waits_for_the_one_that_writes_its_inputs(config: Config, tokens: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": tokens, "num_heads": 64, "n_groups": 8})
    loaded = load_variant(load_kernel(NAME), variant_of(config))
    given = [spec.make_inputs(shape, "cuda", seed)["o"].contiguous() for seed in range(8)]
    inputs = {**spec.make_inputs(shape, "cuda", 0), "o": torch.zeros_like(given[0])}
    zero = torch.zeros(1, dtype=torch.int16, device="cuda")
    outputs, expected = ([spec.make_outputs(shape, "cuda") for _ in given] for _ in range(2))
    for o, into in zip(given, expected, strict=True):
        loaded.run(spec.launch({**inputs, "o": o}, into, shape, config))
    _write_late[(o.numel() // 512,)](
        inputs["o"].view(torch.int16), given[0].view(torch.int16), zero, 512, launch_pdl=True
    )
    torch.cuda.synchronize()
    for o, into in zip(given, outputs, strict=True):  # nothing waits on the host, so that launches follow closely
        to, source = inputs["o"].view(torch.int16), o.view(torch.int16)
        _write_late[(o.numel() // 512,)](to, source, zero, 512, launch_pdl=True)
        loaded.run(spec.launch(inputs, into, shape, config))
    for found, right in zip(outputs, expected, strict=True):
        for name in right:
            assert torch.equal(found[name].view(torch.uint8), right[name].view(torch.uint8)), name


@pytest.mark.parametrize("options", OPTIONS)
def test_every_config_with_every_option(tally: Counter[str], options: Mapping[str, Any]) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 37, "num_heads": 16, "n_groups": 2, **options})
    check(tally, shape, all_cases(shape), *(variant_of(config) for config in CONFIGS))


def test_narrow_stores_are_right_too(tally: Counter[str]) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 33, "num_heads": 16, "n_groups": 2})
    names = ("num_tokens", "o_stride_token", "o_stride_head", "cache_stride", "fp8_stride_token", "fp8_stride_group")
    check(tally, shape, all_cases(shape), variant_of(CONFIGS[0], *names, "scale_stride_group"))


def test_odd_strides_and_unaligned_pointers(tally: Counter[str]) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 19, "num_heads": 8, "n_groups": 2})
    inputs = dict(spec.make_inputs(shape, "cuda", 0))
    buffer = torch.zeros(19, 9, 515, dtype=torch.bfloat16, device="cuda")
    buffer[:, 1:, 3:].copy_(inputs["o"])
    inputs["o"] = buffer[:, 1:, 3:]
    check(
        tally,
        shape,
        one_case(shape, "odd strides", inputs),
        spec.baseline_variant,
        *(variant_of(config) for config in CONFIGS),
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_heads": 3, "n_groups": 3, "nope_dim": 96, "rope_dim": 32},
        {"num_heads": 6, "n_groups": 2, "nope_dim": 320, "rope_dim": 64},
        {"num_heads": 5, "n_groups": 1, "nope_dim": 576, "rope_dim": 64},
        {"num_heads": 4, "n_groups": 2, "nope_dim": 0, "rope_dim": 128},
        {"num_heads": 4, "n_groups": 2, "nope_dim": 254, "rope_dim": 2},
    ],
)
@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[4], OPTIONS[5]])
def test_other_head_sizes(tally: Counter[str], sizes: Mapping[str, int], options: Mapping[str, Any]) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 21, **sizes, **options})
    variants = (spec.baseline_variant, variant_of(CONFIGS[0]), variant_of(CONFIGS[2]))
    check(tally, shape, all_cases(shape), *variants)


def test_strides_past_32_bits(tally: Counter[str]) -> None:
    """Token offsets of `o` past 2**31 by a wide stride: seven tokens span 3.5 * 2**30 elements."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 8, "num_heads": 16, "n_groups": 2})
    inputs = dict(spec.make_inputs(shape, "cuda", 0))
    buffer = torch.empty(7 * 2**29 + 16 * 512, dtype=torch.bfloat16, device="cuda")
    wide = buffer.as_strided((8, 16, 512), (2**29, 512, 1))
    wide.copy_(inputs["o"])
    inputs["o"] = wide
    check(
        tally,
        shape,
        one_case(shape, "wide stride", inputs),
        spec.baseline_variant,
        *(variant_of(config) for config in CONFIGS[:4]),
    )


@pytest.mark.parametrize("groups", [1, 8])
def test_buffers_past_32_bits(tally: Counter[str], groups: int) -> None:
    """More than 2**31 elements in `o` and in the FP8 storage; with one group its group stride is an int64 too."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 34001, "num_heads": 128, "n_groups": groups, "tma_aligned_scales": 1})
    cases = one_case(shape, "random", spec.make_inputs(shape, "cuda", 0))
    check(tally, shape, cases, spec.baseline_variant, *(variant_of(config) for config in CONFIGS[:4]))
