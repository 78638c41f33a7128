"""`rms_norm`: divide each row by its root mean square and multiply it by a weight."""

import math
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import Dimension, Implementation, KernelSpec, Launch, Tensors
from tuner.errors import UserError
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet

from .reference import EPS, reference

MAX_HIDDEN_SIZE = 16384
# Elements by which strided inputs are padded further: 16 keep stride and pointer in their specialization class.
PADDING = 16
# Rows of each extreme kind, from which those of an input are drawn.
DRAWN_ROWS = 8
FP32_MAX = torch.finfo(torch.float32).max
# The largest bf16 number whose square fp32 holds, and the largest weight of extreme inputs: with up to
# sqrt(MAX_HIDDEN_SIZE) = 2**7 for x * rstd no result overflows.
SQUARED_MAX = 255.0 * 2.0**56
WEIGHT_MAX = 2.0**119

TILE = Implementation(
    name="tile",
    file="kernel.py",
    function="rms_norm_kernel",
    parameters=("BLOCK_ROWS", "BLOCK_COLUMNS", "ROW_TILES", "LOAD_STAGES", "STREAM"),
)
PER_ROW = Implementation(name="per_row", file="baseline.py", function="rms_norm_per_row_kernel")

DIMENSIONS = (
    Dimension("num_tokens", dynamic=True, minimum=0),
    Dimension("hidden_size", minimum=2048),
    Dimension("row_padding", default=64, minimum=0),
)


def _sizes(shape: Shape) -> tuple[int, int]:
    """`num_tokens` and `hidden_size`; UserError for a hidden size that the kernel is not made for."""
    hidden = shape.size("hidden_size")
    if hidden > MAX_HIDDEN_SIZE or hidden % 16:
        raise UserError(f"hidden_size is {hidden}; expected a multiple of 16 from 2048 to {MAX_HIDDEN_SIZE}.")
    return shape.size("num_tokens"), hidden


def _empty_rows(shape: Shape, device: str, offset: int) -> Tensor:
    """Rows [num_tokens, hidden_size] bf16 behind `offset` elements of a wider buffer, which holds NaN."""
    tokens, hidden = _sizes(shape)
    size = (tokens, offset + hidden + shape.size("row_padding"))
    buffer = torch.full(size, float("nan"), dtype=torch.bfloat16, device=device)
    return buffer[:, offset : offset + hidden]


def make_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`x` [T, hidden_size] bf16, rows `hidden_size + row_padding` apart with NaN between; `weight` [hidden_size] bf16.

    Every row has its own magnitude between 2**-14 and 2**10, so that eps decides some.
    """
    tokens, hidden = _sizes(shape)
    x = _empty_rows(shape, device, 0)
    weight = torch.empty(hidden, dtype=torch.bfloat16, device=device)
    if device != "meta":
        generator = torch.Generator(device).manual_seed(seed)
        magnitude = torch.empty(tokens, 1, dtype=torch.bfloat16, device=device).uniform_(-14, 10, generator=generator)
        x.normal_(generator=generator).mul_(magnitude.exp2_())
        weight.normal_(1.0, 0.5, generator=generator)
    return {"x": x, "weight": weight}


def extreme_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`make_inputs` with every row of another extreme kind than the one before it, and a weight of extremes."""
    inputs = make_inputs(shape, device, seed)
    if device == "meta":
        return inputs
    x, weight = inputs["x"], inputs["weight"]
    generator = torch.Generator(device).manual_seed(seed)
    rows = _extreme_rows(x.shape[1], generator)
    kind = torch.randint(1, len(rows), (len(x),), generator=generator, device=device).cumsum(0) % len(rows)
    member = torch.randint(DRAWN_ROWS, (len(x),), generator=generator, device=device)
    for number in range(len(rows)):
        chosen = kind == number
        x[chosen] = rows[number, member[chosen]]
    weight.copy_(_signed(_numbers(0.0, WEIGHT_MAX, weight.shape, generator), generator))
    weight[::7] = 0.0
    return inputs


def _extreme_rows(hidden: int, generator: torch.Generator) -> Tensor:
    """Rows [kinds, DRAWN_ROWS, hidden] bf16 of six kinds, with random signs.

    Zeros; up to the largest that the sum of squares holds; subnormals; where eps decides; one number throughout; one
    huge element among tiny ones, in the first, the last or any column.
    """
    size, device = (DRAWN_ROWS, hidden), generator.device
    # Rounded down by one bf16 step and more: the computed sum may lie above the exact one.
    filled_max = math.sqrt(FP32_MAX / hidden) * (1 - 2.0**-6)
    place = torch.randint(hidden, (DRAWN_ROWS, 1), generator=generator, device=device)
    place[:2, 0] = torch.tensor([0, hidden - 1], device=device)
    tiny = _numbers(0.0, 2.0**-120, size, generator)
    kinds = [
        torch.zeros(size, dtype=torch.bfloat16, device=device),
        _numbers(filled_max / 4, filled_max, size, generator),
        _numbers(0.0, 2.0**-126, size, generator),
        _numbers(2.0**-12, 2.0**-8, size, generator),
        _numbers(2.0**-30, filled_max, (DRAWN_ROWS, 1), generator).expand(size),
        torch.where(torch.arange(hidden, device=device) == place, SQUARED_MAX, tiny),
    ]
    return _signed(torch.stack(kinds), generator)


def _numbers(low: float, high: float, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """bf16 numbers between two, in equal shares from every power of two."""
    ends = torch.tensor([low, high], dtype=torch.bfloat16).view(torch.int16).tolist()
    codes = torch.randint(ends[0], ends[1] + 1, size, generator=generator, device=generator.device)
    return codes.to(torch.int16).view(torch.bfloat16)


def _signed(values: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(2, values.shape, generator=generator, device=generator.device)
    return values * (1 - 2 * signs).bfloat16()


def strided_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`make_inputs` with rows further apart, behind padding; NaN lies between them."""
    inputs = make_inputs(shape, device, seed)
    return {**inputs, "x": _empty_rows(shape, device, PADDING).copy_(inputs["x"])}


def make_outputs(shape: Shape, device: str) -> Tensors:
    """`y` [T, hidden_size] bf16, contiguous."""
    return {"y": torch.empty(_sizes(shape), dtype=torch.bfloat16, device=device)}


def launch(inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
    """Grid and arguments of either implementation; strides are taken from the tensors."""
    tokens, hidden = _sizes(shape)
    x, y = inputs["x"], outputs["y"]
    arguments: dict[str, Any] = {
        "x_ptr": x,
        "weight_ptr": inputs["weight"],
        "y_ptr": y,
        "num_tokens": tokens,
        "x_row_stride": x.stride(0),
        "y_row_stride": y.stride(0),
        "eps": EPS,
    }
    if config.implementation == PER_ROW.name:
        block = 1 << (hidden - 1).bit_length()
        return Launch((tokens,), {**arguments, "hidden_size": hidden, "BLOCK": block})
    rows = config.parameters["BLOCK_ROWS"] * config.parameters["ROW_TILES"]
    return Launch((-(-tokens // rows),), {**arguments, "HIDDEN_SIZE": hidden})


def bytes_moved(shape: Shape) -> int:
    """Every row read and written once, and the weight read."""
    tokens, hidden = _sizes(shape)
    return 2 * (2 * tokens + 1) * hidden


def flops(shape: Shape) -> int:
    """Per element a square, an addition and two products."""
    tokens, hidden = _sizes(shape)
    return 4 * tokens * hidden


def _check_shape(num_tokens: int, hidden_size: int, row_padding: int) -> Shape:
    return Shape(num_tokens=num_tokens, hidden_size=hidden_size, row_padding=row_padding)


# One row, whole and partial tiles of rows; columns that every block divides, and tails of every block up to 8192.
CHECK_SHAPES = (
    _check_shape(1, 2048, 0),
    _check_shape(19, 2320, 64),
    _check_shape(5, 4112, 7),
    _check_shape(3, 8208, 16),
)

SPEC = KernelSpec(
    name="rms_norm",
    summary="RMS normalization of bf16 rows of 2048 to 16384 elements, times a weight.",
    dimensions=DIMENSIONS,
    implementations=(TILE, PER_ROW),
    baseline=Config(PER_ROW.name, FrozenMapping(), FrozenMapping(num_warps=8)),
    baseline_specialization=SpecializationSet(),
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    launch=launch,
    reference=reference,
    bytes_moved=bytes_moved,
    flops=flops,
    check_shapes=CHECK_SHAPES,
    edge_inputs=FrozenMapping(extreme=extreme_inputs, strided=strided_inputs),
    written_inputs=("x",),
)
