"""What `tuner specialize` found, for people and for programs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from tuner.compile.classes import Mark
from tuner.records import Evidence, Shape, SpecializationSet
from tuner.specialize import Advice, ArgumentReport, Comparison, Effect, MarkedSet, Recommendation

# A tl.constexpr argument that a size feeds has as many classes as there are sizes.
_MOST_CLASSES = 4
_MOST_CLASSES_JSON = 20
_NOTES = (
    "alone: compiles if every other argument had one class.",
    "saves alone: compiles fewer when it alone is in do_not_specialize, against no mark.",
    "saves in the set: compiles fewer when it is marked beside the other recommended marks, against those without it.",
)


def specialize_text(found: Recommendation, name: str) -> Iterator[str | Table]:
    """The parts of the report, in order; `name` is what the kernel was called by."""
    yield from _opening(found, name)
    yield _argument_table(found)
    yield "\n".join(_NOTES)
    times = _time_table(found)
    if times.row_count:
        yield times
    yield from _verdict(found)
    yield _patch_text(found)


def specialize_report(found: Recommendation, name: str) -> dict[str, Any]:
    """What `tuner specialize --json` prints."""
    return {
        "kernel": name,
        "implementation": found.config.implementation,
        "parameters": dict(found.config.parameters),
        "options": dict(found.config.options),
        "target": str(found.target),
        "evidence": str(found.environment.evidence) if found.environment else None,
        "environment": found.environment.label if found.environment else None,
        "looked_at": _looked_at_json(found),
        "compiles": {
            "unmarked": found.unmarked_compiles,
            "declared": found.declared_compiles,
            "recommended": found.recommended.compiles,
            "fewest": (found.fewest or found.recommended).compiles,
        },
        "declared": _marks_json(found.declared),
        "recommended": {**_marks_json(found.recommended.marks), **_effect_json(found, found.recommended.effect)},
        "fewest": _fewest_json(found),
        "arguments": [_argument_json(found, each) for each in found.arguments],
        "definitions": list(_NOTES),
        "patch": {
            "path": str(found.patch.path),
            "line": found.patch.line,
            "old": found.patch.old,
            "new": found.patch.new,
            "diff": found.patch.diff,
        },
    }


# Text.


def _opening(found: Recommendation, name: str) -> Iterator[str]:
    config = found.config.label
    place = found.environment.label if found.environment else f"{found.target} (no times: a bare function has no sizes)"
    yield f"{name}, {config}, on {place}"
    scope = found.scope
    sizes = sorted({scope.size(shape) for shape in scope.shares})
    others = list(dict.fromkeys(Shape(scope.fixed(shape)) for shape in scope.shares))
    fixed = [each.label if len(others) > 1 else found.kernel.spec.short_label(each) for each in others]
    weighed = (
        f"of the {scope.steps:,} steps of {scope.workload}" if scope.workload else "of equal weight (no --workload)"
    )
    if scope.dynamic:
        yield f"Looked at: {len(sizes):,} sizes of {scope.dynamic} from {sizes[0]} to {sizes[-1]}, {weighed}"
    for number, each in enumerate(filter(None, fixed)):
        yield f"  {'and' if number else 'with'} {each}"


def _argument_table(found: Recommendation) -> Table:
    table = Table(title="Arguments", title_justify="left")
    table.add_column("argument", no_wrap=True)
    table.add_column("classes, share of the steps", overflow="fold")
    for name in ("alone", "saves alone", "saves in the set"):
        table.add_column(name, justify="right")
    table.add_column("marking it changes", overflow="fold")
    table.add_column("advice", overflow="fold")
    for each in found.arguments:
        table.add_row(
            each.name,
            escape(_classes_text(each)),
            str(each.alone),
            str(each.saves_alone),
            str(each.saves_in_set),
            _changes_text(each),
            escape(_advice_text(each)),
        )
    return table


def _classes_text(argument: ArgumentReport) -> str:
    shown = list(argument.classes.items())[:_MOST_CLASSES]
    left = len(argument.classes) - len(shown)
    lines = [f"{label}: {_percent(share)}" for label, share in shown]
    return "\n".join([*lines, f"and {left:,} more"] if left else lines)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.9995 else f"{share:.1%}"


def _changes_text(argument: ArgumentReport) -> str:
    if argument.constexpr:
        return "cannot be marked"
    if not argument.effects:
        return "not compiled"
    full, aligned = argument.effects[Mark.SPECIALIZATION], argument.effects[Mark.ALIGNMENT]
    text = _effect_text(full)
    return text if _effect_text(aligned) == text else f"{text}\nfor alignment only: {_effect_text(aligned)}"


def _effect_text(effect: Effect) -> str:
    if effect.failure:
        return effect.failure
    if effect.narrowed:
        return " and ".join(effect.narrowed)
    return "nothing: same machine code" if effect.same_code else "code, but no width"


def _advice_text(argument: ArgumentReport) -> str:
    word = "no mark" if argument.advice is Advice.LEAVE else str(argument.advice)
    return f"{word}: {argument.reason}"


def _time_table(found: Recommendation) -> Table:
    """Times of the marks that change the machine code, at each shape that was looked at."""
    rows: dict[str, Effect] = {}
    for each in found.arguments:
        for mark, effect in each.effects.items():
            same = mark is Mark.ALIGNMENT and effect.comparisons == each.effects[Mark.SPECIALIZATION].comparisons
            if not same and not effect.same_code:
                rows[each.name if mark is Mark.SPECIALIZATION else f"{each.name} (alignment)"] = effect
    for chosen in _joint_sets(found):
        if not chosen.effect.same_code:
            rows.setdefault(chosen.marks.label, chosen.effect)
    timed = {name: effect for name, effect in rows.items() if any(each.time for each in effect.comparisons)}
    shapes = dict.fromkeys(each.shape for effect in timed.values() for each in effect.comparisons)
    environment = found.environment
    estimated = environment is not None and environment.evidence is Evidence.ESTIMATED
    title = "Time with the mark over time without it" + (
        ", estimated" if estimated else ", measured in three fresh processes, with its 95% interval"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("marked", no_wrap=True)
    ordered = sorted(shapes, key=found.scope.size)
    fixed = len({found.scope.fixed(shape) for shape in ordered})
    for shape in ordered:
        one = f"{found.scope.dynamic}={found.scope.size(shape)}" if found.scope.dynamic and fixed == 1 else shape.label
        table.add_column(one, justify="right", overflow="fold")
    table.add_column("all steps", justify="right")
    for name, effect in timed.items():
        by_shape = {each.shape: each for each in effect.comparisons}
        cells = [_ratio_text(by_shape.get(shape)) for shape in ordered]
        table.add_row(escape(name), *map(escape, cells), _slowdown_text(effect))
    return table


def _joint_sets(found: Recommendation) -> Iterable[MarkedSet]:
    return [each for each in (found.recommended, found.fewest) if each]


def _ratio_text(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    if comparison.same_code:
        return "same code"
    if comparison.time is None:
        return "?"
    ratio = comparison.time.ratio
    if comparison.time.evidence is Evidence.ESTIMATED:
        return f"~{ratio.median:.3f}"
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _slowdown_text(effect: Effect) -> str:
    slowdown = effect.slowdown
    if slowdown is None:
        return "?"
    return f"{'~' if effect.evidence is Evidence.ESTIMATED else ''}{slowdown:+.1%}"


def _verdict(found: Recommendation) -> Iterator[str]:
    chosen, declared = found.recommended, found.declared
    yield (
        f"Compiles over the steps: {found.unmarked_compiles} with no mark, {found.declared_compiles} with the marks of "
        f"the source ({declared.label}), {chosen.compiles} with the recommended ones."
    )
    yield f"Recommended: {_marks_text(chosen.marks)}."
    for each in found.arguments:
        if each.advice is not Advice.LEAVE:
            yield f"  {each.name}: {each.reason}."
    if found.fewest:
        least, gain = found.fewest, chosen.compiles - found.fewest.compiles
        yield (
            f"{_marks_text(least.marks)} would save {gain} more {'compile' if gain == 1 else 'compiles'}, but "
            f"{least.effect.cost or 'one of its marks alone costs time'}."
        )


def _marks_text(marks: SpecializationSet) -> str:
    parts = [f"{keyword}={list(names)}".replace("'", '"') for keyword, names in _marks_json(marks).items() if names]
    return ", ".join(parts) or "no mark"


def _patch_text(found: Recommendation) -> str:
    if found.patch.diff:
        return "\n" + found.patch.diff.rstrip("\n")
    return f"{found.patch.path}:{found.patch.line} says so already: {found.patch.old}"


# JSON.


def _looked_at_json(found: Recommendation) -> dict[str, Any]:
    scope = found.scope
    sizes = sorted({scope.size(shape) for shape in scope.shares})
    return {
        "workload": scope.workload,
        "steps": scope.steps,
        "shapes": len(scope.shares),
        "dimension": scope.dynamic,
        "sizes": {"count": len(sizes), "first": sizes[0], "last": sizes[-1]} if scope.dynamic else None,
        "fixed": [dict(each) for each in dict.fromkeys(scope.fixed(shape) for shape in scope.shares)],
    }


def _marks_json(marks: SpecializationSet) -> dict[str, list[str]]:
    return {
        "do_not_specialize": list(marks.do_not_specialize),
        "do_not_specialize_on_alignment": list(marks.do_not_specialize_on_alignment),
    }


def _fewest_json(found: Recommendation) -> dict[str, Any] | None:
    if found.fewest is None:
        return None
    marks, effect = _marks_json(found.fewest.marks), _effect_json(found, found.fewest.effect)
    return {**marks, "compiles": found.fewest.compiles, **effect}


def _argument_json(found: Recommendation, argument: ArgumentReport) -> dict[str, Any]:
    shown = list(argument.classes.items())[:_MOST_CLASSES_JSON]
    return {
        "name": argument.name,
        "constexpr": argument.constexpr,
        "classes": {label: round(share, 6) for label, share in shown},
        "further_classes": len(argument.classes) - len(shown),
        "compiles_alone": argument.alone,
        "saves_alone": argument.saves_alone,
        "saves_in_set": argument.saves_in_set,
        "effects": {str(mark): _effect_json(found, effect) for mark, effect in argument.effects.items()},
        "advice": str(argument.advice),
        "reason": argument.reason,
    }


def _effect_json(found: Recommendation, effect: Effect) -> dict[str, Any]:
    return {
        "same_code": effect.same_code,
        "narrowed": list(effect.narrowed),
        "slowdown": effect.slowdown,
        "evidence": str(effect.evidence) if effect.evidence else None,
        "cost": effect.cost,
        "at": [_comparison_json(each) for each in effect.comparisons],
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    ratio = comparison.time.ratio if comparison.time else None
    return {
        "shape": dict(comparison.shape),
        "stands_for": round(comparison.near, 6),
        "changed": round(comparison.changed, 6),
        "same_code": comparison.same_code,
        "unmarked": _widths(comparison.unmarked.load_bytes, comparison.unmarked.store_bytes),
        "marked": _widths(comparison.marked.load_bytes, comparison.marked.store_bytes),
        "time_ratio": [ratio.low, ratio.median, ratio.high] if ratio else None,
    }


def _widths(loads: Mapping[str, int], stores: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Instructions by bytes per thread."""
    return {"loads": dict(loads), "stores": dict(stores)}
