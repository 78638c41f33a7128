"""What every search method must do; a subclass names the method."""

import math
from collections.abc import Iterator
from typing import ClassVar

import pytest
from search_examples import LARGE, NEEDLE, SHAPE, SMALL, SMALL_SIZE

from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Variant
from tuner.search import Cost, Method, Search, create_search
from tuner.search.grid_search import all_variants
from tuner.space import SearchSpace


def suggestions(search: Search, limit: int = 1000, *, cost: Cost | None = (1.0,)) -> Iterator[Variant]:
    """What a search suggests when each suggestion gets the same answer."""
    for _ in range(limit):
        variant = search.suggest()
        if variant is None:
            return
        yield variant
        search.update(variant, cost)


class SearchContract:
    method: ClassVar[Method]
    # Whether the order comes from the seed.
    seeded: ClassVar[bool] = True
    objectives: ClassVar[int] = 1

    @pytest.fixture
    def search(self) -> Search:
        return self.create(SMALL)

    def create(self, space: SearchSpace, shape: Shape = SHAPE, seed: int = 0) -> Search:
        return create_search(self.method, space, shape, seed, self.objectives)

    def cost(self, value: float) -> Cost:
        """A cost of as many values as the search makes small."""
        return (value,) * self.objectives

    @pytest.mark.parametrize("passed", [True, False], ids=["passed", "failed"])
    def test_a_small_space_is_gone_through_once_and_then_nothing_is_left(self, search: Search, passed: bool) -> None:
        found = list(suggestions(search, cost=self.cost(1.0) if passed else None))
        assert len(found) == len(set(found)) == SMALL_SIZE
        assert set(found) == set(all_variants(SMALL, SHAPE))
        assert search.suggest() is None
        assert search.suggest() is None

    def test_every_suggestion_is_in_the_space(self, search: Search) -> None:
        for variant in suggestions(search, cost=self.cost(1.0)):
            assert SMALL.contains(variant, SHAPE)
            marks = variant.specialization
            assert not set(marks.do_not_specialize) & set(marks.do_not_specialize_on_alignment)

    def test_constraints_see_the_shape(self) -> None:
        narrow = Shape(num_tokens=8, num_heads=8)
        found = list(suggestions(self.create(SMALL, narrow), cost=self.cost(1.0)))
        tiles = {variant.config for variant in found if variant.config.implementation == "tile"}
        assert {config.parameters["BLOCK"] for config in tiles} == {4}
        assert len(found) == (2 + 1) * 3

    def test_the_one_config_that_constraints_leave_is_found(self) -> None:
        (found,) = suggestions(self.create(NEEDLE), cost=self.cost(1.0))
        assert set(found.config.parameters.values()) == {8}

    def test_suggestions_in_flight_are_not_repeated(self, search: Search) -> None:
        """Several workers ask before the first answer is there, and answers come in another order."""
        waiting = [search.suggest() for _ in range(5)]
        for variant in reversed(waiting):
            assert variant is not None
            search.update(variant, self.cost(1.0))
        assert len({*waiting, *suggestions(search, cost=self.cost(1.0))}) == SMALL_SIZE

    def test_what_an_earlier_run_learnt_is_not_suggested(self, search: Search) -> None:
        everything = list(all_variants(SMALL, SHAPE))
        for number, variant in enumerate(everything[::3]):
            search.update(variant, None if number % 2 == 0 else self.cost(1.0 + number))
        assert set(suggestions(search, cost=self.cost(1.0))) == set(everything) - set(everything[::3])

    def test_a_variant_from_outside_the_space_can_be_learnt(self, search: Search) -> None:
        inside = next(all_variants(SMALL, SHAPE))
        for outside in (
            Variant("scale", inside.config, SpecializationSet.of(["other"])),
            Variant("scale", Config("tile", FrozenMapping(BLOCK=64), FrozenMapping(num_warps=1))),
            Variant("scale", Config("tile", FrozenMapping(OTHER=4))),
            Variant("scale", Config("another")),
            Variant("another", inside.config),
        ):
            search.update(outside, self.cost(1.0))
            search.update(outside, None)
        assert len(list(suggestions(search, cost=self.cost(1.0)))) == SMALL_SIZE

    def test_a_space_that_was_learnt_whole_suggests_nothing(self, search: Search) -> None:
        for variant in all_variants(SMALL, SHAPE):
            search.update(variant, None)
        assert search.suggest() is None

    def test_the_same_seed_gives_the_same_suggestions(self) -> None:
        first, second = (self._order(seed=7) for _ in range(2))
        assert first == second

    def test_another_seed_gives_another_order(self) -> None:
        if self.seeded:
            assert self._order(seed=7) != self._order(seed=8)
        else:
            assert self._order(seed=7) == self._order(seed=8)

    def test_another_shape_gives_another_order(self) -> None:
        if self.seeded:
            assert self._order(seed=7) != self._order(seed=7, shape=Shape(num_tokens=17, num_heads=8))

    def test_times_of_any_size_are_learnt(self, search: Search) -> None:
        for time_us in (1e-9, 1e12, math.inf):
            variant = search.suggest()
            assert variant is not None
            search.update(variant, self.cost(time_us))
        assert len(list(suggestions(search, cost=self.cost(1.0)))) == SMALL_SIZE - 3

    def _order(self, seed: int, shape: Shape = SHAPE) -> list[Variant]:
        return list(suggestions(self.create(LARGE, shape, seed), 40, cost=self.cost(1.0)))
