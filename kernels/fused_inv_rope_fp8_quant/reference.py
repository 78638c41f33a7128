"""The contract of `fused_inv_rope_fp8_quant` in float64, with the interval that fp32 arithmetic may reach.

The rotation is the one place where fp32 rounds in a way that is not fixed: two products and a sum, fused or not. Their
error is at most 2**-23 of the products' magnitudes, and 2**-149 where products are subnormal. It is carried as an
interval through the block maximum, the scale and the quotient. All steps after it are monotone, so the interval's ends,
each rounded as the kernel rounds, are the lowest and highest right results; they are the same value unless a rounding
boundary lies between them. The quotient's ends are rounded to fp32 before e4m3, as division to nearest does: a float64
quotient of fp32 numbers rounded to fp32 is the correctly rounded one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from tuner.catalog import Bounds, Tensors
from tuner.records import Shape

FP8_MAX = 448.0
QUANT_BLOCK = 128
CHUNK_ELEMENTS = 1 << 25
# Two roundings to nearest, each of 2**-24, and the square of the second order.
ROTATION_ERROR = 2.0**-23 * (1 + 2.0**-20)
# Two products that fall among the subnormals, each rounded by 2**-150 at most.
SUBNORMAL_ERROR = 2.0**-149


def reference(inputs: Tensors, shape: Shape) -> Mapping[str, Bounds]:
    """Bounds of both output storages: `o_fp8` [G, T, d] e4m3fn; `o_scale` [G, S, T4] fp32 or [G, ceil(S/4), T4] int32.

    `inputs` are those of `make_inputs`, on any device. Works through chunks of tokens of about 2**25 elements.
    """
    o = inputs["o"]
    tokens, heads, dim = o.shape
    groups, packed = shape.size("n_groups"), shape.size("tma_aligned_scales") == 1
    width = heads // groups * dim
    scales = width // QUANT_BLOCK
    fp8 = [torch.empty(groups, tokens, width, dtype=torch.float8_e4m3fn, device=o.device) for _ in range(2)]
    padded_size = (groups, scales, (tokens + 3) // 4 * 4)
    padded = [torch.zeros(padded_size, dtype=torch.float32, device=o.device) for _ in range(2)]
    step = max(1, CHUNK_ELEMENTS // (heads * dim))
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        y, error = _rotate(o[rows].double(), inputs, rows, shape)
        scale = _scales(y, error, shape["scale_rounding"] == "pow2")
        for side, sign in enumerate((-1.0, 1.0)):
            end = (-sign * (-sign * y - error)).unflatten(-1, (-1, QUANT_BLOCK))  # y + sign * error, keeping -0.0
            divisor = torch.where(end * sign > 0, scale[0].unsqueeze(-1), scale[1].unsqueeze(-1))
            quotient = (end / divisor).clamp(-FP8_MAX, FP8_MAX)
            by_group = quotient.reshape(-1, groups, width).transpose(0, 1)
            fp8[side][:, rows] = by_group.float().to(torch.float8_e4m3fn)
            padded[side][:, :, rows] = scale[side].reshape(-1, groups, scales).permute(1, 2, 0).float()
    if packed:
        padded = [_pack(each) for each in padded]
    return {"o_fp8": Bounds(*fp8), "o_scale": Bounds(*padded)}


def _rotate(x: Tensor, inputs: Tensors, rows: slice, shape: Shape) -> tuple[Tensor, Tensor]:
    """Undo RoPE on the tail of `x` [t, H, D]; the result and the bound of the fp32 error, both float64."""
    nope, rope = shape.size("nope_dim"), shape.size("rope_dim")
    cache = inputs["cos_sin_cache"][inputs["positions"][rows].long()].double().unsqueeze(1)
    cos, sin = cache[..., : rope // 2], cache[..., rope // 2 :]
    neox = shape["rope_style"] == "neox"
    pair_axis, pair_shape = (-2, (2, rope // 2)) if neox else (-1, (rope // 2, 2))
    first, second = x[..., nope:].unflatten(-1, pair_shape).unbind(pair_axis)
    y, error = x.clone(), torch.zeros_like(x)
    products = [(first * cos, second * sin), (second * cos, -first * sin)]
    y[..., nope:] = torch.stack([a + b for a, b in products], pair_axis).flatten(-2)
    error[..., nope:] = torch.stack([_sum_error(a, b) for a, b in products], pair_axis).flatten(-2)
    return y, error


def _sum_error(a: Tensor, b: Tensor) -> Tensor:
    """Bound of the fp32 error of `a + b`, two products; zero where products and sum are fp32 numbers."""
    exact = (a.float() == a) & (b.float() == b) & ((a + b).float() == a + b)
    return torch.where(exact, 0.0, ROTATION_ERROR * (a.abs() + b.abs()) + SUBNORMAL_ERROR)


def _scales(y: Tensor, error: Tensor, pow2: bool) -> tuple[Tensor, Tensor]:
    """Lowest and highest scale [t, H, D / 128] of each block, float64 values that fp32 holds."""
    floor, reciprocal = torch.tensor([1e-10, 1 / FP8_MAX], dtype=torch.float32).double().tolist()
    ends = []
    for end in (y.abs() - error, y.abs() + error):
        amax = end.unflatten(-1, (-1, QUANT_BLOCK)).amax(-1).clamp(min=floor)
        raw = (amax.float().double() * reciprocal).float().double()
        if pow2:
            mantissa, exponent = torch.frexp(raw)  # raw = mantissa * 2**exponent, mantissa in [0.5, 1)
            biased = exponent - (mantissa == 0.5).int() + 127
            raw = (biased << 23).view(torch.float32).double()
        ends.append(raw)
    return ends[0], ends[1]


def _pack(scales: Tensor) -> Tensor:
    """Biased exponents of fp32 powers of two (or zeros) [G, S, T4], four to an int32 word, lowest byte first."""
    exponents = torch.nn.functional.pad(scales.view(torch.int32) >> 23, (0, 0, 0, -scales.shape[1] % 4))
    return exponents.to(torch.uint8).unflatten(1, (-1, 4)).movedim(2, -1).contiguous().view(torch.int32).squeeze(-1)
