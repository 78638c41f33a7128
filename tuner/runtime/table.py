"""The winner table: what `tuner export-config` writes and `tuner.lookup` reads. Standard library only."""

import ast
import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuner.errors import TableError, UnknownNameError, UserError
from tuner.records import (
    Bucket,
    DimensionValue,
    Environment,
    Evidence,
    FrozenMapping,
    Portfolio,
    Shape,
    Speedup,
    Target,
    Timing,
    Variant,
    Winner,
)

if TYPE_CHECKING:
    from tuner.catalog import Implementation, Kernel, KernelSpec

# Tables of schema 1 hold no portfolio; they are still read.
SCHEMA_VERSION = 2


class Group(NamedTuple):
    """The rows and the buckets of a table that have the same fixed dimensions, by size.

    Where the table has several rows of a shape or buckets of a size, its first one stands here alone.
    """

    rows: tuple[Winner, ...] = ()
    buckets: tuple[Bucket, ...] = ()


_Groups = Mapping[FrozenMapping[DimensionValue], Group]


@dataclass(frozen=True)
class WinnerTable:
    """The winners of one kernel in one environment, and the portfolio that stands for them, if there is one."""

    kernel: str
    source_digest: str
    environment: Environment
    rows: tuple[Winner, ...]
    portfolio: Portfolio | None = None

    def group(self, shape: Shape, dynamic: Sequence[str]) -> Group:
        """What has the dimensions of a shape but for the dynamic ones; takes as long in a table of any length.

        Only the first time all rows and buckets are gone through.
        """
        names = tuple(dynamic)
        if names not in self._groups:
            self._groups[names] = self._grouped(names)
        return self._groups[names].get(_fixed(shape, names), Group())

    def neighbours(self, shape: Shape, dynamic: Sequence[str]) -> tuple[Winner, ...]:
        """The row of a shape, or else the next larger one, and the next smaller one: two at most.

        All have its fixed dimensions.
        """
        names = tuple(dynamic)
        rows = self.group(shape, names).rows
        place = bisect_left(rows, _sizes(shape, names), key=lambda row: _sizes(row.shape, names))
        return rows[max(place - 1, 0) : place + 1]

    def bucket_variant(self, shape: Shape) -> Variant | None:
        """The portfolio's variant at a shape; None where no bucket holds it."""
        if self.portfolio is None:
            return None
        dynamic = self.portfolio.dynamic
        buckets = self.group(shape, (dynamic,)).buckets
        place = bisect_right(buckets, shape.size(dynamic), key=lambda each: each.first)
        return next((each.variant for each in buckets[max(place - 1, 0) : place] if each.holds(shape, dynamic)), None)

    @cached_property
    def _groups(self) -> dict[tuple[str, ...], _Groups]:
        """By the names of the dynamic dimensions; filled when first asked for."""
        return {}

    def _grouped(self, dynamic: tuple[str, ...]) -> _Groups:
        rows: dict[FrozenMapping[DimensionValue], dict[tuple[DimensionValue, ...], Winner]] = {}
        buckets: dict[FrozenMapping[DimensionValue], list[Bucket]] = {}
        for row in self.rows:
            rows.setdefault(_fixed(row.shape, dynamic), {}).setdefault(_sizes(row.shape, dynamic), row)
        for bucket in self.portfolio.buckets if self.portfolio else ():
            buckets.setdefault(_fixed(bucket.fixed, dynamic), []).append(bucket)
        return {
            key: Group(tuple(row for _, row in sorted(rows.get(key, {}).items())), _apart(buckets.get(key, ())))
            for key in {**rows, **buckets}
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data. Times in microseconds; `evidence` says whether they were measured or estimated."""
        where = self.environment
        environment = {**asdict(where), "target": str(where.target), "evidence": str(where.evidence)}
        return {
            "schema": SCHEMA_VERSION,
            "kernel": self.kernel,
            "source_digest": self.source_digest,
            "evidence": str(where.evidence),
            "environment": environment,
            "rows": [_row_to_json(row) for row in self.rows],
            "portfolio": _portfolio_to_json(self.portfolio) if self.portfolio else None,
        }

    @classmethod
    def from_json(cls, data: Any) -> "WinnerTable":
        """The inverse of `to_json`; TableError for anything else, and for the schema of a newer tuner."""
        if not isinstance(data, dict) or "schema" not in data:
            raise TableError("This is no winner table: it has no schema version.")
        if data["schema"] not in range(1, SCHEMA_VERSION + 1):
            raise TableError(
                f"The winner table has schema {data['schema']!r}; this tuner reads 1 to {SCHEMA_VERSION}.",
                hint="Upgrade tuner, or export the table again with this version.",
            )
        try:
            fields = dict(data["environment"])
            target = Target(*str(fields.pop("target")).split(":", 1))  # a measured one need not be a known one
            evidence = Evidence(fields.pop("evidence"))
            protocol = _typed(fields.pop("protocol"), (int,))  # without one, old numbers would look like new ones
            environment = Environment(target=target, evidence=evidence, protocol=protocol, **fields)
            kernel, digest = str(data["kernel"]), str(data["source_digest"])
            rows = tuple(_row_from_json(row, kernel, environment, digest) for row in data["rows"])
            held = None if data["schema"] == 1 else data["portfolio"]
            portfolio = None if held is None else _portfolio_from_json(held, kernel)
            table = cls(kernel, digest, environment, rows, portfolio)
            if portfolio and not all(table.bucket_variant(row.shape) for row in rows):
                raise ValueError("a row is in no bucket of the portfolio")
            return table
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UserError) as error:
            raise TableError(f"The winner table cannot be read: {type(error).__name__}: {error}.") from error


def read_table(path: Path) -> WinnerTable:
    """The table in a JSON file; TableError when there is none."""
    try:
        return WinnerTable.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read: {error}.") from error
    except TableError as error:
        raise TableError(f"{path}: {error.message}", hint=error.hint) from error


def check_table(table: WinnerTable, kernel: "Kernel", path: Path) -> None:
    """TableError for a row or bucket of a file that a lookup could not use with this source of the kernel.

    Its dimensions must be the spec's, its variant an implementation with all of that one's parameters, and its marks
    the names of arguments.
    """
    spec = kernel.spec
    names = {each.name: _argument_names(kernel, each) for each in spec.implementations}
    held = [(f"row {place}", row.shape, row.variant) for place, row in enumerate(table.rows)]
    if portfolio := table.portfolio:
        if portfolio.dynamic not in spec.dynamic_dimensions:
            what = f"its buckets are of {portfolio.dynamic!r}"
            raise TableError(f"{path}: {what}, which is no dynamic dimension of {kernel.name}.")
        for place, bucket in enumerate(portfolio.buckets):
            held.append((f"bucket {place}", _first_shape(bucket, portfolio.dynamic, spec), bucket.variant))
    for what, shape, variant in held:
        try:
            if spec.shape(shape) != shape:
                raise TableError(f"expected {spec.shape(shape).label}.")
            _check_variant(variant, spec.implementation(variant.config.implementation), names)
        except UserError as error:
            raise TableError(
                f"{path}: {what} ({shape.label}) is not of {kernel.name}: {error.message}",
                hint="Export the table again with this version of the kernel.",
            ) from error


def _first_shape(bucket: Bucket, dynamic: str, spec: "KernelSpec") -> Shape:
    """The smallest shape of a bucket that the kernel may have; a bucket may begin below the kernel's least size."""
    least = max([bucket.first, *(each.minimum for each in spec.dimensions if each.name == dynamic)])
    return Shape({**bucket.fixed, dynamic: least})


def _check_variant(variant: Variant, implementation: "Implementation", names: Mapping[str, set[str]]) -> None:
    if variant.config.parameters.keys() != set(implementation.parameters):
        found, expected = (", ".join(sorted(each)) for each in (variant.config.parameters, implementation.parameters))
        raise TableError(f"{implementation.name} has the parameters {found or 'none'}; expected {expected or 'none'}.")
    marks = variant.specialization
    for mark in (*marks.do_not_specialize, *marks.do_not_specialize_on_alignment):
        if mark not in names[implementation.name]:
            raise UnknownNameError(f"argument of {implementation.name}", mark, names[implementation.name])


def _argument_names(kernel: "Kernel", implementation: "Implementation") -> set[str]:
    """Read from the text without libcst, as `tuner.compile.arguments` would: a lookup stays light."""
    functions = [each for each in ast.parse(kernel.source(implementation)).body if isinstance(each, ast.FunctionDef)]
    return {each.arg for one in functions if one.name == implementation.function for each in one.args.args}


def _fixed(shape: Mapping[str, DimensionValue], dynamic: tuple[str, ...]) -> FrozenMapping[DimensionValue]:
    return FrozenMapping({name: value for name, value in shape.items() if name not in dynamic})


def _sizes(shape: Shape, dynamic: tuple[str, ...]) -> tuple[DimensionValue, ...]:
    return tuple([shape[name] for name in dynamic])


def _apart(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets by size; where several hold a size the first of them alone, so that one may be cut into pieces."""
    firsts = {each.first for each in buckets}
    borders = sorted(firsts | {each.last + 1 for each in buckets if each.last is not None})
    later = sorted(enumerate(buckets), key=lambda each: each[1].first, reverse=True)
    begun: list[tuple[int, Bucket]] = []  # a heap: the first of them on top
    found = []
    for first, end in zip_longest(borders, borders[1:]):
        while later and later[-1][1].first == first:
            heappush(begun, later.pop())
        while begun and (last := begun[0][1].last) is not None and last < first:
            heappop(begun)
        if begun:
            found.append(replace(begun[0][1], first=first, last=None if end is None else end - 1))
    return tuple(found)


def _row_to_json(row: Winner) -> dict[str, Any]:
    return {
        "shape": dict(row.shape),
        **_variant_to_json(row.variant),
        "timing_us": _timing_to_json(row.timing),
        "baseline_timing_us": _timing_to_json(row.baseline_timing),
        "baseline": _variant_to_json(row.baseline),
        "speedup": asdict(row.speedup),
        "compiles": row.compiles,
        "reason": row.reason,
    }


def _variant_to_json(variant: Variant) -> dict[str, Any]:
    return {name: value for name, value in variant.to_json().items() if name != "kernel"}


def _timing_to_json(timing: Timing) -> dict[str, float]:
    return {"median": timing.median_us, "low": timing.low_us, "high": timing.high_us, "samples": timing.count}


def _row_from_json(row: Mapping[str, Any], kernel: str, environment: Environment, source_digest: str) -> Winner:
    return Winner(
        variant=_variant_from_json(row, kernel),
        baseline=_variant_from_json(row["baseline"], kernel),
        shape=Shape(_mapping(row["shape"], (int, str))),
        environment=environment,
        source_digest=source_digest,
        timing=_timing_from_json(row["timing_us"]),
        baseline_timing=_timing_from_json(row["baseline_timing_us"]),
        speedup=Speedup(**{name: float(value) for name, value in _mapping(row["speedup"], (int, float)).items()}),
        compiles=_typed(row["compiles"], (int,)),
        reason=_typed(row["reason"], (str,)),
    )


def _portfolio_to_json(portfolio: Portfolio) -> dict[str, Any]:
    """Each variant once; a bucket names its own by the place in that list."""
    variants = portfolio.variants
    return {
        "dynamic": portfolio.dynamic,
        "bound": portfolio.bound,
        "regret": portfolio.regret,
        "compiles": portfolio.compiles,
        "variants": [_variant_to_json(each) for each in variants],
        "buckets": [
            {
                "fixed": dict(bucket.fixed),
                "first": bucket.first,
                "last": bucket.last,
                "variant": variants.index(bucket.variant),
            }
            for bucket in portfolio.buckets
        ],
    }


def _portfolio_from_json(data: Mapping[str, Any], kernel: str) -> Portfolio:
    variants = [_variant_from_json(each, kernel) for each in _typed(data["variants"], (list,))]

    def bucket(held: Mapping[str, Any]) -> Bucket:
        place = _typed(held["variant"], (int,))
        if not 0 <= place < len(variants):
            raise ValueError(f"bucket of variant {place}, of {len(variants)}")
        fixed = FrozenMapping(_mapping(held["fixed"], (int, str)))
        return Bucket(fixed, _typed(held["first"], (int,)), _typed(held["last"], (int, type(None))), variants[place])

    return Portfolio(
        dynamic=_typed(data["dynamic"], (str,)),
        buckets=tuple(bucket(each) for each in _typed(data["buckets"], (list,))),
        compiles=_typed(data["compiles"], (int,)),
        regret=float(_typed(data["regret"], (int, float))),
        bound=float(_typed(data["bound"], (int, float))),
    )


def _variant_from_json(data: Mapping[str, Any], kernel: str) -> Variant:
    for name in ("parameters", "options"):
        _mapping(data[name], (int,))
    for name in ("do_not_specialize", "do_not_specialize_on_alignment"):
        for argument in _typed(data[name], (list,)):
            _typed(argument, (str,))
    return Variant.from_json({**data, "kernel": kernel})


def _timing_from_json(data: Mapping[str, Any]) -> Timing:
    numbers = _mapping(data, (int, float))
    return Timing(float(numbers["median"]), float(numbers["low"]), float(numbers["high"]), int(numbers["samples"]))


def _mapping(value: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    """A JSON object whose values are of these kinds; TypeError otherwise."""
    return {name: _typed(each, kinds) for name, each in _typed(value, (dict,)).items()}


def _typed(value: Any, kinds: tuple[type, ...]) -> Any:
    """The value; TypeError when it is of another kind. A boolean is no number."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{value!r} stands where {' or '.join(kind.__name__ for kind in kinds)} is expected")
    return value
