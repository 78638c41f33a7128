"""The winners that are shipped belong to the kernels that are shipped."""

from pathlib import Path

import pytest

from tuner.catalog import content_root, load_kernel
from tuner.records import Evidence, Shape
from tuner.records.portfolio import REACH, REGRET_BOUND
from tuner.runtime import read_table

TABLES = sorted((content_root() / "db" / "winners").glob("*/*.json"))


def test_there_are_some() -> None:
    assert TABLES


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_published_table_is_measured_and_of_this_source(path: Path) -> None:
    table = read_table(path)
    kernel = load_kernel(path.stem)
    assert table.kernel == kernel.name
    assert table.source_digest == kernel.source_digest, "the kernel changed: measure its winners again"
    assert table.environment.evidence is Evidence.MEASURED
    assert table.environment.device.replace(" ", "_") == path.parent.name
    assert all(row.shape == kernel.spec.shape(row.shape) for row in table.rows)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_published_table_has_a_portfolio_for_every_size_in_reach(path: Path) -> None:
    table = read_table(path)
    portfolio = table.portfolio
    assert portfolio is not None
    assert portfolio.regret <= portfolio.bound == REGRET_BOUND
    sizes = [row.shape.size(portfolio.dynamic) for row in table.rows]
    for size in range(1, int(max(sizes) * REACH) + 1):
        asked = Shape({**table.rows[0].shape, portfolio.dynamic: size})
        assert sum(bucket.holds(asked, portfolio.dynamic) for bucket in portfolio.buckets) == 1, size
