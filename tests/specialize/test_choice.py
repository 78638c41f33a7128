"""The order in which sets are preferred, and the first that costs nothing."""

from collections.abc import Sequence

import pytest

from tuner.compile.classes import ArgumentClass, ClassTable, Mark
from tuner.errors import UserError
from tuner.records import Shape, SpecializationSet
from tuner.specialize.choice import MOST_SETS, first_free, one_mark, useful_sets

ONE, ALIGNED, PLAIN = ArgumentClass("constexpr", "1"), ArgumentClass("i32", divisible_by_16=True), ArgumentClass("i32")
AFTER = {
    Mark.NONE: {ONE: ONE, ALIGNED: ALIGNED, PLAIN: PLAIN},
    Mark.SPECIALIZATION: {ONE: PLAIN, ALIGNED: PLAIN, PLAIN: PLAIN},
    Mark.ALIGNMENT: {ONE: ONE, ALIGNED: PLAIN, PLAIN: PLAIN},
}


def table_of(**values: Sequence[int]) -> ClassTable:
    """A table of integer arguments, each with its value at every shape."""
    rows = list(zip(*values.values(), strict=True))

    def of(value: int) -> ArgumentClass:
        return ONE if value == 1 else PLAIN if value % 16 else ALIGNED

    keys = {mark: [tuple(after[of(value)] for value in row) for row in rows] for mark, after in AFTER.items()}
    return ClassTable(tuple(values), tuple(values), tuple(Shape(n=index) for index in range(len(rows))), keys)


def of(*names: str, on_alignment: Sequence[str] = ()) -> SpecializationSet:
    return SpecializationSet.of(names, on_alignment)


def test_sets_come_by_compiles_then_by_marks_and_hold_only_what_merges_classes() -> None:
    table = table_of(n=[1, 16, 17, 33], stride=[16, 32, 17, 48], fixed=[64, 64, 64, 64])
    assert useful_sets(table) == [
        of("n", "stride"),  # 1
        of("n"),  # 2
        of("stride", on_alignment=["n"]),  # 2, with one mark more
        of("stride"),  # 3
        of(on_alignment=["n"]),  # 3
        of(),  # 4
    ]
    assert [table.count(marks) for marks in useful_sets(table)] == [1, 2, 2, 3, 3, 4]


def test_of_equals_the_full_mark_and_the_earlier_argument_come_first() -> None:
    """Never 1, both marks do the same to `a`; `a` and `b` follow each other, so that only both together save."""
    assert useful_sets(table_of(a=[16, 17])) == [of("a"), of()]
    assert useful_sets(table_of(a=[16, 17], b=[32, 34]))[:2] == [of("a", "b"), of()]
    # Where 1 and 16 are told apart by `b` anyway, marking `a` for alignment only saves as much, and comes second.
    assert useful_sets(table_of(a=[1, 16, 17], b=[1, 17, 17]))[1:3] == [of("a"), of(on_alignment=["a"])]


def test_the_first_set_without_a_cost_is_taken() -> None:
    ordered = [of("a", "b"), of("a"), of("b"), of()]
    assert first_free(ordered, lambda marks: False) == of("a", "b")
    assert first_free(ordered, lambda marks: marks == of("a")) == of("b")  # a part that costs spoils the whole
    assert first_free(ordered, lambda marks: marks == of("a", "b")) == of("a")  # and so does the whole itself
    assert first_free(ordered, lambda marks: marks != of()) == of()


def test_a_set_is_asked_about_once() -> None:
    asked: list[SpecializationSet] = []
    first_free([of("a", "b"), of("a", "c"), of()], lambda marks: bool(asked.append(marks)) or marks == of("a"))
    assert len(asked) == len({*asked})
    assert {of("a"), of()} <= {*asked}


def test_the_kinds_of_mark() -> None:
    assert one_mark("a", Mark.SPECIALIZATION) == of("a")
    assert one_mark("a", Mark.ALIGNMENT) == of(on_alignment=["a"])


def test_too_many_sets_are_refused() -> None:
    many = {f"a{number}": [1, 16, 17] for number in range(10)}
    with pytest.raises(UserError, match=rf"10 arguments change their class, which makes {3**10} sets .* {MOST_SETS}"):
        useful_sets(table_of(**many))
