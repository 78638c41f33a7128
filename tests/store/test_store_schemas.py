"""Every released schema: its revision is known, and a store that was saved with it opens and reads.

`tests/schemas/<revision>.sql` is the text dump of a small store that the release with that schema wrote.
"""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from tuner.catalog.content import content_root
from tuner.errors import StoreError
from tuner.records import (
    Agreement,
    Binary,
    Conditions,
    Config,
    Environment,
    Evaluation,
    Evidence,
    FrozenMapping,
    Shape,
    SpecializationSet,
    Speedup,
    Status,
    Target,
    Timing,
    Variant,
    Winner,
)
from tuner.store import Store
from tuner.store.migrate import HEAD, REVISIONS

SCHEMAS = Path(__file__).parents[1] / "schemas"

ENVIRONMENT = Environment(
    Target("cuda", "90"), Evidence.MEASURED, "NVIDIA H100", "2.13.0", "3.6.0", "580.65", "12.8", "cold", 1
)
WIDE = Variant(
    "scale",
    Config("rows", FrozenMapping(BLOCK=64), FrozenMapping(num_warps=4, num_stages=2)),
    SpecializationSet.of(["num_tokens"], ["stride"]),
)
NARROW = Variant("scale", Config("rows", FrozenMapping(BLOCK=16), FrozenMapping(num_warps=8)))
SHAPE = Shape(num_tokens=64, hidden=4096, dtype="bf16")
CODE = Binary("c0de", "*bf16:16", 40, 2, 16384, 900, FrozenMapping({"16": 4}), FrozenMapping({"1": 2}), 0.25)
TIME = Timing(10.1, 10.0, 10.4, 3, (10.0, 10.1, 10.4))
PASSED = Evaluation(WIDE, SHAPE, Status.PASSED, "fine", CODE, Agreement(4096, 0, 3, "close"), TIME)
FAILED = Evaluation(NARROW, SHAPE, Status.COMPILE_ERROR, "line 1\nline 2")
EVALUATIONS = {
    "0001": [PASSED, FAILED],
    "0002": [replace(PASSED, conditions=Conditions(1755, 61, ("sw power cap",))), FAILED],
}
WINNER = Winner(WIDE, NARROW, SHAPE, ENVIRONMENT, "s0", TIME, TIME, Speedup(1.2, 1.1, 1.3), 3, "faster")


def restore(revision: str, path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript((SCHEMAS / f"{revision}.sql").read_text())
    connection.close()


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory(str(content_root() / "db" / "migrations"))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_current_head() == HEAD


def test_every_released_schema_has_a_saved_store() -> None:
    assert sorted(path.stem for path in SCHEMAS.glob("*.sql")) == sorted(REVISIONS)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_saved_store_opens_and_reads(revision: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    restore(revision, path)
    with Store.open(path) as store:
        assert store.evaluations("scale", "s0", ENVIRONMENT) == EVALUATIONS[revision]
        assert store.winners() == [WINNER]
        run = store.runs()[0]
        assert (run.kernel, run.seed, run.arguments, run.evaluations) == ("scale", 7, {"budget": 2}, 2)
        assert run.finished_at is not None
        assert store.others(run.id) == 0
        assert store.claim(run.id, "in flight")  # 0002 holds a claim of a run that was killed
        store.save(run.id, "s0", ENVIRONMENT, Evaluation(WIDE, Shape(num_tokens=1), Status.CRASHED))
        assert len(store.evaluations("scale", "s0", ENVIRONMENT)) == 3


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_reader_refuses_an_older_schema_and_a_writer_brings_it_up_to_date(revision: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    restore(revision, path)
    with pytest.raises(StoreError, match=rf"schema '{revision}'.*reads schema '{HEAD}'"):
        Store.open(path, read_only=True)
    Store.open(path).close()
    with Store.open(path, read_only=True) as store:
        assert store.evaluations("scale", "s0", ENVIRONMENT) == EVALUATIONS[revision]


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tuner_winner (mine TEXT)")
    with pytest.raises(StoreError, match="tuner_winner already exists"):
        Store.open(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("tuner_winner",)]
