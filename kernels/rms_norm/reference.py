"""The contract of `rms_norm` in float64, with the interval that fp32 arithmetic may reach.

`y = bf16((x * rstd) * weight)` with `rstd = 1 / sqrt(mean(x^2) + eps)`: everything between the bf16 inputs and the one
rounding at the end is fp32. Only `rstd` may be rounded in more than one way. In units of 2**-24, half a unit in the
last place, the relative errors on the way to it are at most:

    squares   0: the product of two bf16 numbers has 16 bits
    sum       one for each addition that a square passes; see `sum_depth`
    mean      6: 2.5 units in the last place for a fast division; a product with 1 / n has less
    + eps     1; eps is positive, so that the errors above do not grow
    rstd      half of all these, and 8: 1 unit in the last place for a fast square root and 2.5 for a fast division;
              a fast reciprocal square root has less

Squares below 2**-126 lose more, but nothing that counts beside eps. The two products and the rounding to bf16 are
monotone and each round once, to nearest, so that the ends of the interval of `rstd`, rounded as the kernel rounds, give
the lowest and the highest right result. They are the same number unless a rounding boundary lies between them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from tuner.catalog import Bounds, Tensors
from tuner.records import Shape

EPS = 1e-6
HALF_ULP = 2.0**-24
# What products of errors add, relative to their sum.
SECOND_ORDER = 2.0**-10
CHUNK_ELEMENTS = 1 << 25


def reference(inputs: Tensors, shape: Shape) -> Mapping[str, Bounds]:
    """Bounds of `y` [num_tokens, hidden_size] bf16; works through chunks of rows of about 2**25 elements.

    `inputs` are those of `make_inputs`, on any device.
    """
    x, weight = inputs["x"], inputs["weight"].double()
    tokens, hidden = x.shape
    eps = float(torch.tensor(EPS, dtype=torch.float32))
    low, high = (torch.empty(tokens, hidden, dtype=torch.bfloat16, device=x.device) for _ in range(2))
    step = max(1, CHUNK_ELEMENTS // hidden)
    for start in range(0, tokens, step):
        rows = slice(start, start + step)
        exact = x[rows].double()
        rstd = 1 / (exact.square().mean(1, keepdim=True) + eps).sqrt()
        ends = [_round(_round(exact * _round(rstd * (1 + sign * rstd_error(hidden)))) * weight) for sign in (-1, 1)]
        low[rows] = torch.minimum(*ends)
        high[rows] = torch.maximum(*ends)
    return {"y": Bounds(low, high)}


def _round(values: Tensor) -> Tensor:
    """float64 numbers rounded to fp32, as float64."""
    return values.float().double()


def sum_depth(hidden_size: int) -> int:
    """How many additions a square may pass: those of one of 32 lanes that share a row, and 32 to join the lanes."""
    return hidden_size // 32 + 32


def rstd_error(hidden_size: int) -> float:
    """Bound of the relative error of `rstd`."""
    return ((sum_depth(hidden_size) + 6 + 1) / 2 + 8) * HALF_ULP * (1 + SECOND_ORDER)
