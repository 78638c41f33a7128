"""Results as text: every shape is there, and an estimate never looks like a measurement."""

import dataclasses
import json

import pytest
import store_examples
from rich.console import Console
from rich.table import Table

from tuner.records import Environment, Evidence, Shape, SpecializationSet, Speedup, Target, Timing, Winner
from tuner.report import (
    compile_table,
    lookup_report,
    run_report,
    speedup_text,
    stale_table,
    time_text,
    winner_table,
)
from tuner.runtime import Lookup, Origin, WinnerTable

MEASURED = store_examples.ENVIRONMENT
ESTIMATED = Environment(Target("cuda", "90"), Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "12.8")
TOKENS = (1, 64, 8192)


def text_of(table: Table) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def winners(environment: Environment) -> list[Winner]:
    found = []
    for number, tokens in enumerate(TOKENS):
        example = store_examples.winner(number, tokens, environment=environment)
        if environment.evidence is Evidence.ESTIMATED:
            time = Timing(10.25, 10.25, 10.25, 1)
            example = dataclasses.replace(example, timing=time, speedup=Speedup(1.26, 1.26, 1.26))
        found.append(example)
    return found


@pytest.mark.parametrize("environment", [MEASURED, ESTIMATED], ids=lambda each: str(each.evidence))
def test_every_shape_has_its_row(environment: Environment) -> None:
    text = text_of(winner_table(winners(environment)))
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert list(rows) == [str(tokens) for tokens in TOKENS]
    for row, won in zip(rows.values(), winners(environment), strict=True):
        is_baseline = won.variant == won.baseline
        assert ("baseline" if is_baseline else won.variant.config.label) in row
        assert won.variant.specialization.label in row
        assert time_text(won.timing) in row
        assert time_text(won.baseline_timing) in row
        assert speedup_text(won) in row
    assert "hidden=4096, dtype=bf16" in text
    assert environment.label in text


def test_estimates_are_marked_and_measurements_are_not() -> None:
    estimated, measured = text_of(winner_table(winners(ESTIMATED))), text_of(winner_table(winners(MEASURED)))
    assert "cuda:90 (estimated)" in estimated
    assert "winner, estimated us" in estimated
    assert estimated.count("~1.26") == len(TOKENS)
    assert "estimated" not in measured
    assert "~" not in measured
    assert "winner, us" in measured
    assert measured.count("1.260 [1.200, 1.310]") == len(TOKENS)


def test_the_title_says_why_rows_are_stale() -> None:
    rows = winners(MEASURED)
    text = text_of(winner_table(rows, ["torch 1, here 2", "not found [here]"]))
    assert "stale: torch 1, here 2; not found [here]" in text
    assert "stale" not in text_of(winner_table(rows))


def test_stale_rows_have_their_shape_variant_and_reasons_and_no_times() -> None:
    rows = winners(MEASURED)
    text = text_of(stale_table(rows, ["torch 1, here 2", "not found [here]"]))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    reasons = "torch 1, here 2; not found [here]"
    assert cells == [
        [str(row.shape["num_tokens"]), "baseline" if row.variant == row.baseline else row.variant.config.label, reasons]
        for row in rows
    ]
    assert MEASURED.label in text


def test_one_winner_alone_shows_its_shape() -> None:
    text = text_of(winner_table(winners(MEASURED)[1:2]))
    assert "num_tokens=64, hidden=4096, dtype=bf16" in text


def test_times_have_their_spread() -> None:
    assert time_text(Timing(10.256, 10.0, 10.5, 30)) == "10.26 ± 0.25"
    assert time_text(Timing(10.256, 10.256, 10.256, 1)) == "10.3"


def test_compile_counts_are_shown_for_each_set() -> None:
    sets = [SpecializationSet.of(names, aligned) for names, aligned in (([], []), (["n"], []), (["n"], ["stride"]))]
    text = text_of(compile_table({marks: 4 - number for number, marks in enumerate(sets)}, sets[1], 7))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [["none", "4"], ["n (baseline)", "3"], ["n, stride (alignment)", "2"]]
    assert "over 7 shapes" in text


def test_the_run_report_holds_the_table_and_the_counts() -> None:
    won = winners(ESTIMATED)
    marks = SpecializationSet.of(["num_tokens"], ["stride"])
    report = json.loads(json.dumps(run_report(ESTIMATED, won, 12, True, {marks: 2}, {"power cap": 3})))
    assert (report["evaluated"], report["timed_out"], report["evidence"]) == (12, True, "estimated")
    assert report["throttled"] == {"power cap": 3}
    assert [row.shape for row in WinnerTable.from_json(report["winners"]).rows] == [each.shape for each in won]
    assert report["compiles"] == [
        {"do_not_specialize": ["num_tokens"], "do_not_specialize_on_alignment": ["stride"], "compiles": 2}
    ]
    assert run_report(ESTIMATED, [], 0, False, {}, {})["winners"] is None


def test_the_lookup_report_says_where_the_answer_came_from() -> None:
    won = winners(MEASURED)[0]
    asked = Shape(num_tokens=2, hidden=4096, dtype="bf16")
    answer = Lookup(won.variant, asked, Origin.BUCKET, won, "why", ("triton 3.6.0, here 3.9.0",))
    report = json.loads(json.dumps(lookup_report(answer)))
    assert report["shape"] == dict(asked)
    assert report["tuned_shape"] == dict(won.shape)
    assert (report["origin"], report["evidence"], report["explanation"]) == ("bucket", "measured", "why")
    assert report["speedup"] == [1.2, 1.26, 1.31]
    assert report["stale"] == ["triton 3.6.0, here 3.9.0"]
    assert report["parameters"] == dict(won.variant.config.parameters)
    bare = lookup_report(Lookup(won.baseline, asked, Origin.BASELINE, None, "why"))
    assert bare["evidence"] is bare["median_us"] is bare["speedup"] is bare["tuned_shape"] is None
    assert bare["stale"] == []
