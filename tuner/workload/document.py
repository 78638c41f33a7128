"""The workload file: JSON with the steps as columns of integers.

`num_tokens` has a value for each step. A step starts where the one before ended, the first at 0, and takes what
`settings` say of its size; `idle_us` lists `[step, microseconds]` where the engine waits for a request before a step.
`requests` lists `[arrival_us, first_step]` in order of arrival (see `ServedRequest`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner.errors import UserError
from tuner.workload.scheduler import Settings, Step
from tuner.workload.workload import ServedRequest, Source, Workload

SCHEMA_VERSION = 1
_VALUES_PER_LINE = 24

_LARGEST = 2**53

_Count = Annotated[int, Field(ge=0, le=_LARGEST)]
_Positive = Annotated[int, Field(ge=1, le=_LARGEST)]


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    version: int = Field(alias="schema")
    name: str
    dimension: str
    source: Source
    command: str
    settings: Settings
    assumptions: tuple[str, ...]
    num_tokens: Annotated[list[_Positive], Field(min_length=1)]
    idle_us: list[tuple[_Count, _Positive]]
    requests: Annotated[list[tuple[_Count, _Count]], Field(min_length=1)]


def workload_text(workload: Workload) -> str:
    """The text of the workload's file; the same for the same workload."""
    fields = {
        "schema": SCHEMA_VERSION,
        "name": workload.name,
        "dimension": workload.dimension,
        "source": asdict(workload.source),
        "command": workload.command,
        "settings": asdict(workload.settings),
        "assumptions": list(workload.assumptions),
    }
    columns: dict[str, list[Any]] = {
        "num_tokens": [step.num_tokens for step in workload.steps],
        "idle_us": list(_idle(workload.steps)),
        "requests": [[each.arrival_us, each.first_step] for each in workload.requests],
    }
    head = json.dumps(fields, indent=2, ensure_ascii=False).removesuffix("\n}")
    return ",\n".join([head, *(_column(name, values) for name, values in columns.items())]) + "\n}\n"


def read_workload(path: Path) -> Workload:
    """The workload in a file; UserError for one that cannot be read, is none, or is of a newer tuner."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.", hint="`tuner workload build` writes one.") from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version is None:
        raise UserError(f"{path} is no workload: it has no schema version.", hint="`tuner workload build` writes one.")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema {version!r}; this tuner reads {SCHEMA_VERSION}.",
            hint="Upgrade tuner, or build the workload again with this version.",
        )
    try:
        return _workload(_Document.model_validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise UserError(f"{path} is no workload: {place}: {first['msg']}.") from error
    except UserError as error:
        raise UserError(f"{path} is no workload: {error.message}", hint=error.hint) from error


def _workload(document: _Document) -> Workload:
    steps = tuple(_steps(document))
    served = tuple(ServedRequest(*each) for each in document.requests)
    for before, after in pairwise(served):
        if after.arrival_us < before.arrival_us or after.first_step < before.first_step:
            raise UserError("its requests are not in order of arrival.")
    if served[-1].first_step >= len(steps):
        raise UserError(f"a request has its first token in step {served[-1].first_step} of {len(steps)}.")
    return Workload(
        document.name,
        document.dimension,
        steps,
        served,
        document.settings,
        document.source,
        document.command,
        document.assumptions,
    )


def _steps(document: _Document) -> Iterator[Step]:
    idle = dict(document.idle_us)
    if max(idle, default=0) >= len(document.num_tokens):
        raise UserError(f"idle_us names step {max(idle)} of {len(document.num_tokens)}.")
    start_us = 0
    for index, num_tokens in enumerate(document.num_tokens):
        step = Step(start_us + idle.get(index, 0), document.settings.step_us(num_tokens), num_tokens)
        yield step
        start_us = step.end_us


def _idle(steps: Sequence[Step]) -> Iterator[list[int]]:
    end_us = 0
    for index, step in enumerate(steps):
        if step.start_us > end_us:
            yield [index, step.start_us - end_us]
        end_us = step.end_us


def _column(name: str, values: Sequence[Any]) -> str:
    lines = (values[start : start + _VALUES_PER_LINE] for start in range(0, len(values), _VALUES_PER_LINE))
    body = ",\n".join("    " + json.dumps(line, separators=(",", ":"))[1:-1] for line in lines)
    return f'  "{name}": [\n{body}\n  ]'
