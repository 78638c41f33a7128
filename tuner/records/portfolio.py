"""The few variants that together stand for the winners of many shapes, and for which sizes a tuned one stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuner.records.frozen import FrozenMapping
from tuner.records.shape import DimensionValue, Shape
from tuner.records.variant import Variant

# A tuned size stands for others up to this factor below the smallest and above the largest one.
REACH = 2.0
# By how much, as a share, a portfolio may be slower than the winner at a tuned shape where no other bound is asked for.
REGRET_BOUND = 0.01


def spans(tuned: Sequence[int]) -> list[range]:
    """For each of the tuned sizes, which ascend, the sizes that it is nearest to by ratio, the smaller one on a tie.

    Between two tuned sizes there is always a nearest one; outside them they reach as far as a factor of `REACH`.
    """
    ends = [math.ceil(size / REACH) - 1 for size in tuned[:1]]
    ends += [math.isqrt(low * high) for low, high in pairwise(tuned)]
    ends += [int(size * REACH) for size in tuned[-1:]]
    return [range(before + 1, last + 1) for before, last in pairwise(ends)]


@dataclass(frozen=True)
class Bucket:
    """Which variant runs where the fixed dimensions are these and the dynamic one is from `first` to `last`.

    Both ends belong to it; `last` is None where it has no end.
    """

    fixed: FrozenMapping[DimensionValue]
    first: int
    last: int | None
    variant: Variant

    def holds(self, shape: Shape, dynamic: str) -> bool:
        """Whether a shape is in the bucket."""
        size = shape.size(dynamic)
        return (
            size >= self.first
            and (self.last is None or size <= self.last)
            and all(shape[name] == value for name, value in self.fixed.items())
        )


@dataclass(frozen=True)
class Portfolio:
    """Variants whose times stay within `bound` of the winner's at every tuned shape, and where each of them runs.

    `dynamic` is the dimension that buckets divide. `compiles` counts the compile keys that all variants together reach
    in their buckets, `regret` is the largest share by which a tuned shape is slower than under its own winner.
    """

    dynamic: str
    buckets: tuple[Bucket, ...]
    compiles: int
    regret: float
    bound: float

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Each variant once, in the order of the buckets."""
        return tuple(dict.fromkeys(bucket.variant for bucket in self.buckets))
