"""What the commands say of winners that do not hold for this machine or this source any more."""

import dataclasses
import json
from pathlib import Path

import pytest
from cli_examples import BUNDLED, ESTIMATED, EXAMPLE, Tuner, chosen

from tuner import api
from tuner.catalog import load_folder, load_kernel
from tuner.measure import environment
from tuner.records import Environment, Evidence, Shape, Target
from tuner.runtime import WinnerTable
from tuner.store import Store

OLDER = dataclasses.replace(ESTIMATED, triton="3.6.0")
ELSEWHERE = dataclasses.replace(ESTIMATED, evidence=Evidence.MEASURED, device="NVIDIA H100", driver="580.65", l2="warm")
REASON = "triton 3.6.0, here 3.9.0"


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of ESTIMATED are here, and no GPU."""

    def here(target: Target) -> Environment:
        return dataclasses.replace(ESTIMATED, target=target)

    def installed(like: Environment) -> Environment:
        return dataclasses.replace(like, triton=ESTIMATED.triton)

    monkeypatch.setattr(environment, "estimated_environment", here)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(api, "installed_environment", installed)


@pytest.fixture
def aged(tmp_path: Path) -> str:
    """The URL of a store with two winners that hold and five that do not, each for a reason of its own."""
    example, bundled = load_folder(EXAMPLE), load_kernel(BUNDLED)
    shape = bundled.spec.shape({"num_tokens": 1, "num_heads": 64, "n_groups": 8})
    holding = chosen(example, Shape(num_rows=3, columns=128), 3, ESTIMATED)
    other = chosen(bundled, shape, 1, ESTIMATED)
    renamed = dataclasses.replace(holding.variant, kernel="forgotten")
    winners = [holding, other, dataclasses.replace(holding, variant=renamed, baseline=renamed)]
    winners.append(dataclasses.replace(other, source_digest="older"))
    for rows, where in ((64, OLDER), (512, OLDER), (64, ELSEWHERE)):
        winners.append(chosen(example, Shape(num_rows=rows, columns=128), rows, where))
    with Store.open(tmp_path / "aged.db") as store:
        store.save_winners(winners)
    return f"sqlite:///{tmp_path / 'aged.db'}"


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_stale_winners_are_listed_with_the_reasons(tuner: Tuner, aged: str) -> None:
    variant = "rows BLOCK_ROWS=2 num_warps=2"
    result = tuner("show", "--stale", EXAMPLE, "--db", aged)
    assert (result.code, result.err) == (0, "")
    assert sorted(cells(result.out)) == [
        ["512", variant, REASON],
        ["64", variant, "measured on NVIDIA H100, here is no GPU"],
        ["64", variant, REASON],
    ]
    assert result.out.count("scale_rows on ") == 2
    everything = tuner("show", "--stale", "--db", aged).out
    assert "no kernel of this name is found" in everything
    assert "the kernel's source changed" in everything


def test_stale_winners_as_json_are_tables_with_reasons(tuner: Tuner, aged: str) -> None:
    """The kernel of a path is no kernel that is found by name."""
    listed = json.loads(tuner("show", "--stale", EXAMPLE, "--db", aged, "--json").out)
    found = {WinnerTable.from_json(each).environment: each["stale"] for each in listed}
    assert found == {OLDER: [REASON], ELSEWHERE: ["measured on NVIDIA H100, here is no GPU"]}
    everything = json.loads(tuner("show", "--db", aged, "--json").out)
    reasons = sorted((each["kernel"], len(each["rows"]), tuple(each["stale"])) for each in everything)
    unknown = "no kernel of this name is found"
    assert reasons == [
        ("forgotten", 1, (unknown,)),
        (BUNDLED, 1, ()),
        (BUNDLED, 1, ("the kernel's source changed",)),
        ("scale_rows", 1, (unknown,)),
        ("scale_rows", 1, (unknown, "measured on NVIDIA H100, here is no GPU")),
        ("scale_rows", 2, (unknown, REASON)),
    ]


def test_a_plain_show_shows_all_and_marks_what_is_stale(tuner: Tuner, aged: str) -> None:
    result = tuner("show", EXAMPLE, "--db", aged)
    assert (result.code, result.err) == (0, "")
    assert [row[0] for row in cells(result.out)].count("64") == 2
    lines = [line.strip() for line in result.out.splitlines()]
    titles = [line for line in lines if line.startswith("scale_rows on ")]
    assert len(titles) == 3
    marked = {title: lines[lines.index(title) + 1] for title in titles}
    assert sorted(line for line in marked.values() if line.startswith("stale: ")) == [
        "stale: measured on NVIDIA H100, here is no GPU",
        f"stale: {REASON}",
    ]
    assert not marked[f"scale_rows on {ESTIMATED.label}"].startswith("stale")


def test_that_nothing_is_stale_is_said(tuner: Tuner, tuned: str) -> None:
    result = tuner("show", "--stale", EXAMPLE, "--db", tuned)
    assert (result.code, result.err) == (0, "")
    assert "No stored winner is stale" in result.out
    assert json.loads(tuner("show", "--stale", EXAMPLE, "--db", tuned, "--json").out) == []


def test_that_nothing_is_stored_is_said(tuner: Tuner, tmp_path: Path) -> None:
    Store.open(tmp_path / "bare.db").close()
    result = tuner("show", "--stale", "--db", f"sqlite:///{tmp_path}/bare.db")
    assert (result.code, result.err) == (0, "")
    assert "tuner run KERNEL" in result.out


def test_lookup_says_that_its_winner_is_stale(tuner: Tuner, aged: str) -> None:
    words = ("lookup", EXAMPLE, "num_rows=512", "--db", aged)
    assert json.loads(tuner(*words, "--json").out)["stale"] == [REASON]
    result = tuner(*words)
    assert (result.code, result.err) == (0, "")
    assert f"stale       {REASON}\n" in result.out
    assert "with other versions than here" in result.out
    fresh = ("lookup", EXAMPLE, "num_rows=3", "--db", aged)
    assert json.loads(tuner(*fresh, "--json").out)["stale"] == []
    assert "stale" not in tuner(*fresh).out
