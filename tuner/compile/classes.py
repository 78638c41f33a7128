"""Specialization classes: what Triton's compile key sees of each argument, at each shape and under each mark. Exact.

A compile key holds one class per argument, and a mark changes the class of its own argument alone. So three calls bound
at each shape, with no argument marked, with all marked, and with all marked on alignment, give the keys of every set.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from torch import Tensor

from tuner.catalog import Kernel
from tuner.compile.module import load_variant, signature
from tuner.compile.specialization import meta_launch, specialize
from tuner.records import Config, Shape, SpecializationSet, Target, Variant


class Mark(StrEnum):
    """What an argument is kept from."""

    NONE = "none"
    SPECIALIZATION = "do_not_specialize"
    ALIGNMENT = "do_not_specialize_on_alignment"


@dataclass(frozen=True)
class ArgumentClass:
    """What the compiler is told of an argument: its type, and what it may use of the value.

    `value` is the text of a constant: of a `tl.constexpr` argument, or 1. A tuple's class is the text of its parts.
    `below_2_gib` is told of what a pointer points at, on AMD only.
    """

    type: str
    value: str | None = None
    divisible_by_16: bool = False
    below_2_gib: bool = False

    @property
    def label(self) -> str:
        if self.value is not None:
            return f"= {self.value}" if self.type == "constexpr" else f"{self.type} {self.value}"
        facts = {"divisible by 16": self.divisible_by_16, "below 2 GiB": self.below_2_gib}
        return ", ".join([self.type, *(text for text, holds in facts.items() if holds)])


Key = tuple[ArgumentClass, ...]
Loss = tuple[tuple[str, ArgumentClass], ...]


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

    def key(self, marks: SpecializationSet, shape: Shape) -> Key:
        """The compile key that a set has at one of the shapes; KeyError for another shape."""
        index = self._index[shape]
        return tuple(self.classes[mark][index][column] for column, mark in enumerate(self._columns(marks)))

    def keys(self, marks: SpecializationSet) -> dict[Key, Shape]:
        """Every compile key that a set reaches, with the first shape that reaches it; other names are ignored."""
        columns = [self.of(name, mark) for name, mark in zip(self.names, self._columns(marks), strict=True)]
        keys: dict[Key, Shape] = {}
        for key, shape in zip(zip(*columns, strict=True), self.shapes, strict=True):
            keys.setdefault(key, shape)
        return keys

    def count(self, marks: SpecializationSet, without: str | None = None) -> int:
        """How many compiles a set causes over the shapes; `without` leaves an argument out of the key."""
        chosen = [(column, mark) for column, mark in enumerate(self._columns(marks)) if self.names[column] != without]
        return len({tuple(row[mark][column] for column, mark in chosen) for row in self._rows})

    def lost(self, marks: SpecializationSet) -> tuple[Loss, ...]:
        """At each shape, the arguments whose class a set changes, with the class that they lose; empty for none."""
        found: list[Loss] = [()] * len(self.shapes)
        for name, mark in zip(self.names, self._columns(marks), strict=True):
            if mark is not Mark.NONE:
                pairs = zip(self.of(name), self.of(name, mark), strict=True)
                found = [
                    known if before == after else (*known, (name, before))
                    for known, (before, after) in zip(found, pairs, strict=True)
                ]
        return tuple(found)

    @cached_property
    def _rows(self) -> tuple[Mapping[Mark, Key], ...]:
        """The distinct rows: shapes whose classes are the same under every mark count as one."""
        rows = dict.fromkeys(zip(*(self.classes[mark] for mark in Mark), strict=True))
        return tuple(dict(zip(Mark, row, strict=True)) for row in rows)

    @cached_property
    def _index(self) -> Mapping[Shape, int]:
        return {shape: index for index, shape in enumerate(self.shapes)}

    def _columns(self, marks: SpecializationSet) -> list[Mark]:
        """The mark of each argument in a set."""
        return [_mark(name, marks) for name in self.names]


def class_table(kernel: Kernel, config: Config, shapes: Iterable[Shape], target: Target) -> ClassTable:
    """Bind the launch at every shape as Triton's launcher would, with no driver and no GPU: about 50 us a shape."""
    implementation = kernel.spec.implementation(config.implementation)
    runtime = signature(kernel, implementation).runtime
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


def have_same_keys(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    """Whether two launches of a function, by their arguments, have the same compile key under every set of marks.

    True where nothing that a key sees differs; None is no launch.
    """
    if first is None or second is None:
        return first is second
    return first.keys() == second.keys() and all(_look_the_same(value, second[name]) for name, value in first.items())


def _look_the_same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first is second or _what_a_key_sees(first) == _what_a_key_sees(second)
    return type(first) is type(second) and bool(first == second)


def _what_a_key_sees(tensor: Tensor) -> tuple[Any, int, int]:
    """Type, alignment, and (on AMD) how far it reaches."""
    return tensor.dtype, tensor.data_ptr() % 16, tensor.untyped_storage().nbytes()


def _class(found: tuple[Any, Any]) -> ArgumentClass:
    """From what Triton's binder gives for one argument: a type and a value or properties.

    An argument annotated with a type keeps it at the value 1, which is then the value known.
    """
    kind, known = found
    is_value = kind == "constexpr" or isinstance(kind, tuple) or not isinstance(known, str | None)
    return _interned(str(kind), repr(known) if is_value else known or "", is_value)


@lru_cache(maxsize=4096)
def _interned(kind: str, known: str, is_value: bool) -> ArgumentClass:
    return ArgumentClass(kind, known) if is_value else ArgumentClass(kind, None, "D" in known, "S" in known)


def _mark(name: str, marks: SpecializationSet) -> Mark:
    if name in marks.do_not_specialize:
        return Mark.SPECIALIZATION
    return Mark.ALIGNMENT if name in marks.do_not_specialize_on_alignment else Mark.NONE
