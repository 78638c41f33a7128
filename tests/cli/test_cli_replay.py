"""`tuner replay`: arms, compiles and times to first token, as text and as JSON."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cli_examples import EXAMPLE, SAMPLE, Tuner

from tuner.processes import Failure
from tuner.records import Status
from tuner.replay import replay
from tuner.replay.player import ArmJob, Build, Played
from tuner.workload import load_workload, workload_text

WORDS = ("replay", "rms_norm", "--workload", SAMPLE, "--target", "cuda:90")

Play = Callable[[ArmJob], Played | Failure]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Play], None]:
    """Arms are played in this process, with an empty Triton cache each; call it to say by what."""
    caches = (str(tmp_path / f"triton-{number}") for number in count())

    class Pool:
        def __init__(self, workers: int, environment: dict[str, str]) -> None: ...
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *error: object) -> None: ...
        def submit(self, function: Play, job: ArmJob, timeout_s: float) -> "Future[Any]":
            monkeypatch.setenv("TRITON_CACHE_DIR", next(caches))
            future: Future[Any] = Future()
            future.set_result(plays[0](job))
            return future

    plays: list[Play] = [replay.play]
    monkeypatch.setattr(replay, "WorkerPool", Pool)
    return lambda play: plays.__setitem__(0, play)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str | Path, ...]:
    """A replay of the example, which has no winners but where a store gives some."""
    path = tmp_path / "rows.json"
    path.write_text(workload_text(replace(load_workload(str(SAMPLE)), dimension="num_rows")))
    return ("replay", EXAMPLE, "--workload", path, "--shapes", "columns=128", "--target", "cuda:90")


def test_arms_compiles_and_waits_are_shown(
    tuner: Tuner, here: Callable[[Play], None], words: tuple[str | Path, ...]
) -> None:
    """The baseline has no set, and there are no winners; calls take 1 ms, and 100 more where they compile."""

    def play(job: ArmJob) -> Played:
        builds = tuple(Build(step, job.steps[step], 0.09, False) for step in (0, 1, 7))
        calls_s = tuple(0.101 if step in (0, 1, 7) else 0.001 for step in range(9))
        return Played(calls_s, builds, 0.0, dict.fromkeys(job.steps, 2.0))

    here(play)
    result = tuner(*words)
    assert (result.code, result.err) == (0, "")
    rows = [line.strip("│ ").split("│") for line in result.out.splitlines()]
    assert [[cell.strip() for cell in row] for row in rows if row[0].strip() == "none"] == [
        ["none", "1", "3", "-", "1.000 / 101.000 / 101.0", "300.0", "0.02"],
        ["none", "0", "16", "90.0", "100.0", "the variant's first call"],
        ["none", "1", "9", "90.0", "100.0", "num_rows: i32, divisible by 16 -> i32"],
        ["none", "7", "1", "90.0", "100.0", "num_rows: i32, divisible by 16 -> = 1"],
        ["none", "200.7", "202.3", "202.3", "202.3", "151.8", "5"],
    ]
    assert result.out.startswith("scale_rows on cuda:90 (estimated), torch ")
    assert "sample: 9 of 9 steps, 1.0 s, 6 values of num_rows; columns=128" in result.out
    assert "6 requests get their first token; without a stall after p50 2.2, p90 2.9, p99 2.9, max 2.9 ms" in result.out
    assert "kernel estimated ms" in result.out
    assert "ours        not played: scale_rows has no winner here; `tuner run scale_rows` finds some" in result.out
    assert result.out.count("\nassumed     ") == 3


def test_json_has_every_arm_with_its_compiles(
    tuner: Tuner, here: object, words: tuple[str | Path, ...], tuned: str
) -> None:
    """One winner, tuned at 3 and 64 rows, answers for all sizes but 1, where only the baseline is left."""
    report = json.loads(tuner(*words, "--db", tuned, "--json").out)
    assert (report["steps"], report["sizes"], report["requests"]) == (9, 6, 6)
    assert (report["fixed"], report["evidence"]) == ({"columns": 128}, "estimated")
    assert [line.split(":")[0] for line in report["winners"]] == [
        *("bucket at 4 sizes", "exact at 1 sizes", "baseline at 1 sizes")
    ]
    arms = {arm["arm"]: arm for arm in report["arms"]}
    assert {name: arm["compiles"] for name, arm in arms.items()} == {
        "none": 3,
        "ours": 2,
        "ours, warmed up": 0,
        "ours, one variant": 1,
        "ours, one variant, warmed up": 0,
    }
    assert [len(arm["compiled"]) for arm in arms.values()] == [3, 2, 2, 1, 1]
    assert {arm["status"] for arm in arms.values()} == {"passed"}
    for arm in arms.values():
        assert sum(variant["steps"] for variant in arm["variants"]) == 9
        assert arm["kernel_ms"] > 0
    assert arms["ours"]["variants"][0]["do_not_specialize"] == ["num_rows"]
    for name in ("ours, warmed up", "ours, one variant, warmed up"):
        assert (arms[name]["stall_ms"], arms[name]["delayed"]) == (0, 0)
        assert arms[name]["first_token_ms"] == report["first_token_ms_without_stall"]
        assert arms[name]["warm_up_s"] > 0.01
    first, second, third = arms["none"]["compiled"]
    assert (first["step"], first["shape"]["num_rows"], first["foreseen"], first["changes"]) == (0, 16, True, [])
    assert second["changes"] == [{"argument": "num_rows", "before": "i32, divisible by 16", "after": "i32"}]
    assert arms["none"]["stall_ms"] == pytest.approx(sum(each["stall_ms"] for each in (first, second, third)))
    assert first["compile_s"] * 1000 <= first["stall_ms"]


def test_an_arm_that_fails_is_told_and_the_others_go_on(
    tuner: Tuner, here: Callable[[Play], None], words: tuple[str | Path, ...], tuned: str
) -> None:
    def play(job: ArmJob) -> Played | Failure:
        if len(set(job.variants.values())) > 1 or job.warm_up:
            return Failure(Status.CRASHED, "Traceback\nRuntimeError: [x] gone\n")
        return Played((0.001,) * len(job.steps), (), 0.0, dict.fromkeys(job.steps, 2.0))

    here(play)
    result = tuner(*words, "--db", tuned)
    assert result.code == 0
    assert "failed      ours: crashed: RuntimeError: [x] gone" in result.out
    assert "failed      ours, one variant, warmed up: crashed" in result.out
    assert [line.split("│")[1].strip() for line in result.out.splitlines() if line.startswith("│")] == [
        *("none", "ours, one variant") * 2
    ]
    assert "ours        exact at 1 sizes: winners of cuda:90 (estimated)" in result.out
    arms = {arm["arm"]: arm for arm in json.loads(tuner(*words, "--db", tuned, "--json").out)["arms"]}
    assert (arms["ours"]["status"], arms["ours"]["log"][:9]) == ("crashed", "Traceback")
    assert arms["none"]["kernel_ms"] == pytest.approx(0.018)


def test_the_space_says_what_the_workload_does_not(
    tuner: Tuner, here: Callable[[Play], None], words: tuple[str | Path, ...]
) -> None:
    here(lambda job: Played((0.0,) * len(job.steps), (), 0.0, dict.fromkeys(job.steps, 2.0)))
    report = json.loads(tuner(*words[:4], "--target", "cuda:90", "--json").out)
    assert report["fixed"] == {"columns": 128}  # the first shape of its space, without its num_rows


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*WORDS, "--workload", "azure_chat"), "Unknown workload 'azure_chat'"),
        ((*WORDS, "--target", "cuda:70"), "Unknown target 'cuda:70'"),
        ((*WORDS, "--shapes", "num_tokens=3 hidden_size=2048"), "num_tokens=3 is given; the workload says it"),
        ((*WORDS, "--shapes", "hidden_size=2048,4096"), "2 shapes are named; expected one value for each dimension"),
        ((*WORDS, "--shapes", "row_padding=1"), "'hidden_size' has no value"),
        ((*WORDS, "--shapes", "hidden=2048"), "did you mean 'hidden_size'?"),
        ((*WORDS, "--db", "none.db"), "There is no store at none.db"),
        ((*WORDS, "--steps", "0"), "Invalid value for '--steps'"),
        (("replay", EXAMPLE, "--workload", SAMPLE), "The workload has sizes of num_tokens"),
        (("replay", "rms_norm"), "Missing option '--workload'"),
    ],
)
def test_a_mistake_is_told(refused: Callable[..., str], words: tuple[str | Path, ...], told: str) -> None:
    assert told in refused(*words)


def test_help_says_what_is_played(tuner: Tuner) -> None:
    text = " ".join(tuner("replay", "--help").out.split())
    assert "in a new process with an empty Triton cache" in text
    assert " replay " in tuner("--help").out


def test_a_bundle_is_played_as_an_arm_without_a_compile(
    tuner: Tuner, refused: Callable[..., str], here: Callable[[Play], None], tmp_path: Path
) -> None:
    shapes = ("--shapes", "hidden_size=2048")
    tuner("prebuild", "rms_norm", *shapes, "--max-num-tokens", "20", "-o", tmp_path)
    words = (*WORDS, *shapes, "--bundle", tmp_path, "--json")
    arms = {arm["arm"]: arm for arm in json.loads(tuner(*words).out)["arms"]}
    assert arms["none"]["compiles"] > 0
    assert (arms["ours, prebuilt"]["compiles"], arms["ours, prebuilt"]["stall_ms"]) == (0, 0)
    assert "it is for cuda:90, here is cuda:80" in refused(*words, "--target", "cuda:80")
    assert "is refused (missing)" in refused(*WORDS, *shapes, "--bundle", tmp_path / "none")
