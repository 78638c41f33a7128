"""Whether a process is there, asked of the real system."""

import os
import subprocess
import sys

from ordinary_user import as_ordinary_user

from tuner.store.claims import process_start


def test_a_process_is_there_until_it_ended() -> None:
    """Also when nobody has waited for it yet."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    assert start is not None
    assert int(start) >= int(process_start(os.getpid()) or "")
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(process.pid) is None
    process.wait()
    assert process_start(process.pid) is None


def test_a_process_of_another_user_is_there() -> None:
    assert as_ordinary_user(lambda: os.kill(1, 0)).startswith("PermissionError")
    assert as_ordinary_user(lambda: process_start(1)) == repr(process_start(1)) != repr(None)
