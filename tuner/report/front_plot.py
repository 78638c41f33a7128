"""The front of kernel time and compile stalls as a page of its own, drawn by plotly (an optional package)."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.ranking import Point, Tradeoff
from tuner.report.run_tables import point_label


def require_plot(path: Path) -> None:
    """UserError when the plot could not be written: plotly or the folder is missing."""
    if find_spec("plotly") is None:
        raise UserError("A plot needs the package plotly.", hint="pip install 'triton-variant-tuner[plot]'")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder; expected one to write {path.name} to.")


def write_plot(tradeoff: Tradeoff, kernel: str, unit: str, path: Path) -> None:
    """Write an HTML page that needs no network: every variant, the front and the baseline. UserError if it cannot."""
    from plotly import graph_objects

    front, baseline = tradeoff.front, tradeoff.baseline_point
    rest = [point for point in tradeoff.points if point not in front]
    figure = graph_objects.Figure()
    figure.add_scatter(name="beaten", mode="markers", marker_color="lightgray", **_at(tradeoff, rest))
    figure.add_scatter(name="front", mode="lines+markers", line_shape="vh", **_at(tradeoff, front))
    if baseline:
        figure.add_scatter(name="baseline", mode="markers", **_at(tradeoff, [baseline]))
    over = f"over {tradeoff.workload}" if tradeoff.workload else "over all shapes alike"
    figure.update_layout(
        title=f"{kernel}: kernel time {over} against compile stalls",
        xaxis_title="compile stalls, s",
        yaxis_title=f"expected kernel time, {unit}",
        template="plotly_white",
    )
    try:
        path.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error


def _at(tradeoff: Tradeoff, points: Sequence[Point]) -> dict[str, Any]:
    """Where the points of a trace are, and what each is called."""
    return {
        "x": [tradeoff.stall_s(point) for point in points],
        "y": [point.kernel_us for point in points],
        "text": [f"{point_label(point)}, {point.compiles} compiles" for point in points],
    }
