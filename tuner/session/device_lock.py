"""One run at a time on a GPU: two that time at once would slow each other."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tuner.errors import UserError
from tuner.interrupts import pause

_POLL_S = 0.5


class DeviceLock:
    """Held by one process of this machine until it is released or the process ends, however it ends."""

    def __init__(self, uuid: str) -> None:
        self._path = Path(tempfile.gettempdir()) / f"tuner-{uuid}.lock"
        self._file = _open(self._path)

    def acquire(self, on_wait: Callable[[], None], deadline: float) -> None:
        """Wait until the device is free; `on_wait` is called once if it is not. UserError past the deadline."""
        told = False
        while not self._try():
            if not told:
                on_wait()
                told = True
            if time.monotonic() > deadline:
                raise UserError(
                    "Another run used the GPU until the time was over.",
                    hint="Let it end first: two runs that time at once would slow each other.",
                )
            pause(_POLL_S)

    def release(self) -> None:
        os.close(self._file)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _open(path: Path) -> int:
    """A descriptor of the lock file; it may belong to another user, and then it may only be read."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
