"""Results as tables for a terminal."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from tuner.records import Environment, Evidence, SpecializationSet, Timing, Winner


def winner_table(winners: Sequence[Winner], stale: Sequence[str] = ()) -> Table:
    """One row per shape: the winner's config and its time beside the baseline's. One environment.

    `stale` says why the rows do not hold here; the title repeats it.
    """
    environment = winners[0].environment
    table, varying = _table_by_shape(winners, stale)
    for name in ("baseline", "winner"):
        table.add_column(_unit(name, environment), justify="right")
    table.add_column("speedup", justify="right")
    table.add_column("variant", overflow="fold")
    table.add_column("do_not_specialize", overflow="fold")
    table.add_column("compiles", justify="right")
    for winner in winners:
        table.add_row(
            *(str(winner.shape[name]) for name in varying),
            time_text(winner.baseline_timing),
            time_text(winner.timing),
            speedup_text(winner),
            _variant_text(winner),
            winner.variant.specialization.label,
            str(winner.compiles),
        )
    return table


def stale_table(winners: Sequence[Winner], stale: Sequence[str]) -> Table:
    """One row per shape: the winner's config and why it does not hold here. One environment."""
    table, varying = _table_by_shape(winners)
    table.add_column("variant", overflow="fold")
    table.add_column("stale because", overflow="fold")
    for winner in winners:
        sizes = (str(winner.shape[name]) for name in varying)
        table.add_row(*sizes, _variant_text(winner), escape("; ".join(stale)))
    return table


def compile_table(counts: Mapping[SpecializationSet, int], baseline: SpecializationSet, shapes: int) -> Table:
    """How many binaries each specialization set compiles over the shapes of a run; exact."""
    table = Table(title=f"Compiles over {shapes} shapes, by specialization set", title_justify="left")
    table.add_column("do_not_specialize")
    table.add_column("compiles", justify="right")
    for marks, count in counts.items():
        table.add_row(marks.label + (" (baseline)" if marks == baseline else ""), str(count))
    return table


def common_dimensions(winners: Sequence[Winner]) -> dict[str, int | str]:
    """The dimensions that have one value in all rows."""
    first = winners[0].shape
    return {name: value for name, value in first.items() if all(each.shape.get(name) == value for each in winners)}


def time_text(timing: Timing) -> str:
    """A median with half its quartile range; an estimate, which has no spread, by itself."""
    if timing.count < 2:
        return f"{timing.median_us:.1f}"
    return f"{timing.median_us:.2f} ± {(timing.high_us - timing.low_us) / 2:.2f}"


def speedup_text(winner: Winner) -> str:
    """The speedup with its 95% interval; an estimate is marked with a tilde."""
    speedup = winner.speedup
    if winner.environment.evidence is Evidence.ESTIMATED:
        return f"~{speedup.median:.2f}"
    return f"{speedup.median:.3f} [{speedup.low:.3f}, {speedup.high:.3f}]"


def _table_by_shape(winners: Sequence[Winner], stale: Sequence[str] = ()) -> tuple[Table, list[str]]:
    """A table whose title says what the winners share and whose first columns, also returned, say their shapes."""
    common = common_dimensions(winners)
    varying = [name for name in winners[0].shape if name not in common] or list(winners[0].shape)[:1]
    title = [f"{winners[0].variant.kernel} on {winners[0].environment.label}"]
    if stale:
        title.append("stale: " + "; ".join(stale))
    if common:
        title.append(", ".join(f"{name}={value}" for name, value in common.items()))
    table = Table(title=escape("\n".join(title)), title_justify="left")
    for name in varying:
        table.add_column(name, justify="right", no_wrap=True)
    return table, varying


def _variant_text(winner: Winner) -> str:
    return "baseline" if winner.variant == winner.baseline else winner.variant.config.label


def _unit(name: str, environment: Environment) -> str:
    estimated = environment.evidence is Evidence.ESTIMATED
    return f"{name}, estimated us" if estimated else f"{name}, us"
