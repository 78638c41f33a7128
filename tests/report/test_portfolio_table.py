"""Portfolios as text and data: each combination of fixed dimensions has its curve and its buckets."""

import dataclasses

import pytest
import store_examples
from rich.console import Console

from tuner.consolidation import Consolidation
from tuner.ranking import Cell, cells_of, consolidate, portfolio_of
from tuner.records import Environment, Evidence, Shape, Target, Variant, Winner
from tuner.report import portfolio_report, portfolio_tables
from tuner.runtime import WinnerTable

MEASURED = store_examples.ENVIRONMENT
ESTIMATED = Environment(Target("cuda", "90"), Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "12.8")


def one_key(_: Variant, __: Cell) -> frozenset[str]:
    return frozenset({"only"})


def table(environment: Environment) -> WinnerTable:
    """The baseline wins at one token and another variant at 64, each for two hidden sizes."""

    def row(tokens: int, hidden: int) -> Winner:
        example = store_examples.winner(min(tokens - 1, 1), environment=environment)
        return dataclasses.replace(example, shape=Shape(num_tokens=tokens, hidden=hidden, dtype="bf16"))

    rows = tuple(row(tokens, hidden) for hidden in (4096, 128) for tokens in (1, 64))
    return WinnerTable("scale", store_examples.SOURCE, environment, rows)


def consolidation(winners: WinnerTable, workload: str | None = None) -> Consolidation:
    assignments = tuple(consolidate(cells, one_key, 0.01) for cells in cells_of(winners.rows, [], "num_tokens"))
    return Consolidation(portfolio_of(assignments, one_key, "num_tokens", 0.01), assignments, one_key, workload)


def text_of(winners: WinnerTable, workload: str | None = None) -> list[str]:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        for each in portfolio_tables(winners, consolidation(winners, workload)):
            console.print(each, soft_wrap=True)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_each_combination_of_fixed_dimensions_is_shown() -> None:
    lines = text_of(table(MEASURED))
    assert [line for line in lines if line.startswith("hidden=")] == ["hidden=4096,dtype=bf16", "hidden=128,dtype=bf16"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows[:3] == rows[3:]
    assert rows[:3] == [
        ["2", "0.00%", "2", "10.10", "chosen"],
        ["1 to 8", "1", "0.00%", "baseline", "num_tokens, stride (alignment)"],
        ["9 to 128", "64", "0.00%", store_examples.variant(1).config.label, "num_tokens, stride (alignment)"],
    ]


@pytest.mark.parametrize("environment", [MEASURED, ESTIMATED], ids=lambda each: str(each.evidence))
def test_estimates_are_marked(environment: Environment) -> None:
    text = "\n".join(text_of(table(environment)))
    assert ("mean, estimated us" in text) == (environment is ESTIMATED)
    assert environment.label in text


def test_what_weighs_the_shapes_is_said() -> None:
    assert "regret of at most 1.00%, shapes of equal weight" in text_of(table(MEASURED))
    assert "regret of at most 1.00%, shapes weighed by chats" in text_of(table(MEASURED), "chats")


def test_the_report_holds_the_table_and_a_curve_for_each_combination() -> None:
    winners = table(MEASURED)
    found = consolidation(winners, "chats")
    report = portfolio_report(winners, found)
    assert WinnerTable.from_json(report).portfolio == found.portfolio
    assert report["workload"] == "chats"
    assert [each["fixed"]["hidden"] for each in report["curves"]] == [4096, 128]
    point = {"variants": 2, "regret": 0.0, "compiles": 2, "expected_us": 10.1, "chosen": True}
    assert all(each["points"] == [point] for each in report["curves"])


def test_a_table_without_a_portfolio_has_no_curves() -> None:
    report = portfolio_report(table(MEASURED), None)
    assert (report["portfolio"], report["workload"], report["curves"]) == (None, None, [])
    assert len(report["rows"]) == 4
