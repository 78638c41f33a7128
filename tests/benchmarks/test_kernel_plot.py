"""`benchmarks/kernel_plot.py`: which rows become which lines."""

import json
import sys
from pathlib import Path

import pytest
from kernel_rows import row

from benchmarks import kernel_plot

pytest.importorskip("plotly")

ROWS = [row(8192), row(1024), row(512), row(8192, num_heads=8), row(8192, l2="cold", slower=2.0)]


def write(path: Path) -> Path:
    path.write_text(json.dumps({"environment": {"device": "a GPU"}, "rows": ROWS}))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["kernel_plot.py", *arguments])
    kernel_plot.main()


def test_time_is_above_and_the_share_of_the_copy_below() -> None:
    warm, cold = kernel_plot.rows_of(ROWS, "64/8", 0, "written"), kernel_plot.rows_of(ROWS, "64/8", 0, "cold")
    figure = kernel_plot.figure({"written": warm, "cold": cold}, "a GPU")
    lines = {(each.name, each.yaxis): each for each in figure.data}
    assert len(lines) == len(figure.data) == 2 * 2 * 5
    assert list(lines["ours", "y"].x) == [512, 1024, 8192]
    assert list(lines["ours", "y"].y) == pytest.approx([18.8, 38.2, 272.5])
    assert list(lines["ours", "y"].text) == ["tile T512", "tile T1024", "tile T8192"]
    assert list(lines["ours", "y3"].y) == pytest.approx([22.8 / 18.8, 35.7 / 38.2, 270.7 / 272.5])
    assert list(lines["copy", "y3"].y) == [1.0, 1.0, 1.0]
    assert list(lines["ours", "y2"].y) == pytest.approx([545.0])
    assert sum(each.showlegend for each in figure.data) == 5
    layout = figure.layout
    assert (layout.xaxis.type, layout.yaxis.type, layout.xaxis3.type, layout.yaxis3.type) == ("log", "log", "log", None)


def test_a_page_beside_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write(tmp_path / "kernel.json")
    run(monkeypatch, str(file))
    page = (tmp_path / "kernel.html").read_text()
    assert "64 heads in 8 groups, fp32 scales, written L2" in page
    assert "cold L2" not in page
    assert 'src="https' not in page
    run(monkeypatch, str(file), "--heads", "64/8", "8/1", "-o", str(tmp_path / "two.html"))
    assert "8 heads in 1 groups, fp32 scales, written L2" in (tmp_path / "two.html").read_text()


def test_rows_without_an_arm_are_drawn_without_it() -> None:
    older = row(512)
    del older["times_us"]["stream"]
    assert {each.name for each in kernel_plot.figure({"": [older]}, "").data} == {"ours", "baseline", "loop", "copy"}


def test_what_cannot_be_drawn_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write(tmp_path / "kernel.json")
    with pytest.raises(SystemExit, match="no rows for 64 heads in 8 groups, packed scales, written L2"):
        run(monkeypatch, str(file), "--layouts", "0", "1")
    with pytest.raises(SystemExit, match="is no folder"):
        run(monkeypatch, str(file), "-o", str(tmp_path / "nowhere" / "page.html"))
