"""`tuner workload`: build, list and show, in the source tree and from an installed package."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_examples import ROOT, Tuner

from tuner.workload import load_workload

SAMPLE = ROOT / "tests" / "workload" / "sample.csv"
GOLDEN = SAMPLE.with_suffix(".json")

Refused = Callable[..., str]


@pytest.mark.parametrize("command", ["build", "list", "show"])
def test_help_describes_each_command(tuner: Tuner, command: str) -> None:
    assert f" {command} " in tuner("workload", "--help").out
    result = tuner("workload", command, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"tuner workload {command}" in result.out


def test_help_of_build_says_what_is_assumed(tuner: Tuner) -> None:
    text = " ".join(tuner("workload", "build", "--help").out.split())
    assert "How long a step takes is an assumption" in text
    assert "no request is preempted" in text


def test_the_recorded_command_builds_the_same_file(
    tuner: Tuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the defaults stood for, so that a later default changes nothing."""
    shutil.copy(SAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(load_workload(str(GOLDEN)).command)
    assert words[0] == "tuner"
    assert "--max-num-seqs" in words
    result = tuner(*words[1:])
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "sample.json").read_bytes() == GOLDEN.read_bytes()
    assert "steps       9 in 1.0 s" in result.out


def test_build_takes_a_part_of_the_trace_and_makes_folders(tuner: Tuner, tmp_path: Path) -> None:
    path = tmp_path / "new" / "part.json"
    result = tuner(
        "workload", "build", "--requests", SAMPLE, "--out", path, "--duration-s", "0.002", "--limit-requests", "2"
    )
    assert result.code == 0
    workload = load_workload(str(path))
    assert (workload.name, len(workload.requests)) == ("part", 2)
    assert workload.command.startswith("tuner workload build --requests sample.csv --out part.json --max-num-batched-")
    assert workload.command.endswith("--limit-requests 2 --duration-s 0.002 --name part")


def test_list_names_the_shipped_ones_with_their_source(tuner: Tuner) -> None:
    result = tuner("workload", "list")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("Patel et al.") == 2
    listed = json.loads(tuner("workload", "list", "--json").out)
    assert [each["name"] for each in listed] == ["azure_code", "azure_conversation"]


def test_show_says_the_sizes_and_what_is_assumed(tuner: Tuner) -> None:
    result = tuner("workload", "show", GOLDEN)
    assert (result.code, result.err) == (0, "")
    assert "num_tokens  p1 1, p10 1, p50 3, p90 16, p99 16, max 16; 6 distinct values" in result.out
    assert "22.2% are 1, 22.2% divisible by 16" in result.out
    assert "assumed     A step takes step_base_ms" in result.out
    assert "sample.csv: made up" in result.out
    shown = json.loads(tuner("workload", "show", GOLDEN, "--json").out)
    assert (shown["steps"], shown["requests"], shown["quantiles"]["p90"], shown["distinct"]) == (9, 6, 16, 6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "azure_chat"), "Unknown workload 'azure_chat'. Expected one of: azure_code, azure_conversation"),
        (("show", SAMPLE), "is not JSON"),
        (("show", "none.json"), "none.json cannot be read: No such file"),
        (("build", "--requests", "none.csv", "--out", "x.json"), "none.csv cannot be read: No such file"),
        (("build", "--requests", GOLDEN, "--out", "x.json"), "sample.json:1: no column TIMESTAMP"),
        (("build", "--requests", SAMPLE, "--out", "x.json", "--max-num-batched-tokens", "8"), "at least max_num_seqs"),
        (("build", "--requests", SAMPLE, "--out", "x.json", "--duration-s", "0"), "No requests are left to serve"),
        (("build", "--requests", SAMPLE, "--out", "."), ". cannot be written: Is a directory"),
        (("build", "--requests", SAMPLE), "Missing option '--out'"),
    ],
)
def test_a_mistake_is_told(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str | Path, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused("workload", *words)
    assert list(tmp_path.iterdir()) == []


def test_an_installed_package_has_the_shipped_workloads(tmp_path: Path) -> None:
    """The package laid out as the wheel's settings say, away from the source tree."""
    shutil.copytree(ROOT / "tuner", tmp_path / "tuner", ignore=shutil.ignore_patterns("__pycache__"))
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["sources"].items():
        (tmp_path / target).parent.mkdir(exist_ok=True)
        (tmp_path / target).symlink_to(ROOT / source)
    words = [sys.executable, "-m", "tuner.cli.main", "workload", "show", "azure_code", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["requests"] == 8819
