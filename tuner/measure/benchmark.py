"""Times launches on the GPU between device events, so that host time stays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch

from tuner.measure.telemetry import read_conditions
from tuner.records import Conditions

# One sample replays a graph long enough for the events' resolution (about 0.5 us) to vanish in it.
_SAMPLE_US = 200.0
_LONG_ENOUGH = 0.9
_MAX_LAUNCHES = 100
_PROBE_LAUNCHES = 2
# A launch this long hides the host's work for the next one, and the start of its sample; it needs no graph.
_LONG_US = 500.0
# An idle GPU lowers its clocks and takes up to a second to raise them: warm up until two batches agree.
_BATCH_US = 10_000.0
_STEADY_WITHIN = 0.01
_MAX_BATCHES = 100
# A time known from before is a clock gauge too, and a shorter batch shows whether it is reached.
_GAUGE_US = 2_000.0


@dataclass(frozen=True)
class Timed:
    """What one sample times: `run` does so many launches, by replaying a CUDA graph or, for a long kernel, directly.

    `lead` does each of the launches once in front of a sample, so that it finds in the cache what they leave there
    themselves, not what others left. A long kernel hardly notices and has none.
    """

    run: Callable[[], None]
    launches: int
    lead: Callable[[], None] | None = None


@dataclass(frozen=True)
class Samples:
    """Time of one launch in microseconds, per timed thing and round, and the GPU's state meanwhile, if known."""

    times_us: list[list[float]]
    conditions: Conditions | None

    def joined(self, more: "Samples") -> "Samples":
        """These and more of the same things, with the worst conditions of the two."""
        times_us = [[*some, *others] for some, others in zip(self.times_us, more.times_us, strict=True)]
        return Samples(times_us, more.conditions.worst(self.conditions) if more.conditions else self.conditions)


def probe(launches: Sequence[Callable[[], None]]) -> Timed:
    """A few launches, taken in turn, to warm up with; each has run once before, so nothing compiles."""
    rounds = max(1, _PROBE_LAUNCHES // len(launches))
    return Timed(_captured(launches, rounds), rounds * len(launches))


def prepare(launches: Sequence[Callable[[], None]], like: Timed | None = None) -> Timed:
    """Make launches, taken in turn, ready to be sampled; they must be warm (see `warm_up`), and so must the GPU.

    Several launches over different buffers keep the L2 cache cold; one alone keeps it warm. A sample grows until it is
    long enough, for with fewer launches its own start weighs more. It begins with as many launches as `like`, which
    takes about as long, so that it need not be captured twice, and so that both have a graph or neither has.
    """
    rounds = max(1, (like.launches if like else _PROBE_LAUNCHES) // len(launches))
    long_us = _LONG_US if like is None else _LONG_US * (2.0 if like.lead else 0.5)
    while True:
        run = _captured(launches, rounds)
        timed = Timed(run, rounds * len(launches))
        run()
        sample_us = _elapsed_us([timed])
        each_us = sample_us / timed.launches
        if each_us >= long_us:
            return _one_by_one(launches)
        if sample_us >= _LONG_ENOUGH * _SAMPLE_US or timed.launches >= _MAX_LAUNCHES:
            return replace(timed, lead=run if rounds == 1 else _captured(launches, 1))
        wanted = min(_SAMPLE_US / each_us, _MAX_LAUNCHES)
        rounds = max(rounds + 1, round(wanted / len(launches)))


def _one_by_one(launches: Sequence[Callable[[], None]]) -> Timed:
    in_turn = cycle(launches)
    return Timed(lambda: next(in_turn)(), 1)


@dataclass(frozen=True)
class _Replay:
    """Replays a graph of launches and holds these: a graph knows addresses, and keeps nothing that lies there."""

    graph: torch.cuda.CUDAGraph
    launches: tuple[Callable[[], None], ...]

    def __call__(self) -> None:
        self.graph.replay()


def _captured(launches: Sequence[Callable[[], None]], rounds: int) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    return _Replay(graph, tuple(launches))


def sample(timed: Sequence[Timed], rounds: int) -> Samples:
    """Time each so many times.

    Rounds are interleaved and their order turns from round to round, so that clock and temperature drift fall on all
    alike. Each time comes behind the launches' own lead, which is not timed. The GPU should be warm: see `warm_up`.
    """
    events = [[(_event(), _event()) for _ in range(rounds)] for _ in timed]
    timed[-1].run()  # the host stays ahead from here on: no event waits for it
    for number in range(rounds):
        for step in range(len(timed)):
            index = (number + step) % len(timed)
            start, end = events[index][number]
            if lead := timed[index].lead:
                lead()
            start.record()
            timed[index].run()
            end.record()
    conditions = read_conditions()  # while the GPU is at work
    torch.cuda.synchronize()
    times_us = [
        [start.elapsed_time(end) * 1000 / each.launches for start, end in pairs]
        for each, pairs in zip(timed, events, strict=True)
    ]
    return Samples(times_us, conditions)


def warm_up(timed: Sequence[Timed], known_us: float | None = None) -> None:
    """Run until the clocks are up: two batches in a row agree within 1%.

    `known_us` is the time of one launch of the first when the clocks were up; where it is reached at once, that is
    enough.
    """
    if known_us is not None:
        gauge = timed[:1]
        repeats = max(1, round(_GAUGE_US / (known_us * gauge[0].launches)))
        each_us = _elapsed_us(gauge, repeats) / (repeats * gauge[0].launches)
        if abs(each_us - known_us) <= _STEADY_WITHIN * known_us:
            return
    repeats = max(1, round(_BATCH_US / _elapsed_us(timed)))
    before_us = 0.0
    for _ in range(_MAX_BATCHES):
        batch_us = _elapsed_us(timed, repeats)
        if abs(batch_us - before_us) <= _STEADY_WITHIN * batch_us:
            return
        before_us = batch_us


def _elapsed_us(timed: Sequence[Timed], repeats: int = 1) -> float:
    """Device time of running each so many times."""
    start, end = _event(), _event()
    start.record()
    for _ in range(repeats):
        for each in timed:
            each.run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1000


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
