"""The op as serving engines call it: what it checks, allocates and passes to the kernel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import HostFunction
from tuner.errors import UserError
from tuner.records import Config, Shape

from .spec import PER_HEAD, QUANT_BLOCK

ARGUMENTS = (
    "o_ptr",
    "positions_ptr",
    "cos_sin_ptr",
    "fp8_ptr",
    "scale_ptr",
    "num_tokens",
    "o_stride_token",
    "o_stride_head",
    "cache_stride",
    "fp8_stride_token",
    "fp8_stride_group",
    "scale_stride_group",
    "scale_stride_block",
)
FP8 = torch.float8_e4m3fn


def call(
    plans: Any,
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
) -> tuple[Tensor, Tensor]:
    """Undo RoPE on the attention output and quantize it to FP8 in blocks of 128.

    `o` [T, H, D] bf16, last stride 1; `positions` [T] int64 or int32; `cos_sin_cache` [max_pos, rope_dim] fp32. Returns
    `o_fp8` [T, G, d] e4m3fn with strides (d, T * d, 1) and `o_scale` [T, G, S] fp32 with strides (1, S * T4, T4), or
    with `tma_aligned_scales` [T, G, ceil(S / 4)] int32; d = heads_per_group * D, S = d / 128, T4 is T rounded up to a
    multiple of 4. UserError for other inputs.
    """
    try:
        tokens, heads, head_dim = o.shape
        stride_token, stride_head, stride_element = o.stride()
        cache_stride, cache_step = cos_sin_cache.stride()
    except ValueError:
        raise _wrong(o, cos_sin_cache) from None
    key = (
        o.get_device(), positions.get_device(), cos_sin_cache.get_device(),
        o.dtype, positions.dtype, cos_sin_cache.dtype, stride_element, cache_step,
        heads, head_dim, cos_sin_cache.shape[1], n_groups, heads_per_group, nope_dim, rope_dim, quant_group_size,
        tma_aligned_scales, scale_rounding, rope_style,
    )  # fmt: skip
    latest, plan = plans.latest
    if key != latest:
        plan = plans.known(key) or _new_plan(plans, key, o, positions, cos_sin_cache)
    if positions.numel() != tokens or positions.stride() != (1,):
        positions = _in_one_piece(positions, tokens)

    width = heads_per_group * head_dim
    scale_rows = width // QUANT_BLOCK
    scale_type = torch.float32
    if tma_aligned_scales:
        scale_rows, scale_type = (scale_rows + 3) // 4, torch.int32
    padded = (tokens + 3) // 4 * 4
    o_fp8 = plan.empty((tokens, n_groups, width), (width, tokens * width, 1), FP8)
    scale_strides = (1, scale_rows * padded, padded)
    o_scale = plan.empty((padded, n_groups, scale_rows), scale_strides, scale_type)
    if padded != tokens:  # the storage has rows up to T4, which the kernel writes
        o_scale = o_scale.as_strided((tokens, n_groups, scale_rows), scale_strides)
    if tokens:
        plan.at(tokens)(
            tokens, o, positions, cos_sin_cache, o_fp8, o_scale, tokens, stride_token, stride_head, cache_stride,
            width, tokens * width, scale_rows * padded, padded,
        )  # fmt: skip
    return o_fp8, o_scale


def fake(
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
) -> tuple[Tensor, Tensor]:
    """The outputs of `call` without data."""
    tokens, width = o.shape[0], heads_per_group * o.shape[2]
    rows, padded = width // QUANT_BLOCK, (tokens + 3) // 4 * 4
    scale_type = torch.float32
    if tma_aligned_scales:
        rows, scale_type = (rows + 3) // 4, torch.int32
    return (
        o.new_empty_strided((tokens, n_groups, width), (width, tokens * width, 1), dtype=FP8),
        o.new_empty_strided((tokens, n_groups, rows), (1, rows * padded, padded), dtype=scale_type),
    )


def _wrong(o: Tensor, cos_sin_cache: Tensor) -> UserError:
    sizes = f"o has shape {[*o.shape]} and cos_sin_cache {[*cos_sin_cache.shape]}"
    return UserError(f"{sizes}; expected [T, H, D] and [max_pos, rope_dim].")


def _new_plan(plans: Any, key: tuple[Any, ...], o: Tensor, positions: Tensor, cos_sin_cache: Tensor) -> Any:
    """The plan of a key that was not seen yet; UserError for one that no plan can serve."""
    _check_types(o, positions, cos_sin_cache)
    _check_sizes(key)
    for name, tensor in {"o": o, "cos_sin_cache": cos_sin_cache}.items():
        if tensor.stride(-1) != 1:
            found = f"{name} has strides {tensor.stride()}; expected 1 in the last dimension."
            raise UserError(found, hint=f"Pass {name}.contiguous().")
    return plans.add(key, o.device, _dimensions(key))


def _check_types(o: Tensor, positions: Tensor, cos_sin_cache: Tensor) -> None:
    expected = {
        "o": (o, (torch.bfloat16,)),
        "positions": (positions, (torch.int64, torch.int32)),
        "cos_sin_cache": (cos_sin_cache, (torch.float32,)),
    }
    for name, (tensor, types) in expected.items():
        if tensor.dtype not in types:
            raise UserError(f"{name} is {tensor.dtype}; expected {' or '.join(map(str, types))}.")
        if tensor.device != o.device:
            raise UserError(f"{name} is on {tensor.device}, but o is on {o.device}.", hint="Move all to one device.")


def _check_sizes(key: tuple[Any, ...]) -> None:
    heads, head_dim, cache_width, groups, heads_per_group, nope, rope, block = key[8:16]
    for found, expected in (
        (f"o has {heads} heads", heads == groups * heads_per_group),
        (f"o has head size {head_dim}", head_dim == nope + rope),
        (f"cos_sin_cache has {cache_width} columns", cache_width == rope),
    ):
        if not expected:
            options = f"n_groups={groups}, heads_per_group={heads_per_group}, nope_dim={nope}, rope_dim={rope}"
            hint = "H is n_groups * heads_per_group, D is nope_dim + rope_dim, the cache has rope_dim columns."
            raise UserError(f"{found}, which does not go with {options}.", hint=hint)
    if block != QUANT_BLOCK:
        raise UserError(f"quant_group_size is {block}; expected {QUANT_BLOCK}.")


def _in_one_piece(positions: Tensor, tokens: int) -> Tensor:
    if positions.shape != (tokens,):
        raise UserError(f"positions has shape {[*positions.shape]}; expected {[tokens]}, one per token of o.")
    return positions.contiguous()


def _dimensions(key: tuple[Any, ...]) -> dict[str, int | str]:
    heads, _, _, groups, _, nope, rope, _, packed, rounding, style = key[8:]
    return {
        "num_heads": heads,
        "n_groups": groups,
        "tma_aligned_scales": int(packed),
        "scale_rounding": rounding,
        "rope_style": style,
        "position_bits": key[4].itemsize * 8,
        "nope_dim": nope,
        "rope_dim": rope,
    }


def grid(shape: Shape, config: Config) -> Callable[[int], tuple[int, int, int]]:
    """From the number of tokens to the grid."""
    heads = shape.size("num_heads")
    if config.implementation == PER_HEAD.name:
        return lambda tokens: ((tokens + 3) // 4 * 4, heads, 1)
    rows = config.parameters["BLOCK_TOKENS"] * config.parameters["TOKEN_TILES"]
    head_tiles = -(-heads // config.parameters["BLOCK_HEADS"])
    return lambda tokens: (-(-((tokens + 3) // 4 * 4) // rows) * head_tiles, 1, 1)


OP = HostFunction(call, fake, ARGUMENTS, grid)
