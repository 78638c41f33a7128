"""What each shape tries first: what won on the same architecture, and what the estimate finds fastest.

Both only propose: what they propose is measured like any other trial, and the search learns from it.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from random import Random

from tuner.api import published_tables, tables_of
from tuner.compile.builder import Built
from tuner.compile.specialization import meta_launch
from tuner.measure.static import DEVICE_MODELS, estimate_launch
from tuner.processes import Failure
from tuner.records import Evidence, Shape, Target
from tuner.runtime import find
from tuner.session.compile_counts import CompileCounts
from tuner.session.ledger import Trial
from tuner.session.machine_code import MachineCode
from tuner.session.request import RunRequest
from tuner.store import Store

# So many of the best estimates are tried; at most this share of a shape's trials is theirs.
_BEST = 10
_SHARE = 0.5
# So many configs are looked at, and for no longer than this. A compile costs a run about as much as a trial. And the
# ten best of all are too much alike where the estimate is blind to what they share (docs/estimates.md).
_MOST_CONFIGS = 128
_LONGEST_S = 30.0


def won_elsewhere(request: RunRequest, shapes: Sequence[Shape], target: Target, store: Store) -> list[Trial]:
    """What a lookup would answer at each shape from each table of the target that is published or in the store.

    Winners of other devices, versions and sources of the kernel are as good as any; those that the space lacks, or of
    other dimensions, are left out.
    """
    kernel, trials = request.kernel, dict[Trial, None]()
    tables = [*tables_of(store.winners(kernel.name)), *published_tables(kernel.name)]
    for table in tables:
        where = table.environment
        is_of_these = all(row.shape.keys() == shapes[0].keys() for row in table.rows)
        if where.evidence is not Evidence.MEASURED or where.target != target or not is_of_these:
            continue
        for shape in shapes:
            found = find([table], shape, kernel.spec.dynamic_dimensions, where.device, target)
            if found is not None and request.space.contains(found.variant, shape):
                trials[found.variant, shape] = None
    return list(trials)


def warm_start(
    request: RunRequest,
    shapes: Sequence[Shape],
    counts: CompileCounts,
    code: MachineCode,
    target: Target,
    until: float = math.inf,
) -> list[Trial]:
    """The configs that look fastest at each shape, with the set that compiles least; those that look best come first.

    Configs of the space, drawn by the request's seed, are compiled for it; what is not compiled by `until` (monotonic
    seconds), or after half a minute, is not proposed. Empty where the GPU's limits are not known.
    """
    count = min(_BEST, int(request.trials * _SHARE))
    if str(target) not in DEVICE_MODELS or count == 0:
        return []
    until = min(until, time.monotonic() + _LONGEST_S)
    space = replace(request.space, implementations=tuple(code.compiling(request.space, until)))
    allowed = {shape: dict.fromkeys(space.configs(shape)) for shape in shapes}
    configs = list(dict.fromkeys(config for held in allowed.values() for config in held))
    drawn = Random(request.seed).sample(configs, min(len(configs), _MOST_CONFIGS * count // _BEST))
    variants = {config: counts.least(config) for config in drawn}
    # Config by config, so that a time limit cuts off configs and not shapes.
    trials = [(variants[config], shape) for config in drawn for shape in shapes if config in allowed[shape]]
    built = code.built(trials, until)
    ranked = [_fastest(request, [each for each in trials if each[1] == at], built, target)[:count] for at in shapes]
    return [trial for rank in zip_longest(*ranked) for trial in rank if trial is not None]


def _fastest(request: RunRequest, trials: Sequence[Trial], built: Mapping[Trial, Built], target: Target) -> list[Trial]:
    """The trials by their estimates, the fastest first; of those with the same code and grid one."""
    estimates: dict[tuple[str, int], tuple[float, Trial]] = {}
    for variant, shape in trials:
        if (variant, shape) not in built:
            continue
        found = built[variant, shape]
        programs = math.prod(meta_launch(request.kernel, variant, shape).grid)
        timing = estimate_launch(request.kernel.spec, variant.config, shape, found, programs, target)
        if not isinstance(timing, Failure):
            estimates.setdefault((found.binary.digest, programs), (timing.median_us, (variant, shape)))
    return [trial for _, trial in sorted(estimates.values(), key=lambda each: each[0])]
