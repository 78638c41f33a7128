"""`fused_inv_rope_fp8_quant`: its reference against scalar arithmetic, its implementations in Triton's interpreter."""

import ast
import re
from bisect import bisect_left
from collections.abc import Mapping
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import Job, agreements, tile_or
from kernel_examples import copy_kernel
from triton.compiler import ASTSource

from tuner.catalog import Bounds
from tuner.catalog.kernels import load_kernel
from tuner.compile.module import load_variant
from tuner.compile.specialization import bind, gpu_target, meta_launch
from tuner.errors import UserError
from tuner.processes import WorkerPool
from tuner.records import DEFAULT_TARGET, OPTION_NAMES, Config, FrozenMapping, Shape, Variant
from tuner.verify.agreement import compare, poison

NAME = "fused_inv_rope_fp8_quant"
TILES = (
    {"BLOCK_TOKENS": 1, "BLOCK_HEADS": 1, "TOKEN_TILES": 1, "LOAD_STAGES": 1, "HEADS_FIRST": 1, "LAST_FIRST": 0},
    {"BLOCK_TOKENS": 1, "BLOCK_HEADS": 8, "TOKEN_TILES": 4, "LOAD_STAGES": 2, "HEADS_FIRST": 1, "LAST_FIRST": 1},
    {"BLOCK_TOKENS": 4, "BLOCK_HEADS": 2, "TOKEN_TILES": 1, "LOAD_STAGES": 1, "HEADS_FIRST": 0, "LAST_FIRST": 0},
    {"BLOCK_TOKENS": 2, "BLOCK_HEADS": 16, "TOKEN_TILES": 2, "LOAD_STAGES": 3, "HEADS_FIRST": 0, "LAST_FIRST": 1},
    {"BLOCK_TOKENS": 16, "BLOCK_HEADS": 4, "TOKEN_TILES": 1, "LOAD_STAGES": 1, "HEADS_FIRST": 1, "LAST_FIRST": 1},
)
# Under the other releases too: a walk over tiles. A tile without one is interpreted there in tests/verify.
WALK = TILES[1]
# Shapes beside the spec's own: other head sizes, groups of one head, heads that no tile divides.
MORE_SHAPES = (
    {"num_tokens": 2, "num_heads": 3, "n_groups": 3, "tma_aligned_scales": 1, "nope_dim": 96, "rope_dim": 32},
    {"num_tokens": 5, "num_heads": 3, "n_groups": 1, "tma_aligned_scales": 1, "nope_dim": 576, "rope_style": "neox"},
    {"num_tokens": 1, "num_heads": 6, "n_groups": 2, "scale_rounding": "none", "nope_dim": 254, "rope_dim": 2},
    {"num_tokens": 3, "num_heads": 2, "n_groups": 1, "nope_dim": 960, "position_bits": 32},
)
EDGE_SHAPES = tuple(
    {"num_tokens": 3, "num_heads": 4, "n_groups": 2, **options}
    for options in ({}, {"tma_aligned_scales": 1, "rope_style": "neox"}, {"scale_rounding": "none"})
)
# One wrong piece of kernel.py each, and the inputs that must be the first to show it.
BREAKS = {
    "forward rotation": ("first * cos + second * sin", "first * cos - second * sin", "random"),
    "scale twice too large": ("+ 0x7FFFFF) >> 23", "+ 0xFFFFFF) >> 23", "random"),
    "padding not written": ("(token < padded_tokens) &", "(token < num_tokens) &", "random"),
    "first position for all": ("positions_ptr + angle_token", "positions_ptr + angle_token * 0", "random"),
    "negative zero lost": ("- first * sin, second)", "- first * sin, second + 0.0)", "extreme"),
    "largest numbers cut": ("tl.maximum(amax, AMAX_MIN)", "tl.maximum(tl.minimum(amax, 1e30), AMAX_MIN)", "extreme"),
    "heads assumed dense": ("head.to(tl.int64) * o_stride_head", "head.to(tl.int64) * DIM", "strided"),
    "cache assumed dense": ("(position * cache_stride)", "(position * ROPE_DIM)", "strided"),
}


def job(shape: Shape, parameters: Mapping[str, int] | None = None, folder: Path | None = None, **options: bool) -> Job:
    """One run of the tile implementation with these parameters, or of the baseline without any."""
    return Job(folder or load_kernel(NAME).folder, tile_or("per_head", parameters), shape, **options)


def assert_right(jobs: list[Job], interpreter: WorkerPool) -> None:
    for each, agreement in zip(jobs, agreements(interpreter, jobs), strict=True):
        assert agreement.elements > 0
        assert agreement.mismatched == 0, (each, agreement.detail)


@pytest.mark.parametrize(
    "parameters",
    [pytest.param(each, marks=[pytest.mark.triton] if each is WALK else []) for each in TILES],
    ids=lambda p: "-".join(map(str, p.values())),
)
def test_a_tile_equals_the_reference(parameters: Mapping[str, int], interpreter: WorkerPool) -> None:
    spec = load_kernel(NAME).spec
    one_row = parameters == TILES[0]  # as slow as the baseline; it has no tails that other shapes would show
    shapes = [*([] if one_row else spec.check_shapes), *map(spec.shape, MORE_SHAPES)]
    jobs = [job(shape, parameters, edges=False) for shape in shapes]
    assert_right([*jobs, *(job(spec.shape(shape), parameters) for shape in EDGE_SHAPES)], interpreter)


@pytest.mark.triton
def test_the_baseline_equals_the_reference(interpreter: WorkerPool) -> None:
    """At shapes that among them take every branch: a program for each token and head is slow here."""
    spec = load_kernel(NAME).spec
    jobs = [job(spec.shape(shape), edges=False) for shape in MORE_SHAPES]
    assert_right([*jobs, job(spec.shape(EDGE_SHAPES[1]))], interpreter)


def test_the_baseline_equals_the_reference_on_every_edge(interpreter: WorkerPool) -> None:
    shapes = [shape for shape in load_kernel(NAME).spec.check_shapes if shape.size("num_tokens") < 10]
    assert_right([job(shape) for shape in shapes], interpreter)


def test_broken_kernels_are_noticed(tmp_path: Path, interpreter: WorkerPool) -> None:
    jobs, kernel = [], load_kernel(NAME)
    for number, (right, wrong, _) in enumerate(BREAKS.values()):
        folder = copy_kernel(kernel.folder, tmp_path / str(number), {"kernel.py": (right, wrong)})
        jobs.append(job(kernel.spec.shape(EDGE_SHAPES[0]), TILES[2], folder))
    for (name, (_, _, case)), agreement in zip(BREAKS.items(), agreements(interpreter, jobs), strict=True):
        assert agreement.mismatched > 0, name
        assert f"on {case} inputs" in agreement.detail, name


# --- the reference


def e4m3_values() -> list[Fraction]:
    """The non-negative finite e4m3fn values by code: 0x00 to 0x7E."""
    return [
        Fraction(code & 7, 1 << 9) if code < 8 else Fraction(8 + (code & 7), 8) * Fraction(2) ** ((code >> 3) - 7)
        for code in range(0x7F)
    ]


E4M3 = e4m3_values()


def to_e4m3(value: Fraction, negative: bool) -> int:
    """The e4m3fn code nearest to a number, ties to the even code, saturated."""
    size = abs(value)
    above = bisect_left(E4M3, size)
    code = min(range(max(above - 1, 0), min(above + 1, 0x7F)), key=lambda each: (abs(E4M3[each] - size), each & 1))
    return code | (0x80 if negative else 0)


def scale_of(amax: np.float32, pow2: bool) -> np.float32:
    """The scale of a block by the contract, in scalar fp32 arithmetic."""
    raw = np.float32(max(amax, np.float32(1e-10)) * np.float32(1 / 448))
    if not pow2:
        return raw
    exponent = -200
    while Fraction(2) ** exponent < Fraction(float(raw)):
        exponent += 1
    return np.float32(2.0**exponent)


def rotate(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray, neox: bool, fused: bool) -> np.ndarray:
    """Inverse RoPE of one head's tail in fp32; `fused` rounds the first product and the sum once."""
    half = len(x) // 2
    y = np.empty_like(x)
    for pair in range(half):
        i, j = (pair, pair + half) if neox else (2 * pair, 2 * pair + 1)
        for target, (a, c, b, s) in {
            i: (x[i], cosine[pair], x[j], sine[pair]),
            j: (x[j], cosine[pair], -x[i], sine[pair]),
        }.items():
            exact = Fraction(float(a)) * Fraction(float(c)) + Fraction(float(np.float32(b * s)))
            if fused and exact:
                y[target] = np.float32(float(exact))
            else:
                y[target] = np.float32(np.float32(a * c) + np.float32(b * s))
    return y


def bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.uint8).numpy()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    size=st.sampled_from([(1, 1, 1), (2, 2, 1), (3, 2, 2)]),
    options=st.sampled_from([(0, "pow2"), (1, "pow2"), (0, "none")]),
    style=st.sampled_from(["interleaved", "neox"]),
    fused=st.booleans(),
    extreme=st.booleans(),
)
def test_reference_equals_scalar_arithmetic(
    seed: int, size: tuple[int, int, int], options: tuple[int, str], style: str, fused: bool, extreme: bool
) -> None:
    spec = load_kernel(NAME).spec
    tokens, heads, groups = size
    names = ("num_tokens", "num_heads", "n_groups", "tma_aligned_scales", "scale_rounding", "rope_style")
    small = {"nope_dim": 224, "rope_dim": 32}
    shape = spec.shape({**dict(zip(names, (*size, *options, style), strict=True)), **small})
    inputs = (spec.edge_inputs["extreme"] if extreme else spec.make_inputs)(shape, "cpu", seed)
    expected = spec.reference(inputs, shape)
    fp8, scales = expected["o_fp8"], expected["o_scale"]
    token, head = seed % tokens, seed // 7 % heads
    group, first = divmod(head, heads // groups)
    cosine, sine = inputs["cos_sin_cache"][inputs["positions"][token]].numpy().reshape(2, 16)
    y = inputs["o"][token, head].float().numpy().copy()
    y[224:] = rotate(y[224:], cosine, sine, style == "neox", fused)
    for block in range(2):
        values = y[128 * block : 128 * block + 128]
        scale = scale_of(np.abs(values).max(), options[1] == "pow2")
        number = first * 2 + block
        if options[0]:
            low, high = (bytes_of(end)[group, number // 4, 4 * token + number % 4] for end in (scales.low, scales.high))
            actual = int(scale.view(np.int32)) >> 23
        else:
            low, high = (float(end[group, number, token]) for end in (scales.low, scales.high))
            actual = float(scale)
        assert low <= actual <= high
        start = 256 * first + 128 * block
        ends = [end[group, token, start : start + 128] for end in (fp8.low, fp8.high)]
        quotients = values / scale
        codes = np.array([to_e4m3(Fraction(float(q)), bool(np.signbit(q))) for q in quotients], dtype=np.uint8)
        decided = bytes_of(ends[0]) == bytes_of(ends[1])
        assert (codes == bytes_of(ends[0]))[decided].all()
        number_of = torch.from_numpy(codes).view(torch.float8_e4m3fn).float()
        assert ((ends[0].float() <= number_of) & (number_of <= ends[1].float())).all()


@pytest.mark.parametrize("style", ["interleaved", "neox"])
def test_packed_scales_hold_the_exponents_of_fp32_scales(style: str) -> None:
    spec = load_kernel(NAME).spec
    values = {"num_tokens": 6, "num_heads": 6, "n_groups": 2, "nope_dim": 320, "rope_style": style}
    plain, packed = (spec.shape({**values, "tma_aligned_scales": flag}) for flag in (0, 1))
    inputs = spec.make_inputs(plain, "cpu", 0)
    first, second = spec.reference(inputs, plain), spec.reference(inputs, packed)
    assert torch.equal(first["o_fp8"].low.view(torch.uint8), second["o_fp8"].low.view(torch.uint8))
    words = second["o_scale"].low
    assert words.shape == (2, 3, 8)
    exponents = words.unsqueeze(-1).view(torch.uint8).movedim(-1, 2).flatten(1, 2)
    assert torch.equal(exponents[:, :9].int() << 23, first["o_scale"].low.view(torch.int32))
    assert not exponents[:, 9:].any()


@pytest.mark.parametrize("packed", [0, 1])
def test_padding_of_the_scales_is_zero(packed: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 5, "num_heads": 4, "n_groups": 2, "tma_aligned_scales": packed})
    scales = spec.reference(spec.make_inputs(shape, "cpu", 0), shape)["o_scale"].low
    assert scales.shape == (2, 2 if packed else 8, 8)
    assert not scales[..., 5:].any()
    assert scales[..., :5].all()


@pytest.mark.parametrize("options", [{}, {"scale_rounding": "none"}, {"tma_aligned_scales": 1, "rope_style": "neox"}])
def test_few_elements_are_undecided(options: Mapping[str, Any]) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 128, "num_heads": 16, "n_groups": 2, **options})
    expected = spec.reference(spec.make_inputs(shape, "cpu", 7), shape)
    fp8 = expected["o_fp8"]
    undecided = (bytes_of(fp8.low) != bytes_of(fp8.high)).mean()
    assert undecided < 1e-4
    assert (fp8.low.float() <= fp8.high.float()).all()
    assert (fp8.low.view(torch.uint8) & 0x7F).max() == 0x7E


def test_elements_outside_the_rotation_are_decided() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 64, "num_heads": 8, "n_groups": 1, "scale_rounding": "none"})
    fp8 = spec.reference(spec.make_inputs(shape, "cpu", 2), shape)["o_fp8"]
    low, high = (bytes_of(end).reshape(64, 8, 4, 128) for end in (fp8.low, fp8.high))
    assert (low[:, :, :3] == high[:, :, :3]).all()


def test_a_product_that_underflows_may_lose_its_sign() -> None:
    """-2**-133 * 2**-20 is -0 in fp32, and the sum with +0 is +0."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 1, "num_heads": 1, "n_groups": 1})
    inputs = spec.make_inputs(shape, "cpu", 0)
    inputs["o"].zero_()[0, 0, 448] = -(2.0**-133)
    inputs["cos_sin_cache"].zero_()[:, 0] = 2.0**-20
    fp8 = spec.reference(inputs, shape)["o_fp8"]
    assert (bytes_of(fp8.low)[0, 0, 448], bytes_of(fp8.high)[0, 0, 448]) == (0x80, 0x00)


def test_chunks_do_not_change_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 11, "num_heads": 4, "n_groups": 2})
    inputs = spec.make_inputs(shape, "cpu", 0)
    whole = spec.reference(inputs, shape)
    monkeypatch.setitem(spec.reference.__globals__, "CHUNK_ELEMENTS", 3 * 4 * 512)
    for name, bounds in spec.reference(inputs, shape).items():
        assert torch.equal(bounds.low.view(torch.uint8), whole[name].low.view(torch.uint8))
        assert torch.equal(bounds.high.view(torch.uint8), whole[name].high.view(torch.uint8))


def right_outputs(expected: Mapping[str, Bounds]) -> dict[str, torch.Tensor]:
    return {name: bounds.low.clone() for name, bounds in expected.items()}


def test_comparison_notices_one_wrong_element() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 5, "num_heads": 4, "n_groups": 2, "tma_aligned_scales": 1})
    expected = spec.reference(spec.make_inputs(shape, "cpu", 0), shape)
    assert compare(right_outputs(expected), expected, {}).mismatched == 0
    for name, place in (("o_fp8", (1, 2, 3)), ("o_scale", (0, 1, 4)), ("o_scale", (1, 1, 7))):
        outputs = right_outputs(expected)
        outputs[name].view(torch.uint8 if name == "o_fp8" else torch.int32)[place] += 2
        assert compare(outputs, expected, {}).mismatched == 1
    poisoned = right_outputs(expected)
    poison(poisoned)
    agreement = compare(poisoned, expected, {})
    assert agreement.mismatched == agreement.elements


# --- the inputs at the edges


def extreme_blocks() -> torch.Tensor:
    """What `extreme` inputs hold, as blocks [blocks, 128] in fp32, in the order of memory."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 200, "num_heads": 8, "n_groups": 1})
    return spec.edge_inputs["extreme"](shape, "cpu", 0)["o"].float().reshape(-1, 128)


def test_extreme_blocks_are_what_random_ones_are_not() -> None:
    blocks = extreme_blocks()
    size, amax = blocks.abs(), blocks.abs().amax(1)
    assert blocks.isfinite().all()
    zeros = blocks[amax == 0]
    assert (zeros.signbit().any(1) & ~zeros.signbit().all(1)).any()
    varied = (size.amin(1) < amax) & (size.count_nonzero(1) > 1)
    assert (varied & (amax == torch.finfo(torch.bfloat16).max)).any()
    assert (varied & (amax < 2.0**-126)).any()
    assert (varied & (amax > 2.0**-40) & (amax < 1e-10)).any()
    assert (size.count_nonzero(1) == 1).any()
    assert ((blocks[:, ::2] == -blocks[:, 1::2]).all(1) & (amax > 0)).any()


@pytest.mark.parametrize("peak", [446, 448, 450])
def test_extreme_blocks_meet_the_limit_of_fp8_over_its_midpoints(peak: int) -> None:
    """e4m3 holds the even numbers from 16 to 32; bf16 numbers lie an eighth apart there."""
    size = extreme_blocks().abs()
    mantissa, exponent = torch.frexp(size.amax(1))
    values = torch.ldexp(size.double(), 9 - exponent[:, None])[mantissa == peak / 512]
    between = values[(values > 16) & (values < 32)] % 2
    for beside in (-0.125, 0.0, 0.125):
        assert (between == 1 + beside).double().mean() > 0.1
    subnormal = values[(values > 0) & (values < 2.0**-6)] * 2**10
    assert (subnormal % 2 == 1).double().mean() > 0.1


def test_neighbouring_extreme_blocks_differ_in_kind() -> None:
    blocks = extreme_blocks()
    nonzero = blocks.count_nonzero(1)
    alternating = (blocks[:, ::2] == -blocks[:, 1::2]).all(1) & (nonzero == 128)
    for kind in (nonzero == 0, nonzero == 1, alternating):
        assert kind.any()
        assert not (kind[1:] & kind[:-1]).any()


def test_no_extreme_pair_overflows_when_it_is_turned() -> None:
    """By any angle, and no larger bf16 number could be."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 200, "num_heads": 8, "n_groups": 1})
    inputs = spec.edge_inputs["extreme"](shape, "cpu", 0)
    largest = inputs["o"][..., 448:].abs().max().double()
    fp32_max = torch.finfo(torch.float32).max
    assert largest * 2**0.5 * (1 + 2.0**-20) < fp32_max < (largest + 2.0**120) * 2**0.5
    assert inputs["positions"][:2].tolist() == [0, 8191]
    for bounds in spec.reference(inputs, shape).values():
        assert bounds.low.float().isfinite().all()
        assert bounds.high.float().isfinite().all()


@pytest.mark.parametrize("tokens", [5, 4097])
def test_strided_inputs_are_random_ones_in_other_places(tokens: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": tokens, "num_heads": 2, "n_groups": 1, "position_bits": 32, "nope_dim": 64})
    plain, strided = spec.make_inputs(shape, "cpu", 1), spec.edge_inputs["strided"](shape, "cpu", 1)
    for name, tensor in strided.items():
        assert torch.equal(tensor, plain[name])
    o, cache = strided["o"], strided["cos_sin_cache"]
    assert o.stride(0) != plain["o"].stride(0)
    assert o.stride(1) != plain["o"].stride(1)
    assert cache.stride(0) != plain["cos_sin_cache"].stride(0)
    for tensor in (o, cache):
        storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        assert storage.isnan().sum() == storage.numel() - tensor.numel() > 0


@pytest.mark.triton
@pytest.mark.parametrize("name", ["extreme", "strided"])
@pytest.mark.parametrize("tokens", [17, 4096, 4097])
def test_edges_need_no_compile_of_their_own(name: str, tokens: int) -> None:
    spec = (kernel := load_kernel(NAME)).spec
    shape = spec.shape({"num_tokens": tokens, "num_heads": 16, "n_groups": 2})
    outputs, keys = spec.make_outputs(shape, "meta"), set()
    for make in (spec.make_inputs, spec.edge_inputs[name]):
        arguments = spec.launch(make(shape, "meta", 0), outputs, shape, spec.baseline).arguments
        keys.add(bind(load_variant(kernel, spec.baseline_variant), arguments, DEFAULT_TARGET).key)
    assert len(keys) == 1


# --- the machine code


@pytest.mark.triton
@pytest.mark.parametrize("parameters", [TILES[2], WALK], ids=["one tile", "a walk"])
def test_a_kernel_that_starts_early_waits_before_its_first_access(parameters: Mapping[str, int]) -> None:
    kernel = load_kernel(NAME)
    shape = kernel.spec.shape({"num_tokens": 64, "num_heads": 16, "n_groups": 2})
    config = Config("tile", FrozenMapping(parameters), FrozenMapping(num_warps=4, launch_pdl=1))
    loaded = load_variant(kernel, variant := Variant(NAME, config))
    call = bind(loaded, meta_launch(kernel, variant, shape).arguments, DEFAULT_TARGET)
    source = ASTSource(loaded.function, call.signature, call.constexprs, call.attributes)
    compiled = triton.compile(source, target=gpu_target(DEFAULT_TARGET), options=call.options.__dict__)
    accesses = r"griddepcontrol\.\w+|\b(?:ld|st)\.(?:relaxed\.)?global|cp\.async\.c[ag]"
    order = [kind for kind, _ in groupby(re.findall(accesses, compiled.asm["ptx"]))]
    assert compiled.metadata.launch_pdl
    assert order[0] == "griddepcontrol.wait"
    assert order.count("griddepcontrol.wait") == 1
    assert order.index("griddepcontrol.launch_dependents") < order.index("st.global")


# --- the spec


@pytest.mark.parametrize("name", ["tile", "per_head"])
def test_launch_covers_the_signature(name: str) -> None:
    kernel = load_kernel(NAME)
    implementation = kernel.spec.implementation(name)
    functions = {f.name: f for f in ast.parse(kernel.source(implementation)).body if isinstance(f, ast.FunctionDef)}
    shape = kernel.spec.shape({"num_tokens": 17, "num_heads": 16, "n_groups": 2})
    inputs, outputs = kernel.spec.make_inputs(shape, "meta", 0), kernel.spec.make_outputs(shape, "meta")
    parameters = TILES[2] if name == "tile" else {}
    launch = kernel.spec.launch(inputs, outputs, shape, Config(name, FrozenMapping(parameters)))
    arguments = [argument.arg for argument in functions[implementation.function].args.args]
    wanted = [argument for argument in arguments if argument not in OPTION_NAMES]
    assert sorted([*launch.arguments, *implementation.parameters]) == sorted(wanted)
    assert set(implementation.parameters) == set(parameters)
    assert launch.grid == ((5 * 8,) if name == "tile" else (20, 16))


def test_no_tokens_launch_nothing() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 0, "num_heads": 8, "n_groups": 1})
    inputs, outputs = spec.make_inputs(shape, "cpu", 0), spec.make_outputs(shape, "cpu")
    assert outputs["o_fp8"].shape == (1, 0, 4096)
    assert outputs["o_scale"].shape == (1, 32, 0)
    for config in (spec.baseline, Config("tile", FrozenMapping(TILES[0]))):
        assert 0 in spec.launch(inputs, outputs, shape, config).grid
    assert compare(outputs, spec.reference(inputs, shape), {}).elements == 0


def test_strides_are_those_of_the_contract() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 1001, "num_heads": 64, "n_groups": 8})
    inputs, outputs = spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta")
    arguments = spec.launch(inputs, outputs, shape, spec.baseline).arguments
    assert arguments["fp8_stride_token"] == 4096
    assert arguments["fp8_stride_group"] == 1001 * 4096
    assert arguments["scale_stride_group"] == 32 * 1004
    assert arguments["scale_stride_block"] == 1004
    assert arguments["o_stride_token"] > 64 * 512


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 6, "n_groups": 4}, "num_heads=6 is not a multiple of n_groups=4"),
        ({"tma_aligned_scales": 1, "scale_rounding": "none"}, "packed scales hold exponents only"),
        ({"rope_dim": 48, "nope_dim": 80}, "power of two"),
        ({"rope_dim": 256, "nope_dim": 256}, "at most 128"),
        ({"nope_dim": 400}, "multiple of 128"),
    ],
)
def test_impossible_shapes_are_refused(values: Mapping[str, Any], message: str) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 1, "num_heads": 8, "n_groups": 2, **values})
    with pytest.raises(UserError, match=message):
        spec.make_inputs(shape, "meta", 0)


def test_traffic_is_counted() -> None:
    spec = load_kernel(NAME).spec
    values = {"num_tokens": 5, "num_heads": 16, "n_groups": 2}
    plain, packed = spec.shape(values), spec.shape({**values, "tma_aligned_scales": 1, "position_bits": 32})
    elements = 5 * 16 * 512
    assert spec.bytes_moved(plain) == 3 * elements + 4 * 2 * 32 * 8 + 5 * (8 + 256)
    assert spec.bytes_moved(packed) == 3 * elements + 4 * 2 * 8 * 8 + 5 * (4 + 256)
    assert spec.flops(plain) == 2 * elements + 3 * 5 * 16 * 64
