"""How launches are sampled, on a device whose clock is a number."""

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from tuner.measure import benchmark
from tuner.measure.benchmark import Timed, prepare, probe, sample, warm_up
from tuner.records import Conditions

CONDITIONS = Conditions(1755, 61)


@dataclass
class FakeDevice:
    """Does work at once, and notes in which order; `speed` divides what it takes, a replay's start comes on top."""

    now_us: float = 0.0
    speed: Callable[[float], float] = lambda now_us: 1.0
    work: list[str] = field(default_factory=list)
    replay_us: float = 0.0
    captured: list[int] = field(default_factory=list)

    def launch(self, name: str, time_us: float) -> Callable[[], None]:
        def run() -> None:
            self.work.append(name)
            self.now_us += time_us / self.speed(self.now_us)

        return run

    def timed(self, name: str, time_us: float, launches: int = 1, lead: str | None = None) -> Timed:
        return Timed(self.launch(name, time_us * launches), launches, self.launch(lead, time_us) if lead else None)

    def event(self) -> "FakeEvent":
        return FakeEvent(self)

    def capture(self, launches: list[Callable[[], None]], rounds: int) -> Callable[[], None]:
        """Like a graph: what is captured runs when it is replayed."""
        self.captured.append(rounds)

        def replay() -> None:
            self.now_us += self.replay_us
            for _ in range(rounds):
                for launch in launches:
                    launch()

        return replay

    def synchronize(self) -> None:
        self.work.append("synchronize")

    def read_conditions(self) -> Conditions:
        self.work.append("conditions")
        return CONDITIONS


@dataclass
class FakeEvent:
    device: FakeDevice
    at_us: float = -1.0

    def record(self) -> None:
        self.at_us = self.device.now_us

    def synchronize(self) -> None:
        assert self.at_us >= 0

    def elapsed_time(self, end: "FakeEvent") -> float:
        return (end.at_us - self.at_us) / 1000


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    device = FakeDevice()
    monkeypatch.setattr(benchmark, "_event", device.event)
    monkeypatch.setattr(benchmark, "_captured", device.capture)
    monkeypatch.setattr(benchmark, "read_conditions", device.read_conditions)
    monkeypatch.setattr("torch.cuda.synchronize", device.synchronize)
    return device


def test_rounds_are_interleaved_and_their_order_turns(device: FakeDevice) -> None:
    sample([device.timed(name, 1.0) for name in "abc"], 4)
    head, *rest = device.work
    assert head == "c"
    assert "".join(rest[:12]) == "abcbcacababc"


def test_a_sample_is_the_time_of_one_launch(device: FakeDevice) -> None:
    found = sample([device.timed("a", 3.0, launches=20), device.timed("b", 1500.0)], 5)
    assert found.times_us[0] == pytest.approx([3.0] * 5)
    assert found.times_us[1] == pytest.approx([1500.0] * 5)


def test_a_sample_comes_behind_its_lead_which_is_not_timed(device: FakeDevice) -> None:
    """What the cache holds at its start is then what it leaves itself."""
    found = sample([device.timed("a", 3.0, launches=20, lead="A"), device.timed("b", 1500.0)], 2)
    assert device.work[:7] == ["b", "A", "a", "b", "b", "A", "a"]
    assert found.times_us == [pytest.approx([3.0] * 2), pytest.approx([1500.0] * 2)]


def test_a_lead_is_each_launch_once(device: FakeDevice) -> None:
    for names, each_us in (("a", 10.0), ("abc", 10.0), ("abc", 80.0)):
        lead = prepare([device.launch(name, each_us) for name in names]).lead
        assert lead is not None
        device.work.clear()
        lead()
        assert "".join(device.work) == names
    assert prepare([device.launch("a", 600.0)]).lead is None


def test_the_conditions_are_those_of_a_gpu_at_work(device: FakeDevice) -> None:
    """They are read when all is under way and nothing was waited for."""
    found = sample([device.timed("a", 1.0)], 3)
    assert device.work == ["a", "a", "a", "a", "conditions", "synchronize"]
    assert found.conditions == CONDITIONS


@pytest.mark.parametrize(("each_us", "launches"), [(0.5, 100), (10.0, 20), (80.0, 3), (150.0, 2), (499.0, 2)])
def test_a_graph_is_long_enough_for_the_events(device: FakeDevice, each_us: float, launches: int) -> None:
    """200 us, but at most 100 launches, and no fewer than those that were probed."""
    timed = prepare([device.launch("a", each_us)])
    assert timed.launches == launches
    device.work.clear()
    timed.run()
    assert device.work == ["a"] * launches


def test_a_graph_keeps_alive_what_its_launches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that only a launch knows would be freed, and its memory given back, while a graph reads it."""

    class Graph:
        def replay(self) -> None:
            pass

    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr("torch.cuda.graph", lambda graph: nullcontext())
    tensor = torch.zeros(8)
    alive = weakref.ref(tensor)
    launches: list[Callable[[], None]] = [partial(tensor.add_, 1)]
    timed = probe(launches)
    del tensor, launches
    gc.collect()
    assert alive() is not None
    del timed
    gc.collect()
    assert alive() is None


def test_a_sample_begins_with_as_many_launches_as_one_that_takes_as_long(device: FakeDevice) -> None:
    """One capture will do beside that of the lead, and growing is left for what is faster than that."""
    like = prepare([device.launch("a", 10.0)])
    device.captured.clear()
    assert prepare([device.launch("b", 11.0)], like).launches == 20
    assert device.captured == [20, 1]
    assert prepare([device.launch("c", 5.0)], like).launches == 40


def test_what_is_about_as_long_is_timed_in_the_same_way(device: FakeDevice) -> None:
    """Alone each of 400 us would have a graph and each of 600 us none."""
    for like_us, each_us in ((600.0, 400.0), (400.0, 600.0)):
        like = prepare([device.launch("a", like_us)])
        assert (prepare([device.launch("b", each_us)], like).lead is None) == (like.lead is None)
    assert prepare([device.launch("c", 50.0)], prepare([device.launch("a", 5000.0)])).lead is not None


def test_launches_over_several_buffers_are_captured_in_whole_rounds(device: FakeDevice) -> None:
    timed = prepare([device.launch(name, 10.0) for name in "abc"])
    assert timed.launches == 21
    device.work.clear()
    timed.run()
    assert "".join(device.work) == "abc" * 7


@pytest.mark.parametrize("each_us", [2.0, 5.0, 10.0, 40.0])
def test_a_sample_grows_where_its_start_made_launches_look_longer(device: FakeDevice, each_us: float) -> None:
    device.replay_us = 100.0
    timed = prepare([device.launch("a", each_us)])
    begun_us = device.now_us
    timed.run()
    assert device.now_us - begun_us >= 180.0 or timed.launches >= 100


def test_a_probe_is_a_few_launches_that_have_not_run(device: FakeDevice) -> None:
    timed = probe([device.launch(name, 1.0) for name in "ab"])
    assert (timed.launches, device.work) == (2, [])


def test_a_long_launch_needs_no_graph_and_takes_its_buffers_in_turn(device: FakeDevice) -> None:
    timed = prepare([device.launch(name, 1000.0) for name in "abc"])
    assert timed.launches == 1
    assert len(device.captured) == 1  # the probe
    device.work.clear()
    for _ in range(5):
        timed.run()
    assert "".join(device.work) == "abcab"


def rising(until_us: float) -> Callable[[float], float]:
    """An idle clock that rises from half to full speed by then."""
    return lambda now_us: min(1.0, 0.5 + 0.5 * now_us / until_us)


def test_it_warms_up_until_the_clocks_are_up(device: FakeDevice) -> None:
    device.speed = rising(100_000.0)
    warm_up([device.timed("a", 100.0), device.timed("b", 50.0)])
    assert device.speed(device.now_us) == 1.0
    assert device.now_us < 200_000.0
    assert device.work.count("a") == device.work.count("b")


def test_a_warm_gpu_costs_two_batches(device: FakeDevice) -> None:
    warm_up([device.timed("a", 100.0)])
    assert device.now_us == pytest.approx(20_000.0, rel=0.02)


def test_clocks_that_never_settle_do_not_warm_up_for_ever(device: FakeDevice) -> None:
    device.speed = lambda now_us: 1.0 if int(now_us / 10_000) % 2 else 0.5
    warm_up([device.timed("a", 100.0)])
    assert device.now_us < 100 * 25_000.0


def test_a_known_time_that_is_reached_is_enough(device: FakeDevice) -> None:
    """Only the first is timed for it, in far less than a batch."""
    warm_up([device.timed("leader", 10.0, launches=20), device.timed("b", 50.0)], 10.05)
    assert set(device.work) == {"leader"}
    assert device.now_us == pytest.approx(2_000.0, rel=0.1)


@pytest.mark.parametrize("known_us", [5.0, 9.8, 10.2])
def test_a_known_time_that_is_not_reached_is_not(device: FakeDevice, known_us: float) -> None:
    warm_up([device.timed("leader", 10.0, launches=20), device.timed("b", 50.0)], known_us)
    assert "b" in device.work
    assert device.now_us > 20_000.0
