"""Times launches on the GPU: CUDA-graph replay between device events, so that host time stays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# One sample replays a graph long enough for the events' resolution (about 0.5 us) to vanish in it.
_SAMPLE_US = 200.0
_MAX_LAUNCHES = 100


@dataclass(frozen=True)
class Replay:
    """A captured graph of `launches` launches."""

    graph: torch.cuda.CUDAGraph
    launches: int


def capture(launches: Sequence[Callable[[], None]]) -> Replay:
    """Capture launches, taken in turn, as many as fill one sample; each has run once before, so nothing compiles.

    Several launches over different buffers keep the L2 cache cold; one alone keeps it warm.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for launch in launches:
            launch()
        start, end = _event(), _event()
        start.record()
        for launch in launches:
            launch()
        end.record()
        end.synchronize()
        each_us = max(start.elapsed_time(end) * 1000 / len(launches), 1.0)
        wanted = min(max(_SAMPLE_US / each_us, 1), _MAX_LAUNCHES)
        rounds = max(1, round(wanted / len(launches)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(rounds):
                for launch in launches:
                    launch()
    torch.cuda.current_stream().wait_stream(stream)
    return Replay(graph, rounds * len(launches))


def sample(replays: Sequence[Replay], rounds: int) -> list[list[float]]:
    """Time of one launch in microseconds, per replay and round.

    Rounds are interleaved over the replays and their order turns from round to round, so that clock and temperature
    drift fall on all alike.
    """
    for replay in replays:
        replay.graph.replay()
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


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
