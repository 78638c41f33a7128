"""`scale_rows`: the smallest kernel that tuner can tune; an example for tests."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tuner.catalog import Dimension, Implementation, KernelSpec, Launch, Tensors
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet


def make_inputs(shape: Shape, device: str, seed: int) -> Tensors:
    """`x` [num_rows, columns] bf16."""
    x = torch.empty(shape.size("num_rows"), shape.size("columns"), dtype=torch.bfloat16, device=device)
    return {"x": x if device == "meta" else x.normal_(generator=torch.Generator(device).manual_seed(seed))}


def make_outputs(shape: Shape, device: str) -> Tensors:
    """`y` [num_rows, columns] bf16."""
    return {"y": torch.empty(shape.size("num_rows"), shape.size("columns"), dtype=torch.bfloat16, device=device)}


def launch(inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
    rows = shape.size("num_rows")
    arguments = {
        "x_ptr": inputs["x"],
        "y_ptr": outputs["y"],
        "num_rows": rows,
        "row_stride": shape.size("columns"),
        "COLUMNS": shape.size("columns"),
    }
    return Launch((-(-rows // config.parameters["BLOCK_ROWS"]),), arguments)


def reference(inputs: Tensors, shape: Shape) -> Mapping[str, Tensor]:
    return {"y": inputs["x"] * 2}


def bytes_moved(shape: Shape) -> int:
    return 4 * shape.size("num_rows") * shape.size("columns")


def flops(shape: Shape) -> int:
    return shape.size("num_rows") * shape.size("columns")


SPEC = KernelSpec(
    name="scale_rows",
    summary="Doubles a bf16 matrix.",
    dimensions=(Dimension("num_rows", dynamic=True, minimum=0), Dimension("columns", default=128)),
    implementations=(Implementation("rows", "kernel.py", "scale_rows_kernel", ("BLOCK_ROWS",)),),
    baseline=Config("rows", FrozenMapping(BLOCK_ROWS=1), FrozenMapping(num_warps=1)),
    baseline_specialization=SpecializationSet(),
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    launch=launch,
    reference=reference,
    bytes_moved=bytes_moved,
    flops=flops,
    written_inputs=("x",),
    check_shapes=(Shape(num_rows=3, columns=128), Shape(num_rows=4, columns=16)),
)
