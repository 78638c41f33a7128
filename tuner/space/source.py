"""Where each value of a search space stands in its file, so that every error can name the line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner.errors import SpaceError

# The keys and list indices that lead to a value: ("implementations", "tile", "options", "num_warps", 0).
Location = tuple[str | int, ...]

MAX_REPORTED_PROBLEMS = 10


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file: where, what was found and expected, and as `hint` what to try."""

    location: Location
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Source:
    """A search space file and the line (from 1) of each of its values; without a file, errors name none."""

    path: Path | None = None
    lines: Mapping[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """The line of the value, or of the nearest value around it when the file has none there."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return 1

    def place(self, location: Location = ()) -> str:
        """`file:line: `, the start of a message."""
        return f"{self.path}:{self.line(location)}: " if self.path else ""

    def error(self, problems: Iterable[Problem]) -> SpaceError:
        """One error that lists the problems in file order."""
        ordered = sorted(problems, key=lambda problem: self.line(problem.location))
        shown = ordered[:MAX_REPORTED_PROBLEMS]
        messages = [self.place(problem.location) + problem.message for problem in shown]
        if len(ordered) > len(shown):
            messages.append(f"... and {len(ordered) - len(shown)} more problems.")
        hints = dict.fromkeys(problem.hint for problem in shown if problem.hint)
        return SpaceError("\n".join(messages), hint="\n".join(hints))


def dotted(location: Location) -> str:
    """The location for people: `implementations.tile.options.num_warps[0]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
