"""`tuner show --portfolio`, and the portfolio that `tuner export-config` writes."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cli_examples import BUNDLED, ESTIMATED, EXAMPLE, Tuner, chosen

from tuner.catalog import Kernel, load_folder
from tuner.records import DEFAULT_TARGET, Evaluation, Shape, Status, Timing, Variant, Winner
from tuner.runtime import WinnerTable
from tuner.store import Store

Refused = Callable[..., str]
# The time of each of three variants at each number of rows.
TIMES = {
    2: (100.0, 100.5, 120.0),
    64: (100.0, 100.0, 104.0),
    512: (130.0, 120.0, 119.5),
}


def variant(kernel: Kernel, block_rows: int) -> Variant:
    """One of the three; each marks all that decides a class, so that it is one compile."""
    example = chosen(kernel, Shape(num_rows=2, columns=128), 1, ESTIMATED).variant
    parameters = dataclasses.replace(example.config, parameters=type(example.config.parameters)(BLOCK_ROWS=block_rows))
    return dataclasses.replace(example, config=parameters)


@pytest.fixture
def measured(tmp_path: Path) -> str:
    """A store with winners of the example at three sizes and the times of three variants at each."""
    kernel = load_folder(EXAMPLE)
    variants = [variant(kernel, block_rows) for block_rows in (1, 2, 4)]
    with Store.open(tmp_path / "measured.db") as store:
        run = store.start_run(kernel.name, kernel.source_digest, ESTIMATED, 0, {})
        for rows, times_us in TIMES.items():
            shape = Shape(num_rows=rows, columns=128)
            for each, time_us in zip(variants, times_us, strict=True):
                timing = Timing(time_us, time_us, time_us, 1)
                evaluation = Evaluation(each, shape, Status.PASSED, timing=timing)
                store.save(run, kernel.source_digest, ESTIMATED, evaluation)
            store.save_winners([winner(kernel, variants[times_us.index(min(times_us))], shape)])
    return f"sqlite:///{tmp_path}/measured.db"


def winner(kernel: Kernel, variant: Variant, shape: Shape) -> Winner:
    return dataclasses.replace(chosen(kernel, shape, 100, ESTIMATED), variant=variant)


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_the_curve_and_the_chosen_buckets_are_shown(tuner: Tuner, measured: str) -> None:
    result = tuner("show", "--portfolio", EXAMPLE, "--db", measured)
    assert (result.code, result.err) == (0, "")
    assert cells(result.out) == [
        ["1", "0.50%", "1", "106.83", "chosen"],
        ["2", "0.00%", "2", "106.50", ""],
        ["1 to 1024", "2, 64, 512", "0.50%", "rows BLOCK_ROWS=2 num_warps=2", "num_rows"],
    ]
    assert f"scale_rows on {ESTIMATED.label}" in result.out
    assert "columns=128\nregret of at most 1.00%, shapes of equal weight\n" in re.sub(r" +\n", "\n", result.out)
    assert "mean, estimated us" in result.out


def test_a_tighter_bound_takes_more_variants(tuner: Tuner, measured: str) -> None:
    result = tuner("show", "--portfolio", EXAMPLE, "--bound", "0", "--db", measured)
    assert cells(result.out)[1:] == [
        ["2", "0.00%", "2", "106.50", "chosen"],
        ["1 to 181", "2, 64", "0.00%", "rows BLOCK_ROWS=1 num_warps=2", "num_rows"],
        ["182 to 1024", "512", "0.00%", "rows BLOCK_ROWS=4 num_warps=2", "num_rows"],
    ]


def test_json_holds_the_table_its_portfolio_and_the_curve(tuner: Tuner, measured: str) -> None:
    result = tuner("show", "--portfolio", EXAMPLE, "--json", "--db", measured)
    assert (result.code, result.err) == (0, "")
    (report,) = json.loads(result.out)
    (curve,) = report["curves"]
    assert (curve["fixed"], report["workload"]) == ({"columns": 128}, None)
    assert [(each["variants"], each["compiles"], each["chosen"]) for each in curve["points"]] == [
        (1, 1, True),
        (2, 2, False),
    ]
    assert [each["regret"] for each in curve["points"]] == [pytest.approx(0.005), 0.0]
    table = WinnerTable.from_json(report)
    assert table.portfolio is not None
    assert table.portfolio.variants == (variant(load_folder(EXAMPLE), 2),)
    assert isinstance(report["stale"], list)


def test_a_workload_weighs_the_shapes(tuner: Tuner, tuned: str, refused: Refused) -> None:
    result = tuner("show", "--portfolio", BUNDLED, "--workload", "azure_conversation", "--db", tuned)
    assert (result.code, result.err) == (0, "")
    assert result.out.count("shapes weighed by azure_conversation") == 2, "for 8 groups and for 4"
    told = refused("show", "--portfolio", EXAMPLE, "--workload", "azure_conversation", "--db", tuned)
    assert "is of num_tokens; this kernel's sizes are num_rows" in told
    assert "azure_conversation" in refused("show", "--portfolio", "--workload", "azure", "--db", tuned)


def test_options_of_the_portfolio_need_it(refused: Refused, tuned: str) -> None:
    for words in (("--bound", "0.02"), ("--workload", "azure_conversation")):
        assert "Add --portfolio" in refused("show", *words, "--db", tuned)
    assert "The bound is -1.0" in refused("show", "--portfolio", BUNDLED, "--bound", "-1", "--db", tuned)


def test_winners_of_other_sources_have_no_portfolio(tuner: Tuner, tmp_path: Path) -> None:
    """Their compile keys cannot be known; nor those of a kernel that is not found."""
    kernel = load_folder(EXAMPLE)
    found = winner(kernel, variant(kernel, 2), Shape(num_rows=2, columns=128))
    with Store.open(tmp_path / "old.db") as store:
        store.save_winners([dataclasses.replace(found, source_digest="older")])
    words = ("show", "--portfolio", "--db", f"sqlite:///{tmp_path}/old.db")
    result = tuner(*words, EXAMPLE)
    assert (result.code, result.err) == (0, "")
    assert "has no portfolio: the kernel's source changed" in result.out
    assert "has no portfolio: no kernel of this name is found" in tuner(*words).out
    (report,) = json.loads(tuner(*words, EXAMPLE, "--json").out)
    assert (report["portfolio"], report["curves"]) == (None, [])


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_exported_table_holds_the_portfolio(
    form: str, read: Callable[[str], object], tuner: Tuner, measured: str, tmp_path: Path
) -> None:
    words = ("export-config", EXAMPLE, "--db", measured, "--format", form)
    shown = WinnerTable.from_json(json.loads(tuner("show", "--portfolio", EXAMPLE, "--json", "--db", measured).out)[0])
    exported = WinnerTable.from_json(read(tuner(*words).out))
    assert exported.portfolio == shown.portfolio is not None
    tight = WinnerTable.from_json(read(tuner(*words, "--bound", "0").out))
    assert tight.portfolio is not None
    assert (len(tight.portfolio.variants), tight.portfolio.bound) == (2, 0.0)


def test_lookup_answers_from_the_exported_portfolio(
    tuner: Tuner, measured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every size runs the one variant; the store alone still answers with each size's winner."""
    path = tmp_path / "winners.json"
    assert tuner("export-config", EXAMPLE, "--db", measured, "-o", path).code == 0
    monkeypatch.setattr("tuner.api.this_device", lambda: ("", DEFAULT_TARGET))

    def taken(rows: int, *words: str) -> int:
        answer = json.loads(tuner("lookup", EXAMPLE, f"num_rows={rows}", "--json", *words).out)
        assert isinstance(answer["parameters"]["BLOCK_ROWS"], int)
        return int(answer["parameters"]["BLOCK_ROWS"])

    assert [taken(rows, "--db", measured) for rows in (2, 64, 512)] == [1, 1, 4]
    monkeypatch.setenv("TUNER_TABLE", str(path))
    assert [taken(rows) for rows in (1, 2, 64, 512, 1024)] == [2, 2, 2, 2, 2]
