"""Reads a search space file into a `SearchSpace`."""

import math
from collections.abc import Collection, Iterator
from itertools import product
from pathlib import Path

from tuner.records import OPTION_NAMES, Config, DimensionValue, FrozenMapping, SpecializationSet, Variant
from tuner.space.check import constraint_problems
from tuner.space.constraint import Constraint
from tuner.space.document import BaselineSection, Document, ImplementationSection, validate
from tuner.space.source import Location, Problem, Source
from tuner.space.space import ImplementationSpace, SearchSpace
from tuner.space.tree import read_tree

MAX_SHAPES = 10_000


def load_space(path: Path, dimensions: Collection[str] = ()) -> SearchSpace:
    """The search space in the YAML file.

    A constraint may use every dimension that stands in `shapes`, and those in `dimensions`: pass the kernel's, so that
    one left to its default can be used too. SpaceError, with file and line, for whatever is wrong with the file.
    `SearchSpace.check` then holds its names against the kernel's.
    """
    path = Path(path)
    data, source = read_tree(path)
    document = validate(data, source)
    implementations = tuple(
        _implementation(name, section, source) for name, section in document.implementations.items()
    )
    known = {name for shape in document.shapes for name in shape} | set(dimensions)
    problems = [*_document_problems(document)]
    for implementation in implementations:
        problems.extend(constraint_problems(implementation, known))
    if problems:
        raise source.error(problems)
    return SearchSpace(
        kernel=document.kernel,
        implementations=implementations,
        shapes=tuple(dict.fromkeys(_shapes(document))),
        candidates=tuple(document.specialization.do_not_specialize),
        alignment_candidates=tuple(document.specialization.do_not_specialize_on_alignment),
        workload=document.workload,
        objective=document.objective,
        steps=document.serving.steps,
        l2=document.measurement.l2,
        trials=document.budget.trials,
        timeout_s=document.budget.timeout_s,
        baseline=_baseline(document.kernel, document.baseline) if document.baseline else None,
        source=source,
    )


def _implementation(name: str, section: ImplementationSection, source: Source) -> ImplementationSpace:
    location: Location = ("implementations", name, "constraints")
    return ImplementationSpace(
        name,
        FrozenMapping({key: tuple(values) for key, values in section.parameters.items()}),
        FrozenMapping({key: tuple(values) for key, values in section.options.model_dump(exclude_none=True).items()}),
        tuple(
            Constraint(text, str(source.path), source.line((*location, index)))
            for index, text in enumerate(section.constraints)
        ),
    )


def _document_problems(document: Document) -> Iterator[Problem]:
    """What no single value shows: names in two places that exclude each other, and too many shapes."""
    sections: list[tuple[Location, Collection[str]]] = [
        (("implementations", name, "parameters"), each.parameters) for name, each in document.implementations.items()
    ]
    if document.baseline:
        sections.append((("baseline", "parameters"), document.baseline.parameters))
        both = {*document.baseline.do_not_specialize} & {*document.baseline.do_not_specialize_on_alignment}
        for name in sorted(both):
            message = f"{name!r} stands in both specialization lists of the baseline; expected it in one."
            hint = "Keep it in do_not_specialize, which includes alignment."
            yield Problem(("baseline", "do_not_specialize_on_alignment"), message, hint)
    for location, parameters in sections:
        for name in OPTION_NAMES:
            if name in parameters:
                message = f"{name!r} is a compile option, not a parameter; expected it under `options:`."
                yield Problem((*location, name), message, f"Move {name} to `options:`.")
    count = sum(math.prod(map(len, shape.values())) for shape in document.shapes)
    if count > MAX_SHAPES:
        message = f"The lists in shapes stand for {count} shapes; expected at most {MAX_SHAPES}."
        yield Problem(("shapes",), message, "Shorten the lists; their product is taken.")


def _shapes(document: Document) -> Iterator[FrozenMapping[DimensionValue]]:
    for shape in document.shapes:
        for values in product(*shape.values()):
            yield FrozenMapping(dict(zip(shape, values, strict=True)))


def _baseline(kernel: str, section: BaselineSection) -> Variant:
    config = Config(
        section.implementation,
        FrozenMapping(section.parameters),
        FrozenMapping(section.options.model_dump(exclude_none=True)),
    )
    specialization = SpecializationSet.of(section.do_not_specialize, section.do_not_specialize_on_alignment)
    return Variant(kernel, config, specialization)
