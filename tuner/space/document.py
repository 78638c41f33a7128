"""The file format: pydantic models over the plain data, and their errors in words with lines."""

import keyword
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from tuner.errors import UnknownNameError
from tuner.records import DimensionValue, L2State
from tuner.space.source import Location, Problem, Source, dotted
from tuner.space.space import DEFAULT_STEPS, Objective

MAX_WARPS = 32
MAX_REGISTERS = 255
MAX_NAMES = 64

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T", bound=Hashable)


def _expected(expectation: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{expectation}", {"expectation": expectation})


def _distinct(values: Sequence[T]) -> Sequence[T]:
    seen: set[T] = set()
    for value in values:
        if value in seen:
            raise _expected(f"values that differ ({value!r} is repeated)")
        seen.add(value)
    return values


def _power_of_two(value: int) -> int:
    if value not in [1 << bits for bits in range(MAX_WARPS.bit_length())]:
        raise _expected(f"a power of two from 1 to {MAX_WARPS}")
    return value


def _identifier(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise _expected("the name of an argument or dimension")
    return name


def _dimension_values(value: object) -> tuple[DimensionValue, ...]:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if isinstance(each, bool) or not isinstance(each, int | str) or each == "":
            inside = f" (it holds {_found(each)})" if isinstance(value, list) else ""
            raise _expected(f"an integer, text, or a list of them{inside}")
    if not values:
        raise _expected("at least one value")
    return tuple(_distinct(values))


def _member(kind: type[E]) -> Callable[[object], E]:
    def convert(value: object) -> E:
        found = value if isinstance(value, str) else _found(value)
        if found not in list(kind):
            message = UnknownNameError("value", found, [member.value for member in kind]).message
            raise PydanticCustomError("whole", "{message}", {"message": message})
        return kind(found)

    return convert


Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Warps = Annotated[int, AfterValidator(_power_of_two)]
Stages = Annotated[int, Field(ge=1, le=64)]
Flag = Annotated[int, Field(ge=0, le=1)]
Registers = Annotated[int, Field(ge=1, le=MAX_REGISTERS)]
Name = Annotated[str, AfterValidator(_identifier)]
Title = Annotated[str, Field(min_length=1)]
Values = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES), AfterValidator(_distinct)]
Dimensions = Annotated[tuple[DimensionValue, ...], PlainValidator(_dimension_values)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _present(cls, value: object) -> object:
        if value is None:
            raise _expected("a value")
        return value


class OptionsSection(_Section):
    """Values to try for each compile option."""

    num_warps: Values[Warps] | None = None
    num_stages: Values[Stages] | None = None
    maxnreg: Values[Registers] | None = None
    launch_pdl: Values[Flag] | None = None


class OptionValues(_Section):
    """One value for each compile option."""

    num_warps: Warps | None = None
    num_stages: Stages | None = None
    maxnreg: Registers | None = None
    launch_pdl: Flag | None = None


class ImplementationSection(_Section):
    parameters: Annotated[dict[Name, Values[Integer]], Field(max_length=MAX_NAMES)] = {}
    options: OptionsSection = OptionsSection()
    constraints: list[str] = []


class SpecializationSection(_Section):
    do_not_specialize: Names = []
    do_not_specialize_on_alignment: Names = []


class ServingSection(_Section):
    """What the serving objective assumes."""

    steps: Annotated[int, Field(ge=1)] = DEFAULT_STEPS


class MeasurementSection(_Section):
    l2: Annotated[L2State, BeforeValidator(_member(L2State))] = L2State.WARM


class BudgetSection(_Section):
    trials: Annotated[int, Field(ge=1)] = 100
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class BaselineSection(SpecializationSection):
    implementation: Title
    parameters: dict[Name, Integer] = {}
    options: OptionValues = OptionValues()


class Document(_Section):
    """A whole search space file."""

    kernel: Title
    implementations: Annotated[dict[Title, ImplementationSection], Field(min_length=1)]
    specialization: SpecializationSection = SpecializationSection()
    shapes: Annotated[list[dict[Name, Dimensions]], Field(min_length=1)]
    workload: Title | None = None
    objective: Annotated[Objective, BeforeValidator(_member(Objective))] = Objective.LATENCY
    serving: ServingSection = ServingSection()
    measurement: MeasurementSection = MeasurementSection()
    budget: BudgetSection = BudgetSection()
    baseline: BaselineSection | None = None


# The model at each place of the file, `*` standing for any name; its fields are the keys that are valid there.
_MODELS: Mapping[Location, type[BaseModel]] = {
    (): Document,
    ("implementations", "*"): ImplementationSection,
    ("implementations", "*", "options"): OptionsSection,
    ("specialization",): SpecializationSection,
    ("serving",): ServingSection,
    ("measurement",): MeasurementSection,
    ("budget",): BudgetSection,
    ("baseline",): BaselineSection,
    ("baseline", "options"): OptionValues,
}

_EXPECTATIONS = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping (`name: value`)",
    "model_type": "a mapping (`key: value`)",
    "model_attributes_type": "a mapping (`key: value`)",
    "too_short": "at least one value",
    "too_long": "at most {max_length} entries",
    "string_too_short": "a name",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "expected": "{expectation}",
}


def validate(data: object, source: Source) -> Document:
    """The document; SpaceError that lists what is wrong, each with its line."""
    try:
        return Document.model_validate(data)
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors(include_url=False)]
        raise source.error(problems) from None


def _problem(error: ErrorDetails) -> Problem:
    location = tuple(part for part in error["loc"] if part != "[key]")
    context: dict[str, Any] = error.get("ctx", {})
    kind, where = error["type"], dotted(location) or "The file"
    if kind == "extra_forbidden":
        return _unknown_key(location)
    if kind == "missing":
        section = f" in {dotted(location[:-1])}" if location[:-1] else ""
        return Problem(location, f"The key {location[-1]!r} is missing{section}.", f"Add `{location[-1]}:`.")
    if kind == "whole":
        return Problem(location, f"{where}: {context['message']}")
    expected = _EXPECTATIONS[kind].format(**context) if kind in _EXPECTATIONS else error["msg"]
    hint = "Give it a value or remove the key." if error["input"] is None else ""
    return Problem(location, f"{where} is {_found(error['input'])}; expected {expected}.", hint)


def _unknown_key(location: Location) -> Problem:
    parent = location[:-1]
    place = (parent[0], "*", *parent[2:]) if parent[:1] == ("implementations",) else parent
    known = _MODELS[place].model_fields
    kind = f"key in {dotted(parent)}:" if parent else "key"
    return Problem(location, UnknownNameError(kind, str(location[-1]), known).message, "Correct or remove the key.")


def _found(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "mapping"
        return f"a {kind}" if value else f"an empty {kind}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
