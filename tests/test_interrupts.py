"""Ctrl-C acts where nothing is half done."""

import signal
import threading
import time

import pytest

from tuner import interrupts
from tuner.interrupts import interruption_point, pause, uninterrupted


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_acts_when_the_block_is_over() -> None:
    after = list[str]()
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        after.append("in the block")
    assert after == ["in the block"]
    with pytest.raises(KeyboardInterrupt):  # and later ones act at once
        press()


@pytest.mark.parametrize("point", [interruption_point, lambda: pause(0.0)], ids=["point", "pause"])
def test_it_acts_at_an_interruption_point(point: object) -> None:
    assert callable(point)
    with uninterrupted():
        point()  # nothing has come yet
        press()
        with pytest.raises(KeyboardInterrupt):
            point()
        point()  # it has acted


def test_an_inner_block_holds_it_for_the_outer_one() -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        with uninterrupted():
            press()
        time.sleep(0.0)
        with pytest.raises(KeyboardInterrupt):
            interruption_point()
        press()


def test_who_presses_again_after_a_while_is_not_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with uninterrupted():
        press()
        press()  # at once, as a shell that forwards it does
        monkeypatch.setattr(interrupts, "_PATIENCE_S", -1.0)
        with pytest.raises(KeyboardInterrupt):
            press()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL], ids=lambda handler: handler.name)
def test_where_python_handles_no_interrupt_nothing_changes(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is handler
            interruption_point()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_never_get_it() -> None:
    found = list[object]()

    def work() -> None:
        with uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))
            interruption_point()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
