"""What each objective makes of an evaluation."""

import pytest
from session_fakes import BASELINE, SHAPES

from tuner.records import Binary, Evaluation, FrozenMapping, Status, Timing, Variant
from tuner.search import Cost
from tuner.session.costs import Costs
from tuner.space import Objective

EVALUATION = Evaluation(BASELINE, SHAPES[0], Status.PASSED, timing=Timing(8.0, 8.0, 8.0, 1))


def binary(compile_s: float) -> Binary:
    none = FrozenMapping[int]()
    return Binary("code", "key", 32, 0, 0, 100, none, none, compile_s)


def three(variant: Variant) -> int:
    return 3


@pytest.mark.parametrize(
    ("objective", "cost"),
    [(Objective.LATENCY, (8.0,)), (Objective.SERVING, (8.0 + 12.0,)), (Objective.PARETO, (8.0, 12.0))],
)
def test_a_cost_is_the_time_with_its_stall_or_both(objective: Objective, cost: Cost) -> None:
    """Three compiles of 0.4 s over 100,000 steps are 12 us each."""
    costs = Costs(objective, 100_000, three)
    costs.learn(binary(0.4))
    assert costs.of(EVALUATION) == pytest.approx(cost)
    assert costs.count == len(cost)
    assert costs.of(Evaluation(BASELINE, SHAPES[0], Status.WRONG_OUTPUT)) is None
    assert costs.ranked_stall_us(BASELINE) == pytest.approx(12.0 if objective is Objective.SERVING else 0.0)
    assert costs.stall_us(BASELINE) == pytest.approx(12.0)


def test_all_compiles_count_the_median_of_those_that_were_real() -> None:
    """What comes from Triton's disk cache takes milliseconds; a failure has no binary."""
    costs = Costs(Objective.SERVING, 1000, three)
    assert costs.compile_s == 0.3
    for seconds in (0.2, 0.007, 0.5, 0.001, 0.9):
        costs.learn(binary(seconds))
    assert costs.compile_s == 0.5
