"""Which stored winners are exported: of one device, of each shape the newest, in an environment that is true of all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import store_examples
from kernel_examples import SCALE_ROWS, scale_rows_variant

from tuner.catalog import Kernel, load_folder
from tuner.errors import UnknownNameError, UserError
from tuner.export import Format, export
from tuner.export.selection import evaluations_behind, export_table, left_out
from tuner.records import (
    DEFAULT_TARGET,
    Environment,
    Evaluation,
    Evidence,
    Shape,
    Status,
    Target,
    Timing,
    Winner,
)
from tuner.runtime import WinnerTable
from tuner.store import Store

ESTIMATED = Environment(DEFAULT_TARGET, Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "12.8")
MEASURED = replace(ESTIMATED, evidence=Evidence.MEASURED, device="NVIDIA H100", driver="590.10", l2="warm")
OLDER = replace(MEASURED, driver="580.65", triton="3.6.0", protocol=3)
H200 = replace(MEASURED, device="NVIDIA H200")


@pytest.fixture
def kernel() -> Kernel:
    return load_folder(SCALE_ROWS)


def winner(kernel: Kernel, rows: int, block_rows: int, environment: Environment = MEASURED) -> Winner:
    return replace(
        store_examples.winner(0),
        variant=scale_rows_variant(block_rows),
        baseline=kernel.spec.baseline_variant,
        shape=Shape(num_rows=rows, columns=128),
        environment=environment,
        source_digest=kernel.source_digest,
    )


def test_the_newest_measured_winner_of_each_shape_is_taken(kernel: Kernel) -> None:
    """Retuned at one shape under another driver, the others stay in; also where what is newest is an older version."""
    estimated, measured, small = (winner(kernel, *each) for each in ((64, 2, ESTIMATED), (64, 4), (8, 4)))
    older = [winner(kernel, rows, 1, OLDER) for rows in (64, 256)]
    stale = replace(measured, source_digest="0" * 16)
    table = export_table(kernel, [estimated, stale, measured, *older, small])
    assert table.rows == (small, measured, older[1])
    assert export_table(kernel, [*older, small, measured]).rows == (small, *older)
    assert export_table(kernel, [stale, estimated]).rows == (estimated,)
    with pytest.raises(UserError, match=r"No winners are stored for scale_rows \(1 belong to other sources"):
        export_table(kernel, [stale])


def test_the_environment_is_true_of_every_row(kernel: Kernel) -> None:
    """It has the versions of all rows, so that a lookup calls none of them current that may not be, also as a file."""
    assert export_table(kernel, [winner(kernel, 64, 4)]).environment == MEASURED
    mixed = export_table(kernel, [winner(kernel, 64, 4), winner(kernel, 8, 1, OLDER)])
    assert mixed.environment == replace(
        MEASURED, driver="580.65 or 590.10", triton="3.6.0 or 3.9.0", protocol=OLDER.protocol
    )
    assert [row.environment for row in mixed.rows] == [OLDER, MEASURED]
    assert len(mixed.environment.differences(MEASURED)) == 3
    (file,) = export(mixed, Format.JSON, kernel)
    read = WinnerTable.from_json(json.loads(file.text))
    assert {row.environment for row in read.rows} == {mixed.environment}


def test_of_several_devices_one_must_be_named(kernel: Kernel) -> None:
    here, there = winner(kernel, 64, 4), winner(kernel, 64, 2, H200)
    estimated, other = (
        winner(kernel, 8, 1, ESTIMATED),
        winner(kernel, 8, 1, replace(ESTIMATED, target=Target("cuda", "100"))),
    )
    with pytest.raises(UserError, match="several devices: NVIDIA H100, NVIDIA H200") as caught:
        export_table(kernel, [there, here, estimated])
    assert "--device" in caught.value.hint
    assert export_table(kernel, [there, here, estimated], "NVIDIA H100").rows == (here,)
    with pytest.raises(UnknownNameError, match="did you mean 'NVIDIA H200'"):
        export_table(kernel, [there, here], "NVIDIA H20")
    with pytest.raises(UserError, match="several devices: cuda:100, cuda:90"):
        export_table(kernel, [estimated, other])
    assert export_table(kernel, [here, estimated, other], "cuda:100").rows == (other,)


def test_what_is_left_out_is_counted(kernel: Kernel) -> None:
    taken, older = winner(kernel, 64, 4), winner(kernel, 64, 4, OLDER)
    assert left_out(export_table(kernel, [taken]), [taken]) == ""
    winners = [
        taken,
        older,
        winner(kernel, 8, 1, ESTIMATED),
        winner(kernel, 8, 1, H200),
        replace(older, source_digest="0"),
    ]
    assert left_out(export_table(kernel, winners, "NVIDIA H100"), winners) == (
        "1 older at its shapes, 1 estimated, 1 of NVIDIA H200, 1 of another source of the kernel"
    )


def test_each_row_is_held_against_the_evaluations_of_its_own_environment(kernel: Kernel, tmp_path: Path) -> None:
    """A time of another driver would be none of its equals; what was wrong stays wrong."""

    def evaluated(rows: int, block_rows: int, status: Status = Status.PASSED) -> Evaluation:
        timing = Timing(1.0, 1.0, 1.0, 1) if status is Status.PASSED else None
        return Evaluation(scale_rows_variant(block_rows), Shape(num_rows=rows, columns=128), status, timing=timing)

    with Store.open(tmp_path / "some.db") as store:
        for environment in (MEASURED, OLDER):
            run = store.start_run(kernel.name, kernel.source_digest, environment, 0, {})
            for each in (evaluated(8, 1), evaluated(64, 2), evaluated(512, 4, Status.WRONG_OUTPUT)):
                store.save(run, kernel.source_digest, environment, each)
        table = export_table(kernel, [winner(kernel, 64, 2), winner(kernel, 8, 1, OLDER)])
        found = evaluations_behind(table, store)
    wrong = evaluated(512, 4, Status.WRONG_OUTPUT)
    assert found == [evaluated(8, 1), wrong, evaluated(64, 2), wrong]
