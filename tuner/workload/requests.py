"""Reads request traces: a CSV file in the format of the Azure LLM inference trace."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from tuner.errors import UserError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# More in one request is a mistake in the file, and would be simulated step by step.
MAX_TOKENS = 10_000_000

_Row = tuple[datetime, int, int]


@dataclass(frozen=True, slots=True)
class Request:
    """A request: when it arrives, in microseconds after the trace's first, and its prompt and output, in tokens."""

    arrival_us: int
    prompt_tokens: int
    output_tokens: int


def read_requests(path: Path) -> tuple[Request, ...]:
    """The requests of a trace in order of arrival; of two at the same time, the one that stands first in the file.

    UserError, with file and line, for a file that is no such trace. A time without a zone is taken as UTC.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = sorted(_rows(path, file), key=lambda row: row[0])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; expected a CSV file.") from error
    if not rows:
        raise UserError(f"{path} holds no requests; expected a row for each below the header.")
    first = rows[0][0]
    return tuple(Request((time - first) // timedelta(microseconds=1), prompt, output) for time, prompt, output in rows)


def first_requests(
    requests: Sequence[Request], *, limit: int | None = None, duration_s: float | None = None
) -> tuple[Request, ...]:
    """At most `limit` of the requests, and only those that arrive less than `duration_s` after the first."""
    end_us = float("inf") if duration_s is None else duration_s * 1e6
    return tuple(islice((each for each in requests if each.arrival_us < end_us), limit))


def _rows(path: Path, lines: Iterator[str]) -> Iterator[_Row]:
    reader = csv.reader(lines)
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in COLUMNS if name not in header]:
            raise UserError(
                f"{path}:1: no column {', '.join(missing)}; expected the header {','.join(COLUMNS)}.",
                hint="Rename the columns of your trace; others may stand beside them.",
            )
        places = [header.index(name) for name in COLUMNS]
        for row in reader:
            if row:
                where = f"{path}:{reader.line_num}"
                if len(row) <= max(places):
                    raise UserError(f"{where}: {len(row)} values; expected {len(header)}, as in the header.")
                time, prompt, output = (row[place].strip() for place in places)
                yield _time(time, where), _tokens(prompt, COLUMNS[1], where), _tokens(output, COLUMNS[2], where)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}.") from error


def _time(text: str, where: str) -> datetime:
    for read in (datetime.fromisoformat, _from_seconds):
        try:
            time = read(text)
        except (ValueError, OverflowError):
            continue
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    raise UserError(f"{where}: {text!r} is no time; expected one as 2023-11-16 18:15:46.6805900, or seconds.")


def _from_seconds(text: str) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(text))


def _tokens(text: str, column: str, where: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_TOKENS)) and 1 <= int(text) <= MAX_TOKENS:
        return int(text)
    raise UserError(f"{where}: {column} is {text!r}; expected a whole number from 1 to {MAX_TOKENS}.")
