"""The winner table: what `tuner export-config` writes and `tuner.lookup` reads. Standard library only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.errors import TableError, UserError
from tuner.records import (
    Bucket,
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

# Tables of schema 1 hold no portfolio; they are still read.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class WinnerTable:
    """The winners of one kernel in one environment, and the portfolio that stands for them, if there is one."""

    kernel: str
    source_digest: str
    environment: Environment
    rows: tuple[Winner, ...]
    portfolio: Portfolio | None = None

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
            if portfolio and not all(portfolio.find(row.shape) for row in rows):
                raise ValueError("a row is in no bucket of the portfolio")
            return cls(kernel, digest, environment, rows, portfolio)
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
