"""What a run tells beside its winners."""

import json
from io import StringIO
from pathlib import Path

import pytest
import store_examples
from rich.console import Console

from tuner.errors import UserError
from tuner.ranking import Point, Tradeoff
from tuner.records import Evidence, Variant
from tuner.records.sharing import Sharing
from tuner.report.front_plot import require_plot, write_plot
from tuner.report.json_report import search_report
from tuner.report.run_tables import dropped_text, sharing_text, tradeoff_table

BASELINE, OTHER = store_examples.variant(1), store_examples.variant(2)
SHARING = Sharing(variants=30, keys=31, compiles=12, binaries=20, measurements=40, shared=10, saved_s=1.54)
POINTS = (Point(BASELINE, 10.0, 4), Point(OTHER, 12.25, 1), Point(store_examples.variant(3), 13.0, 2))
TRADEOFF = Tradeoff(POINTS, BASELINE, compile_s=0.5, steps=100_000, host_us=27.5, workload="azure_code")


def lines(tradeoff: Tradeoff, evidence: Evidence) -> list[str]:
    text = StringIO()
    Console(file=text, width=250, color_system=None, _environ={}).print(tradeoff_table(tradeoff, evidence))
    return text.getvalue().splitlines()


def test_sharing_is_told_in_numbers() -> None:
    told = sharing_text(SHARING, Evidence.MEASURED)
    assert told.startswith(
        "Binary identity: 30 variants had 31 compile keys and gave 20 distinct binaries; 12 compiles. 40"
    )
    assert told.endswith("40 measurements, 10 shared, which saved about 1.5 s of the GPU.")
    assert sharing_text(SHARING, Evidence.ESTIMATED).endswith("40 checks in the interpreter, 10 shared.")


def test_a_dropped_candidate_is_told_with_its_reason() -> None:
    assert dropped_text("stride (alignment)", "it is useless") == "stride (alignment) is not searched: it is useless"


def test_the_table_holds_the_baseline_and_the_front() -> None:
    shown = lines(TRADEOFF, Evidence.MEASURED)
    assert "over the workload azure_code" in shown[0]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if line.startswith("│")]
    assert [row[2:] for row in rows] == [
        ["10.00", "4", "2.00", "20.00", "57.50"],
        ["12.25", "1", "0.50", "5.00", "44.75"],
    ]
    assert [row[0] for row in rows] == ["baseline", OTHER.config.label]
    assert not any("estimated" in line for line in shown)
    alone = Tradeoff(POINTS[1:], BASELINE, 0.5, 100_000, 27.5, None)
    shown = lines(alone, Evidence.ESTIMATED)
    assert "all shapes alike" in shown[0]
    assert sum(line.startswith("│") for line in shown) == 1
    assert any("kernel, estimated us" in line for line in shown)


def test_programs_read_the_same_in_json() -> None:
    found = json.loads(json.dumps(search_report({"stride": "why"}, SHARING, TRADEOFF)))
    assert found["not_searched"] == {"stride": "why"}
    assert found["sharing"]["binaries"] == 20
    serving = found["serving"]
    assert (serving["workload"], serving["steps"], serving["host_launch_us"]) == ("azure_code", 100_000, 27.5)
    assert [each["kernel_us"] for each in serving["front"]] == [10.0, 12.25]
    assert Variant.from_json(serving["front"][1]) == OTHER
    assert (serving["baseline"]["stall_s"], serving["baseline"]["step_us"]) == (2.0, 57.5)
    assert search_report({}, SHARING, None)["serving"] is None


def test_the_plot_is_a_page_that_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path = tmp_path / "front.html"
    require_plot(path)
    write_plot(TRADEOFF, "scale_rows", "us", path)
    text = path.read_text()
    assert "<html>" in text
    assert OTHER.config.label in text
    assert "scale_rows: kernel time over azure_code against compile stalls" in text
    assert 'src="https' not in text
    with pytest.raises(UserError, match="is no folder"):
        require_plot(tmp_path / "nowhere" / "front.html")
    with pytest.raises(UserError, match="cannot be written"):
        write_plot(TRADEOFF, "scale_rows", "us", tmp_path)


def test_without_plotly_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuner.report.front_plot.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        require_plot(tmp_path / "front.html")
    assert "triton-variant-tuner[plot]" in caught.value.hint
