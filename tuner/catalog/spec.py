"""The KernelSpec contract: all that tuner must know of a kernel.

A kernel is a folder with a `spec.py` that defines `SPEC = KernelSpec(...)`. Its other files are imported relatively
(`from .reference import reference`), except the Triton sources: those are named by file, because the variant generator
rewrites their text and every process loads the rewritten module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuner.errors import UnknownNameError, UserError
from tuner.records import Config, DimensionValue, FrozenMapping, Shape, SpecializationSet, Variant

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Dimension:
    """One dimension of a shape.

    A `dynamic` dimension changes from call to call in serving; `default` makes it optional, `choices` closes it.
    """

    name: str
    dynamic: bool = False
    default: DimensionValue | None = None
    choices: tuple[DimensionValue, ...] = ()
    minimum: int = 1


@dataclass(frozen=True)
class Implementation:
    """One `@triton.jit` function that computes the kernel.

    `parameters` are its tuned `tl.constexpr` arguments. Implementations compete: the choice is searched too.
    """

    name: str
    file: str
    function: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launch:
    """Grid and arguments (all but the tuned parameters) of one launch; a zero in the grid means no launch."""

    grid: tuple[int, ...]
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.grid, tuple) or not 1 <= len(self.grid) <= 3:
            raise UserError(
                f"The grid of a launch is {self.grid!r}; expected one to three numbers in a tuple.",
                hint="Write Launch((programs,), ...).",
            )


@dataclass(frozen=True)
class HostFunction:
    """How a serving process calls a kernel: what the kernel's `op.py` defines as `OP`.

    call(plans, ...): the op. Its parameters after the first, with their types and defaults, are the op's signature, the
        first of them a tensor whose device counts. It checks its inputs, allocates the outputs with `plan.empty` and
        passes the run-time arguments to `plan.at(size)`; see `tuner.runtime.dispatch`.
    fake(...): outputs without data, of the sizes, strides and types that `call` returns; sizes may be symbolic.
    arguments: the names of the run-time arguments that `call` passes, in order, tensors first.
    grid(shape, config): from the size of the dynamic dimension to the grid of `KernelSpec.launch`, three numbers.
    """

    call: Callable[..., Any]
    fake: Callable[..., Any]
    arguments: tuple[str, ...]
    grid: Callable[[Shape, Config], Callable[[int], tuple[int, int, int]]]


@dataclass(frozen=True)
class Bounds:
    """The lowest and highest right value of each element; where both are the same, only that one is right."""

    low: "Tensor"
    high: "Tensor"


@dataclass(frozen=True)
class Tolerance:
    """How far an output may lie from a reference tensor: `absolute + relative * |reference|`."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True)
class KernelSpec:
    """What a kernel computes, how it is called, and what it is held against.

    A kernel that adds to what its outputs hold (atomics, split-K) or works in place cannot be tuned yet: outputs are
    poisoned before a check, and launches are repeated over the same buffers.

    make_inputs(shape, device, seed): fresh random inputs by name; `device` may be `meta`.
    edge_inputs: makers like `make_inputs`, by name, of inputs that random ones miss (zeros, huge values, other
        strides); every variant must be right on these too. Strides of the same specialization class (1, a multiple of
        16, neither) spare a further compile.
    make_outputs(shape, device): the output storages by name, every byte of which the kernel must write.
    launch(inputs, outputs, shape, config): grid and arguments of one launch.
    reference(inputs, shape): for each output either the right tensor (held to `tolerances`) or `Bounds`.
        Without a reference the baseline's output is the reference.
    written_inputs: the names of the inputs that the kernel in front of this one has just written. Timing replaces what
        they hold, every row by row 0: name none that says where to read or write (indices, routing).
    bytes_moved(shape), flops(shape): the least traffic (bytes) and arithmetic of one call.
    check_shapes: small shapes that reach every path, for checks in Triton's interpreter; dimensions with a default may
        be left out.
    """

    name: str
    summary: str
    dimensions: tuple[Dimension, ...]
    implementations: tuple[Implementation, ...]
    baseline: Config
    baseline_specialization: SpecializationSet
    make_inputs: Callable[[Shape, str, int], Tensors]
    make_outputs: Callable[[Shape, str], Tensors]
    launch: Callable[[Tensors, Tensors, Shape, Config], Launch]
    bytes_moved: Callable[[Shape], int]
    flops: Callable[[Shape], int]
    check_shapes: tuple[Shape, ...]
    reference: Callable[[Tensors, Shape], Mapping[str, "Tensor | Bounds"]] | None = None
    tolerances: Mapping[str, Tolerance] = field(default_factory=FrozenMapping)
    edge_inputs: Mapping[str, Callable[[Shape, str, int], Tensors]] = field(default_factory=FrozenMapping)
    written_inputs: tuple[str, ...] = ()

    def implementation(self, name: str) -> Implementation:
        """The implementation of that name; UnknownNameError when there is none."""
        for implementation in self.implementations:
            if implementation.name == name:
                return implementation
        raise UnknownNameError("implementation", name, [each.name for each in self.implementations])

    def shape(self, values: Mapping[str, DimensionValue]) -> Shape:
        """A whole shape from the given values and the defaults; UserError for a wrong name or value."""
        known = {dimension.name: dimension for dimension in self.dimensions}
        for name in values:
            if name not in known:
                raise UnknownNameError(f"dimension of {self.name}", name, known)
        return Shape({name: _value(dimension, values.get(name)) for name, dimension in known.items()})

    def short_label(self, shape: Shape) -> str:
        """A shape's label without the dimensions that have their default value."""
        defaults = {dimension.name: dimension.default for dimension in self.dimensions}
        return ",".join(f"{name}={value}" for name, value in shape.items() if value != defaults.get(name))

    @property
    def dynamic_dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions that change from call to call."""
        return tuple(dimension.name for dimension in self.dimensions if dimension.dynamic)

    @property
    def baseline_variant(self) -> Variant:
        """The variant that upstream ships."""
        return Variant(self.name, self.baseline, self.baseline_specialization)


def _value(dimension: Dimension, value: DimensionValue | None) -> DimensionValue:
    if value is None:
        value = dimension.default
    if value is None:
        raise UserError(f"Dimension {dimension.name!r} has no value.", hint=f"Add {dimension.name}=<value>.")
    if dimension.choices:
        if isinstance(value, bool | float) or value not in dimension.choices:
            expected = " or ".join(map(repr, dimension.choices))
            raise UserError(f"Dimension {dimension.name!r} is {value!r}; expected {expected}.")
    elif isinstance(value, bool) or not isinstance(value, int) or value < dimension.minimum:
        raise UserError(f"Dimension {dimension.name!r} is {value!r}; expected an integer >= {dimension.minimum}.")
    return value
