"""What a run tells beside its winners: what it did not search, what binaries shared, what serving costs."""

from rich.markup import escape
from rich.table import Table

from tuner.ranking import Point, Tradeoff
from tuner.records import Evidence
from tuner.records.sharing import Sharing


def dropped_text(candidate: str, reason: str) -> str:
    """Why a specialization candidate is not searched."""
    return f"{candidate} is not searched: {reason}"


def sharing_text(sharing: Sharing, evidence: Evidence) -> str:
    """How many binaries came of the variants of a run, and what sharing them saved."""
    measured = evidence is Evidence.MEASURED
    saved = f", which saved about {sharing.saved_s:.1f} s of the GPU" if measured and sharing.shared else ""
    return (
        f"Binary identity: {sharing.variants} variants had {sharing.keys} compile keys and gave "
        f"{sharing.binaries} distinct binaries; {sharing.compiles} compiles. {sharing.measurements} "
        f"{'measurements' if measured else 'checks in the interpreter'}, {sharing.shared} shared{saved}."
    )


def tradeoff_table(tradeoff: Tradeoff, evidence: Evidence) -> Table:
    """The baseline and the front: kernel time, compiles, stall and the step in all, one row per variant."""
    estimated = "estimated " if evidence is Evidence.ESTIMATED else ""
    over = f"the workload {tradeoff.workload}" if tradeoff.workload else "all shapes alike"
    title = (
        f"A step over {over}, if one variant served all: kernel, compiles of {tradeoff.compile_s:.2f} s spread over "
        f"{tradeoff.steps} steps, and {tradeoff.host_us:.1f} us for the launch"
    )
    table = Table(title=escape(title), title_justify="left")
    table.add_column("variant", overflow="fold")
    table.add_column("do_not_specialize", overflow="fold")
    for name in (f"kernel, {estimated}us", "compiles", "stall, s", "stall, us a step", f"step, {estimated}us"):
        table.add_column(name, justify="right")
    baseline = tradeoff.baseline_point
    front = [each for each in tradeoff.front if each != baseline]
    for point in ([baseline] if baseline else []) + front:
        table.add_row(
            "baseline" if point == baseline else point.variant.config.label,
            point.variant.specialization.label,
            f"{point.kernel_us:.2f}",
            str(point.compiles),
            f"{tradeoff.stall_s(point):.2f}",
            f"{tradeoff.stall_us(point):.2f}",
            f"{tradeoff.step_us(point):.2f}",
        )
    return table


def point_label(point: Point) -> str:
    """The variant of a point in one line."""
    return f"{point.variant.config.label}, do_not_specialize: {point.variant.specialization.label}"
