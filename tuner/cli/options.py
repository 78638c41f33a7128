"""Arguments that several commands share."""

import json
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tuner import settings
from tuner.catalog import Kernel, load_folder, load_kernel
from tuner.errors import UserError
from tuner.records import DEFAULT_TARGET, KNOWN_TARGETS, DimensionValue, Target

KernelArgument = Annotated[
    str, typer.Argument(metavar="KERNEL", help="A kernel's name (see `tuner kernels`), or the path of its folder.")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="SQLite file or PostgreSQL URL. Default: $TUNER_DB, else your own."),
]
_RANGE = re.compile(r"(?P<first>\d+)\.\.(?P<last>\d+)")
_LONGEST_RANGE = 100_000
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help=f"Compile for this target and estimate, without a GPU: {', '.join(KNOWN_TARGETS)}. "
        f"Default: measure on this machine's GPU; {DEFAULT_TARGET} where there is none.",
    ),
]
# Columns of a table that no terminal shows.
_PIPED_WIDTH = 200

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]


def find_kernel(text: str) -> Kernel:
    """A bundled kernel by name, or the kernel in a folder when the text has a slash."""
    return load_folder(Path(text)) if "/" in text else load_kernel(text)


def target_or_gpu(text: str | None) -> Target | None:
    """The named target; None for this machine's GPU, and the default target where there is none."""
    if text is not None:
        return Target.parse(text)
    import torch

    return None if torch.cuda.is_available() else DEFAULT_TARGET


def database(url: str | None) -> str:
    """The given URL or the default one."""
    return url or settings.database_url()


def parse_value(text: str) -> DimensionValue:
    """An integer where the text is one, otherwise a word."""
    try:
        return int(text)
    except ValueError:
        return text


def parse_pairs(words: list[str], *, what: str) -> dict[str, str]:
    """`name=value` words; UserError for one without a name or given twice."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{word!r} is not a {what}; expected name=value, for example num_tokens=512.")
        if name in pairs:
            raise UserError(f"{name!r} is given twice.")
        pairs[name] = value
    return pairs


def parse_shapes(texts: list[str]) -> list[dict[str, DimensionValue]]:
    """`num_tokens=1,16 num_heads=64` stands for the product of its values; `1..4` is 1,2,3,4."""
    shapes: list[dict[str, DimensionValue]] = []
    for text in texts:
        pairs = parse_pairs(text.split(), what="dimension")
        values = [[one for word in listed.split(",") for one in _values(word)] for listed in pairs.values()]
        shapes += [dict(zip(pairs, chosen, strict=True)) for chosen in product(*values)]
    return shapes


def _values(text: str) -> Sequence[DimensionValue]:
    """One value, or every integer of a range `first..last`; UserError for one that is empty or too long."""
    ends = _RANGE.fullmatch(text)
    if not ends:
        return [parse_value(text)]
    first, last = int(ends["first"]), int(ends["last"])
    if not first <= last < first + _LONGEST_RANGE:
        raise UserError(f"{text!r} is no range of 1 to {_LONGEST_RANGE} sizes; expected first..last, as in 1..4096.")
    return range(first, last + 1)


def terminal(*, stderr: bool = False) -> Console:
    """Where results go; piped output is wide, so that its lines do not break."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def print_json(data: Any) -> None:
    """Write JSON to standard output."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")
