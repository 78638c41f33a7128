"""At which shapes marked and unmarked code are compared."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from tuner.compile.classes import ClassTable, Loss
from tuner.records import Shape, SpecializationSet
from tuner.specialize.scope import Scope

_QUANTILES = (0.5, 0.9, 1.0)


class Representatives:
    """The few shapes that stand for the steps.

    Three are shared: of the shapes at which marks can change the most arguments' classes, those whose sizes are nearest
    to the median, the 90th percentile and the largest of the steps. A set has others besides, for each combination of
    classes that it takes from its arguments and that none of the three has: the median of the steps with it.
    """

    def __init__(self, table: ClassTable, scope: Scope) -> None:
        self._table = table
        self._scope = scope
        self._places = {shape: (scope.fixed(shape), scope.size(shape)) for shape in table.shapes}
        self._known: dict[SpecializationSet, Mapping[Shape, tuple[float, float]]] = {}

    def changed_by(self, marks: SpecializationSet) -> Mapping[Shape, tuple[float, float]]:
        """Those at which a set changes the compile key, by size; empty where it changes none.

        With the share of the steps that each stands for, and of those among them whose key the set changes.
        """
        if marks not in self._known:
            losses = dict(zip(self._table.shapes, self._table.lost(marks), strict=True))
            chosen = [shape for shape in self._shared if losses[shape]]
            missing = {*losses.values()} - {losses[shape] for shape in chosen} - {()}
            chosen += [self._median([shape for shape in losses if losses[shape] == loss]) for loss in missing]
            self._known[marks] = self._shares(sorted(chosen, key=self._scope.size), losses)
        return self._known[marks]

    def _shares(self, among: Sequence[Shape], losses: Mapping[Shape, Loss]) -> dict[Shape, tuple[float, float]]:
        """A step whose key changes falls to the nearest shape that loses the same, any other to the nearest of all."""
        near, changed = dict.fromkeys(among, 0.0), dict.fromkeys(among, 0.0)
        alike = {loss: [shape for shape in among if losses[shape] == loss] for loss in {*losses.values()}}
        for shape, loss in losses.items() if among else ():
            nearest = self._nearest(shape, alike[loss] or among)
            near[nearest] += self._scope.shares[shape]
            changed[nearest] += self._scope.shares[shape] if loss else 0.0
        return {shape: (near[shape], changed[shape]) for shape in among}

    def _nearest(self, shape: Shape, among: Sequence[Shape]) -> Shape:
        """With the same fixed dimensions if there is one, and nearest by ratio."""
        fixed, size = self._places[shape]

        def distance(other: Shape) -> tuple[bool, float]:
            its_fixed, its_size = self._places[other]
            return its_fixed != fixed, max(size, its_size) / min(size, its_size)

        return among[0] if len(among) == 1 else min(among, key=distance)

    def _median(self, shapes: Sequence[Shape]) -> Shape:
        size = self._scope.quantile(0.5, shapes)
        return next(shape for shape in shapes if self._scope.size(shape) == size)

    @cached_property
    def _shared(self) -> tuple[Shape, ...]:
        shapes = self._table.shapes
        lost = [len(loss) for loss in self._table.lost(SpecializationSet.of(self._table.runtime))]
        telling = [shape for shape, count in zip(shapes, lost, strict=True) if count == max(lost)]
        by_size = {self._scope.size(shape): shape for shape in reversed(telling)}
        wanted = [self._scope.quantile(share, shapes) for share in _QUANTILES]
        sizes = [min(by_size, key=lambda each: (max(each, size) / min(each, size), each)) for size in wanted]
        return tuple(dict.fromkeys(by_size[size] for size in sizes))
