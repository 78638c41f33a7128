"""Which arguments to mark: every set that can save a compile, best first."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

from tuner.compile.classes import ClassTable, Mark
from tuner.errors import UserError
from tuner.records import SpecializationSet

MOST_SETS = 50_000


def one_mark(name: str, mark: Mark) -> SpecializationSet:
    """The set that marks one argument."""
    return SpecializationSet.of([name]) if mark is Mark.SPECIALIZATION else SpecializationSet.of([], [name])


def single_marks(marks: SpecializationSet) -> frozenset[SpecializationSet]:
    """A set taken apart, one mark in each."""
    full = [one_mark(name, Mark.SPECIALIZATION) for name in marks.do_not_specialize]
    return frozenset([*full, *(one_mark(name, Mark.ALIGNMENT) for name in marks.do_not_specialize_on_alignment)])


def useful_sets(table: ClassTable) -> list[SpecializationSet]:
    """Every set of marks that merge classes of their argument: fewest compiles first, then fewest marks.

    Of equals, full marks come before marks for alignment only. The latter are left out where they merge the same
    classes. UserError for more sets than can be tried.
    """
    options = {name: kinds for name in table.runtime if (kinds := _merging(table, name))}
    count = math.prod(1 + len(kinds) for kinds in options.values())
    if count > MOST_SETS:
        raise UserError(
            f"{len(options)} arguments change their class, which makes {count} sets of marks; expected at most "
            f"{MOST_SETS}: {', '.join(options)}.",
            hint="Look at fewer shapes, with --shapes.",
        )
    sets = list(_sets(options))

    def rank(marks: SpecializationSet) -> tuple[int, int, int]:
        aligned = len(marks.do_not_specialize_on_alignment)
        return table.count(marks), len(marks.do_not_specialize) + aligned, aligned

    return sorted(sets, key=rank)  # stable: of equals, the marks of earlier arguments come first


def first_free(ordered: Sequence[SpecializationSet], costs: Callable[[SpecializationSet], bool]) -> SpecializationSet:
    """The first set that costs nothing, nor any mark of it alone. The empty set is asked about like any other."""
    asked: dict[SpecializationSet, bool] = {}

    def dear(marks: SpecializationSet) -> bool:
        if marks not in asked:
            asked[marks] = costs(marks)
        return asked[marks]

    return next(each for each in ordered if not any(map(dear, single_marks(each))) and not dear(each))


def _merging(table: ClassTable, name: str) -> list[Mark]:
    """The marks after which an argument has fewer classes; where both have the same classes, the full one."""
    classes = {mark: table.of(name, mark) for mark in Mark}
    least = len(set(classes[Mark.NONE]))
    kinds = [mark for mark in (Mark.SPECIALIZATION, Mark.ALIGNMENT) if len(set(classes[mark])) < least]
    return kinds[:1] if classes[Mark.SPECIALIZATION] == classes[Mark.ALIGNMENT] else kinds


def _sets(options: dict[str, list[Mark]]) -> Iterator[SpecializationSet]:
    for chosen in product(*([*kinds, Mark.NONE] for kinds in options.values())):
        marks = dict(zip(options, chosen, strict=True))
        full = [name for name, mark in marks.items() if mark is Mark.SPECIALIZATION]
        yield SpecializationSet.of(full, [name for name, mark in marks.items() if mark is Mark.ALIGNMENT])
