"""Consolidation against trying every assignment, the curve, and which sizes a tuned one stands for."""

import dataclasses
import math
from collections.abc import Hashable
from itertools import product

import pytest
import store_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ranking import Assignment, Cell, Keys, cells_of, consolidate, portfolio_of, regret_curve, weighted
from tuner.ranking.portfolio import count_keys
from tuner.records import Evaluation, Shape, Status, Variant, Winner
from tuner.records.portfolio import REACH
from tuner.runtime import WinnerTable, find

VARIANTS = [store_examples.variant(number) for number in range(4)]
SINGLE = frozenset({"only"})

Instance = tuple[tuple[Cell, ...], dict[tuple[Variant, int], frozenset[Hashable]]]


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """A few cells, each with a winner and the times of some variants, and the keys that these reach there.

    Times are few, so that many are equal.
    """
    cells, reached = [], {}
    for size in range(1, draw(st.integers(1, 4)) + 1):
        times = draw(st.dictionaries(st.sampled_from(VARIANTS), st.sampled_from([100.0, 100.5, 101.0, 103.0])))
        winner = draw(st.sampled_from(VARIANTS))
        times.setdefault(winner, 100.0)
        weight = draw(st.sampled_from([0.25, 1.0, 3.0]))
        cells.append(Cell(store_examples.shape(size), size, size, winner, times, weight))
        for variant in times:
            reached[variant, size] = frozenset(draw(st.sets(st.sampled_from("abc"), min_size=1)))
    return tuple(cells), reached


def keys_of(reached: dict[tuple[Variant, int], frozenset[Hashable]]) -> Keys:
    return lambda variant, cell: reached[variant, cell.first]


def one_key(_: Variant, __: Cell) -> frozenset[Hashable]:
    return SINGLE


def every_assignment(cells: tuple[Cell, ...], keys: Keys) -> list[Assignment]:
    found = product(*(cell.times_us for cell in cells))
    return [Assignment(cells, each, count_keys(zip(cells, each, strict=True), keys)) for each in found]


def burden(assignment: Assignment) -> tuple[int, int, int, float]:
    winners = {cell.winner for cell in assignment.cells}
    return assignment.count, assignment.compiles, len(set(assignment.variants) - winners), assignment.expected_us


@settings(deadline=None, max_examples=60)
@given(instance=instances(), bound=st.sampled_from([0.0, 0.006, 0.01, 0.1]))
def test_no_other_assignment_within_the_bound_is_better(instance: Instance, bound: float) -> None:
    cells, reached = instance
    keys = keys_of(reached)
    found = consolidate(cells, keys, bound)
    within = [each for each in every_assignment(cells, keys) if each.regret <= bound]
    best = min(map(burden, within))
    assert found.regret <= bound
    assert burden(found)[:3] == best[:3]
    assert burden(found)[3] == pytest.approx(best[3], rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(instance=instances(), bound=st.sampled_from([0.0, 0.006, 0.1]))
def test_the_curve_holds_the_least_regret_of_every_number_of_variants(instance: Instance, bound: float) -> None:
    cells, reached = instance
    keys = keys_of(reached)
    chosen = consolidate(cells, keys, bound)
    least: dict[int, float] = {}
    for each in every_assignment(cells, keys):
        least[each.count] = min(each.regret, least.get(each.count, math.inf))
    shrinking = [count for count in least if all(least[count] < least[fewer] for fewer in least if fewer < count)]
    points = regret_curve(cells, keys, chosen)
    assert [point.count for point in points] == sorted(shrinking)
    assert chosen in points
    assert [point.regret for point in points if point is not chosen] == [
        least[count] for count in sorted(shrinking) if count != chosen.count
    ]


def test_a_large_instance_is_solved_too() -> None:
    """Each of 20 sizes has its own fastest of 200 variants; each variant is within 1% at five neighbouring sizes."""
    variants = [store_examples.variant(number) for number in range(200)]
    cells = []
    for size in range(20):
        times = {variant: 100.0 + abs(number - 10 * size) / 21 for number, variant in enumerate(variants)}
        cells.append(Cell(store_examples.shape(size + 1), size + 1, size + 1, variants[10 * size], times, 1.0))
    found = consolidate(cells, one_key, 0.01)
    assert (found.count, found.compiles) == (4, 4)
    assert consolidate(cells, one_key, 0.0).variants == tuple(variants[::10])


def cell(size: int, **times_us: float) -> Cell:
    """A cell of the sizes that end at this one; `v0=1.5` is a time of the first variant. The fastest is the winner."""
    times = {VARIANTS[int(name[1:])]: time_us for name, time_us in times_us.items()}
    return Cell(store_examples.shape(size), size, size, min(times, key=times.__getitem__), times)


def test_neighbours_of_one_variant_are_one_bucket() -> None:
    cells = [cell(1, v0=1, v1=2), cell(2, v0=1, v1=2), cell(3, v0=2, v1=1), cell(4, v0=1, v1=2)]
    found = consolidate(cells, one_key, 0.0)
    first, second, third = found.buckets("num_tokens")
    assert [(each.first, each.last) for each in (first, second, third)] == [(1, 2), (3, 3), (4, 4)]
    assert first.variant == third.variant == VARIANTS[0]
    assert dict(first.fixed) == {"hidden": 4096, "dtype": "bf16"}
    portfolio = portfolio_of([found], one_key, "num_tokens", 0.0)
    assert (portfolio.variants, portfolio.compiles) == ((VARIANTS[0], VARIANTS[1]), 2)


def test_one_portfolio_holds_every_combination_of_fixed_dimensions() -> None:
    """A key that a variant reaches in two combinations is compiled once."""
    here = consolidate([cell(1, v0=1, v1=1.004)], one_key, 0.01)
    other = dataclasses.replace(cell(1, v0=1, v1=2), shape=Shape(num_tokens=1, hidden=128, dtype="bf16"))
    there = consolidate([other], one_key, 0.01)
    portfolio = portfolio_of([here, there], one_key, "num_tokens", 0.01)
    assert portfolio.compiles == 1
    assert [bucket.fixed["hidden"] for bucket in portfolio.buckets] == [4096, 128]
    assert portfolio.regret == max(here.regret, there.regret)


def test_weights_decide_between_equals() -> None:
    cells = (cell(1, v0=100, v1=100.5), cell(2, v0=100.5, v1=100))
    for weights, taken in (({1: 0.9, 2: 0.1}, 0), ({1: 0.1, 2: 0.9}, 1)):
        found = consolidate(weighted(cells, weights, "num_tokens"), one_key, 0.01)
        assert set(found.variants) == {VARIANTS[taken]}
        assert found.expected_us == pytest.approx(100.05)


def test_fewer_compiles_come_before_time() -> None:
    cells = (cell(1, v0=100, v1=100.5), cell(2, v0=100, v1=100.5))

    def keys(variant: Variant, at: Cell) -> frozenset[Hashable]:
        return frozenset({at.first}) if variant == VARIANTS[0] else SINGLE

    assert set(consolidate(cells, keys, 0.01).variants) == {VARIANTS[1]}
    assert set(consolidate(cells, one_key, 0.01).variants) == {VARIANTS[0]}


# --- cells


def winner(tokens: int, number: int) -> Winner:
    return store_examples.winner(number, tokens)


def timed(tokens: int, number: int, median_us: float) -> Evaluation:
    example = store_examples.evaluation(number, tokens)
    return dataclasses.replace(example, timing=store_examples.timing(median_us))


@settings(deadline=None)
@given(sizes=st.sets(st.integers(1, 60), min_size=1, max_size=5))
def test_cells_divide_the_sizes_as_lookup_does(sizes: set[int]) -> None:
    """Each size is in the cell of the row that `find` gives for it, and in none where it gives none."""
    rows = tuple(winner(size, number) for number, size in enumerate(sizes))
    (cells,) = cells_of(rows, [], "num_tokens")
    table = WinnerTable("scale", store_examples.SOURCE, store_examples.ENVIRONMENT, rows)
    where = store_examples.ENVIRONMENT
    for size in range(math.ceil(max(sizes) * REACH) + 3):
        asked = store_examples.shape(size)
        found = find([table], asked, ["num_tokens"], where.device, where.target)
        holding = [each.shape for each in cells if each.first <= size <= each.last]
        assert holding == ([found.winner.shape] if found else []), size


@settings(deadline=None, max_examples=40)
@given(sizes=st.sets(st.integers(1, 60), min_size=1, max_size=5), data=st.data())
def test_the_portfolio_holds_what_was_assigned(sizes: set[int], data: st.DataObject) -> None:
    rows = [winner(size, data.draw(st.integers(0, 3))) for size in sizes]
    (cells,) = cells_of(rows, [], "num_tokens")
    found = consolidate(cells, one_key, 0.01)
    portfolio = portfolio_of([found], one_key, "num_tokens", 0.01)
    for at, variant in zip(found.cells, found.variants, strict=True):
        for size in (at.first, at.shape.size("num_tokens"), at.last):
            (held,) = [each for each in portfolio.buckets if each.holds(store_examples.shape(size), "num_tokens")]
            assert held.variant == variant
    beyond = store_examples.shape(cells[-1].last + 1)
    assert not any(each.holds(beyond, "num_tokens") for each in portfolio.buckets)


def test_regret_compares_what_was_measured_alike() -> None:
    """The winner by its evaluation, not by its confirmed 10.1 us; who is faster than it has no regret."""
    evaluations = [timed(64, 1, 9.0), timed(64, 2, 9.09), timed(64, 3, 8.9), timed(128, 0, 1.0)]
    ((only,),) = cells_of([winner(64, 1)], evaluations, "num_tokens")
    assert only.winner == VARIANTS[1]
    assert only.regret(VARIANTS[1]) == only.regret(VARIANTS[3]) == 0.0
    assert only.regret(VARIANTS[2]) == pytest.approx(0.01)
    assert only.regret(VARIANTS[0]) == math.inf


def test_a_winner_without_an_evaluation_stands_alone() -> None:
    ((only,),) = cells_of([winner(64, 1)], [timed(64, 2, 9.0)], "num_tokens")
    assert dict(only.times_us) == {VARIANTS[1]: 10.1}


def test_what_is_wrong_at_one_shape_is_taken_at_none() -> None:
    wrong = Evaluation(VARIANTS[2], store_examples.shape(128), Status.WRONG_OUTPUT)
    crashed = Evaluation(VARIANTS[3], store_examples.shape(128), Status.OUT_OF_RESOURCES)
    evaluations = [timed(64, 1, 9.0), timed(64, 2, 9.0), timed(64, 3, 9.0), wrong, crashed]
    ((only,),) = cells_of([winner(64, 1)], evaluations, "num_tokens")
    assert set(only.times_us) == {VARIANTS[1], VARIANTS[3]}


def test_each_combination_of_fixed_dimensions_has_its_cells() -> None:
    other = dataclasses.replace(winner(64, 1), shape=Shape(num_tokens=64, hidden=128, dtype="bf16"))
    first, second = cells_of([winner(128, 0), other, winner(64, 1)], [], "num_tokens")
    assert [each.shape.size("num_tokens") for each in first] == [64, 128]
    assert [(each.first, each.last) for each in first] == [(32, 90), (91, 256)]
    assert [each.shape for each in second] == [other.shape]
