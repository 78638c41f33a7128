"""Specialization classes: what Triton's compile key sees of each argument, at each shape and under each mark. Exact.

A compile key holds one class per argument, and a mark changes the class of its own argument alone. So three calls bound
at each shape, with no argument marked, with all marked, and with all marked on alignment, give the keys of every set.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from tuner.catalog import Kernel
from tuner.compile.module import load_variant
from tuner.compile.source import arguments
from tuner.compile.specialization import meta_launch, specialize
from tuner.records import Config, Shape, SpecializationSet, Target, Variant


class Mark(StrEnum):
    """What an argument is kept from."""

    NONE = "none"
    SPECIALIZATION = "do_not_specialize"
    ALIGNMENT = "do_not_specialize_on_alignment"


@dataclass(frozen=True)
class ArgumentClass:
    """What the compiler is told of an argument: its type, and `value` or `divisible_by_16` where it may use them.

    `value` is the text of a constant: of a `tl.constexpr` argument, or 1. A tuple's class is the text of its parts.
    """

    type: str
    value: str | None = None
    divisible_by_16: bool = False

    @property
    def label(self) -> str:
        if self.value is not None:
            return f"= {self.value}" if self.type == "constexpr" else f"{self.type} {self.value}"
        return f"{self.type}, divisible by 16" if self.divisible_by_16 else self.type


Key = tuple[ArgumentClass, ...]


@dataclass(frozen=True)
class ClassTable:
    """The class of every argument at every shape that launches something, for one implementation and target.

    `classes[mark]` has one key per shape, with the classes of `names` in order; `runtime` are the names that a mark can
    name.
    """

    names: tuple[str, ...]
    runtime: tuple[str, ...]
    shapes: tuple[Shape, ...]
    classes: Mapping[Mark, Sequence[Key]]

    def of(self, name: str, mark: Mark = Mark.NONE) -> tuple[ArgumentClass, ...]:
        """The class of an argument at each shape; ValueError for a name that is none."""
        column = self.names.index(name)
        return tuple(key[column] for key in self.classes[mark])

    def keys(self, marks: SpecializationSet) -> dict[Key, Shape]:
        """Every compile key that a set reaches, with the first shape that reaches it; other names are ignored."""
        rows = zip(*(self.of(name, _mark(name, marks)) for name in self.names), strict=True)
        keys: dict[Key, Shape] = {}
        for key, shape in zip(rows, self.shapes, strict=True):
            keys.setdefault(key, shape)
        return keys

    def count(self, marks: SpecializationSet) -> int:
        """How many compiles a set causes over the shapes."""
        return len(self.keys(marks))


def class_table(kernel: Kernel, config: Config, shapes: Iterable[Shape], target: Target) -> ClassTable:
    """Bind the launch at every shape as Triton's launcher would, with no driver and no GPU: about 50 us a shape."""
    implementation = kernel.spec.implementation(config.implementation)
    runtime = arguments(kernel.source(implementation), implementation.function).runtime
    sets = {
        Mark.NONE: SpecializationSet(),
        Mark.SPECIALIZATION: SpecializationSet.of(runtime),
        Mark.ALIGNMENT: SpecializationSet.of([], runtime),
    }
    variants = {mark: Variant(kernel.name, config, marks) for mark, marks in sets.items()}
    loaded = {mark: load_variant(kernel, variant) for mark, variant in variants.items()}
    names = tuple(loaded[Mark.NONE].function.arg_names)
    kept: list[Shape] = []
    classes: dict[Mark, list[Key]] = {mark: [] for mark in Mark}
    for shape in shapes:
        launch = meta_launch(kernel, variants[Mark.NONE], shape)
        if 0 not in launch.grid:
            kept.append(shape)
            for mark in Mark:
                classes[mark].append(tuple(map(_class, specialize(loaded[mark], launch.arguments, target))))
    return ClassTable(names, runtime, tuple(kept), classes)


def _class(found: tuple[Any, Any]) -> ArgumentClass:
    """From what Triton's binder gives for one argument: a type and a value or properties."""
    kind, known = found
    return _interned(str(kind), repr(known) if kind == "constexpr" or isinstance(kind, tuple) else known or "")


@lru_cache(maxsize=4096)
def _interned(kind: str, known: str) -> ArgumentClass:
    if kind == "constexpr" or kind.startswith("("):
        return ArgumentClass(kind, known)
    return ArgumentClass(kind, None, "D" in known)


def _mark(name: str, marks: SpecializationSet) -> Mark:
    if name in marks.do_not_specialize:
        return Mark.SPECIALIZATION
    return Mark.ALIGNMENT if name in marks.do_not_specialize_on_alignment else Mark.NONE
