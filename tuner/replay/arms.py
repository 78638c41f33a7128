"""The arms of a replay: which variant runs at each shape, and whether it is warmed up first."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.records import Shape, SpecializationSet, Variant
from tuner.runtime import Lookup

NONE, BASELINE, OURS, ONE_VARIANT = "none", "baseline", "ours", "ours, one variant"


@dataclass(frozen=True)
class Arm:
    """One way to serve the steps: the variant of each shape, in the order in which the steps reach them.

    `warm_up`: each compile key is launched once before the steps begin.
    """

    name: str
    variants: Mapping[Shape, Variant]
    warm_up: bool = False

    @property
    def distinct(self) -> tuple[Variant, ...]:
        """Each variant once."""
        return tuple(dict.fromkeys(self.variants.values()))

    @property
    def warmed_up(self) -> "Arm":
        return replace(self, name=f"{self.name}, warmed up", warm_up=True)


def make_arms(steps: Sequence[Shape], baseline: Variant, answers: Mapping[Shape, Lookup]) -> tuple[Arm, ...]:
    """The arms to compare over the steps' shapes.

    `none` is the baseline without its specialization set, `baseline` the baseline as it ships, left out where that is
    the same. `ours` takes the answer for each shape, `ours, one variant` one variant for all; each of them also warmed
    up. Both are left out where no answer is a winner, the latter also where `ours` is one variant.
    """
    shapes = tuple(dict.fromkeys(steps))
    found = [Arm(NONE, dict.fromkeys(shapes, replace(baseline, specialization=SpecializationSet())))]
    if baseline.specialization != SpecializationSet():
        found.append(Arm(BASELINE, dict.fromkeys(shapes, baseline)))
    if any(answers[shape].winner for shape in shapes):
        ours = Arm(OURS, {shape: answers[shape].variant for shape in shapes})
        found += [ours, ours.warmed_up]
        if len(ours.distinct) > 1:
            one = Arm(ONE_VARIANT, dict.fromkeys(shapes, busiest_variant(steps, answers)))
            found += [one, one.warmed_up]
    return tuple(found)


def busiest_variant(steps: Sequence[Shape], answers: Mapping[Shape, Lookup]) -> Variant:
    """The variant that would run longest over the steps, at the time that the winner behind each answer has.

    ValueError where no answer is a winner.
    """
    busy_us: defaultdict[Variant, float] = defaultdict(float)
    for shape in steps:
        if winner := answers[shape].winner:
            busy_us[answers[shape].variant] += winner.timing.median_us
    if not busy_us:
        raise ValueError("no answer is a winner")
    return max(busy_us, key=lambda variant: busy_us[variant])
