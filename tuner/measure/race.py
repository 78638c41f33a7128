"""How long to sample: until the time is known well enough, or the candidate has clearly lost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from tuner.measure.benchmark import Samples, Timed, prepare, probe, sample, warm_up
from tuner.measure.statistics import ratio_uncertainty, significantly_slower, uncertainty
from tuner.measure.written import HiddenTimeError, own
from tuner.records import Conditions

Launches = Sequence[Callable[[], None]]
HasLost = Callable[[Sequence[float], Sequence[float]], bool]
Net = Callable[[Samples], Samples]

# Rounds are taken so many at a time, then looked at.
_LOOK = 8
_LEAST_ROUNDS = 32
_MOST_ROUNDS = 128
# A time, or a ratio of two, that is known this well needs no more samples: half the width of its 95% interval. Where
# buffers lie, and which process it is, makes more of a difference.
_NARROW = 0.002


@dataclass(frozen=True)
class Leader:
    """The fastest variant so far, ready to be sampled, and its time when it was evaluated."""

    timed: Timed
    known_us: float


@dataclass(frozen=True)
class Raced:
    """A candidate's samples in microseconds. `dropped`: it was significantly slower, so no more were taken."""

    samples_us: list[float]
    conditions: Conditions | None
    dropped: bool


def race(
    launches: Launches,
    leader: Leader | None,
    has_lost: HasLost = significantly_slower,
    writing: Timed | None = None,
) -> Raced:
    """Time a candidate beside the leader, rounds interleaved, until it has lost or its time is known.

    `launches` are the candidate's, taken in turn. Known means to 0.2%, in 32 to 128 rounds. Every 8 rounds
    `has_lost(candidate_us, leader_us)` is asked. Where candidate and leader come behind the `writing` of their inputs,
    its time is taken out; HiddenTimeError when after 128 rounds there is nothing left.
    """
    if leader is not None:
        warm_up([leader.timed], leader.known_us)
    else:
        warm_up([probe(launches)])
    runners = [leader.timed, prepare(launches, leader.timed)] if leader else [prepare(launches)]
    runners += [writing] if writing else []
    net = own if writing else _whole
    taken = sample(runners, _LOOK)
    while True:
        is_last = len(taken.times_us[0]) >= _MOST_ROUNDS
        if found := net(taken) if is_last else _shown(taken, net):
            mine = found.times_us[-1]
            if leader and has_lost(mine, found.times_us[0]):
                return Raced(mine, taken.conditions, dropped=True)
            if is_last or (len(mine) >= _LEAST_ROUNDS and uncertainty(mine) <= _NARROW):
                return Raced(mine, taken.conditions, dropped=False)
        taken = taken.joined(sample(runners, _LOOK))


def alternate(candidates: Sequence[Launches]) -> Samples:
    """Time all, rounds interleaved, until each one's ratio to the first is known to 0.2%, in 32 to 128 rounds."""
    return alternate_over([candidates])


def alternate_over(sets: Sequence[Sequence[Launches]], writing: bool = False) -> Samples:
    """As `alternate`, with one set of buffers after another: each of `sets` holds all candidates' launches over one.

    The sets share the rounds, for what is to be known is the ratio over all of them: each takes as many as the first
    needs. After that one the GPU is warm, as the first candidate's time there shows, and a sample's launches are known.
    With `writing` the candidates come behind the writing of their inputs; it is the last of each set, and its time is
    taken out; HiddenTimeError when nothing is left of one in the most rounds that a set takes.
    """
    net = own if writing else _whole
    first, *others = sets
    warm_up([probe(launches) for launches in first])
    timed = [prepare(first[0])]
    timed += [prepare(launches, timed[0]) for launches in first[1:]]
    warm_up(timed)
    least, most = _LEAST_ROUNDS // len(sets), _MOST_ROUNDS // len(sets)
    narrow = _NARROW * math.sqrt(len(sets))  # of each set less is to be known than of all
    taken = _alternated(timed, max(_LOOK, least), most, net, partial(_ratios_known, narrow=narrow))
    found, rounds = net(taken), len(taken.times_us[0])
    for candidates in others:
        timed = [prepare(launches, like) for launches, like in zip(candidates, timed, strict=True)]
        warm_up(timed, median(taken.times_us[0]))
        taken = _alternated(timed, rounds, most, net, lambda _: True)
        found = found.joined(net(taken))
    return found


def _whole(taken: Samples) -> Samples:
    return taken


def _alternated(
    timed: Sequence[Timed], look: int, most: int, net: Net, is_enough: Callable[[Samples], bool]
) -> Samples:
    """So many rounds, and as many more, up to the most, until what they show is enough."""
    taken = sample(timed, look)
    while len(taken.times_us[0]) < most and not ((found := _shown(taken, net)) and is_enough(found)):
        taken = taken.joined(sample(timed, look))
    return taken


def _shown(taken: Samples, net: Net) -> Samples | None:
    """The own times; None where more rounds are needed for these to show."""
    try:
        return net(taken)
    except HiddenTimeError:
        return None


def _ratios_known(taken: Samples, narrow: float) -> bool:
    first_us, *others_us = taken.times_us
    return all(ratio_uncertainty(first_us, other_us) <= narrow for other_us in others_us)
