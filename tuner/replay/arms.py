"""The arms of a replay: which variant runs at each shape, and whether it is warmed up first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.records import Shape, SpecializationSet, Variant
from tuner.runtime import Lookup
from tuner.runtime.bundle import Bundle

NONE, BASELINE, OURS, ONE_VARIANT, PREBUILT = "none", "baseline", "ours", "ours, one variant", "ours, prebuilt"


@dataclass(frozen=True)
class Arm:
    """One way to serve the steps: the variant of each shape, in the order in which the steps reach them.

    `warm_up`: each compile key is launched once before the steps begin. `bundles`: the folder of the bundle that
    binaries are loaded from, through the op's launcher instead of Triton's JIT path.
    """

    name: str
    variants: Mapping[Shape, Variant]
    warm_up: bool = False
    bundles: Path | None = None

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
            one = Arm(ONE_VARIANT, dict.fromkeys(shapes, most_used_variant(steps, answers)))
            found += [one, one.warmed_up]
    return tuple(found)


def prebuilt_arm(steps: Sequence[Shape], dynamic: str, answers: Mapping[Shape, Lookup], bundle: Bundle) -> Arm:
    """What a server with a bundle runs: the bundle's variants, at other dimensions than its own the answers.

    Every binary is loaded before the steps begin.
    """
    shapes = dict.fromkeys(steps)
    variants = {shape: bundle.variant_at(shape, dynamic) or answers[shape].variant for shape in shapes}
    return Arm(PREBUILT, variants, warm_up=True, bundles=bundle.folder.parent)


def most_used_variant(steps: Sequence[Shape], answers: Mapping[Shape, Lookup]) -> Variant:
    """The variant of a winner that most steps run, the first of them on a tie; ValueError where no answer is one."""
    used = Counter(answers[shape].variant for shape in steps if answers[shape].winner)
    if not used:
        raise ValueError("no answer is a winner")
    return used.most_common(1)[0][0]
