"""When requests get their first token, if some steps of a simulated engine stall. Pure.

Every request waits as long as simulated, and on top through each stall that lasts while it waits. A stall is at the end
of its step. Two things follow from how an engine batches continuously, and hold in the simulator when it is run again
with the stalls in its steps (docs/replay.md):

- A request that arrives during a stall waits for what is left of it, for it joins the first step after it.
- A stall delays no request that arrives later: the decoding requests are behind, but a new one joins the next step all
  the same. Were the composition of the steps kept instead, one stall would delay every request until the engine idles.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from tuner.workload import ServedRequest, Step


def first_token_us(
    steps: Sequence[Step], requests: Sequence[ServedRequest], stalls_us: Mapping[int, float]
) -> tuple[float, ...]:
    """Microseconds from arrival to first token of each request that has its first token within the steps.

    `steps` are the simulated ones from the first on, `stalls_us` says by how much some of them take longer, by index.
    """
    starts_us = [step.start_us for step in steps]
    windows = _windows(steps, stalls_us)
    waits: list[float] = []
    for request in requests:
        if request.first_step < len(steps):
            joins_us = starts_us[bisect_left(starts_us, request.arrival_us)]
            delay_us = sum(
                max(0.0, end_us - max(begin_us, joins_us))
                for index, begin_us, end_us in windows
                if index <= request.first_step
            )
            waits.append(steps[request.first_step].end_us - request.arrival_us + delay_us)
    return tuple(waits)


def _windows(steps: Sequence[Step], stalls_us: Mapping[int, float]) -> list[tuple[int, float, float]]:
    """Index of the step, begin and end of each stall; one right after another begins when its own step could end."""
    windows: list[tuple[int, float, float]] = []
    over_us = 0.0
    for index, stall_us in sorted(stalls_us.items()):
        begin_us = max(steps[index].end_us, over_us + steps[index].duration_us)
        over_us = begin_us + stall_us
        windows.append((index, begin_us, over_us))
    return windows
