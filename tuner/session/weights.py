"""What a workload says of a run's shapes: how often each occurs, and which sizes a variant meets."""

from collections.abc import Sequence

from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.ranking import fixed_dimensions
from tuner.records import DimensionValue, FrozenMapping, Shape
from tuner.workload import Workload


def shape_weights(shapes: Sequence[Shape], workload: Workload | None) -> dict[Shape, float]:
    """The share of a server's steps for which each shape's winner stands; without a workload shapes weigh the same.

    Groups of shapes that differ in the workload's dimension alone weigh the same. UserError when no step of the
    workload is within reach of the shapes.
    """
    if workload is None:
        return dict.fromkeys(shapes, 1 / len(shapes))
    groups = groups_beside(shapes, workload.dimension)
    weights: dict[Shape, float] = {}
    for group in groups.values():
        of_size = workload.nearest_weights(shape.size(workload.dimension) for shape in group)
        weights |= {shape: of_size[shape.size(workload.dimension)] / len(groups) for shape in group}
    if not sum(weights.values()) > 0:
        raise UserError(
            f"No step of the workload {workload.name} is near the shapes of the run.",
            hint=f"`tuner workload show {workload.name}` says which {workload.dimension} it has.",
        )
    return {shape: weights[shape] for shape in shapes}


def counted_shapes(kernel: Kernel, shapes: Sequence[Shape], workload: Workload | None) -> tuple[Shape, ...]:
    """The shapes over which compiles are counted: the run's, and beside each the sizes of the workload."""
    if workload is None:
        return tuple(shapes)
    minimum = next(each.minimum for each in kernel.spec.dimensions if each.name == workload.dimension)
    served = [
        Shape({**group[0], workload.dimension: size})
        for group in groups_beside(shapes, workload.dimension).values()
        for size in workload.histogram
        if size >= minimum
    ]
    return tuple(dict.fromkeys([*shapes, *served]))


def groups_beside(shapes: Sequence[Shape], dimension: str) -> dict[FrozenMapping[DimensionValue], list[Shape]]:
    """The shapes by what they have besides the dimension."""
    groups: dict[FrozenMapping[DimensionValue], list[Shape]] = {}
    for shape in shapes:
        groups.setdefault(fixed_dimensions(shape, dimension), []).append(shape)
    return groups
