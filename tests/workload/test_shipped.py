"""The workloads that are shipped, and that a trace gives the same one again."""

import hashlib
from pathlib import Path

import pytest

from tuner.catalog import content_root
from tuner.errors import UnknownNameError
from tuner.workload import (
    Settings,
    Workload,
    build_workload,
    first_requests,
    load_workload,
    read_requests,
    read_workload,
    workload_paths,
    workload_text,
)

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
NAMES = ("azure_code", "azure_conversation")


def rebuilt(workload: Workload, trace: Path) -> Workload:
    """The workload that the trace gives with the same settings."""
    requests = first_requests(read_requests(trace), limit=len(workload.requests))
    return build_workload(workload.name, requests, workload.settings, workload.source, workload.command)


def test_there_are_these() -> None:
    assert tuple(workload_paths()) == NAMES
    assert sum(path.stat().st_size for path in workload_paths().values()) < 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_one_says_what_it_comes_from(name: str) -> None:
    workload = load_workload(name)
    assert (workload.name, workload.dimension, workload.settings) == (name, "num_tokens", Settings())
    assert all(
        each in workload.source.attribution for each in ("Microsoft", "AzurePublicDataset", "CC-BY", "Splitwise")
    )
    assert workload.command.startswith(f"tuner workload build --requests {workload.source.file} --out {name}.json ")
    assert workload_text(workload) == workload_paths()[name].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_one_is_what_its_trace_gives(name: str) -> None:
    workload = load_workload(name)
    trace = DATA / workload.source.file
    if not trace.is_file():
        pytest.skip(f"the trace is not in the repository and not at {trace}")
    assert hashlib.sha256(trace.read_bytes()).hexdigest() == workload.source.sha256
    assert rebuilt(workload, trace) == workload


def test_a_sample_gives_the_same_workload_again() -> None:
    """What `sample.json` says was checked by hand: prompts in parts, a wait for a place, an idle engine."""
    golden = read_workload(HERE / "sample.json")
    assert rebuilt(golden, HERE / "sample.csv") == golden


def test_a_name_that_is_none_tells_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'azure_conversation'") as caught:
        load_workload("azure_conversations")
    assert "tuner workload list" in caught.value.hint


def test_a_path_needs_a_slash_or_a_suffix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(content_root() / "db" / "workloads")
    code = load_workload("azure_code")
    assert load_workload("azure_code.json") == load_workload("./azure_code.json") == code
