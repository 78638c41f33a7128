"""`benchmarks/kernel.py` without a GPU: ratios, summary, and the file that it writes as it goes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_rows import row

from benchmarks import kernel
from tuner.measure.environment import estimated_environment
from tuner.records import DEFAULT_TARGET, L2State


def median(figures: dict[str, Any], name: str) -> float:
    return float(figures[name]["median"])


def test_the_faster_floor_bounds_and_the_fastest_loop_counts() -> None:
    small, large = row(512), row(8192)
    assert median(small, "bound_over_baseline") == pytest.approx(22.6 / 20.0)  # the add
    assert median(large, "bound_over_baseline") == pytest.approx(340.3 / 270.7)  # the copy
    assert median(large, "share_of_copy") == pytest.approx(270.7 / 272.5)
    assert median(large, "share_of_stream") == pytest.approx(272.0 / 272.5)
    assert (small["loop_length"], large["loop_length"]) == (16, 8)
    assert median(small, "over_loop") == pytest.approx(22.0 / 18.8)
    assert list(large["times_us"]) == ["ours", "baseline", "loop", "copy", "stream"]


def test_the_summary_holds_each_figure() -> None:
    rows = [row(tokens) for tokens in (1, 512, 1024, 8192)]
    rows += [row(8192, num_heads=8, slower=1.3), row(8192, l2="cold", slower=2.0)]
    found = kernel.summary(rows)
    groups = ["H=64 G=8 packed=0 written", "H=8 G=1 packed=0 written", "H=64 G=8 packed=0 cold"]
    assert list(found) == [*groups, "all written", "all cold"]
    main = found[groups[0]]
    assert main["points"] == 4
    assert main["mean_over_baseline"] == pytest.approx((22.6 / 18.8 * 43.2 / 38.2 * 340.3 / 272.5) ** (1 / 3))
    assert main["worst_over_baseline"]["at"] == "T=1 H=64 G=8 packed=0 written"
    assert main["worst_over_loop"]["median"] == pytest.approx(37.9 / 38.2)
    assert main["faster_than_loop"] == 3
    spans = main["worst_by_tokens"]
    assert list(spans) == ["1..255", "256..1023", "1024..8191", "8192.."]
    assert spans["1024..8191"]["over_baseline"]["bound"] == pytest.approx(43.2 / 35.0)
    assert spans["8192.."]["share_of_copy"]["median"] == pytest.approx(270.7 / 272.5)
    everything = found["all written"]
    assert everything["points"] == 5
    assert everything["worst_by_tokens"]["8192.."]["over_baseline"]["at"] == "T=8192 H=8 G=1 packed=0 written"
    assert found["all cold"]["worst_over_baseline"]["median"] == pytest.approx(340.3 / 272.5 / 2)
    assert kernel.summary([row(1)])["all written"]["mean_over_baseline"] is None
    told = kernel._summary_line("all written", everything)
    assert "faster at 3 of 5 points" in told
    assert "T=8192.. at worst: over_baseline 0.961 (T=8192 H=8 G=1 packed=0 written), where the bound is 1.257" in told
    assert "over_loop at worst 0.992 (T=1024), faster at 3 of 4" in kernel._summary_line(groups[0], main)


def test_a_run_that_is_cut_off_keeps_what_it_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def time_shape(_: object, shape: Any, states: list[str]) -> Iterator[dict[str, Any]]:
        if shape["num_tokens"] == 8192:
            raise SystemExit("wrong output")
        yield from (row(shape["num_tokens"], l2=l2) for l2 in states)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernel, "device_environment", lambda: estimated_environment(DEFAULT_TARGET))
    monkeypatch.setattr(kernel, "time_shape", time_shape)
    path = tmp_path / "kernel.json"
    arguments = ["kernel.py", "--tokens", "512", "8192", "--heads", "64/8", "--layouts", "0", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="wrong output"):
        kernel.main()
    found = json.loads(path.read_text())
    assert [(each["num_tokens"], each["l2"]) for each in found["rows"]] == [(512, state) for state in L2State]
    assert set(found["summary"]) == {f"{name} {l2}" for name in ("all", "H=64 G=8 packed=0") for l2 in L2State}
    assert "l2" not in found["environment"]
    assert list(tmp_path.iterdir()) == [path]
