"""Why a variant compiles at a shape: which arguments have another class there than in any call before. Exact."""

from collections.abc import Iterable
from dataclasses import dataclass

from tuner.catalog import Kernel
from tuner.compile.classes import class_table
from tuner.records import Shape, Target, Variant


@dataclass(frozen=True)
class Change:
    """An argument whose class changed, with the labels of both classes."""

    argument: str
    before: str
    after: str

    @property
    def label(self) -> str:
        return f"{self.argument}: {self.before} -> {self.after}"


def compile_causes(
    kernel: Kernel, variant: Variant, shapes: Iterable[Shape], target: Target
) -> dict[Shape, tuple[Change, ...]]:
    """The shapes at which a variant compiles when it is called at these in order, each with what changed.

    What changed is told against the earlier compile that differs least; the first one has nothing to differ from.
    """
    table = class_table(kernel, variant.config, shapes, target)
    keys = table.keys(variant.specialization)
    causes: dict[Shape, tuple[Change, ...]] = {}
    for number, (key, shape) in enumerate(keys.items()):
        changes = [
            tuple(
                Change(name, before.label, after.label)
                for name, before, after in zip(table.names, earlier, key, strict=True)
                if before != after
            )
            for earlier in list(keys)[:number]
        ]
        causes[shape] = min(changes, key=len, default=())
    return causes
