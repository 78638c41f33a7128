"""Winners of many shapes -> the fewest variants that stay close to them all. Pure: no clock, no GPU, no store."""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from tuner.ranking.cover import Candidate, fewest, lightest
from tuner.ranking.ranking import marked, median_us
from tuner.records import Bucket, DimensionValue, Evaluation, FrozenMapping, Portfolio, Shape, Status, Variant, Winner
from tuner.records.portfolio import spans


@dataclass(frozen=True)
class Cell:
    """A tuned shape, the sizes of the dynamic dimension for which it is the nearest one, and what variants take there.

    The sizes are `first` to `last`, both included. `times_us` are comparable with each other and hold the winner's.
    `weight` says how often the sizes occur, beside those of other cells.
    """

    shape: Shape
    first: int
    last: int
    winner: Variant
    times_us: Mapping[Variant, float]
    weight: float = 1.0

    def regret(self, variant: Variant) -> float:
        """The share by which a variant is slower than the winner: 0 for a faster one, infinite for one without time."""
        if variant not in self.times_us:
            return math.inf
        return max(0.0, self.times_us[variant] / self.times_us[self.winner] - 1)


# The compile keys that a variant reaches over the sizes of a cell.
Keys = Callable[[Variant, Cell], Collection[Hashable]]


@dataclass(frozen=True)
class Assignment:
    """A variant for each cell, in order of size, and how many compile keys these reach together."""

    cells: tuple[Cell, ...]
    variants: tuple[Variant, ...]
    compiles: int

    @cached_property
    def count(self) -> int:
        """How many different variants there are."""
        return len(set(self.variants))

    @cached_property
    def regret(self) -> float:
        """The largest regret at a tuned shape."""
        return max(cell.regret(variant) for cell, variant in zip(self.cells, self.variants, strict=True))

    @cached_property
    def expected_us(self) -> float:
        """The mean time over the cells by their weights."""
        total = sum(cell.weight for cell in self.cells)
        parts = zip(self.cells, self.variants, strict=True)
        return sum(cell.weight * cell.times_us[variant] for cell, variant in parts) / total

    def buckets(self, dynamic: str) -> tuple[Bucket, ...]:
        """The cells, neighbours of one variant made one."""
        fixed = fixed_dimensions(self.cells[0].shape, dynamic)
        runs = groupby(zip(self.cells, self.variants, strict=True), key=lambda pair: pair[1])
        merged = [(variant, [cell for cell, _ in run]) for variant, run in runs]
        return tuple(Bucket(fixed, cells[0].first, cells[-1].last, variant) for variant, cells in merged)


def fixed_dimensions(shape: Shape, dynamic: str) -> FrozenMapping[DimensionValue]:
    """A shape without its dynamic dimension."""
    return FrozenMapping({name: value for name, value in shape.items() if name != dynamic})


def cells_of(winners: Iterable[Winner], evaluations: Iterable[Evaluation], dynamic: str) -> list[tuple[Cell, ...]]:
    """The cells of one environment's winners, by size, for each combination of the other dimensions; of equal weight.

    Times are the evaluations' medians, the winner's too, as these are taken alike. Where the winner has none, its
    confirmed time has no equal and no other variant is compared with it. A variant that was wrong anywhere is left out.
    """
    found = list(evaluations)
    wrong = {each.variant for each in found if each.status is Status.WRONG_OUTPUT}
    times_us: dict[Shape, dict[Variant, float]] = {}
    for each in found:
        if each.timing is not None and each.variant not in wrong:
            times_us.setdefault(each.shape, {})[each.variant] = median_us(each)
    groups: dict[FrozenMapping[DimensionValue], list[Winner]] = {}
    for winner in winners:
        groups.setdefault(fixed_dimensions(winner.shape, dynamic), []).append(winner)
    return [_cells(rows, times_us, dynamic) for rows in groups.values()]


def _cells(rows: Sequence[Winner], times_us: Mapping[Shape, Mapping[Variant, float]], dynamic: str) -> tuple[Cell, ...]:
    ordered = sorted(rows, key=lambda row: row.shape.size(dynamic))
    cells = []
    for row, span in zip(ordered, spans([row.shape.size(dynamic) for row in ordered]), strict=True):
        known = times_us.get(row.shape, {})
        times = known if row.variant in known else {row.variant: row.timing.median_us}
        cells.append(Cell(row.shape, span.start, span.stop - 1, row.variant, times))
    return tuple(cells)


def weighted(cells: Sequence[Cell], weights: Mapping[int, float], dynamic: str) -> tuple[Cell, ...]:
    """The cells with the weight of each tuned size."""
    return tuple(replace(cell, weight=weights[cell.shape.size(dynamic)]) for cell in cells)


def consolidate(cells: Sequence[Cell], keys: Keys, bound: float) -> Assignment:
    """The fewest variants whose regret is at most `bound` at every tuned shape. Exact, by HiGHS.

    Among the fewest, those that reach the fewest compile keys over the sizes of their cells; then those of which most
    are winners of a cell, as these were confirmed; then those of the least expected time.
    """
    candidates = _candidates(cells, keys, bound)
    chosen = lightest(list(candidates.values()), [cell.weight for cell in cells])
    variants = list(candidates)
    taken = tuple(variants[index] for index in chosen)
    return Assignment(tuple(cells), taken, count_keys(zip(cells, taken, strict=True), keys))


def regret_curve(cells: Sequence[Cell], keys: Keys, chosen: Assignment) -> list[Assignment]:
    """What each number of variants can do, fewest first; numbers at which the regret cannot shrink are left out.

    Each has the least possible regret of its number, down to none; only `chosen`, which is one of them, spends its
    bound on other aims.
    """
    able = [{variant: cell.regret(variant) for variant in cell.times_us} for cell in cells]
    bounds = sorted({0.0, *(regret for each in able for regret in each.values())})
    known: dict[int, int] = {}

    def needed(place: int) -> int:
        if place not in known:
            within = [{variant for variant, regret in each.items() if regret <= bounds[place]} for each in able]
            known[place] = fewest(within)
        return known[place]

    points, place = [], len(bounds) - 1
    while place >= 0:
        count, low = needed(place), 0
        while low < place:
            middle = (low + place) // 2
            low, place = (low, middle) if needed(middle) == count else (middle + 1, place)
        points.append(chosen if count == chosen.count else consolidate(cells, keys, bounds[place]))
        place -= 1
    return points


def portfolio_of(assignments: Sequence[Assignment], keys: Keys, dynamic: str, bound: float) -> Portfolio:
    """The portfolio of one assignment for each combination of the fixed dimensions; at least one."""
    pairs = [pair for each in assignments for pair in zip(each.cells, each.variants, strict=True)]
    return Portfolio(
        dynamic=dynamic,
        buckets=tuple(bucket for each in assignments for bucket in each.buckets(dynamic)),
        compiles=count_keys(pairs, keys),
        regret=max(each.regret for each in assignments),
        bound=bound,
    )


def count_keys(pairs: Iterable[tuple[Cell, Variant]], keys: Keys) -> int:
    """How many compile keys variants reach in their cells; a key that a variant reaches in two of them counts once."""
    return len({(variant, key) for cell, variant in pairs for key in keys(variant, cell)})


def _candidates(cells: Sequence[Cell], keys: Keys, bound: float) -> dict[Variant, Candidate]:
    """Every variant that is within the bound somewhere, those first that are to be preferred among equals."""
    winners = {cell.winner for cell in cells}
    able: dict[Variant, dict[int, float]] = {}
    for index, cell in enumerate(cells):
        for variant, time_us in cell.times_us.items():
            if cell.regret(variant) <= bound:
                able.setdefault(variant, {})[index] = time_us
    ordered = sorted(able, key=lambda each: (each not in winners, marked(each), each.digest))
    return {
        variant: Candidate(
            able[variant],
            {index: frozenset(keys(variant, cells[index])) for index in able[variant]},
            variant in winners,
        )
        for variant in ordered
    }
