"""Which trials could make the portfolio smaller."""

import math
from collections.abc import Iterator, Set

from tuner.ranking import hopeful_cover, median_us
from tuner.records import Config, Shape
from tuner.records.portfolio import REGRET_BOUND
from tuner.session.compile_counts import CompileCounts
from tuner.session.ledger import Ledger, Trial
from tuner.session.request import RunRequest
from tuner.session.weights import groups_beside


def consolidating_trials(request: RunRequest, ledger: Ledger, counts: CompileCounts) -> list[Trial]:
    """What the fewest configs still have to show that could stand for all shapes; empty when they have shown it.

    A config has the set that compiles least. It may stand for a shape at which it was not tried as long as that shape
    has trials left. So, tried again and again, the fewest that are left need no hope: no other choice among the configs
    that are known to be good somewhere is smaller.
    """
    return [trial for shapes in _groups(request) for trial in _missing(shapes, request, ledger, counts)]


def _missing(shapes: list[Shape], request: RunRequest, ledger: Ledger, counts: CompileCounts) -> Iterator[Trial]:
    shapes = [shape for shape in shapes if ledger.passed(shape)]
    if len(shapes) < 2:
        return
    passed = {each.variant.config for shape in shapes for each in ledger.passed(shape)}
    times_us = [_times_us(shape, passed, ledger, counts) for shape in shapes]

    def untried(config: Config, place: int) -> bool:
        variant, shape = counts.least(config), shapes[place]
        done = ledger.done[shape]
        known = variant in done or variant in ledger.wrong
        return not known and len(done) < request.trials and request.space.allows(config, shape)

    for place, config in enumerate(hopeful_cover(times_us, untried, REGRET_BOUND)):
        if untried(config, place):
            yield counts.least(config), shapes[place]


def _times_us(shape: Shape, passed: Set[Config], ledger: Ledger, counts: CompileCounts) -> dict[Config, float]:
    """The time of each of the configs that was tried: with the set that compiles least, else the best with another.

    Infinite where it failed.
    """
    times_us: dict[Config, float] = {}
    for variant, each in ledger.done[shape].items():
        config = variant.config
        if config not in passed:
            continue
        failed = each.timing is None or variant in ledger.wrong
        time_us = math.inf if failed else median_us(each)
        if variant == counts.least(config):
            times_us[config] = time_us
        elif counts.least(config) not in ledger.done[shape]:
            times_us[config] = min(time_us, times_us.get(config, math.inf))
    return times_us


def _groups(request: RunRequest) -> list[list[Shape]]:
    """The shapes that one portfolio serves: they differ in the dynamic dimension alone. None without exactly one."""
    if len(request.kernel.spec.dynamic_dimensions) != 1:
        return []
    (dynamic,) = request.kernel.spec.dynamic_dimensions
    return list(groups_beside(request.shapes, dynamic).values())
