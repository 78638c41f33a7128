"""The smallest cover, against trying every one."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ranking.cover import Candidate, fewest, lightest

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
