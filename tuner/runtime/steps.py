"""Which variant runs from which size of the dynamic dimension on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from tuner.records import Variant


@dataclass(frozen=True)
class Step:
    """A variant that runs from a size of the dynamic dimension on, up to the next step.

    `tuned`: whether a winner stands behind it; otherwise it is the baseline, as nothing else is left.
    """

    first: int
    variant: Variant
    tuned: bool = True


def steps(choice_at: Callable[[int], tuple[Variant, bool]], sizes: Iterable[int]) -> tuple[Step, ...]:
    """Every size from 1 on at which the choice, of a variant and whether it is tuned, changes.

    `sizes`: between two neighbours of these it changes once at most, and after the last never.
    """
    points = sorted({1, *(size for size in sizes if size > 1)})
    found = [(1, choice_at(1))]
    for low, high in pairwise(points):
        before, after = found[-1][1], choice_at(high)
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if choice_at(middle) == before else (low, middle)
            found.append((high, after))
    return tuple(Step(first, *choice) for first, choice in found)
