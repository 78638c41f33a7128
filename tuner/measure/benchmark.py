"""Times launches on the GPU: CUDA-graph replay between device events, so that host time stays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# One sample replays a graph long enough for the events' resolution (about 0.5 us) to vanish in it.
_SAMPLE_US = 200.0
_MAX_LAUNCHES = 100
_PROBE_ROUNDS = 4
# An idle GPU lowers its clocks and takes up to a second to raise them: warm up until two batches agree.
_BATCH_US = 10_000.0
_STEADY_WITHIN = 0.01
_MAX_BATCHES = 100


@dataclass(frozen=True)
class Replay:
    """A captured graph of `launches` launches."""

    graph: torch.cuda.CUDAGraph
    launches: int


def capture(launches: Sequence[Callable[[], None]]) -> Replay:
    """Capture launches, taken in turn, as many as fill one sample; each has run once before, so nothing compiles.

    Several launches over different buffers keep the L2 cache cold; one alone keeps it warm.
    """
    probe = _capture(launches, _PROBE_ROUNDS)
    probe.graph.replay()
    each_us = _elapsed_us([probe]) / probe.launches
    wanted = min(max(_SAMPLE_US / each_us, 1), _MAX_LAUNCHES)
    return _capture(launches, max(1, round(wanted / len(launches))))


def _capture(launches: Sequence[Callable[[], None]], rounds: int) -> Replay:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    return Replay(graph, rounds * len(launches))


def sample(replays: Sequence[Replay], rounds: int) -> list[list[float]]:
    """Time of one launch in microseconds, per replay and round.

    Rounds are interleaved over the replays and their order turns from round to round, so that clock and temperature
    drift fall on all alike.
    """
    _warm_up(replays)
    events = [[(_event(), _event()) for _ in range(rounds)] for _ in replays]
    for number in range(rounds):
        for step in range(len(replays)):
            index = (number + step) % len(replays)
            start, end = events[index][number]
            start.record()
            replays[index].graph.replay()
            end.record()
    torch.cuda.synchronize()
    return [
        [start.elapsed_time(end) * 1000 / replay.launches for start, end in pairs]
        for replay, pairs in zip(replays, events, strict=True)
    ]


def _warm_up(replays: Sequence[Replay]) -> None:
    """Replay until two batches in a row take the same time within 1%, so that clocks are up and stay up."""
    repeats = max(1, round(_BATCH_US / _elapsed_us(replays)))
    before_us = 0.0
    for _ in range(_MAX_BATCHES):
        batch_us = _elapsed_us(replays, repeats)
        if abs(batch_us - before_us) <= _STEADY_WITHIN * batch_us:
            return
        before_us = batch_us


def _elapsed_us(replays: Sequence[Replay], repeats: int = 1) -> float:
    """Device time of replaying each graph so many times."""
    start, end = _event(), _event()
    start.record()
    for _ in range(repeats):
        for replay in replays:
            replay.graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1000


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
