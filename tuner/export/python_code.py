"""Values as Python source that a person can read: on one line where it fits, else an item a line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_WIDTH = 120
_INDENT = "    "


class Name(str):
    """A name instead of a text."""


@dataclass(frozen=True)
class Call:
    """A call of a name with these arguments."""

    name: str
    arguments: Sequence[Any]
    keywords: Mapping[str, Any] = field(default_factory=dict)


def code(value: Any, indent: int = 0, used: int = 0) -> str:
    """The source of a plain value, a `Name` or a `Call`, or of lists, tuples and dictionaries of such.

    `indent` is the number of levels of the line that it begins on, `used` the characters before it on that line.
    """
    begin, items, end = _parts(value)
    if not items:
        return begin + end
    flat = [prefix + code(each) for prefix, each in items]
    line = f"{begin}{', '.join(flat)}{',' if isinstance(value, tuple) and len(items) == 1 else ''}{end}"
    if "\n" not in line and used + len(_INDENT) * indent + len(line) < _WIDTH:
        return line
    inner = _INDENT * (indent + 1)
    lines = [f"{inner}{prefix}{code(each, indent + 1, len(prefix))},\n" for prefix, each in items]
    return f"{begin}\n{''.join(lines)}{_INDENT * indent}{end}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """What begins it, its items with what stands before each, and what ends it."""
    if isinstance(value, Call):
        keywords = [(f"{name}=", each) for name, each in value.keywords.items()]
        return f"{value.name}(", [*(("", each) for each in value.arguments), *keywords], ")"
    if isinstance(value, dict):
        return "{", [(f"{_text(name)}: ", each) for name, each in value.items()], "}"
    if isinstance(value, list | tuple):
        begin, end = "[]" if isinstance(value, list) else "()"
        return begin, [("", each) for each in value], end
    return _text(value), [], ""


def _text(value: Any) -> str:
    if isinstance(value, Name):
        return str(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
