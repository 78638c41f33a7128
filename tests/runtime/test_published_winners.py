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
    largest: dict[Shape, int] = {}  # of each model
    for row in table.rows:
        fixed = Shape({name: value for name, value in row.shape.items() if name != portfolio.dynamic})
        largest[fixed] = max(largest.get(fixed, 0), row.shape.size(portfolio.dynamic))
    for fixed, size in largest.items():
        for asked in {1, 2, 3, *range(1, int(size * REACH) + 1, 7), int(size * REACH)}:
            shape = Shape({**fixed, portfolio.dynamic: asked})
            assert sum(bucket.holds(shape, portfolio.dynamic) for bucket in portfolio.buckets) == 1, shape.label
