"""Whole arms in processes of their own, and how they fail."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS, copy_kernel, scale_rows_variant
from replay_examples import BASELINE, ESTIMATED, KERNEL, workload

from tuner.catalog import load_folder
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.records import Status
from tuner.replay import Arm, Outcome, Replay, play_arm, replay

REPLAY = Replay(KERNEL, workload([5, 1, 5, 16], [(0, 0), (150, 2)]), 3, {"columns": 16}, BASELINE, ESTIMATED)


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "tuner"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_shapes_are_the_first_steps_at_the_fixed_dimensions() -> None:
    assert [(shape["num_rows"], shape["columns"]) for shape in REPLAY.shapes] == [(5, 16), (1, 16), (5, 16)]
    assert len(replace(REPLAY, steps=100).shapes) == 4


def test_requests_are_those_of_the_steps() -> None:
    assert REPLAY.first_tokens_ms == (0.1, 0.15)
    assert replace(REPLAY, steps=2).first_tokens_ms == (0.1,)


def test_answers_are_what_a_lookup_gives() -> None:
    answers = REPLAY.answers()
    assert {shape["num_rows"] for shape in answers} == {5, 1}
    assert all(answer.variant == BASELINE and answer.winner is None for answer in answers.values())


def test_a_workload_of_another_dimension_is_refused() -> None:
    other = replace(REPLAY, workload=replace(REPLAY.workload, dimension="num_tokens"))
    with pytest.raises(UserError, match=r"sizes of num_tokens; the dynamic dimensions of scale_rows are: num_rows\."):
        _ = other.shapes


def test_a_size_that_the_workload_says_is_refused() -> None:
    with pytest.raises(UserError, match="num_rows=3 is given; the workload says it"):
        _ = replace(REPLAY, fixed={"num_rows": 3}).shapes


def test_an_arm_has_a_new_process_and_an_empty_cache_and_warms_up_what_it_runs(tmp_path: Path) -> None:
    five, one = dict.fromkeys(REPLAY.shapes)
    found = play_arm(REPLAY, Arm("none", {five: BASELINE, one: BASELINE})).result
    assert isinstance(found, Outcome), found
    assert [each.build.step for each in found.step_compiles] == [0, 1]
    assert [[change.label for change in each.changes or ()] for each in found.compiles] == [
        [],
        ["num_rows: i32 -> = 1"],
    ]
    assert found.delayed == 2
    assert not (tmp_path / "triton").exists()
    warm = play_arm(REPLAY, Arm("ours", {five: BASELINE, one: scale_rows_variant(2)}, warm_up=True)).result
    assert isinstance(warm, Outcome), warm
    # Each variant at its own shape, and the baseline once more: nothing was kept.
    assert {(each.build.step, each.build.shape) for each in warm.compiles} == {(None, five), (None, one)}
    assert [each.changes for each in warm.compiles] == [(), ()]
    assert (warm.stall_ms, warm.delayed) == (0, 0)


def test_a_process_that_dies_ends_its_arm_alone(tmp_path: Path) -> None:
    """It dies in the worker, which has a cache folder of the replay's."""
    line = '    rows = shape.size("num_rows")\n'
    dies = '    if "tuner-replay" in __import__("os").environ["TRITON_CACHE_DIR"]:\n        __import__("os")._exit(7)\n'
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": (line, dies + line)})
    dying = replace(REPLAY, kernel=load_folder(folder))
    found = play_arm(dying, Arm("none", dict.fromkeys(dying.shapes, BASELINE))).result
    assert isinstance(found, Failure), found
    assert found.status is Status.CRASHED
    assert "exit code 7" in found.log


def test_an_arm_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_START_S", 0.0)
    monkeypatch.setattr(replay, "_STEP_S", 0.05)
    found = play_arm(REPLAY, Arm("none", dict.fromkeys(REPLAY.shapes, BASELINE))).result
    assert isinstance(found, Failure), found
    assert found.status is Status.TIMED_OUT
    assert "0.15" in found.log
    assert list(tmp_path.glob("tuner-replay-*")) == []
