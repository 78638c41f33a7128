"""Every variant of a space, in the order of the file."""

from collections.abc import Iterator

from tuner.records import Shape, Variant
from tuner.search.search import Cost, Search
from tuner.space import SearchSpace


class GridSearch(Search):
    """Goes through all specialization sets of each config, configs in the order of the space."""

    def __init__(self, space: SearchSpace, shape: Shape) -> None:
        self._known: set[Variant] = set()
        self._rest = all_variants(space, shape)

    def suggest(self) -> Variant | None:
        for variant in self._rest:
            if variant not in self._known:
                self._known.add(variant)
                return variant
        return None

    def update(self, variant: Variant, cost: Cost | None) -> None:
        self._known.add(variant)


def all_variants(space: SearchSpace, shape: Shape) -> Iterator[Variant]:
    """Every variant that meets the constraints at a shape, lazily."""
    for config in space.configs(shape):
        for specialization in space.specialization_sets():
            yield Variant(space.kernel, config, specialization)
