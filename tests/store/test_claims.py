"""Whether a process is there, asked of the real system."""

import os
import subprocess
import sys

from ordinary_user import as_ordinary_user

from tuner.store.claims import process_exists


def test_a_process_is_there_until_it_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_exists(process.pid)
    process.communicate()
    assert not process_exists(process.pid)


def test_a_process_of_another_user_is_there() -> None:
    assert as_ordinary_user(lambda: os.kill(1, 0)).startswith("PermissionError")
    assert as_ordinary_user(lambda: process_exists(1)) == "True"
