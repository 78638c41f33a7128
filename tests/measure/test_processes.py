"""Worker processes: whatever a job does, it ends that job alone."""

import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.errors import UnknownNameError, UserError
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Shape, Status

LONG_S = 60.0


def ready() -> str:
    return "ready"


def raise_error(message: str) -> None:
    raise KeyError(message)


def raise_again(error: Exception) -> None:
    raise error


def die(how: str) -> None:
    if how == "exit":
        os._exit(7)
    if how == "system exit":
        raise SystemExit(3)
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(started: Path) -> None:
    started.write_text(str(os.getpid()))
    time.sleep(1000)


def variable(name: str) -> str | None:
    return os.environ.get(name)


def return_the_unpicklable() -> object:
    return lambda: None


def find(key: Shape, twin: Shape) -> tuple[Shape, str]:
    """Looks a mapping up under a key that was made in this process, where strings have other hashes."""
    local = Shape(dict(key))
    return key, {local: "found"}.get(twin, "lost")


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1, {"TUNER_TEST_VARIABLE": "set"}) as workers:
        yield workers


@pytest.fixture(autouse=True)
def pool_goes_on(pool: WorkerPool) -> Iterator[None]:
    yield
    assert result(pool.submit(ready, timeout_s=LONG_S)) == "ready"


def failure(pool: WorkerPool, function: object, *arguments: object, timeout_s: float = LONG_S) -> Failure:
    found = result(pool.submit(function, *arguments, timeout_s=timeout_s))  # type: ignore[arg-type]
    assert isinstance(found, Failure)
    return found


def test_a_result_comes_back(pool: WorkerPool) -> None:
    assert result(pool.submit(pickle.loads, pickle.dumps({"a": 1}), timeout_s=LONG_S)) == {"a": 1}


def test_an_exception_is_a_crash_with_its_trace(pool: WorkerPool) -> None:
    found = failure(pool, raise_error, "some cause")
    assert found.status is Status.CRASHED
    assert "KeyError: 'some cause'" in found.log
    assert "in raise_error" in found.log


@pytest.mark.parametrize(
    "error",
    [UserError("The cache cannot be written.", hint="Set TUNER_CACHE."), UnknownNameError("kernel", "a", ["ab"])],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_users_is_raised_as_it_was(error: UserError, pool: WorkerPool) -> None:
    """It would befall every variant, so that it is no variant's failure."""
    with pytest.raises(UserError) as caught:
        result(pool.submit(raise_again, error, timeout_s=LONG_S))
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)


@pytest.mark.parametrize("how", ["exit", "signal", "system exit"])
def test_a_dead_worker_is_a_crash(how: str, pool: WorkerPool) -> None:
    found = failure(pool, die, how)
    assert found.status is Status.CRASHED
    assert {"exit": "exit code 7", "signal": "exit code -11", "system exit": "SystemExit: 3"}[how] in found.log


def test_a_job_that_outlasts_its_time_is_stopped(pool: WorkerPool, tmp_path: Path) -> None:
    found = failure(pool, hang, tmp_path / "started", timeout_s=0.5)
    assert found.status is Status.TIMED_OUT
    assert "0.5 s" in found.log


def test_a_result_that_cannot_travel_is_a_crash(pool: WorkerPool) -> None:
    assert failure(pool, return_the_unpicklable).status is Status.CRASHED


def test_the_environment_reaches_workers_alone(pool: WorkerPool) -> None:
    assert result(pool.submit(variable, "TUNER_TEST_VARIABLE", timeout_s=LONG_S)) == "set"
    assert "TUNER_TEST_VARIABLE" not in os.environ


def test_replaced_workers_lose_their_jobs_and_take_new_ones(pool: WorkerPool, tmp_path: Path) -> None:
    running = pool.submit(hang, tmp_path / "started", timeout_s=LONG_S)
    queued = pool.submit(ready, timeout_s=LONG_S)
    deadline = time.monotonic() + LONG_S
    while not (tmp_path / "started").is_file() or not (tmp_path / "started").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = int((tmp_path / "started").read_text())
    pool.replace_workers()
    for lost in (running, queued):
        found = result(lost)
        assert isinstance(found, Failure)
        assert found.status is Status.CRASHED
    assert result(pool.submit(os.getpid, timeout_s=LONG_S)) != before
    assert result(pool.submit(variable, "TUNER_TEST_VARIABLE", timeout_s=LONG_S)) == "set"


def test_records_keep_their_meaning_in_another_process(pool: WorkerPool) -> None:
    shape = Shape(num_tokens=4, layout="row")
    assert result(pool.submit(find, shape, Shape(layout="row", num_tokens=4), timeout_s=LONG_S)) == (shape, "found")
