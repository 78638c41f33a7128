"""The op as serving engines call it: what it checks, allocates and passes to the kernel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import HostFunction
from tuner.errors import UserError
from tuner.records import Config, Shape

from .spec import EPS, PER_ROW

ARGUMENTS = ("x_ptr", "weight_ptr", "y_ptr", "num_tokens", "x_row_stride", "y_row_stride", "eps")


def call(plans: Any, x: Tensor, weight: Tensor, epsilon: float = EPS) -> Tensor:
    """Each row of `x` [T, hidden_size] bf16 divided by its root mean square, times `weight` [hidden_size] bf16.

    Rows may lie apart. Returns [T, hidden_size] bf16, contiguous. UserError for other inputs.
    """
    try:
        tokens, hidden = x.shape
        row_stride, step = x.stride()
    except ValueError:
        raise UserError(f"x has shape {[*x.shape]}; expected [T, hidden_size].") from None
    key = (x.get_device(), weight.get_device(), x.dtype, weight.dtype, step, hidden, weight.shape, weight.stride())
    latest, plan = plans.latest
    if key != latest:
        plan = plans.known(key)
        if plan is None:
            _check(x, weight)
            plan = plans.add(key, x.device, {"hidden_size": hidden})
    y = plan.empty((tokens, hidden), (hidden, 1), torch.bfloat16)
    if tokens:
        plan.at(tokens)(tokens, x, weight, y, tokens, row_stride, hidden, epsilon)
    return y


def fake(x: Tensor, weight: Tensor, epsilon: float = EPS) -> Tensor:
    """The output of `call` without data."""
    return x.new_empty_strided(x.shape, (x.shape[1], 1))


def _check(x: Tensor, weight: Tensor) -> None:
    for name, tensor in {"x": x, "weight": weight}.items():
        if tensor.dtype != torch.bfloat16:
            raise UserError(f"{name} is {tensor.dtype}; expected torch.bfloat16.")
        if tensor.device != x.device:
            raise UserError(f"{name} is on {tensor.device}, but x is on {x.device}.", hint="Move both to one device.")
        if tensor.stride(-1) != 1:
            found = f"{name} has strides {tensor.stride()}; expected 1 in the last dimension."
            raise UserError(found, hint=f"Pass {name}.contiguous().")
    if weight.shape != x.shape[1:]:
        raise UserError(f"weight has shape {[*weight.shape]}; expected {[x.shape[1]]}, one per column of x.")


def grid(shape: Shape, config: Config) -> Callable[[int], tuple[int, int, int]]:
    """From the number of rows to the grid."""
    if config.implementation == PER_ROW.name:
        return lambda tokens: (tokens, 1, 1)
    rows = config.parameters["BLOCK_ROWS"] * config.parameters["ROW_TILES"]
    return lambda tokens: (-(-tokens // rows), 1, 1)


OP = HostFunction(call, fake, ARGUMENTS, grid)
