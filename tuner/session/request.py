"""What a run is asked to do, checked against the kernel before anything is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from tuner.catalog import Kernel, Launch, Tensors
from tuner.compile.module import foreign_imports, signature
from tuner.errors import SpaceError, UnknownNameError, UserError
from tuner.records import LAUNCH_PDL, DimensionValue, FrozenMapping, L2State, Shape, Target, Variant
from tuner.search import Method
from tuner.space import Problem, SearchSpace, load_space
from tuner.workload import Workload, load_workload


@dataclass(frozen=True)
class RunRequest:
    """What to tune.

    `target` None means this machine's GPU, measured; a target means compile for it and estimate. `trials` are
    evaluations per shape, those already stored included; `timeout_s` is for the whole run, the final included. Without
    a workload shapes weigh the same.
    """

    kernel: Kernel
    space: SearchSpace
    shapes: tuple[Shape, ...]
    target: Target | None
    trials: int
    workload: Workload | None = None
    timeout_s: float | None = None
    method: Method = Method.TPE
    seed: int = 0
    jobs: int = 1

    @property
    def baseline(self) -> Variant:
        """What winners are held against: the space's word, else the kernel's own."""
        return self.space.baseline or self.kernel.spec.baseline_variant


def load_fitting_space(kernel: Kernel, path: Path | None) -> SearchSpace:
    """The space in a file, by default the kernel's own; SpaceError where it does not fit the kernel."""
    spec, path = kernel.spec, path or kernel.space_path
    dimensions = [dimension.name for dimension in spec.dimensions]
    space = load_space(path, dimensions)
    if space.kernel != kernel.name:
        raise SpaceError(f"{path}: the space is for the kernel {space.kernel!r}, not for {kernel.name!r}.")
    if space.l2 is L2State.WRITTEN and not spec.written_inputs:
        message = f"l2 is {space.l2}, but the spec of {kernel.name} names no input that is written in front of it."
        hint = "Name it in KernelSpec.written_inputs, or use warm or cold."
        raise space.source.error([Problem(("measurement", "l2"), message, hint)])
    for implementation in spec.implementations:
        if packages := foreign_imports(kernel, implementation):
            where = kernel.folder / implementation.file
            raise UserError(
                f"{where} imports {', '.join(packages)}: what it takes from there would change unseen.",
                hint="Move what it needs into the file; it may import torch, triton and what Python brings.",
            )
    signatures = {each.name: signature(kernel, each) for each in spec.implementations}
    space.check(
        {each.name: each.parameters for each in spec.implementations},
        {name: found.runtime for name, found in signatures.items()},
        dimensions,
    )
    for each in space.implementations:
        if 1 in each.options.get(LAUNCH_PDL, ()) and LAUNCH_PDL not in signatures[each.name].constexpr:
            location = ("implementations", each.name, "options", LAUNCH_PDL)
            message = (
                f"{each.name!r} of {kernel.name} has no argument {LAUNCH_PDL!r}: it would not wait for its inputs."
            )
            raise space.source.error([Problem(location, message, "Use 0.")])
    return space


def find_workload(kernel: Kernel, space: SearchSpace, given: str | None) -> Workload | None:
    """The given workload, by default the space's, by name or path; None without one.

    A path in a space is relative to its file. SpaceError where the space names one that cannot be used; UserError for
    a given one.
    """
    if given is not None:
        return _fitting_workload(kernel, given)
    if space.workload is None:
        return None
    is_path = "/" in space.workload or space.workload.endswith(".json")
    folder = space.source.path.parent if space.source.path else Path()
    try:
        return _fitting_workload(kernel, str(folder / space.workload) if is_path else space.workload)
    except UserError as error:
        raise space.source.error([Problem(("workload",), error.message, error.hint)]) from None


def _fitting_workload(kernel: Kernel, name: str) -> Workload:
    workload, dynamic = load_workload(name), kernel.spec.dynamic_dimensions
    if workload.dimension not in dynamic:
        raise UserError(
            f"The workload {workload.name} has sizes of {workload.dimension!r}; expected a dynamic dimension of "
            f"{kernel.name}: {', '.join(dynamic) or 'it has none'}."
        )
    return workload


def whole_shapes(
    kernel: Kernel, space: SearchSpace, given: Sequence[Mapping[str, DimensionValue]]
) -> tuple[Shape, ...]:
    """The given shapes, by default those of the space, with the kernel's defaults filled in.

    UserError for a wrong dimension or a shape that launches nothing; SpaceError for one at which no config is allowed.
    """
    shapes = tuple(dict.fromkeys(kernel.spec.shape(each) for each in given or space.shapes))
    if not shapes:
        raise UserError("There is no shape to tune.", hint="List some in the space, or name them with --shapes.")
    made = [_meta_launch(kernel, shape) for shape in shapes]
    for shape, (_, _, launch) in zip(shapes, made, strict=True):
        if 0 in launch.grid:
            raise UserError(f"The shape {shape.label} launches nothing, so it cannot be tuned.")
        space.require_feasible(shape)
    _check_names(kernel, made)
    return shapes


def checked_grid(kernel: Kernel, shape: Shape) -> tuple[int, ...]:
    """The baseline's grid at a shape; UserError when the spec cannot make that shape's tensors."""
    return _meta_launch(kernel, shape)[2].grid


def _meta_launch(kernel: Kernel, shape: Shape) -> tuple[Tensors, Tensors, Launch]:
    """Inputs, outputs and launch of the baseline, without memory; UserError that says where the spec fails."""
    spec = kernel.spec
    try:
        inputs, outputs = spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta")
        return inputs, outputs, spec.launch(inputs, outputs, shape, spec.baseline)
    except UserError:
        raise
    except Exception as error:
        frames = [each for each in extract_tb(error.__traceback__) if kernel.folder in Path(each.filename).parents]
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(
            f"The spec of {kernel.name} cannot make the shape {shape.label}: {found}{where}",
            hint="Tensors are first made on the device `meta`, where they hold no data; very large sizes fail too.",
        ) from error


def _check_names(kernel: Kernel, made: Sequence[tuple[Tensors, Tensors, Launch]]) -> None:
    """UserError where the spec names tensors that were made at no shape, or a launch and its function differ."""
    inputs = {name for each, _, _ in made for name in each}
    outputs = {name for _, each, _ in made for name in each}
    for what, names, known in (
        ("written_inputs", kernel.spec.written_inputs, inputs),
        ("tolerances", kernel.spec.tolerances, outputs),
    ):
        for name in names:
            if name not in known:
                raise UnknownNameError(f"tensor in the {what} of {kernel.name}", name, known)
    for _, _, launch in made:
        _check_arguments(kernel, launch)


def _check_arguments(kernel: Kernel, launch: Launch) -> None:
    """UserError where the baseline's launch passes what its function does not take, or not all of it."""
    spec = kernel.spec
    implementation = spec.implementation(spec.baseline.implementation)
    function = signature(kernel, implementation)
    frozen = {*implementation.parameters, *spec.baseline.options, LAUNCH_PDL}  # become constants of the module
    taken = [name for name in (*function.runtime, *function.constexpr) if name not in frozen]
    for name in launch.arguments:
        if name not in taken:
            raise UnknownNameError(f"argument of {implementation.function} that the spec's launch passes", name, taken)
    missing = [name for name in taken if name not in launch.arguments and name not in function.optional]
    if missing:
        raise UserError(f"The spec's launch of {kernel.name} passes no {', '.join(missing)}.")


def served_shapes(kernel: Kernel, shapes: Sequence[Shape]) -> dict[Shape, tuple[Shape, ...]]:
    """What each shape's winner may serve: the shapes that differ in dynamic dimensions alone, and their neighbours.

    A neighbour is one off in a dynamic dimension: there the last tile is partial, and other classes are reached. One
    that the kernel does not take is left out.
    """
    dynamic = kernel.spec.dynamic_dimensions
    fixed = {
        shape: FrozenMapping({name: value for name, value in shape.items() if name not in dynamic}) for shape in shapes
    }
    served: dict[FrozenMapping[DimensionValue], dict[Shape, None]] = {each: {} for each in fixed.values()}
    for shape in shapes:
        near = [Shape({**shape, name: shape.size(name) + step}) for name in dynamic for step in (-1, 1)]
        served[fixed[shape]] |= dict.fromkeys([shape, *(each for each in near if _launches(kernel, each))])
    return {shape: tuple(served[fixed[shape]]) for shape in shapes}


def _launches(kernel: Kernel, shape: Shape) -> bool:
    try:
        return 0 not in checked_grid(kernel, kernel.spec.shape(shape))
    except UserError:
        return False
