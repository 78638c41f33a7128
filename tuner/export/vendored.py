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


class Tuned(NamedTuple):
    """Fixed dimensions, the constants of each implementation there, and from which size on which variant runs."""

    shape: dict[str, Any]
    constants: dict[str, dict[str, Any]]
    steps: list[tuple[int, Variant]]


Grid = Callable[[Shape, Config], Callable[[int], tuple[int, int, int]]]


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

    def __init__(self, grid: Grid, arguments: list[str], defaults: dict[str, Any], tuned: list[Tuned]) -> None:
        super().__init__()
        self.latest: tuple[Any, Plan | None] = (None, None)
        self._grid = grid
        self._arguments = arguments
        self._defaults = defaults
        self._tuned = tuned

    def add(self, key: Any, device: torch.device, dimensions: dict[str, Any]) -> Plan:
        """Make the plan of a key; UserError for dimensions that this file does not hold."""
        wanted = {**self._defaults, **dimensions}
        for each in self._tuned:
            if each.shape == wanted:
                found = self.setdefault(key, Plan(each, device, self._grid, self._arguments))
                self.latest = (key, found)
                return found
        raise UserError(f"Not tuned for {wanted}.", hint=f"This file holds {[each.shape for each in self._tuned]}.")

    def known(self, key: Any) -> Plan | None:
        """The plan of a key that was added; None for another key."""
        found = self.get(key)
        if found is not None:
            self.latest = (key, found)
        return found


def _launch(tuned: Tuned, variant: Variant, grid: Grid, arguments: list[str]) -> Callable[..., None]:
    config = variant.config
    fixed = {**tuned.constants[config.implementation], **config.parameters, **config.options}
    programs = grid(Shape(tuned.shape), config)

    def launch(size: int, *values: Any) -> None:
        variant.function[programs(size)](**dict(zip(arguments, values, strict=True)), **fixed)

    return launch
