"""Holds the names in a search space against those that the kernel really has."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.errors import UnknownNameError
from tuner.records import LAUNCH_PDL
from tuner.space.source import Location, Problem

if TYPE_CHECKING:
    from tuner.space.space import ImplementationSpace, SearchSpace

Names = Mapping[str, Sequence[str]]


def find_problems(
    space: "SearchSpace", parameters: Names, arguments: Names, dimensions: Sequence[str]
) -> Iterator[Problem]:
    """Every name that the kernel lacks, and every parameter of the kernel that the space leaves out."""
    for implementation in space.implementations:
        location: Location = ("implementations", implementation.name)
        if implementation.name not in parameters:
            yield _unknown("implementation", implementation.name, parameters, location)
            continue
        known = parameters[implementation.name]
        yield from _parameter_problems(implementation.parameters, known, (*location, "parameters"))
        yield from constraint_problems(implementation, dimensions)
    yield from _candidate_problems(space, arguments)
    for name in dict.fromkeys(name for shape in space.shapes for name in shape):
        if name not in dimensions:
            yield _unknown("dimension", name, dimensions, _place_in_shapes(space, name))
    yield from _baseline_problems(space, parameters, arguments)


def constraint_problems(implementation: "ImplementationSpace", dimensions: Collection[str]) -> Iterator[Problem]:
    """Names in constraints that stand for nothing, or for both a parameter and a dimension."""
    location: Location = ("implementations", implementation.name)
    known = {*implementation.values, *dimensions}
    for name in sorted(implementation.values.keys() & set(dimensions)):
        section = "parameters" if name in implementation.parameters else "options"
        message = f"{name!r} is a dimension of the shape too; expected names that differ."
        yield Problem((*location, section, name), message, "Rename the parameter in the kernel.")
    for index, constraint in enumerate(implementation.constraints):
        if LAUNCH_PDL in constraint.names:
            message = f"{LAUNCH_PDL!r} stands in a constraint, but some targets have no such option."
            yield Problem((*location, "constraints", index), message, "Drop the constraint.")
        for name in sorted(constraint.names - known - {LAUNCH_PDL}):
            hint = "A constraint can use this implementation's parameters and options that have values, and dimensions."
            yield _unknown("name in a constraint:", name, known, (*location, "constraints", index), hint)


def _parameter_problems(given: Collection[str], known: Sequence[str], location: Location) -> Iterator[Problem]:
    for name in given:
        if name not in known:
            yield _unknown("parameter", name, known, (*location, name))
    for name in known:
        if name not in given:
            yield Problem(location, f"The parameter {name!r} has no values.", f"Add `{name}: [...]` to the parameters.")


def _candidate_problems(space: "SearchSpace", arguments: Names) -> Iterator[Problem]:
    taken = [set(arguments[each.name]) for each in space.implementations if each.name in arguments]
    known = set.intersection(*taken) if taken else set()  # a set may go with any implementation
    lists = {"do_not_specialize": space.candidates, "do_not_specialize_on_alignment": space.alignment_candidates}
    for key, names in lists.items():
        for index, name in enumerate(names):
            if name not in known:
                yield _unknown("runtime argument", name, known, ("specialization", key, index))


def _baseline_problems(space: "SearchSpace", parameters: Names, arguments: Names) -> Iterator[Problem]:
    if space.baseline is None:
        return
    config, specialization = space.baseline.config, space.baseline.specialization
    if config.implementation not in parameters:
        yield _unknown("implementation", config.implementation, parameters, ("baseline", "implementation"))
        return
    yield from _parameter_problems(config.parameters, parameters[config.implementation], ("baseline", "parameters"))
    known = arguments.get(config.implementation, ())
    for key in ("do_not_specialize", "do_not_specialize_on_alignment"):
        for name in getattr(specialization, key):
            if name not in known:
                yield _unknown("runtime argument", name, known, ("baseline", key))


def _place_in_shapes(space: "SearchSpace", name: str) -> Location:
    """Where the file gives the dimension a value for the first time."""
    places = (each for each in space.source.lines if each[:1] == ("shapes",) and each[2:] == (name,))
    return next(places, ("shapes",))


def _unknown(kind: str, found: str, known: Collection[str], location: Location, hint: str = "") -> Problem:
    return Problem(location, UnknownNameError(kind, found, known).message, hint)
