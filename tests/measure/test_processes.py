"""Worker processes: whatever a job does, it ends that job alone."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, Timer

import pytest
from pebble import ProcessFuture

from tuner.errors import UnknownNameError, UserError
from tuner.processes import _SPARES, Failure, WorkerPool, result, wait
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


def loaded(module: str) -> bool:
    return module in sys.modules


def find(key: Shape, twin: Shape) -> tuple[Shape, str]:
    """Looks a mapping up under a key that was made in this process, where strings have other hashes."""
    local = Shape(dict(key))
    return key, {local: "found"}.get(twin, "lost")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Neither running nor left as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@dataclass
class Heavy:
    """A module that is slow to load, and notes the process that has loaded it."""

    folder: Path
    name: str = "a_heavy_module"

    def write(self, then: str) -> "Heavy":
        note = f"import os, pathlib, time\nnote = pathlib.Path({str(self.folder)!r}, f'pid {{os.getpid()}}')\n"
        (self.folder / f"{self.name}.py").write_text(f"{note}note.touch()\n{then}\n")
        return self

    @property
    def pids(self) -> set[int]:
        return {int(path.name.removeprefix("pid ")) for path in self.folder.glob("pid *")}


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heavy:
    monkeypatch.syspath_prepend(tmp_path)
    return Heavy(tmp_path).write("")


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
    told = {"exit": "exit code 7", "signal": "exit code -11", "system exit": "SystemExit: 3"}[how]
    assert told in found.log or "All workers expired" in found.log  # it died before it had said what it was doing


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
    until(lambda: (tmp_path / "started").is_file() and bool((tmp_path / "started").read_text()))
    before = int((tmp_path / "started").read_text())
    pool.replace_workers()
    for lost in (running, queued):
        found = result(lost)
        assert isinstance(found, Failure)
        assert found.status is Status.CRASHED
    assert result(pool.submit(os.getpid, timeout_s=LONG_S)) != before
    assert result(pool.submit(variable, "TUNER_TEST_VARIABLE", timeout_s=LONG_S)) == "set"


@dataclass
class Silent:
    """A pool that leaves its jobs without an answer when it is stopped, as a real one may."""

    active: bool = True

    def schedule(self, *_: object, **__: object) -> "ProcessFuture[str]":
        return ProcessFuture()

    def stop(self) -> None:
        self.active = False

    def join(self) -> None: ...


@pytest.mark.parametrize("end", [WorkerPool.replace_workers, WorkerPool.kill])
def test_no_job_of_a_stopped_pool_is_waited_for(
    end: Callable[[WorkerPool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerPool, "_new_pool", lambda _: Silent())
    pool = WorkerPool(1)
    running, queued, finished = (pool.submit(ready, timeout_s=LONG_S) for _ in range(3))
    running.set_running_or_notify_cancel()
    finished.set_result("ready")
    waiter = Thread(target=wait, args=([running, queued],), daemon=True)
    waiter.start()
    end(pool)
    waiter.join(LONG_S)
    assert not waiter.is_alive()
    for lost in (running, queued):
        assert result(lost) == Failure(Status.CRASHED, "cancelled: the workers were stopped")
    assert result(finished) == "ready"


def test_ctrl_c_acts_where_a_job_is_waited_for_and_nowhere_else(tmp_path: Path) -> None:
    """Elsewhere it may come between the taking of a lock and its use; then the workers could not be stopped."""
    passed = list[str]()
    with pytest.raises(KeyboardInterrupt), WorkerPool(1) as pool:
        job = pool.submit(hang, tmp_path / "started", timeout_s=LONG_S)
        signal.raise_signal(signal.SIGINT)
        passed.append("beside a job")
        with pytest.raises(KeyboardInterrupt):
            result(job)
        Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        result(job)
        passed.append("a job without an end")
    assert passed == ["beside a job"]


@pytest.mark.parametrize(("first", "is_done"), [(True, False), (False, True)], ids=["the first", "all"])
def test_jobs_are_waited_for(first: bool, is_done: bool) -> None:
    quick, slow = Future[None](), Future[None]()
    Timer(0.05, quick.set_result, [None]).start()
    Timer(0.5, slow.set_result, [None]).start()
    assert wait([quick, slow], first=first) is is_done
    assert quick.done()
    assert slow.done() is is_done


def test_nobody_waits_longer_than_asked() -> None:
    assert not wait([Future[None]()], time.monotonic() + 0.05)
    assert wait([])


def test_records_keep_their_meaning_in_another_process(pool: WorkerPool) -> None:
    shape = Shape(num_tokens=4, layout="row")
    assert result(pool.submit(find, shape, Shape(layout="row", num_tokens=4), timeout_s=LONG_S)) == (shape, "found")


def test_spare_workers_that_have_loaded_the_module_take_over(heavy: Heavy) -> None:
    """They have loaded it before they are needed; for each that is used another one is made ready."""
    with WorkerPool(1, {"TUNER_TEST_VARIABLE": "set"}, spare=heavy.name) as pool:
        first = result(pool.submit(os.getpid, timeout_s=LONG_S))
        assert not result(pool.submit(loaded, heavy.name, timeout_s=LONG_S))
        used = set[int]()
        for number in range(_SPARES + 1):
            until(lambda number=number: len(heavy.pids) == _SPARES + number)
            waiting = heavy.pids - used
            pool.replace_workers()
            pid = result(pool.submit(os.getpid, timeout_s=LONG_S))
            assert isinstance(pid, int)
            assert pid in waiting
            assert result(pool.submit(loaded, heavy.name, timeout_s=LONG_S))
            assert result(pool.submit(variable, "TUNER_TEST_VARIABLE", timeout_s=LONG_S)) == "set"
            used.add(pid)
            assert all(map(is_gone, {first, *used} - {pid}))


def test_workers_can_load_a_module_before_they_have_a_job(heavy: Heavy) -> None:
    with WorkerPool(1) as pool:
        pool.load(heavy.name)
        until(lambda: len(heavy.pids) == 1)
        assert heavy.pids == {result(pool.submit(os.getpid, timeout_s=LONG_S))}


def test_a_spare_worker_that_is_not_ready_yet_takes_over_too(heavy: Heavy) -> None:
    heavy.write("time.sleep(0.5)")
    with WorkerPool(1, spare=heavy.name) as pool:
        pool.replace_workers()
        assert result(pool.submit(loaded, heavy.name, timeout_s=LONG_S))


def test_a_module_that_cannot_be_loaded_spoils_no_job(heavy: Heavy) -> None:
    heavy.write("raise RuntimeError('no')")
    with WorkerPool(1, spare=heavy.name) as pool:
        for _ in range(2):
            pool.replace_workers()
            assert result(pool.submit(ready, timeout_s=LONG_S)) == "ready"


@pytest.mark.parametrize("then", ["", "time.sleep(1000)"], ids=["ready", "loading"])
def test_no_worker_outlives_the_pool(heavy: Heavy, then: str, tmp_path: Path) -> None:
    heavy.write(then)
    with WorkerPool(1, spare=heavy.name) as pool:
        pool.submit(hang, tmp_path / "started", timeout_s=LONG_S)
        until(lambda: len(heavy.pids) == _SPARES and (tmp_path / "started").is_file())
        until(lambda: bool((tmp_path / "started").read_text()))
        pids = {int((tmp_path / "started").read_text()), *heavy.pids}
        assert len(pids) == _SPARES + 1
    assert all(map(is_gone, pids))


@pytest.mark.parametrize("spare", [None, "json"])
def test_a_worker_that_dies_with_nothing_to_do_is_replaced(spare: str | None) -> None:
    with WorkerPool(1, spare=spare) as pool:
        first = result(pool.submit(os.getpid, timeout_s=LONG_S))
        assert isinstance(first, int)
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + LONG_S
        while pool._pool.active:  # until the pool has noticed
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = result(pool.submit(os.getpid, timeout_s=LONG_S))
        assert isinstance(second, int)
        assert second != first


def test_a_spare_that_died_is_not_used() -> None:
    with WorkerPool(1, spare="json") as pool:
        for each in pool._spares:
            each.stop()
            each.join()
        pool.replace_workers()
        assert result(pool.submit(ready, timeout_s=LONG_S)) == "ready"


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Even one that is busy: in an endless launch it would keep the GPU."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tuner.processes import WorkerPool; import test_processes as t\n"
        "if __name__ == '__main__':\n"
        "    pool = WorkerPool(1); pool.submit(t.hang, Path(sys.argv[1]), timeout_s=60.0); time.sleep(60)"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    started = tmp_path / "started"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    parent = subprocess.Popen([sys.executable, str(script), str(started)], env={**os.environ, "PYTHONPATH": paths})
    deadline = time.monotonic() + LONG_S
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = int(started.read_text())
    parent.kill()
    parent.wait()
    while _exists(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _exists(process: int) -> bool:
    """Whether it runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
