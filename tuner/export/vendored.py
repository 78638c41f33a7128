"""The part of an exported Python file that is the same for every kernel; its text goes into the file.

Standard library and torch only, and nothing of tuner.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class UserError(ValueError):
    """Inputs that the op does not take."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)


class Shape(dict[str, Any]):
    """Dimensions by name."""

    def size(self, name: str) -> int:
        """An integer dimension."""
        return int(self[name])


class Implementation(NamedTuple):
    """A kernel's function, by the name under which it was searched."""

    name: str


class Config(NamedTuple):
    """An implementation with a value for each of its tuned parameters and compile options."""

    implementation: str
    parameters: dict[str, int]
    options: dict[str, Any]


class Variant(NamedTuple):
    """A function, decorated with what Triton must not specialize on, and its config."""

    function: Any
    config: Config


class Launch(NamedTuple):
    """Grid and arguments of one launch."""

    grid: tuple[int, ...]
    arguments: dict[str, Any]


class Dimension(NamedTuple):
    """A fixed dimension: what it is unless it is given, and what it may be."""

    name: str
    default: Any
    choices: tuple[Any, ...]
    minimum: int


class Tuned(NamedTuple):
    """Fixed dimensions, the constants of each implementation there, and from which size on which variant runs."""

    shape: dict[str, Any]
    constants: dict[str, dict[str, Any]]
    steps: list[tuple[int, Variant]]


Grid = Callable[[Shape, Config], Callable[[int], tuple[int, int, int]]]
LaunchArguments = Callable[[Shape, Config], dict[str, Any]]
Tensors = dict[str, torch.Tensor]


class Plan:
    """What serves calls with the same fixed dimensions on one device."""

    def __init__(self, tuned: Tuned, device: torch.device, grid: Grid, arguments: list[str]) -> None:
        self._device = device
        self._firsts = [first for first, _ in tuned.steps[1:]]
        self._launches = [_launch(tuned, variant, grid, arguments) for _, variant in tuned.steps]

    def empty(self, size: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An output."""
        return torch.empty_strided(size, strides, dtype=dtype, device=self._device)

    def at(self, size: int) -> Callable[..., None]:
        """What launches at a size of the dynamic dimension, given that size and the run-time arguments."""
        return self._launches[bisect_right(self._firsts, size)]


class Plans(dict[Any, Plan]):
    """The plans that were needed so far; `latest` is key and plan of the latest call."""

    def __init__(
        self,
        grid: Grid,
        arguments: list[str],
        dimensions: list[Dimension],
        tuned: list[Tuned],
        baseline: Variant,
        launch_arguments: LaunchArguments,
    ) -> None:
        super().__init__()
        self.latest: tuple[Any, Plan | None] = (None, None)
        self._grid = grid
        self._arguments = arguments
        self._dimensions = dimensions
        self._tuned = tuned
        self._baseline = baseline
        self._launch_arguments = launch_arguments

    def add(self, key: Any, device: torch.device, dimensions: dict[str, Any]) -> Plan:
        """Make the plan of a key, with the baseline where nothing was tuned; UserError for what cannot be."""
        wanted = Shape({each.name: _value(each, dimensions) for each in self._dimensions})
        tuned = next((each for each in self._tuned if each.shape == wanted), None) or self._untuned(wanted)
        found = self.setdefault(key, Plan(tuned, device, self._grid, self._arguments))
        self.latest = (key, found)
        return found

    def known(self, key: Any) -> Plan | None:
        """The plan of a key that was added; None for another key."""
        found = self.get(key)
        if found is not None:
            self.latest = (key, found)
        return found

    def _untuned(self, shape: Shape) -> Tuned:
        config = self._baseline.config
        every = self._launch_arguments(shape, config)
        constants = {name: value for name, value in every.items() if name not in self._arguments}
        return Tuned(shape, {config.implementation: constants}, [(1, self._baseline)])


def _value(dimension: Dimension, given: dict[str, Any]) -> Any:
    name, default, choices, minimum = dimension
    value = given.get(name, default)
    if choices and value not in choices:
        raise UserError(f"Dimension {name!r} is {value!r}; expected {' or '.join(map(repr, choices))}.")
    if not choices and value < minimum:
        raise UserError(f"Dimension {name!r} is {value!r}; expected an integer >= {minimum}.")
    return value


def _launch(tuned: Tuned, variant: Variant, grid: Grid, arguments: list[str]) -> Callable[..., None]:
    config = variant.config
    fixed = {**tuned.constants[config.implementation], **config.parameters, **config.options}
    programs = grid(Shape(tuned.shape), config)

    def launch(size: int, *values: Any) -> None:
        variant.function[programs(size)](**dict(zip(arguments, values, strict=True)), **fixed)

    return launch
