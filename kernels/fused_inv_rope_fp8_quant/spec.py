"""`fused_inv_rope_fp8_quant`: undo RoPE on the attention output and quantize it to FP8 for a grouped GEMM."""

from typing import Any

import torch
from torch import Tensor

from tuner.catalog import Dimension, Implementation, KernelSpec, Launch, Tensors
from tuner.errors import UserError
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet

from .reference import QUANT_BLOCK, reference

MAX_POSITION = 8192
ROPE_BASE = 10000.0
# Up to here inputs are a view of a wider buffer; past it they are contiguous, to save memory.
STRIDED_TOKENS = 4096
BF16_MAX = torch.finfo(torch.bfloat16).max
# The largest bf16 number of which a pair can be turned by any angle within fp32: just under its maximum / sqrt(2).
TURNED_MAX = 1.4140625 * 2.0**127
# Blocks of each extreme kind, from which those of an input are drawn.
DRAWN_BLOCKS = 256
# Elements by which strided inputs are padded: 16 of any type keep strides and pointers in their specialization class.
PADDING = 16

TILE = Implementation(
    name="tile",
    file="kernel.py",
    function="fused_inv_rope_fp8_quant_kernel",
    parameters=("BLOCK_TOKENS", "BLOCK_HEADS", "TOKEN_TILES", "LOAD_STAGES", "HEADS_FIRST", "LAST_FIRST"),
)
PER_HEAD = Implementation(name="per_head", file="baseline.py", function="fused_inv_rope_fp8_quant_per_head_kernel")

DIMENSIONS = (
    Dimension("num_tokens", dynamic=True, minimum=0),
    Dimension("num_heads"),
    Dimension("n_groups"),
    Dimension("tma_aligned_scales", default=0, choices=(0, 1)),
    Dimension("scale_rounding", default="pow2", choices=("pow2", "none")),
    Dimension("rope_style", default="interleaved", choices=("interleaved", "neox")),
    Dimension("position_bits", default=64, choices=(32, 64)),
    Dimension("nope_dim", default=448, minimum=0),
    Dimension("rope_dim", default=64, minimum=2),
)


def _head_dim(shape: Shape) -> int:
    """Elements of a head; UserError for sizes and options that do not go together."""
    heads, groups = shape.size("num_heads"), shape.size("n_groups")
    nope, rope = shape.size("nope_dim"), shape.size("rope_dim")
    if heads % groups:
        raise UserError(
            f"num_heads={heads} is not a multiple of n_groups={groups}.", hint="Every group has as many heads."
        )
    if rope & (rope - 1) or rope > QUANT_BLOCK:
        raise UserError(f"rope_dim is {rope}; expected a power of two of at most {QUANT_BLOCK}.")
    if (nope + rope) % QUANT_BLOCK:
        raise UserError(f"nope_dim + rope_dim is {nope + rope}; expected a multiple of {QUANT_BLOCK}.")
    if shape["tma_aligned_scales"] and shape["scale_rounding"] != "pow2":
        raise UserError(
            f"tma_aligned_scales=1 with scale_rounding={shape['scale_rounding']!r}: packed scales hold exponents only.",
            hint="Use scale_rounding=pow2, or tma_aligned_scales=0.",
        )
    return nope + rope


def _padded_tokens(shape: Shape) -> int:
    """Tokens that the scale storage holds: `num_tokens` rounded up to a multiple of 4."""
    return (shape.size("num_tokens") + 3) // 4 * 4


def _scale_rows(shape: Shape) -> int:
    """fp32 scales, or int32 words of four, that one token has in one group."""
    blocks = shape.size("num_heads") // shape.size("n_groups") * _head_dim(shape) // QUANT_BLOCK
    return (blocks + 3) // 4 if shape["tma_aligned_scales"] else blocks


def make_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """Attention output `o` [T, H, D] bf16, `positions` [T] and `cos_sin_cache` [8192, rope_dim] fp32.

    Every block of 128 has its own magnitude between 2**-44 and 2**10, so that scales differ and a few fall under the
    floor of the block maximum.
    """
    tokens, heads, dim = shape.size("num_tokens"), shape.size("num_heads"), _head_dim(shape)
    rope = shape.size("rope_dim")
    positions_type = torch.int64 if shape["position_bits"] == 64 else torch.int32
    buffer = torch.empty(tokens, heads + (tokens <= STRIDED_TOKENS), dim, dtype=torch.bfloat16, device=device)
    o = buffer[:, :heads]
    if device == "meta":
        positions = torch.empty(tokens, dtype=positions_type, device=device)
        cache = torch.empty(MAX_POSITION, rope, dtype=torch.float32, device=device)
        return {"o": o, "positions": positions, "cos_sin_cache": cache}
    generator = torch.Generator(device).manual_seed(seed)
    buffer.normal_(generator=generator)
    magnitude = torch.empty(tokens, heads, dim // QUANT_BLOCK, 1, dtype=torch.bfloat16, device=device)
    o.unflatten(-1, (-1, QUANT_BLOCK)).mul_(magnitude.uniform_(-44, 10, generator=generator).exp2_())
    positions = torch.randint(MAX_POSITION, (tokens,), generator=generator, dtype=positions_type, device=device)
    frequencies = ROPE_BASE ** -(torch.arange(0, rope, 2, dtype=torch.float64, device=device) / rope)
    angles = torch.outer(torch.arange(MAX_POSITION, dtype=torch.float64, device=device), frequencies)
    cache = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    return {"o": o, "positions": positions, "cos_sin_cache": cache}


def extreme_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`make_inputs` with every block of 128 in `o` of another extreme kind than the one before it.

    A third of the positions is 0 (cosines 1, sines 0), another the last row of the cache.
    """
    inputs = make_inputs(shape, device, seed)
    if device == "meta":
        return inputs
    generator = torch.Generator(device).manual_seed(seed)
    o, positions = inputs["o"], inputs["positions"]
    blocks, count = _extreme_blocks(generator), o.numel() // QUANT_BLOCK
    kind = torch.randint(1, len(blocks), (count,), generator=generator, device=device).cumsum(0) % len(blocks)
    member = torch.randint(DRAWN_BLOCKS, (count,), generator=generator, device=device)
    o.copy_(blocks[kind, member].view(o.shape))
    o[..., shape.size("nope_dim") :].clamp_(-TURNED_MAX, TURNED_MAX)
    positions[::3] = 0
    positions[1::3] = MAX_POSITION - 1
    return inputs


def _extreme_blocks(generator: torch.Generator) -> Tensor:
    """Blocks [kinds, DRAWN_BLOCKS, 128] bf16 of seven kinds; signs are random but for the last, where they alternate.

    Zeros; up to the largest number; subnormals; around the floor of the block maximum; e4m3 rounding midpoints and
    their neighbours under a maximum of 446, 448 or 450 (times a power of two, as all of the block); one element that is
    not zero; one number throughout.
    """
    size, device = (DRAWN_BLOCKS, QUANT_BLOCK), generator.device

    def integers(low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high, size, generator=generator, device=device)

    def numbers(low: float, high: float) -> Tensor:
        ends = torch.tensor([low, high], dtype=torch.bfloat16).view(torch.int16).tolist()
        return integers(ends[0], ends[1] + 1, *size).to(torch.int16).view(torch.bfloat16)

    column = torch.arange(QUANT_BLOCK, device=device)
    chosen = column == integers(0, QUANT_BLOCK, DRAWN_BLOCKS, 1)
    midpoints = ((2 * integers(0, 16, *size) + 1) * 2.0 ** integers(-10, 5, *size)).bfloat16()
    beside = (midpoints.view(torch.int16) + integers(-1, 2, *size).to(torch.int16)).view(torch.bfloat16)
    limit = torch.where(chosen, 446.0 + 2.0 * integers(0, 3, DRAWN_BLOCKS, 1), beside.clamp(max=446.0).float())
    kinds = [
        torch.zeros(size, dtype=torch.bfloat16, device=device),
        torch.where(chosen, BF16_MAX, numbers(2.0**125, BF16_MAX)),
        numbers(0.0, 2.0**-126),
        numbers(2.0**-54, 2.0**-33),
        (limit * 2.0 ** integers(-45, 119, DRAWN_BLOCKS, 1)).bfloat16(),
        torch.where(chosen, numbers(0.0, BF16_MAX), 0.0),
    ]
    signed = torch.stack(kinds) * (1 - 2 * integers(0, 2, len(kinds), *size)).bfloat16()
    alternating = numbers(0.0, BF16_MAX)[:, :1] * (1 - 2 * (column % 2)).bfloat16()
    return torch.cat([signed, alternating[None]])


def strided_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`make_inputs` as views of wider buffers with other strides; NaN lies between the rows of `o` and the cache."""
    return {name: _strided(tensor) for name, tensor in make_inputs(shape, device, seed).items()}


def _strided(tensor: Tensor) -> Tensor:
    filling = float("nan") if tensor.is_floating_point() else 0
    buffer = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + PADDING), filling)
    return buffer[..., PADDING:].copy_(tensor)


def make_outputs(shape: Shape, device: str) -> Tensors:
    """Storages `o_fp8` [G, T, d] e4m3fn and `o_scale` [G, S, T4] fp32 or [G, ceil(S / 4), T4] int32."""
    groups, tokens = shape.size("n_groups"), shape.size("num_tokens")
    width = shape.size("num_heads") // groups * _head_dim(shape)
    scale_type = torch.int32 if shape["tma_aligned_scales"] else torch.float32
    return {
        "o_fp8": torch.empty(groups, tokens, width, dtype=torch.float8_e4m3fn, device=device),
        "o_scale": torch.empty(groups, _scale_rows(shape), _padded_tokens(shape), dtype=scale_type, device=device),
    }


def launch(inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
    """Grid and arguments of either implementation; strides are taken from the tensors."""
    _head_dim(shape)
    o, cache = inputs["o"], inputs["cos_sin_cache"]
    o_fp8, o_scale = outputs["o_fp8"], outputs["o_scale"]
    heads, padded_tokens = shape.size("num_heads"), _padded_tokens(shape)
    arguments: dict[str, Any] = {
        "o_ptr": o,
        "positions_ptr": inputs["positions"],
        "cos_sin_ptr": cache,
        "fp8_ptr": o_fp8,
        "scale_ptr": o_scale,
        "num_tokens": shape.size("num_tokens"),
        "o_stride_token": o.stride(0),
        "o_stride_head": o.stride(1),
        "cache_stride": cache.stride(0),
        "fp8_stride_token": o_fp8.stride(1),
        "fp8_stride_group": o_fp8.stride(0),
        "scale_stride_group": o_scale.stride(0),
        "scale_stride_block": o_scale.stride(1),
        "HEADS_PER_GROUP": heads // shape.size("n_groups"),
        "NOPE_DIM": shape.size("nope_dim"),
        "ROPE_DIM": shape.size("rope_dim"),
        "PACKED_SCALES": shape.size("tma_aligned_scales"),
        "POW2_SCALES": int(shape["scale_rounding"] == "pow2"),
        "NEOX": int(shape["rope_style"] == "neox"),
    }
    if config.implementation == PER_HEAD.name:
        return Launch((padded_tokens, heads if padded_tokens else 0), arguments)
    parameters = config.parameters
    token_programs = -(-padded_tokens // (parameters["BLOCK_TOKENS"] * parameters["TOKEN_TILES"]))
    head_tiles = -(-heads // parameters["BLOCK_HEADS"])
    return Launch((token_programs * head_tiles,), {**arguments, "NUM_HEADS": heads})


def bytes_moved(shape: Shape) -> int:
    """`o` read, FP8 values and scales written, and per token its position and one row of the cos/sin cache."""
    tokens = shape.size("num_tokens")
    elements = tokens * shape.size("num_heads") * _head_dim(shape)
    scales = shape.size("n_groups") * _scale_rows(shape) * _padded_tokens(shape)
    return 3 * elements + 4 * scales + tokens * (shape.size("position_bits") // 8 + 4 * shape.size("rope_dim"))


def flops(shape: Shape) -> int:
    """Two operations per element (maximum and scaling) and three more per rotated one."""
    rows = shape.size("num_tokens") * shape.size("num_heads")
    return rows * (2 * _head_dim(shape) + 3 * shape.size("rope_dim"))


def _check_shape(num_tokens: int, num_heads: int, n_groups: int, **options: int | str) -> Shape:
    defaults = {each.name: each.default for each in DIMENSIONS if each.default is not None}
    return Shape({"num_tokens": num_tokens, "num_heads": num_heads, "n_groups": n_groups, **defaults, **options})


CHECK_SHAPES = (
    _check_shape(1, 2, 1),
    _check_shape(5, 4, 1, tma_aligned_scales=1),
    _check_shape(3, 16, 2, position_bits=32),
    _check_shape(7, 4, 2, tma_aligned_scales=1, rope_style="neox"),
    _check_shape(4, 2, 2, scale_rounding="none"),
    _check_shape(6, 3, 1, scale_rounding="none", rope_style="neox", position_bits=32),
    _check_shape(5, 4, 2, tma_aligned_scales=1, nope_dim=320),
    _check_shape(3, 6, 3, nope_dim=0, rope_dim=128),
    _check_shape(37, 2, 1, nope_dim=64),
)

SPEC = KernelSpec(
    name="fused_inv_rope_fp8_quant",
    summary="Inverse RoPE and FP8 quantization in blocks of 128 of the attention output, laid out for a grouped GEMM.",
    dimensions=DIMENSIONS,
    implementations=(TILE, PER_HEAD),
    baseline=Config(PER_HEAD.name, FrozenMapping(), FrozenMapping(num_warps=1, num_stages=1)),
    baseline_specialization=SpecializationSet.of(["num_tokens"]),
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    launch=launch,
    reference=reference,
    bytes_moved=bytes_moved,
    flops=flops,
    check_shapes=CHECK_SHAPES,
    edge_inputs=FrozenMapping(extreme=extreme_inputs, strided=strided_inputs),
    written_inputs=("o",),
)
