"""What is known of one argument, and what to do with it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.compile.classes import ClassTable, Mark
from tuner.records import FrozenMapping, SpecializationSet
from tuner.specialize.choice import one_mark
from tuner.specialize.effect import Effect
from tuner.specialize.scope import Scope


class Advice(StrEnum):
    """What to do with an argument."""

    MARK = "do_not_specialize"
    MARK_ALIGNMENT = "do_not_specialize_on_alignment"
    LEAVE = "leave"
    RUN_TIME = "make it a run-time argument"


@dataclass(frozen=True)
class ArgumentReport:
    """One argument over the steps.

    classes: the share of the steps with each class, most frequent first.
    alone: the compiles if every other argument had one class: how many classes it has itself.
    saves_alone: how many compiles fewer there are when it alone is marked, against no mark.
    saves_in_set: how many fewer when it is marked beside the other recommended marks, against those without it. For a
        `tl.constexpr` argument, which no mark can name: when it leaves the compile key.
    effects: what marking it alone does, by kind of mark; only for those that were compiled.
    """

    name: str
    constexpr: bool
    classes: Mapping[str, float]
    alone: int
    saves_alone: int
    saves_in_set: int
    effects: Mapping[Mark, Effect]
    advice: Advice
    reason: str


def argument_reports(
    table: ClassTable, scope: Scope, recommended: SpecializationSet, effects: Mapping[SpecializationSet, Effect]
) -> list[ArgumentReport]:
    """Every run-time argument, and every `tl.constexpr` argument of more than one value; in order."""
    return [
        _runtime_report(table, scope, recommended, effects, name)
        if name in table.runtime
        else _constexpr_report(table, scope, recommended, name)
        for name in table.names
        if name in table.runtime or len(set(table.of(name))) > 1
    ]


def _runtime_report(
    table: ClassTable,
    scope: Scope,
    recommended: SpecializationSet,
    effects: Mapping[SpecializationSet, Effect],
    name: str,
) -> ArgumentReport:
    others = _without(recommended, name)
    saves_alone = table.count(SpecializationSet()) - table.count(one_mark(name, Mark.SPECIALIZATION))
    saves_in_set = table.count(others) - table.count(_joined(others, name))
    kinds = (Mark.SPECIALIZATION, Mark.ALIGNMENT)
    mine = {mark: effects[one_mark(name, mark)] for mark in kinds if one_mark(name, mark) in effects}
    advice = _advice(recommended, name)
    if advice is Advice.LEAVE:
        reason = _why_not(saves_in_set, mine.get(Mark.SPECIALIZATION))
    else:
        saved = table.count(others) - table.count(recommended)
        why = (
            f"saves {_compiles(saved)} beside the other marks"
            if saved
            else "marked in the source; shapes that were not looked at may need it"
        )
        reason = f"{why}; {_harmless(effects[_only(advice, name)])}"
    classes = _shares(table, scope, name)
    return ArgumentReport(
        name, False, classes, len(set(table.of(name))), saves_alone, saves_in_set, mine, advice, reason
    )


def _constexpr_report(table: ClassTable, scope: Scope, recommended: SpecializationSet, name: str) -> ArgumentReport:
    values, nothing = len(set(table.of(name))), SpecializationSet()
    alone, in_set = (table.count(marks) - table.count(marks, without=name) for marks in (nothing, recommended))
    if _changes_with_size(table, scope, name):
        advice = Advice.RUN_TIME
        reason = (
            f"{scope.dynamic} feeds it, and each of its {values} values is a compile; a tl.constexpr cannot be marked. "
            f"As a marked run-time argument it would save {_compiles(in_set)}"
        )
    else:
        advice = Advice.LEAVE
        reason = f"its {values} values come from fixed dimensions: a model has one of them"
    return ArgumentReport(name, True, _shares(table, scope, name), values, alone, in_set, {}, advice, reason)


def _shares(table: ClassTable, scope: Scope, name: str) -> Mapping[str, float]:
    shares: dict[str, float] = defaultdict(float)
    for each, shape in zip(table.of(name), table.shapes, strict=True):
        shares[each.label] += scope.shares[shape]
    return FrozenMapping(dict(sorted(shares.items(), key=lambda item: -item[1])))


def _changes_with_size(table: ClassTable, scope: Scope, name: str) -> bool:
    """Whether it takes several values at shapes that differ in the dynamic dimension alone."""
    values: dict[FrozenMapping[int | str], set[object]] = defaultdict(set)
    for each, shape in zip(table.of(name), table.shapes, strict=True):
        values[scope.fixed(shape)].add(each)
    return any(len(each) > 1 for each in values.values())


def _advice(recommended: SpecializationSet, name: str) -> Advice:
    if name in recommended.do_not_specialize:
        return Advice.MARK
    return Advice.MARK_ALIGNMENT if name in recommended.do_not_specialize_on_alignment else Advice.LEAVE


def _only(advice: Advice, name: str) -> SpecializationSet:
    return one_mark(name, Mark.SPECIALIZATION if advice is Advice.MARK else Mark.ALIGNMENT)


def _why_not(saves: int, effect: Effect | None) -> str:
    cost = effect.cost if effect else ""
    if saves:
        return f"would save {_compiles(saves)}, but {cost or 'costs time beside the other marks'}"
    return f"saves no compile, and {cost}" if cost else "saves no compile"


def _harmless(effect: Effect) -> str:
    if effect.same_code:
        return "same machine code"
    if effect.slowdown is None or effect.evidence is None:
        return "no access gets narrower"
    return f"no access gets narrower, {effect.slowdown:+.1%} time over the steps ({effect.evidence})"


def _compiles(count: int) -> str:
    return "1 compile" if count == 1 else f"{count} compiles"


def _without(marks: SpecializationSet, name: str) -> SpecializationSet:
    return SpecializationSet.of(
        (each for each in marks.do_not_specialize if each != name),
        (each for each in marks.do_not_specialize_on_alignment if each != name),
    )


def _joined(marks: SpecializationSet, name: str) -> SpecializationSet:
    return SpecializationSet.of((*marks.do_not_specialize, name), marks.do_not_specialize_on_alignment)
