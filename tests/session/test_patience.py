"""How long a job may take, learnt from those before it."""

import pytest

from tuner.session.patience import Patience


def after(*taken_s: float) -> float:
    """The limit after jobs that took so long."""
    patience = Patience()
    for each in taken_s:
        patience.learn(each)
    return patience.limit_s


@pytest.mark.parametrize("known", range(8))
def test_a_cold_worker_has_a_minute_until_enough_is_known(known: int) -> None:
    assert after(*[0.1] * known) == 60.0


def test_slow_jobs_lengthen_it_from_the_first() -> None:
    assert after(10.0) == 200.0
    assert after(10.0, 20.0, 30.0) == 400.0


def test_it_never_falls_below_half_a_minute() -> None:
    assert after(*[0.1] * 8) == after(*[0.0] * 100) == 30.0


@pytest.mark.parametrize("count", [8, 9, 100])
def test_then_it_is_twenty_times_what_is_normal(count: int) -> None:
    assert after(*[2.0] * count) == 40.0


def test_single_long_jobs_do_not_lengthen_it() -> None:
    assert after(50.0, *[2.0] * 9, 1000.0) == 40.0


def test_it_follows_what_becomes_normal() -> None:
    patience = Patience()
    limits = []
    for taken_s in [1.0] * 10 + [5.0] * 30:
        patience.learn(taken_s)
        limits.append(patience.limit_s)
    assert (limits[9], limits[-1]) == (30.0, 100.0)
