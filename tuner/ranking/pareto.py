"""Kernel time against compiles: what of a run no other variant beats in both."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.ranking.ranking import Compiles, median_us
from tuner.records import Evaluation, Shape, Variant


@dataclass(frozen=True)
class Point:
    """A variant that serves all shapes of a run alone.

    `kernel_us` is its expected time per launch in microseconds, `compiles` the compile keys that it reaches.
    """

    variant: Variant
    kernel_us: float
    compiles: int


def pareto_points(evaluations: Iterable[Evaluation], weights: Mapping[Shape, float], compiles: Compiles) -> list[Point]:
    """Each variant that has a time at every shape, the times weighted; in the order of their first evaluation.

    ValueError for weights that add up to nothing.
    """
    total = sum(weights.values())
    if not total > 0:
        raise ValueError("expected weights that add up to more than 0")
    times_us: dict[Variant, dict[Shape, float]] = {}
    for evaluation in evaluations:
        if evaluation.timing is not None and evaluation.shape in weights:
            times_us.setdefault(evaluation.variant, {})[evaluation.shape] = median_us(evaluation)
    return [
        Point(variant, sum(weight * found[shape] for shape, weight in weights.items()) / total, compiles(variant))
        for variant, found in times_us.items()
        if found.keys() == weights.keys()
    ]


def pareto_front(candidates: Iterable[Point]) -> list[Point]:
    """The points that no other one beats in time or compiles without being worse in the other; fastest first.

    Of equal points the one that comes first.
    """
    front: list[Point] = []
    for point in sorted(candidates, key=lambda each: (each.kernel_us, each.compiles)):
        if not front or point.compiles < front[-1].compiles:
            front.append(point)
    return front


@dataclass(frozen=True)
class Tradeoff:
    """What a step of a server costs under single variants, each as if it served every step alone.

    A step takes a point's `kernel_us`, its compiles of `compile_s` seconds spread over `steps`, and `host_us` for the
    launch. `workload` is what the times are weighted by, None where shapes weigh the same.
    """

    points: tuple[Point, ...]
    baseline: Variant
    compile_s: float
    steps: int
    host_us: float
    workload: str | None

    @property
    def front(self) -> list[Point]:
        """The points that no other one beats in kernel time and compiles at once, fastest first."""
        return pareto_front(self.points)

    @property
    def baseline_point(self) -> Point | None:
        """The baseline's point; None where it has no time at some shape."""
        return next((point for point in self.points if point.variant == self.baseline), None)

    def stall_s(self, point: Point) -> float:
        """Seconds for which the variant's compiles stop a server."""
        return point.compiles * self.compile_s

    def stall_us(self, point: Point) -> float:
        """Microseconds of compiling for each step."""
        return self.stall_s(point) * 1e6 / self.steps

    def step_us(self, point: Point) -> float:
        """Microseconds of a step: kernel, stall and launch."""
        return point.kernel_us + self.stall_us(point) + self.host_us
