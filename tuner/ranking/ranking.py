"""Stored evaluations -> finalists and winners of a shape. Pure: no clock, no GPU, no store."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.records import Environment, Evaluation, Shape, Speedup, Timing, Variant, Winner

# Times this close are equal: nothing is claimed of the difference; the variant that compiles less often is taken.
EQUAL_WITHIN = 0.01

Compiles = Callable[[Variant], int]


def fastest(evaluations: Iterable[Evaluation], limit: int) -> list[list[Evaluation]]:
    """The passed evaluations with the lowest medians, grouped by binary and config, best group first.

    A group shares one measurement: its variants differ in their specialization sets alone.
    """
    groups: dict[object, list[Evaluation]] = {}
    for evaluation in sorted(filter(lambda each: each.timing is not None, evaluations), key=median_us):
        code = evaluation.binary.digest if evaluation.binary else evaluation.variant.digest
        groups.setdefault((code, evaluation.variant.config), []).append(evaluation)
    return list(groups.values())[:limit]


def finalists(evaluations: Sequence[Evaluation], compiles: Compiles, limit: int) -> list[Variant]:
    """The variants to confirm: the fastest, each under the set that compiles least.

    Where a set that compiles less than any of a group's makes another binary of the same config, both are finalists.
    """

    def burden(evaluation: Evaluation) -> tuple[int, int, float]:
        return compiles(evaluation.variant), marked(evaluation.variant), median_us(evaluation)

    chosen: dict[Variant, None] = {}
    for group in fastest(evaluations, limit):
        best = min(group, key=burden)
        same = [each for each in evaluations if each.timing and each.variant.config == best.variant.config]
        chosen[best.variant] = None
        chosen[min(same, key=burden).variant] = None
    return list(chosen)


def prefer_few_compiles(times_us: Mapping[Variant, float], compiles: Compiles) -> Variant:
    """The fastest variant, or one within 1% of it that reaches fewer compile keys or marks fewer arguments.

    ValueError without candidates.
    """
    leader_us = min(times_us.values())
    close = [variant for variant, time_us in times_us.items() if time_us <= leader_us * (1 + EQUAL_WITHIN)]
    return min(close, key=lambda each: (compiles(each), marked(each), times_us[each], each.digest))


def marked(variant: Variant) -> int:
    """How many arguments the variant keeps from specialization."""
    marks = variant.specialization
    return len(marks.do_not_specialize) + len(marks.do_not_specialize_on_alignment)


def median_us(evaluation: Evaluation) -> float:
    """The median time of an evaluation; ValueError for one that did not pass."""
    if evaluation.timing is None:
        raise ValueError(f"{evaluation.variant.digest} has no time: it ended as {evaluation.status.value!r}")
    return evaluation.timing.median_us


def estimated_winner(
    baseline: Evaluation,
    evaluations: Sequence[Evaluation],
    environment: Environment,
    source_digest: str,
    compiles: Compiles,
) -> Winner:
    """The best estimate of a shape, if it is more than 1% below the baseline's. Its interval is a point."""
    timings = {each.variant: each.timing for each in (baseline, *evaluations) if each.timing is not None}
    chosen = prefer_few_compiles({variant: timing.median_us for variant, timing in timings.items()}, compiles)
    ratio, reason = median_us(baseline) / timings[chosen].median_us, "best estimate"
    if ratio <= 1 + EQUAL_WITHIN:
        chosen, ratio, reason = baseline.variant, 1.0, "nothing is estimated to be faster than the baseline by 1%"
    return Winner(
        variant=chosen,
        baseline=baseline.variant,
        shape=baseline.shape,
        environment=environment,
        source_digest=source_digest,
        timing=timings[chosen],
        baseline_timing=timings[baseline.variant],
        speedup=Speedup(ratio, ratio, ratio),
        compiles=compiles(chosen),
        reason=reason,
    )


@dataclass(frozen=True)
class Contender:
    """A variant with its time in the confirming processes."""

    variant: Variant
    timing: Timing


def confirmed_winner(
    baseline: Contender,
    chosen: Contender,
    speedup: Speedup,
    shape: Shape,
    environment: Environment,
    source_digest: str,
    compiles: Compiles,
    throttle: Collection[str] = (),
) -> Winner:
    """The chosen variant if its speedup over the baseline is decided; otherwise the baseline, and why.

    Decided means that the whole interval lies above 1.01: what is closer counts as equal. `throttle`: what held the
    GPU's clock down meanwhile.
    """
    interval = f"{speedup.median:.3f} [{speedup.low:.3f}, {speedup.high:.3f}]"
    winner, reason = chosen, f"confirmed against the baseline: {interval}"
    if speedup.low <= 1 + EQUAL_WITHIN:
        winner, speedup = baseline, Speedup(1.0, 1.0, 1.0)
        reason = f"the best variant is not decidedly faster than the baseline by 1%: {interval}"
    if throttle:
        reason += f"; the GPU throttled meanwhile ({', '.join(sorted(throttle))})"
    return Winner(
        variant=winner.variant,
        baseline=baseline.variant,
        shape=shape,
        environment=environment,
        source_digest=source_digest,
        timing=winner.timing,
        baseline_timing=baseline.timing,
        speedup=speedup,
        compiles=compiles(winner.variant),
        reason=reason,
    )
