"""Which shapes are looked at, and which share of the steps each of them has."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.records import DimensionValue, FrozenMapping, Shape
from tuner.space import load_space
from tuner.workload import Workload

# Without a workload every size up to here weighs the same.
MOST_TOKENS = 4096


@dataclass(frozen=True)
class Scope:
    """The shapes that are looked at, each with its share of the steps; the shares add up to 1.

    `dynamic` is the dimension that changes from step to step, None where the kernel has none. `workload` names the
    workload that the shares come from, with its number of `steps`; without one both are None and shapes weigh the same.
    """

    shares: Mapping[Shape, float]
    dynamic: str | None
    workload: str | None = None
    steps: int | None = None

    def size(self, shape: Shape) -> int:
        """The shape's size of the dynamic dimension, at least 1; 1 without such a dimension."""
        return max(shape.size(self.dynamic), 1) if self.dynamic else 1

    def fixed(self, shape: Shape) -> FrozenMapping[DimensionValue]:
        """The shape without the dynamic dimension."""
        return FrozenMapping({name: value for name, value in shape.items() if name != self.dynamic})

    def quantile(self, share: float, shapes: Sequence[Shape]) -> int:
        """The smallest size that at least this share of the steps at the given shapes does not exceed."""
        ordered = sorted(shapes, key=self.size)
        wanted = share * sum(self.shares[shape] for shape in ordered)
        reached = 0.0
        for shape in ordered:
            reached += self.shares[shape]
            if reached >= wanted * (1 - 1e-9):
                return self.size(shape)
        raise ValueError("no shapes")

    def among(self, shapes: Sequence[Shape]) -> "Scope":
        """Only these shapes, at least one, whose shares again add up to 1."""
        whole = sum(self.shares[shape] for shape in shapes)
        return replace(self, shares={shape: self.shares[shape] / whole for shape in shapes})


def looked_at(
    kernel: Kernel, given: Sequence[Mapping[str, DimensionValue]] = (), workload: Workload | None = None
) -> Scope:
    """The given shapes, with what they leave open filled in.

    The dynamic dimension takes the sizes of the workload's steps, without one every size from 1 to 4096. Other
    dimensions take their value in the first shape of the kernel's search space. UserError for a dimension that does
    not exist or is given beside the workload.
    """
    dynamic = kernel.spec.dynamic_dimensions
    axis = workload.dimension if workload else next(iter(dynamic), None)
    names = [dimension.name for dimension in kernel.spec.dimensions]
    if workload and axis not in names:
        raise UserError(
            f"The workload {workload.name!r} has sizes of {axis!r}, but the dimensions of {kernel.name} are "
            f"{', '.join(names)}.",
            hint="Leave --workload out, and list sizes with --shapes.",
        )
    if workload and any(axis in each for each in given):
        raise UserError(
            f"{axis!r} is given by --shapes and by the workload {workload.name!r}.",
            hint=f"Leave {axis} out of --shapes, or leave --workload out.",
        )
    usual = _usual_dimensions(kernel, names, axis)
    shares: dict[Shape, float] = defaultdict(float)
    for values in given or [{}]:
        sizes = _sizes(kernel, axis, workload) if axis and axis not in values else None
        for size, share in sizes.items() if sizes else [(None, 1.0)]:
            chosen = {**usual, **values} if size is None else {**usual, **values, str(axis): size}
            shares[kernel.spec.shape(chosen)] += share
    whole = sum(shares.values())
    even = {shape: share / whole for shape, share in shares.items()}
    return Scope(even, axis, workload.name if workload else None, len(workload.steps) if workload else None)


def _usual_dimensions(kernel: Kernel, names: Sequence[str], axis: str | None) -> dict[str, DimensionValue]:
    """The first shape of the kernel's search space, without the dimension that changes; empty without a space."""
    if not kernel.space_path.is_file():
        return {}
    first = next(iter(load_space(kernel.space_path, names).shapes), FrozenMapping[DimensionValue]())
    return {name: value for name, value in first.items() if name != axis}


def _sizes(kernel: Kernel, axis: str, workload: Workload | None) -> dict[int, float]:
    if workload:
        return workload.weights()
    least = next(dimension.minimum for dimension in kernel.spec.dimensions if dimension.name == axis)
    count = MOST_TOKENS - max(least, 1) + 1
    return dict.fromkeys(range(max(least, 1), MOST_TOKENS + 1), 1 / count)
