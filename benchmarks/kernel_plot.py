"""Draws what `benchmarks/kernel.py --json FILE.json` wrote: time over T, and below it the share of the copy's speed.

    python benchmarks/kernel_plot.py FILE.json [--heads HEADS/GROUPS ...] [--layouts 0 1]
                                     [--l2 written warm cold] [-o FILE.html]

A column for each combination of head count, layout and L2 state; without options 64 heads in 8 groups, fp32 scales,
written. The page needs no network. Needs plotly (`pip install 'triton-variant-tuner[plot]'`).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.records import L2State
from tuner.report.front_plot import require_plot

COLOURS = {"ours": "#d62728", "baseline": "#1f77b4", "loop": "#2ca02c", "copy": "#7f7f7f", "stream": "#bcbd22"}
LAYOUTS = {0: "fp32 scales", 1: "packed scales"}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--heads", nargs="+", default=["64/8"], metavar="HEADS/GROUPS")
    parser.add_argument("--layouts", type=int, nargs="+", choices=(0, 1), default=[0], help="packed scales: 1")
    parser.add_argument("--l2", nargs="+", choices=tuple(L2State), default=[L2State.WRITTEN])
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    page = options.output or options.file.with_suffix(".html")
    try:
        require_plot(page)
    except UserError as error:
        sys.exit(str(error))
    report = json.loads(options.file.read_text(encoding="utf-8"))
    panels = {
        f"{heads.replace('/', ' heads in ')} groups, {LAYOUTS[packed]}, {l2} L2": rows_of(
            report["rows"], heads, packed, l2
        )
        for l2, packed, heads in product(options.l2, options.layouts, options.heads)
    }
    if missing := [title for title, rows in panels.items() if not rows]:
        sys.exit(f"{options.file} has no rows for {'; '.join(missing)}")
    page.write_text(figure(panels, report["environment"]["device"]).to_html(include_plotlyjs=True), encoding="utf-8")
    print(page)


def rows_of(rows: Sequence[Row], heads: str, packed: int, l2: str) -> list[Row]:
    """The rows of one panel, by tokens."""
    chosen = [
        row
        for row in rows
        if (f"{row['num_heads']}/{row['n_groups']}", row["tma_aligned_scales"], row["l2"]) == (heads, packed, l2)
    ]
    return sorted(chosen, key=lambda row: int(row["num_tokens"]))


def figure(panels: dict[str, list[Row]], device: str) -> Any:
    """A plotly figure with a column of two plots for each panel."""
    from plotly.subplots import make_subplots

    made = make_subplots(
        rows=2,
        cols=len(panels),
        shared_xaxes=True,
        shared_yaxes=True,
        row_heights=[0.6, 0.4],
        vertical_spacing=0.05,
        column_titles=list(panels),
    )
    for column, rows in enumerate(panels.values(), start=1):
        tokens = [row["num_tokens"] for row in rows]
        for arm in (arm for arm in COLOURS if arm in rows[0]["times_us"]):
            times_us = [row["times_us"][arm]["median"] for row in rows]
            shares = [row["times_us"]["copy"]["median"] / time_us for row, time_us in zip(rows, times_us, strict=True)]
            look = {"mode": "lines+markers", "line_color": COLOURS[arm], "name": arm, "legendgroup": arm, "x": tokens}
            if arm == "ours":
                look["text"] = [row["variant"] for row in rows]
            made.add_scatter(y=times_us, showlegend=column == 1, row=1, col=column, **look)
            made.add_scatter(y=shares, showlegend=False, row=2, col=column, **look)
    made.update_xaxes(type="log")
    made.update_xaxes(title_text="tokens", row=2)
    made.update_yaxes(type="log", row=1)
    made.update_yaxes(rangemode="tozero", tickformat=".0%", row=2)
    made.update_yaxes(title_text="time, us", row=1, col=1)
    made.update_yaxes(title_text="share of the copy's speed", row=2, col=1)
    made.update_layout(title=f"fused_inv_rope_fp8_quant, {device}", template="plotly_white")
    return made


if __name__ == "__main__":
    main()
