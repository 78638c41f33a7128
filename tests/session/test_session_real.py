"""Real compiles, real workers and real signals, on the smallest kernel."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from session_fakes import EXAMPLE, KERNEL, SHAPES

from tuner.records import Evidence, Status, Target
from tuner.search import Method
from tuner.session import RunRequest, load_fitting_space, run
from tuner.session.events import Event, WinnerChosen
from tuner.store import RunRecord, Store

ROOT = EXAMPLE.parents[2]
TARGET = Target("cuda", "90")
WAIT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is emitted and compiled out of the user's own folders; workers inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("caches")
        patch.setenv("TUNER_CACHE", str(folder / "tuner"))
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.triton
def test_a_run_without_a_gpu_compiles_checks_estimates_and_chooses(path: Path) -> None:
    request = RunRequest(KERNEL, load_fitting_space(KERNEL, None), SHAPES, TARGET, trials=4, method=Method.GRID)
    events: list[Event] = []
    with Store.open(path) as store:
        summary = run(request, store, events.append)
        stored = store.evaluations(KERNEL.name, KERNEL.source_digest, summary.environment)
        winners = store.winners(KERNEL.name)
    assert summary.environment.evidence is Evidence.ESTIMATED
    assert (summary.environment.target, summary.environment.device) == (TARGET, "")
    assert [each.log for each in stored if each.status is not Status.PASSED] == []
    assert len(stored) == summary.evaluated >= 4 * len(SHAPES)
    for each in stored:
        assert each.agreement is not None
        assert (each.agreement.elements, each.agreement.mismatched) == (3 * 128 + 4 * 16, 0)
        assert each.timing is not None
        assert (each.timing.count, each.timing.low_us) == (1, each.timing.high_us)
        assert each.binary is not None
        assert each.binary.registers > 0
        assert each.binary.instructions > 0
        assert sum(each.binary.load_bytes.values()) > 0
        assert sum(each.binary.store_bytes.values()) > 0
    assert {winner.shape for winner in winners} == set(SHAPES)
    assert sorted(winners, key=repr) == sorted(
        (event.winner for event in events if isinstance(event, WinnerChosen)), key=repr
    )
    for winner in winners:  # with no mark two: 16 divides one of 3 and 64 rows
        assert winner.compiles == (1 if "num_rows" in winner.variant.specialization.do_not_specialize else 2)
    assert {winner.environment for winner in winners} == {summary.environment}


# Processes that end before their time. The plan is the whole of a small space, so that it is known.

SPACE = """\
kernel: scale_rows
implementations:
  rows:
    parameters: {BLOCK_ROWS: [1, 2, 4, 8]}
    options: {num_warps: [1, 2]}
shapes:
  - {num_rows: [3, 64]}
"""
PER_SHAPE = 4 * 2
PLANNED = PER_SHAPE * len(SHAPES)


class Command:
    """`tuner run` on the example kernel in a process group of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        space = path.with_name("space.yaml")
        space.write_text(SPACE)
        command = [sys.executable, "-m", "tuner.cli.main", "run", str(EXAMPLE), "--target", str(TARGET)]
        options = ["--space", str(space), "--trials", str(PER_SHAPE), "--jobs", "1", "--db", f"sqlite:///{path}"]
        self.process = subprocess.Popen(
            [*command, *options, "--json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for_rows(self, count: int) -> None:
        """Return as soon as that many evaluations are stored."""
        deadline = time.monotonic() + WAIT_S
        while len(rows(self.path)) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def finish(self) -> tuple[str, str]:
        """What it wrote to standard output and error."""
        return self.process.communicate(timeout=WAIT_S)

    def group_ends(self) -> bool:
        """Whether no process of the group is left, a moment after the first one ended."""
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[], Command]]:
    """Starts commands over the same store; whatever is left of them afterwards is killed."""
    started: list[Command] = []

    def start() -> Command:
        started.append(Command(path))
        return started[-1]

    yield start
    for command in started:
        if not command.group_ends():
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.communicate()


def rows(path: Path) -> list[tuple[Any, ...]]:
    """The evaluations with all their columns; none while there is no store."""
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT * FROM tuner_evaluation ORDER BY id").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def integrity(path: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        return broken + connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()


def runs(path: Path) -> list[RunRecord]:
    """The runs, oldest first."""
    with Store.open(path, read_only=True) as store:
        return store.runs()[::-1]


def test_a_killed_run_goes_on_where_it_was(start: Callable[[], Command], path: Path) -> None:
    first = start()
    first.wait_for_rows(3)
    first.process.kill()
    first.finish()
    assert first.process.returncode == -signal.SIGKILL
    assert first.group_ends()
    kept = rows(path)
    assert 3 <= len(kept) < PLANNED
    assert integrity(path) == [("ok",)]

    second = start()
    output, errors = second.finish()
    assert second.process.returncode == 0, errors
    assert rows(path)[: len(kept)] == kept
    assert json.loads(output)["evaluated"] == PLANNED - len(kept)
    assert f"{PLANNED} evaluations, {len(kept)} of them stored already" in errors
    environment = runs(path)[0].environment
    with Store.open(path, read_only=True) as store:
        stored = store.evaluations(KERNEL.name, KERNEL.source_digest, environment)
        assert {winner.shape for winner in store.winners()} == set(SHAPES)
    assert len(stored) == PLANNED
    for shape in SHAPES:
        assert len({each.variant for each in stored if each.shape == shape}) == PER_SHAPE
    interrupted, ended = runs(path)
    assert (interrupted.finished_at, interrupted.evaluations) == (None, len(kept))
    assert ended.finished_at is not None
    assert ended.environment == interrupted.environment


def test_ctrl_c_ends_a_run_in_order(start: Callable[[], Command], path: Path) -> None:
    command = start()
    command.wait_for_rows(2)
    os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    output, errors = command.finish()
    assert command.process.returncode == 130, errors
    assert command.group_ends()
    assert output == ""
    assert "Traceback" not in errors
    assert f"stored in {path}; the same command goes on from there" in errors
    assert integrity(path) == [("ok",)]
    (interrupted,) = runs(path)
    assert interrupted.finished_at is None
    assert interrupted.evaluations == len(rows(path)) >= 2
