"""Runs commands in this process, and gives them a store with winners."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cli_examples import BUNDLED, ESTIMATED, EXAMPLE, Result, Tuner, chosen
from in_this_process import InThisProcess

from tuner import api
from tuner.catalog import load_folder, load_kernel
from tuner.cli.main import main
from tuner.processes import WorkerPool
from tuner.records import DEFAULT_TARGET, Evaluation, Shape, Status, Timing
from tuner.store import Store


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own takes part: no store, no cache, no further kernels, no GPU, no terminal's width."""
    for name in ("TUNER_DB", "TUNER_TABLE", "TUNER_KERNEL_PATH", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(api, "this_device", lambda: ("", DEFAULT_TARGET))
    for cached in [each for each in vars(api).values() if hasattr(each, "cache_clear")]:
        cached.cache_clear()  # tables are read once per process, and each test is to be one


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tuner:
    """Calls the entry point with words as a shell would pass them."""

    def call(*words: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, words)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert isinstance(code, int)
        return Result(code, out, err)

    return call


@pytest.fixture
def no_workers(interpreter: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tuner run` compiles here and checks where every test does; runs with real workers are in tests/session."""

    class Compilers(InThisProcess):
        def load(self, module: str) -> None:
            assert module == "tuner.compile.builder"

    class Shared:
        def __init__(self, workers: int, environment: Mapping[str, str]) -> None:
            assert environment == {"TRITON_INTERPRET": "1"}

        def submit(self, *job: Any, timeout_s: float) -> Any:
            return interpreter.submit(*job, timeout_s=timeout_s)

        def kill(self) -> None:
            pass

    monkeypatch.setattr(importlib.import_module("tuner.session.run"), "WorkerPool", Compilers)
    monkeypatch.setattr("tuner.session.static_evaluator.WorkerPool", Shared)


@pytest.fixture
def refused(tuner: Tuner) -> Callable[..., str]:
    """Calls the entry point with something wrong; returns the one message, which went to standard error."""

    def call(*words: str | Path) -> str:
        result = tuner(*words)
        assert result.code == 2, result
        assert result.out == ""
        assert len(re.findall(r"^(Error:|╭─ Error)", result.err, re.MULTILINE)) == 1, result.err
        assert "Traceback" not in result.err
        assert 'File "' not in result.err
        return result.err

    return call


@pytest.fixture
def tuned(tmp_path: Path) -> str:
    """The URL of a store with estimated winners: two of the example, three of the bundled kernel."""
    path = tmp_path / "tuned.db"
    example, bundled = load_folder(EXAMPLE), load_kernel(BUNDLED)
    winners = [chosen(example, Shape(num_rows=rows, columns=128), rows, ESTIMATED) for rows in (3, 64)]
    for tokens, groups in ((1, 8), (512, 8), (512, 4)):
        shape = bundled.spec.shape({"num_tokens": tokens, "num_heads": 64, "n_groups": groups})
        winners.append(chosen(bundled, shape, tokens, ESTIMATED))
    with Store.open(path) as store:
        run = store.start_run(example.name, example.source_digest, ESTIMATED, 0, {})
        timing = Timing(3.0, 3.0, 3.0, 1)
        passed = Evaluation(example.spec.baseline_variant, winners[0].shape, Status.PASSED, timing=timing)
        store.save(run, example.source_digest, ESTIMATED, passed)
        store.save_winners(winners)
    return f"sqlite:///{path}"
