"""Stored evaluations -> finalists and winners of a shape. Pure: no clock, no GPU, no store."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.records import Environment, Evaluation, Shape, Speedup, Timing, Variant, Winner

# Times this close are equal: nothing is claimed of the difference; the variant that compiles less often is taken.
EQUAL_WITHIN = 0.01

Compiles = Callable[[Variant], int]
# Microseconds of compile stalls that a variant adds to each launch.
Stalls = Callable[[Variant], float]


def no_stall(variant: Variant) -> float:
    """A variant's stall where the steady state alone counts."""
    return 0.0


def fastest(evaluations: Iterable[Evaluation], limit: int) -> list[list[Evaluation]]:
    """The passed evaluations with the lowest medians, grouped by binary and config, best group first.

    A group shares one measurement: its variants differ in their specialization sets alone.
    """
    groups: dict[object, list[Evaluation]] = {}
    for evaluation in sorted(filter(lambda each: each.timing is not None, evaluations), key=median_us):
        code = evaluation.binary.digest if evaluation.binary else evaluation.variant.digest
        groups.setdefault((code, evaluation.variant.config), []).append(evaluation)
    return list(groups.values())[:limit]


def finalists(
    evaluations: Sequence[Evaluation], compiles: Compiles, limit: int, stall_us: Stalls = no_stall
) -> list[Variant]:
    """The variants to confirm: those of the least cost, each under the set that compiles least.

    Where a set that compiles less than any of a group's makes another binary of the same config, both are finalists.
    """

    def burden(evaluation: Evaluation) -> tuple[int, int, float]:
        return compiles(evaluation.variant), marked(evaluation.variant), median_us(evaluation)

    def cost_us(group: Sequence[Evaluation]) -> float:
        return min(median_us(each) + stall_us(each.variant) for each in group)

    chosen: dict[Variant, None] = {}
    for group in sorted(fastest(evaluations, len(evaluations)), key=cost_us)[:limit]:
        best = min(group, key=burden)
        same = [each for each in evaluations if each.timing and each.variant.config == best.variant.config]
        chosen[best.variant] = None
        chosen[min(same, key=burden).variant] = None
    return list(chosen)


def prefer_few_compiles(costs_us: Mapping[Variant, float], compiles: Compiles) -> Variant:
    """The variant of the least cost, or one within 1% of it that reaches fewer compile keys or marks fewer arguments.

    A cost is a time, with the variant's stall where stalls count. ValueError without candidates.
    """
    leader_us = min(costs_us.values())
    close = [variant for variant, cost_us in costs_us.items() if cost_us <= leader_us * (1 + EQUAL_WITHIN)]
    return min(close, key=lambda each: (compiles(each), marked(each), costs_us[each], each.digest))


def marked(variant: Variant) -> int:
    """How many arguments the variant keeps from specialization."""
    marks = variant.specialization
    return len(marks.do_not_specialize) + len(marks.do_not_specialize_on_alignment)


def median_us(evaluation: Evaluation) -> float:
    """The median time of an evaluation; ValueError for one that did not pass."""
    if evaluation.timing is None:
        raise ValueError(f"{evaluation.variant.digest} has no time: it ended as {evaluation.status.value!r}")
    return evaluation.timing.median_us


@dataclass(frozen=True)
class Contender:
    """A variant with its time in the confirming processes."""

    variant: Variant
    timing: Timing


def estimated_winner(
    baseline: Evaluation,
    evaluations: Sequence[Evaluation],
    environment: Environment,
    source_digest: str,
    compiles: Compiles,
    stall_us: Stalls = no_stall,
    kept: Variant | None = None,
) -> Winner:
    """The best estimate of a shape, if its cost is more than 1% of the time below the baseline's.

    Its interval is a point. `stall_us` and `kept` as in `confirmed_winner`.
    """
    timings = {each.variant: each.timing for each in (baseline, *evaluations) if each.timing is not None}
    costs_us = {variant: timing.median_us + stall_us(variant) for variant, timing in timings.items()}
    chosen = prefer_few_compiles(costs_us, compiles)
    ratio = median_us(baseline) / timings[chosen].median_us
    claim = _claim(
        Contender(baseline.variant, timings[baseline.variant]),
        Contender(chosen, timings[chosen]),
        Speedup(ratio, ratio, ratio),
        kept or baseline.variant,
        compiles,
        stall_us,
    )
    stays = f"nothing is estimated to {'cost less' if stall_us(chosen) else 'be faster'} than the baseline by 1%"
    reason = f"best estimate{claim.compiles_less}" if claim.displaces else stays
    return _winner(claim, reason, baseline.shape, environment, source_digest)


def confirmed_winner(
    baseline: Contender,
    chosen: Contender,
    speedup: Speedup,
    shape: Shape,
    environment: Environment,
    source_digest: str,
    compiles: Compiles,
    throttle: Collection[str] = (),
    stall_us: Stalls = no_stall,
    kept: Variant | None = None,
) -> Winner:
    """The chosen variant if it is decided that it costs less than the baseline; otherwise the baseline, and why.

    Cost is time and stall. Decided means that it is less at the slow end of the speedup's interval, where a time within
    1% of the baseline's counts as equal: without stalls the whole interval must lie above 1.01, with stalls an equal
    time under fewer compiles is enough. `kept` is what stays instead of the baseline: a variant that is the same
    machine code and compiles less. `throttle`: what held the GPU's clock down meanwhile.
    """
    claim = _claim(baseline, chosen, speedup, kept or baseline.variant, compiles, stall_us)
    interval = f"{speedup.median:.3f} [{speedup.low:.3f}, {speedup.high:.3f}]"
    if claim.displaces:
        reason = f"{_what_holds(speedup)}: {interval}{claim.compiles_less}"
    else:
        less = "cheaper" if stall_us(chosen.variant) else "faster"
        reason = f"the best variant is not decidedly {less} than the baseline by 1%: {interval}"
    if throttle:
        reason += f"; the GPU throttled meanwhile ({', '.join(sorted(throttle))})"
    return _winner(claim, reason, shape, environment, source_digest)


def _what_holds(speedup: Speedup) -> str:
    if speedup.low > 1 + EQUAL_WITHIN:
        return "confirmed against the baseline"
    return "equal in time to the baseline" if speedup.low >= 1 - EQUAL_WITHIN else "cheaper than the baseline by stalls"


@dataclass(frozen=True)
class _Claim:
    """Whether a variant displaces the baseline; `variant` wins, with its time and what it gains over the baseline."""

    displaces: bool
    variant: Variant
    timing: Timing
    baseline: Contender
    speedup: Speedup
    compiles: int
    baseline_compiles: int
    counts_stalls: bool

    @property
    def compiles_less(self) -> str:
        """The end of a reason where stalls count: how often the winner compiles beside the baseline."""
        if not self.counts_stalls or self.compiles == self.baseline_compiles:
            return ""
        return f"; {self.compiles} compile{'s' * (self.compiles != 1)} instead of {self.baseline_compiles}"


def _claim(
    baseline: Contender, chosen: Contender, speedup: Speedup, kept: Variant, compiles: Compiles, stall_us: Stalls
) -> _Claim:
    baseline_us = baseline.timing.median_us
    is_equal = 1 - EQUAL_WITHIN <= speedup.low <= 1 + EQUAL_WITHIN
    slowest_us = baseline_us if is_equal else baseline_us / speedup.low
    displaces = slowest_us + stall_us(chosen.variant) < baseline_us + stall_us(kept)
    variant, timing = (chosen.variant, chosen.timing) if displaces else (kept, baseline.timing)
    return _Claim(
        displaces=displaces,
        variant=variant,
        timing=timing,
        baseline=baseline,
        speedup=speedup if displaces else Speedup(1.0, 1.0, 1.0),
        compiles=compiles(variant),
        baseline_compiles=compiles(baseline.variant),
        counts_stalls=stall_us(variant) > 0,
    )


def _winner(claim: _Claim, reason: str, shape: Shape, environment: Environment, source_digest: str) -> Winner:
    if not claim.displaces and claim.variant != claim.baseline.variant:
        less = f"{claim.compiles} instead of {claim.baseline_compiles} compiles"
        reason = f"same machine code as the baseline at every shape of the run, {less}; {reason}"
    return Winner(
        variant=claim.variant,
        baseline=claim.baseline.variant,
        shape=shape,
        environment=environment,
        source_digest=source_digest,
        timing=claim.timing,
        baseline_timing=claim.baseline.timing,
        speedup=claim.speedup,
        compiles=claim.compiles,
        reason=reason,
    )
