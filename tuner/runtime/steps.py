"""Which variant runs from which size of the dynamic dimension on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from tuner.records import Variant


@dataclass(frozen=True)
class Step:
    """A variant that runs from a size of the dynamic dimension on, up to the next step."""

    first: int
    variant: Variant


def steps(variant_at: Callable[[int], Variant], sizes: Iterable[int]) -> tuple[Step, ...]:
    """Every size from 1 on at which the variant changes.

    `sizes`: between two neighbours of these it changes once at most, and after the last never.
    """
    points = sorted({1, *(size for size in sizes if size > 1)})
    found = [Step(1, variant_at(1))]
    for low, high in pairwise(points):
        before, after = found[-1].variant, variant_at(high)
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if variant_at(middle) == before else (low, middle)
            found.append(Step(high, after))
    return tuple(found)
