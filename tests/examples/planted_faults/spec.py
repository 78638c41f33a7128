"""A right kernel among faulty ones: every fault must end in its own status and leave the others alone."""

import torch

from tuner.catalog import Dimension, Implementation, KernelSpec, Launch, Tensors, Tolerance
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet

COLUMNS = 128
# Faults in tiles of ROWS rows. All but the last are as fast as the fastest right one: without a check they would win.
TILED_FAULTS = (
    "wrong_element",
    "wrong_last_tile",
    "wrong_scale",
    "wrong_when_huge",
    "wrong_elsewhere",
    "not_a_number",
    "partial_write",
    "too_much_shared",
)
OTHER_FAULTS = (
    "out_of_bounds",
    "infinite_loop",
    "device_assert",
    "compile_error",
    "endless_compile",
)


def make_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`x` [num_rows, 128] fp32."""
    rows = shape.size("num_rows")
    if device == "meta":
        return {"x": torch.empty(rows, COLUMNS, device=device)}
    return {"x": torch.randn(rows, COLUMNS, device=device, generator=torch.Generator(device).manual_seed(seed))}


def make_huge(shape: Shape, device: str, seed: int) -> Tensors:
    """Magnitudes up to the largest of which the double is an fp32 number."""
    inputs = make_inputs(shape, device, seed)
    largest = torch.finfo(torch.float32).max / 2
    return {"x": (inputs["x"] * (largest / 4)).clamp(-largest, largest)}


def make_zeros(shape: Shape, device: str, seed: int) -> Tensors:
    """Zeros of both signs."""
    return {"x": make_inputs(shape, device, seed)["x"] * 0}


def make_outputs(shape: Shape, device: str) -> Tensors:
    """`y`, like `x`."""
    return {"y": torch.empty(shape.size("num_rows"), COLUMNS, device=device)}


def launch(inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
    """One program per ROWS rows, or per row."""
    rows = shape.size("num_rows")
    programs = -(-rows // config.parameters.get("ROWS", 1))
    return Launch((programs,), {"x_ptr": inputs["x"], "y_ptr": outputs["y"], "num_rows": rows, "zero": 0})


SPEC = KernelSpec(
    name="planted_faults",
    summary="Doubles a matrix, right and in many wrong ways.",
    dimensions=(Dimension("num_rows", dynamic=True),),
    implementations=(
        *(Implementation(name, "kernel.py", name, ("ROWS",)) for name in ("right", *TILED_FAULTS)),
        *(Implementation(name, "kernel.py", name) for name in OTHER_FAULTS),
        Implementation("crash_at_import", "crash.py", "crash_at_import"),
    ),
    baseline=Config("right", FrozenMapping(ROWS=1), FrozenMapping(num_warps=8)),
    baseline_specialization=SpecializationSet(),
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    launch=launch,
    reference=lambda inputs, shape: {"y": inputs["x"] * 2},
    tolerances={"y": Tolerance(relative=1e-6)},
    bytes_moved=lambda shape: 8 * shape.size("num_rows") * COLUMNS,
    flops=lambda shape: shape.size("num_rows") * COLUMNS,
    check_shapes=(Shape(num_rows=3), Shape(num_rows=17)),
    edge_inputs=FrozenMapping(huge=make_huge, zeros=make_zeros),
)
