"""Ctrl-C acts between steps: within one it would leave a transaction open, or a lock held that others wait for."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Whoever asks again after so long is not told to wait on.
_PATIENCE_S = 5.0


class _Held:
    """Stands in for the handler of SIGINT: keeps what comes for later."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler
        self._came: tuple[int, FrameType | None] | None = None
        self._came_at = math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._came is None:
            self._came, self._came_at = (number, frame), time.monotonic()
        elif time.monotonic() > self._came_at + _PATIENCE_S:
            self.act()

    def act(self) -> None:
        """Let what came act now."""
        if self._came is not None:
            came, self._came = self._came, None
            self._handler(*came)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back SIGINT until the block is over or at an `interruption_point`; then it acts.

    One that comes five seconds after another acts at once. Within another such block nothing changes. Other threads
    than the main one never get a signal.
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before) or isinstance(before, _Held):
        yield
        return
    held = _Held(before)
    signal.signal(signal.SIGINT, held)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        held.act()


def interruption_point() -> None:
    """Let a SIGINT act that is held back: here nothing is half done."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, _Held) and threading.current_thread() is threading.main_thread():
        handler.act()


def pause(seconds: float) -> None:
    """Sleep, and let a SIGINT that came act."""
    time.sleep(seconds)
    interruption_point()
