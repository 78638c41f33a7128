"""Portfolios of stored winners: compile keys are Triton's own, weights a workload's, and lookup tells of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import store_examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_examples import SCALE_ROWS, copy_kernel, scale_rows_variant

from tuner import api, consolidation, serving
from tuner.catalog import Kernel, load_folder
from tuner.compile.specialization import reachable_keys
from tuner.consolidation import consolidate
from tuner.errors import UserError
from tuner.records import (
    DEFAULT_TARGET,
    Bucket,
    Environment,
    Evaluation,
    Evidence,
    FrozenMapping,
    Shape,
    Status,
    Timing,
    Variant,
    Winner,
)
from tuner.runtime import Found, Origin, WinnerTable, find
from tuner.workload import Request, Settings, Source, Workload, build_workload

pytestmark = pytest.mark.triton

SCALE = load_folder(SCALE_ROWS)
ESTIMATED = Environment(DEFAULT_TARGET, Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "12.8")
PLAIN, WIDE, MARKED = (
    scale_rows_variant(),
    scale_rows_variant(2, marks=("row_stride",)),
    scale_rows_variant(4, marks=("num_rows",)),
)


def workload(dimension: str) -> Workload:
    """Two steps, of three and of one."""
    requests, settings = (Request(0, 3, 2),), Settings(max_num_batched_tokens=8, max_num_seqs=2)
    found = build_workload("small", requests, settings, Source("trace.csv", "00", "someone"), "tuner")
    return dataclasses.replace(found, dimension=dimension)


def timed(rows: int, variant: Variant, time_us: float) -> Evaluation:
    shape = SCALE.spec.shape({"num_rows": rows})
    return Evaluation(variant, shape, Status.PASSED, timing=Timing(time_us, time_us, time_us, 1))


def table(kernel: Kernel, *winners: tuple[int, Variant]) -> WinnerTable:
    def row(rows: int, variant: Variant) -> Winner:
        shape = kernel.spec.shape({"num_rows": rows})
        example = store_examples.winner(0, environment=ESTIMATED)
        return dataclasses.replace(
            example, variant=variant, baseline=PLAIN, shape=shape, source_digest=kernel.source_digest
        )

    return WinnerTable(kernel.name, kernel.source_digest, ESTIMATED, tuple(row(*each) for each in winners))


def keys_between(variant: Variant, sizes: Sequence[int]) -> int:
    shapes = [SCALE.spec.shape({"num_rows": rows}) for rows in sizes]
    return len(reachable_keys(SCALE, variant, shapes, DEFAULT_TARGET))


def test_each_variant_compiles_for_the_sizes_of_its_buckets() -> None:
    """The unmarked one for 1, for 2 to 4 and no multiple of 16; the other for both kinds of size but not for 1."""
    winners = table(SCALE, (2, PLAIN), (8, WIDE), (64, WIDE))
    portfolio = consolidate(SCALE, winners, []).portfolio
    assert [(each.first, each.last, each.variant) for each in portfolio.buckets] == [(1, 4, PLAIN), (5, 128, WIDE)]
    expected = keys_between(PLAIN, range(1, 5)), keys_between(WIDE, range(5, 129))
    assert expected == (2, 2)
    assert portfolio.compiles == sum(expected)


def test_among_equals_the_set_that_compiles_least_is_taken() -> None:
    evaluations = [timed(rows, each, 1.0) for rows in (2, 64) for each in (PLAIN, WIDE, MARKED)]
    found = consolidate(SCALE, table(SCALE, (2, PLAIN), (64, PLAIN)), evaluations)
    assert found.portfolio.variants == (MARKED,)
    assert found.portfolio.compiles == 1 == keys_between(MARKED, range(1, 129))


def test_a_long_bucket_is_counted_by_some_of_its_sizes() -> None:
    found = consolidate(SCALE, table(SCALE, (20_000, PLAIN)), [])
    assert (found.portfolio.buckets[0].first, found.portfolio.buckets[0].last) == (10_000, 40_000)
    assert found.portfolio.compiles == 2 == keys_between(PLAIN, (10_000, 10_001))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_counted_sizes_hold_both_ends_and_every_remainder(first: int, length: int) -> None:
    sizes = consolidation._counted(first, first + length)
    assert (sizes[0], sizes[-1]) == (first, first + length)
    assert len(sizes) <= 2 * consolidation._COUNTED_SIZES + 1
    if length >= 2 * 16:
        assert {size % 16 for size in sizes} == set(range(16))
    if length < consolidation._COUNTED_SIZES:
        assert sizes == [*range(first, first + length + 1)]


def test_sizes_that_the_kernel_does_not_take_are_not_counted(tmp_path: Path) -> None:
    edit = ('"num_rows", dynamic=True, minimum=0', '"num_rows", dynamic=True, minimum=2')
    kernel = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": edit}))
    assert consolidate(kernel, table(kernel, (2, PLAIN)), []).portfolio.compiles == 1
    assert consolidate(SCALE, table(SCALE, (2, PLAIN)), []).portfolio.compiles == 2


def test_a_workload_weighs_the_tuned_sizes() -> None:
    """Both of its steps are near two rows and none is near 64."""
    evaluations = [timed(2, PLAIN, 100.0), timed(2, WIDE, 100.5), timed(64, PLAIN, 100.5), timed(64, WIDE, 100.0)]
    winners = table(SCALE, (2, PLAIN), (64, WIDE))
    found = consolidate(SCALE, winners, evaluations, workload=workload("num_rows"))
    assert (found.workload, len(found.portfolio.variants)) == ("small", 1)
    assert [cell.weight for cell in found.assignments[0].cells] == [1.0, 0.0]
    equal = consolidate(SCALE, winners, evaluations)
    assert (equal.workload, equal.assignments[0].expected_us) == (None, pytest.approx(100.25))


def test_what_has_no_portfolio_is_told(tmp_path: Path) -> None:
    winners = table(SCALE, (64, PLAIN))
    for bound in (-0.01, float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected a share of at least 0"):
            consolidate(SCALE, winners, [], bound)
    with pytest.raises(UserError, match="small is of num_tokens; this kernel's sizes are num_rows"):
        consolidate(SCALE, winners, [], workload=workload("num_tokens"))
    with pytest.raises(UserError, match="No step of the workload small is near"):
        consolidate(SCALE, winners, [], workload=workload("num_rows"))
    still = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": (", dynamic=True, minimum=0", "")}))
    with pytest.raises(UserError, match="exactly one dynamic dimension"):
        consolidate(still, winners, [])


def test_an_op_asks_for_the_sizes_of_its_own_fixed_dimensions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and buckets of other columns change neither its steps nor how often it asks."""
    few = table(SCALE, (2, PLAIN), (64, WIDE))
    few = dataclasses.replace(few, portfolio=consolidate(SCALE, few, []).portfolio)
    assert few.portfolio is not None
    other = table(SCALE, *((rows, MARKED) for rows in range(100, 200)))
    others = tuple(dataclasses.replace(row, shape=Shape({**row.shape, "columns": 256})) for row in other.rows)
    buckets = tuple(
        Bucket(FrozenMapping(columns=256), row.shape.size("num_rows"), row.shape.size("num_rows"), MARKED)
        for row in others
    )
    many = dataclasses.replace(
        few,
        rows=(*few.rows, *others),
        portfolio=dataclasses.replace(few.portfolio, buckets=(*few.portfolio.buckets, *buckets)),
    )
    asked: list[int] = []

    def counted(*arguments: Any) -> Found | None:
        asked.append(arguments[1].size("num_rows"))
        return find(*arguments)

    monkeypatch.setattr(serving, "find", counted)
    found = [
        (serving.chosen(SCALE, (each,), Shape(columns=128), "", DEFAULT_TARGET), asked.copy(), asked.clear())
        for each in (few, many)
    ]
    assert found[0] == found[1]
    assert [(step.first, step.variant) for step in found[0][0]][:2] == [(1, PLAIN), (12, WIDE)]


def test_lookup_says_that_another_variant_runs_than_the_winner() -> None:
    evaluations = [timed(2, PLAIN, 100.0), timed(2, MARKED, 100.4), timed(64, MARKED, 1.0)]
    winners = table(SCALE, (2, PLAIN), (64, MARKED))
    exported = dataclasses.replace(winners, portfolio=consolidate(SCALE, winners, evaluations).portfolio)
    own = api.look_up(SCALE, (exported,), {"num_rows": 64}, "", DEFAULT_TARGET)
    other = api.look_up(SCALE, (exported,), {"num_rows": 3}, "", DEFAULT_TARGET)
    assert (own.variant, own.origin) == (MARKED, Origin.EXACT)
    assert "instead" not in own.explanation
    assert (other.variant, other.origin, other.winner) == (MARKED, Origin.BUCKET, exported.rows[0])
    assert "instead of its winner runs one of 1 variants that are at most 0.4% slower at tuned shapes" in (
        other.explanation
    )


def test_keys_are_those_of_the_variants_own_launch(tmp_path: Path) -> None:
    """Here another argument goes with each tile: 1 to 64 programs of one row, a single one of 64 rows."""
    folder = copy_kernel(
        SCALE_ROWS,
        tmp_path,
        {
            "kernel.py": ("    row_stride,\n", "    row_stride,\n    programs,\n"),
            "spec.py": (
                '        "num_rows": rows,\n',
                '        "num_rows": rows,\n        "programs": -(-rows // config.parameters["BLOCK_ROWS"]),\n',
            ),
        },
    )
    keys = consolidation._reached_keys(load_folder(folder), "num_rows", DEFAULT_TARGET)
    cell = SimpleNamespace(shape=SCALE.spec.shape({"num_rows": 8}), first=2, last=64)
    found = [len(keys(scale_rows_variant(block, marks=("num_rows",)), cell)) for block in (1, 64)]  # type: ignore[arg-type]
    assert found == [2, 1]
