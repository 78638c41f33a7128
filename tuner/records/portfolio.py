"""The few variants that together stand for the winners of many shapes."""

from dataclasses import dataclass

from tuner.records.frozen import FrozenMapping
from tuner.records.shape import DimensionValue, Shape
from tuner.records.variant import Variant

# A tuned size stands for others up to this factor below the smallest and above the largest one.
REACH = 2.0
# By how much, as a share, a portfolio may be slower than the winner at a tuned shape where no other bound is asked for.
REGRET_BOUND = 0.01


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

    def find(self, shape: Shape) -> Variant | None:
        """The variant of the bucket that holds the shape; None where none does."""
        return next((each.variant for each in self.buckets if each.holds(shape, self.dynamic)), None)
