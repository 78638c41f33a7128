"""The smallest set of candidates that covers all cells, by mixed-integer programming (HiGHS). Exact. Pure."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

T = TypeVar("T", bound=Hashable)
# One linear form: how much each variable counts in it.
_Form = dict[int, float]


@dataclass(frozen=True)
class Candidate:
    """What may run in some cells: its time and the compile keys that it reaches in each, and whether it is a winner."""

    times_us: Mapping[int, float]
    keys: Mapping[int, frozenset[Hashable]]
    winner: bool


def fewest(cells: Sequence[Collection[Hashable]]) -> int:
    """How many candidates are needed so that each cell holds one; ValueError for a cell that holds none."""
    return len(smallest(cells))


def smallest(cells: Sequence[Collection[T]]) -> list[T]:
    """As few candidates as can be so that each cell holds one; ValueError for a cell that holds none."""
    covered: dict[T, set[int]] = {}
    for index, held in enumerate(cells):
        for candidate in held:
            covered.setdefault(candidate, set()).add(index)
    largest: dict[T, set[int]] = {}
    for candidate in sorted(covered, key=lambda each: len(covered[each]), reverse=True):
        if not any(covered[candidate] <= other for other in largest.values()):
            largest[candidate] = covered[candidate]
    program = _Program()
    columns = {candidate: program.variable() for candidate in largest}
    for index in range(len(cells)):
        program.require({columns[each]: 1.0 for each, held in largest.items() if index in held}, 1, np.inf)
    taken = program.minimize(dict.fromkeys(columns.values(), 1.0))
    return [candidate for candidate, column in columns.items() if column in taken]


def lightest(candidates: Sequence[Candidate], weights: Sequence[float]) -> list[int]:
    """The candidate of each cell: as few as possible, then fewest keys, fewest that win nowhere, least time by weight.

    Of candidates with the same times and keys the first is taken. ValueError for a cell without a candidate.
    """
    kept = _undominated(candidates, len(weights))
    program = _Program()
    taken = {index: program.variable() for index in kept}
    runs = {(index, cell): program.variable() for index in kept for cell in candidates[index].times_us}
    for cell in range(len(weights)):
        program.require({run: 1.0 for (_, held), run in runs.items() if held == cell}, 1, 1)
    for (index, _), run in runs.items():
        program.imply(run, taken[index])
    count = fewest([[index for index in kept if cell in candidates[index].times_us] for cell in range(len(weights))])
    program.require(dict.fromkeys(taken.values(), 1.0), 0, count)
    costs = _excess(candidates, runs, weights)  # below 1 in sum
    for index, variable in taken.items():
        costs[variable] = 0.0 if candidates[index].winner else 1.0
    for variable, keys in _key_form(program, candidates, taken, runs).items():
        costs[variable] = costs.get(variable, 0.0) + (count + 1) * keys
    chosen = program.minimize(costs)
    of_cell = {cell: index for (index, cell), run in runs.items() if run in chosen}
    return [of_cell[cell] for cell in range(len(weights))]


def hopeful_cover(times_us: Sequence[Mapping[T, float]], may_do: Callable[[T, int], bool], bound: float) -> list[T]:
    """The candidate of each cell, as few as possible, if whatever is not known were good enough; exact.

    Good enough is a time within `bound`, a share, of the least known in the cell. `times_us` holds what is known of
    each cell, at least one time; `may_do` says of a candidate without a time whether the cell may be hoped for. Only
    candidates that are known to be good enough somewhere count. Of those that are taken each cell has the fastest,
    where a hope is as slow as it may be.
    """
    limits_us = [min(known.values()) * (1 + bound) for known in times_us]
    pairs = list(zip(times_us, limits_us, strict=True))
    good = dict.fromkeys(name for known, limit in pairs for name, time_us in known.items() if time_us <= limit)
    able = [
        [name for name in good if (known[name] <= limit if name in known else may_do(name, cell))]
        for cell, (known, limit) in enumerate(pairs)
    ]
    taken = set(smallest(able))
    return [
        min((name for name in held if name in taken), key=lambda name: known.get(name, limit))
        for held, (known, limit) in zip(able, pairs, strict=True)
    ]


def _key_form(
    program: "_Program",
    candidates: Sequence[Candidate],
    taken: Mapping[int, int],
    runs: Mapping[tuple[int, int], int],
) -> _Form:
    """How many keys are reached. Keys that a candidate reaches in the same cells are reached together."""
    form: _Form = {}
    for index, variable in taken.items():
        keys = candidates[index].keys
        where: dict[Hashable, frozenset[int]] = {
            key: frozenset(cell for cell in keys if key in keys[cell]) for held in keys.values() for key in held
        }
        for cells, count in Counter(where.values()).items():
            reached = variable
            if len(cells) < len(keys):
                reached = program.variable()
                for cell in sorted(cells):
                    program.imply(runs[index, cell], reached)
            form[reached] = form.get(reached, 0.0) + count
    return form


def _excess(candidates: Sequence[Candidate], runs: Mapping[tuple[int, int], int], weights: Sequence[float]) -> _Form:
    """By how much each run takes longer than the fastest in its cell, by weight, in a unit of which no more than a half
    can come together.
    """
    times_us: dict[int, dict[int, float]] = {}
    for (index, cell), run in runs.items():
        times_us.setdefault(cell, {})[run] = candidates[index].times_us[cell] * weights[cell]
    excess_us = {run: time_us - min(each.values()) for each in times_us.values() for run, time_us in each.items()}
    most_us = sum(max(excess_us[run] for run in each) for each in times_us.values())
    return {run: time_us / most_us / 2 if most_us else 0.0 for run, time_us in excess_us.items()}


def _undominated(candidates: Sequence[Candidate], cells: int) -> list[int]:
    """The candidates that no other one can replace without loss wherever they may run, the first of equals."""
    times_us = np.full((len(candidates), cells), np.inf)
    for index, candidate in enumerate(candidates):
        times_us[index, list(candidate.times_us)] = list(candidate.times_us.values())
    most = np.array([len(frozenset().union(*each.keys.values())) for each in candidates])
    least = np.array([min(len(held) for held in each.keys.values()) for each in candidates])
    winner = np.array([each.winner for each in candidates])
    kept: list[int] = []

    def order(index: int) -> tuple[int, float, int, int]:
        """What dominates comes before what it dominates."""
        own_us = candidates[index].times_us.values()
        return -len(own_us), sum(own_us), most[index], index

    for index in sorted(range(len(candidates)), key=order):
        others = [each for each in kept if (times_us[each] <= times_us[index]).all() and winner[each] >= winner[index]]
        keys = candidates[index].keys.items()
        if not any(
            most[each] <= least[index] or all(candidates[each].keys[cell] == held for cell, held in keys)
            for each in others
        ):
            kept.append(index)
    return sorted(kept)


class _Program:
    """Variables that are 0 or 1, linear requirements on them, and forms minimized one after another."""

    def __init__(self) -> None:
        self._variables = 0
        self._rows: list[tuple[_Form, float, float]] = []

    def variable(self) -> int:
        self._variables += 1
        return self._variables - 1

    def require(self, form: _Form, low: float, high: float) -> None:
        """Keep a form between two values."""
        if not form and low > 0:
            raise ValueError("a cell has no candidate")
        self._rows.append((form, low, high))

    def imply(self, first: int, second: int) -> None:
        """Where the first variable is 1, the second is."""
        self.require({first: 1.0, second: -1.0}, -np.inf, 0)

    def minimize(self, form: _Form) -> set[int]:
        """The variables that are 1 where the form is least."""
        costs = np.zeros(self._variables)
        costs[list(form)] = list(form.values())
        found = milp(
            costs,
            integrality=np.ones(self._variables),
            bounds=Bounds(0, 1),
            constraints=self._constraints(),
            options={"mip_rel_gap": 0.0},
        )
        if not found.success:
            raise RuntimeError(f"HiGHS found no portfolio: {found.message}")
        return set(np.flatnonzero(found.x > 0.5).tolist())

    def _constraints(self) -> Any:
        forms = [form for form, _, _ in self._rows]
        values = [value for form in forms for value in form.values()]
        columns = [column for form in forms for column in form]
        ends = np.cumsum([0, *map(len, forms)])
        matrix = csr_array((values, columns, ends), shape=(len(forms), self._variables))
        return LinearConstraint(matrix, [low for _, low, _ in self._rows], [high for _, _, high in self._rows])
