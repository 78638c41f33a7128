"""The smallest cover, against trying every one."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ranking.cover import Candidate, fewest, hopeful_cover, lightest

KEY = frozenset({"only"})


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=6))
def test_no_smaller_cover_exists(cells: list[set[int]]) -> None:
    covers = [chosen for size in range(1, 8) for chosen in combinations(range(7), size)]
    assert fewest(cells) == min(len(chosen) for chosen in covers if all(cell & set(chosen) for cell in cells))


def test_a_cell_that_nothing_covers_is_an_error() -> None:
    candidate = Candidate({0: 1.0}, {0: KEY}, winner=True)
    with pytest.raises(ValueError, match="no candidate"):
        fewest([{0}, set()])
    with pytest.raises(ValueError, match="no candidate"):
        lightest([candidate], [1.0, 1.0])


def test_the_first_of_equals_is_taken() -> None:
    candidates = [Candidate({0: 2.0, 1: 2.0}, {0: KEY, 1: KEY}, winner=False) for _ in range(3)]
    assert lightest(candidates, [1.0, 1.0]) == [0, 0]


def test_winners_come_before_faster_ones() -> None:
    quick = Candidate({0: 1.0, 1: 1.0}, {0: KEY, 1: KEY}, winner=False)
    confirmed = Candidate({0: 1.1, 1: 1.1}, {0: KEY, 1: KEY}, winner=True)
    assert lightest([quick, confirmed], [1.0, 1.0]) == [1, 1]


# With hope.

TIMES = st.dictionaries(st.integers(0, 5), st.sampled_from([1.0, 1.005, 1.02, 1.5]), min_size=1)


@settings(deadline=None, max_examples=100)
@given(st.lists(TIMES, min_size=1, max_size=5), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 4))))
def test_no_smaller_cover_could_be_hoped_for(cells: list[dict[int, float]], refused: set[tuple[int, int]]) -> None:
    """Against trying every subset of what is good somewhere."""

    def may_do(name: int, cell: int) -> bool:
        return (name, cell) not in refused

    def does(name: int, cell: int) -> bool:
        known = cells[cell]
        return known[name] <= min(known.values()) * 1.01 if name in known else may_do(name, cell)

    good = [name for name in range(6) if any(name in known and does(name, at) for at, known in enumerate(cells))]
    covers = [chosen for size in range(1, 7) for chosen in combinations(good, size)]
    needed = min(len(each) for each in covers if all(any(does(name, at) for name in each) for at in range(len(cells))))
    found = hopeful_cover(cells, may_do, 0.01)
    assert len(set(found)) == needed
    assert all(does(name, at) for at, name in enumerate(found))


def test_what_is_known_comes_before_what_is_hoped_for() -> None:
    cells = [{"both": 1.0, "first": 1.0}, {"both": 1.005}]
    assert hopeful_cover(cells, lambda name, cell: True, 0.01) == ["both", "both"]
