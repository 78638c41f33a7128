"""One run at a time on a GPU."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import tuner
from tuner.errors import UserError
from tuner.session import device_lock
from tuner.session.device_lock import DeviceLock

HOLD = "import sys, time; from tuner.session.device_lock import DeviceLock as L; L(sys.argv[1]).acquire(print, 0.0)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_lock, "_POLL_S", 0.01)


@pytest.fixture
def device() -> Iterator[str]:
    name = f"test-{uuid.uuid4()}"
    lock = DeviceLock(name)
    yield name
    lock._path.unlink()
    lock.release()


def never() -> None:
    raise AssertionError("the device was free")


def soon() -> float:
    return time.monotonic() + 0.05


def test_a_second_run_waits_until_the_first_ends(device: str) -> None:
    first, second = DeviceLock(device), DeviceLock(device)
    first.acquire(never, soon())
    second.acquire(first.release, time.monotonic() + 10.0)  # being told to wait, it is the first that ends
    third = DeviceLock(device)
    with pytest.raises(UserError, match="Another run used the GPU"):
        third.acquire(list, soon())
    second.release()
    third.acquire(never, soon())
    third.release()


def test_whoever_waits_is_told_once(device: str) -> None:
    first, second = DeviceLock(device), DeviceLock(device)
    first.acquire(never, soon())
    told: list[None] = []
    with pytest.raises(UserError):
        second.acquire(lambda: told.append(None), soon())
    assert told == [None]
    first.release()
    second.release()


def test_other_devices_are_free(device: str) -> None:
    first, other = DeviceLock(device), DeviceLock(f"{device}-other")
    told: list[None] = []
    first.acquire(never, soon())
    other.acquire(lambda: told.append(None), soon())
    assert told == []
    first.release()
    other.release()
    other._path.unlink()


def test_a_process_that_is_killed_leaves_the_device_free(device: str) -> None:
    code = f"{HOLD}; print('held', flush=True); time.sleep(60)"
    environment = {"PYTHONPATH": str(Path(tuner.__file__).parents[1])}
    holder = subprocess.Popen([sys.executable, "-c", code, device], stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock = DeviceLock(device)
    with pytest.raises(UserError):
        lock.acquire(list, soon())
    holder.kill()
    holder.wait()
    holder.stdout.close()
    lock.acquire(never, soon())
    lock.release()
