"""`tuner.lookup`: where its winners come from, and that stale ones never answer."""

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_examples
import torch
from kernel_examples import DOUBLED, SCALE_ROWS, copy_kernel, scale_rows_variant

import tuner
from tuner import api
from tuner.catalog import Kernel, load_folder, load_kernel
from tuner.errors import StoreError, TableError, UnknownNameError, UserError
from tuner.records import (
    DEFAULT_TARGET,
    PROTOCOL_VERSION,
    Bucket,
    Environment,
    Evidence,
    FrozenMapping,
    Portfolio,
    Shape,
    Winner,
)
from tuner.runtime import Origin, WinnerTable
from tuner.store import Store

ESTIMATED = Environment(DEFAULT_TARGET, Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "12.8")
MEASURED = dataclasses.replace(ESTIMATED, evidence=Evidence.MEASURED, device="NVIDIA H100", l2="warm")
OLDER = dataclasses.replace(MEASURED, triton="3.6.0")


@pytest.fixture
def kernel() -> Kernel:
    return load_folder(SCALE_ROWS)


@pytest.fixture(autouse=True)
def nothing_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`scale_rows` by name, no GPU, neither a table, a store nor a published winner, and the versions of ESTIMATED."""

    def installed(like: Environment) -> Environment:
        versions = {name: getattr(ESTIMATED, name) for name in ("torch", "triton", "protocol")}
        return dataclasses.replace(like, **versions)

    monkeypatch.setenv("TUNER_KERNEL_PATH", str(SCALE_ROWS.parent))
    monkeypatch.setenv("TUNER_DB", f"sqlite:///{tmp_path / 'none.db'}")
    monkeypatch.delenv("TUNER_TABLE", raising=False)
    monkeypatch.setattr(api, "content_root", lambda: tmp_path / "content")
    monkeypatch.setattr(api, "this_device", lambda: ("", DEFAULT_TARGET))
    monkeypatch.setattr(api, "installed_environment", installed)
    forget()
    yield
    forget()


def forget() -> None:
    """Tables are read once per process, and answers are kept."""
    for kept in (api._read_tables, api._known, api._answer, api._differences):
        kept.cache_clear()


def winner(kernel: Kernel, rows: int, block_rows: int, environment: Environment = ESTIMATED) -> Winner:
    return dataclasses.replace(
        store_examples.winner(0),
        variant=scale_rows_variant(block_rows),
        baseline=kernel.spec.baseline_variant,
        shape=Shape(num_rows=rows, columns=128),
        environment=environment,
        source_digest=kernel.source_digest,
    )


def publish(tmp_path: Path, device: str, *winners: Winner) -> Path:
    path = tmp_path / "content" / "db" / "winners" / device / f"{winners[0].variant.kernel}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = winners[0]
    table = WinnerTable(first.variant.kernel, first.source_digest, first.environment, winners)
    path.write_text(json.dumps(table.to_json()))
    return path


def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *winners: Winner) -> None:
    url = f"sqlite:///{tmp_path / 'some.db'}"
    monkeypatch.setenv("TUNER_DB", url)
    with Store.open(url) as opened:
        opened.save_winners(winners)


def set_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *winners: Winner) -> None:
    monkeypatch.setenv("TUNER_TABLE", str(publish(tmp_path, "file", *winners)))


def chosen(rows: int) -> tuple[int, Origin]:
    found = tuner.lookup("scale_rows", num_rows=rows)
    return found.config.parameters["BLOCK_ROWS"], found.origin


Source = Callable[..., None]


def publish_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *winners: Winner) -> None:
    publish(tmp_path, "H100", *winners)


SOURCES = [set_table, store, publish_only]


def test_with_nothing_tuned_the_baseline_answers_and_nothing_is_created(kernel: Kernel, tmp_path: Path) -> None:
    found = tuner.lookup("scale_rows", num_rows=7)
    assert found.variant == kernel.spec.baseline_variant
    assert (found.origin, found.winner, found.evidence) == (Origin.BASELINE, None, None)
    assert found.shape == Shape(num_rows=7, columns=128)
    assert "no winner of this source for cuda:90 covers num_rows=7,columns=128" in found.explanation
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_answers(source: Source, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path, monkeypatch, winner(kernel, 64, 4), winner(kernel, 8, 2))
    found = tuner.lookup("scale_rows", num_rows=64)
    assert found.variant == scale_rows_variant(4)
    assert found.specialization == found.variant.specialization
    assert found.evidence is Evidence.ESTIMATED
    assert found.explanation == "tuned at this very shape, estimated for cuda:90"
    assert found.stale == ()
    assert chosen(9) == (2, Origin.BUCKET)
    assert "num_rows=8" in tuner.lookup("scale_rows", num_rows=9).explanation
    assert chosen(1000) == (1, Origin.BASELINE)
    assert tuner.lookup("scale_rows", num_rows=64, columns=256).origin is Origin.BASELINE


@pytest.mark.parametrize("source", [store, publish_only])
def test_winners_of_other_sources_of_the_kernel_never_answer(
    source: Source, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = dataclasses.replace(winner(kernel, 64, 4), source_digest="0" * 16)
    source(tmp_path, monkeypatch, stale)
    assert chosen(64) == (1, Origin.BASELINE)


def test_an_edited_kernel_makes_its_winners_stale(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, winner(kernel, 64, 4))
    edited = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": (DOUBLED, "x * 3")}))
    assert len(api.winner_tables(kernel)) == 1
    assert api.winner_tables(edited) == ()
    set_table(tmp_path, monkeypatch, winner(kernel, 64, 4))  # named by hand, so that it is an error
    api._read_tables.cache_clear()
    with pytest.raises(TableError, match=r"scale_rows\.json is for another source of scale_rows") as caught:
        api.winner_tables(edited)
    assert "unset TUNER_TABLE" in caught.value.hint


def test_a_table_of_another_kernel_does_not_answer(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(scale_rows_variant(4), kernel="other")
    set_table(tmp_path, monkeypatch, dataclasses.replace(winner(kernel, 64, 4), variant=other))
    assert chosen(64) == (1, Origin.BASELINE)


def test_a_table_replaces_store_and_published_winners(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, winner(kernel, 64, 2), winner(kernel, 8, 2))
    set_table(tmp_path, monkeypatch, winner(kernel, 64, 4))
    assert chosen(64) == (4, Origin.EXACT)
    assert chosen(8) == (1, Origin.BASELINE)


def test_the_store_comes_before_published_winners_but_no_estimate_before_a_measurement(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, winner(kernel, 64, 2), winner(kernel, 8, 2))
    publish(tmp_path, "cuda_90", winner(kernel, 64, 4))
    publish(tmp_path, "H100", winner(kernel, 8, 4, MEASURED))
    assert chosen(64) == (2, Origin.EXACT)
    assert chosen(8) == (4, Origin.FAMILY)
    monkeypatch.setattr(api, "this_device", lambda: (MEASURED.device, DEFAULT_TARGET))
    forget()
    assert chosen(8) == (4, Origin.EXACT)
    assert tuner.lookup("scale_rows", num_rows=8).explanation == "tuned at this very shape, measured on NVIDIA H100"


@pytest.mark.parametrize("source", SOURCES)
def test_winners_of_other_versions_answer_and_say_so(
    source: Source, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also published ones, which were measured elsewhere."""
    monkeypatch.setattr(api, "this_device", lambda: (MEASURED.device, DEFAULT_TARGET))
    older = dataclasses.replace(OLDER, protocol=PROTOCOL_VERSION + 1)
    source(tmp_path, monkeypatch, winner(kernel, 64, 4, older))
    found = tuner.lookup("scale_rows", num_rows=64)
    assert (found.origin, found.variant) == (Origin.EXACT, scale_rows_variant(4))
    protocols = f"timing protocol {PROTOCOL_VERSION + 1}, here {PROTOCOL_VERSION}"
    assert found.stale == ("triton 3.6.0, here 3.9.0", protocols)
    assert found.explanation == "tuned at this very shape, measured on NVIDIA H100, with other versions than here"
    assert tuner.lookup("scale_rows", num_rows=9).stale == (), "the baseline is of no version"


def test_among_equals_a_winner_of_the_versions_here_answers(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not be the newest, nor in the store, nor of this very shape; device and evidence come before versions."""
    monkeypatch.setattr(api, "this_device", lambda: (MEASURED.device, DEFAULT_TARGET))
    store(
        tmp_path,
        monkeypatch,
        *(winner(kernel, 64, 4, where) for where in (MEASURED, OLDER)),
        *(winner(kernel, rows, 2, OLDER) for rows in (8, 1024)),
        winner(kernel, 4096, 4, dataclasses.replace(MEASURED, device="NVIDIA H200")),
        winner(kernel, 4096, 4, ESTIMATED),
        winner(kernel, 4096, 2, OLDER),
    )
    publish(tmp_path, "H100", winner(kernel, 8, 4, MEASURED), winner(kernel, 1000, 4, MEASURED))
    for rows, stale in ((64, False), (70, False), (8, False), (9, False), (1024, False), (4096, True)):
        found = tuner.lookup("scale_rows", num_rows=rows)
        assert found.winner is not None
        assert (found.winner.environment == OLDER) == stale == bool(found.stale), rows


def test_a_lookup_stays_light(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel's spec does; it compares with the versions here all the same."""
    edit = ("import torch\nfrom torch import Tensor\n", "from typing import Any as Tensor\n")
    light = load_folder(copy_kernel(SCALE_ROWS, tmp_path / "light", {"spec.py": edit}))
    old = winner(kernel, 64, 4, dataclasses.replace(MEASURED, triton="2.0.0"))
    set_table(tmp_path, monkeypatch, dataclasses.replace(old, source_digest=light.source_digest))
    script = """if True:
        import sys, tuner
        answer = tuner.lookup("scale_rows", num_rows=64)
        print(answer.origin, *[each for each in answer.stale if each.startswith("triton 2.0.0, here 3.")])
        print([name for name in ("torch", "triton", "optuna", "sqlalchemy") if name in sys.modules])
    """
    environment = {**os.environ, "TUNER_KERNEL_PATH": str(tmp_path / "light")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    answer, loaded = done.stdout.splitlines()
    assert answer.startswith("family triton 2.0.0, here 3.")
    assert loaded == "[]"


def test_the_table_is_read_once(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_table(tmp_path, monkeypatch, winner(kernel, 64, 4))
    assert chosen(64) == (4, Origin.EXACT)
    set_table(tmp_path, monkeypatch, winner(kernel, 64, 2))
    assert chosen(64) == (4, Origin.EXACT)


def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_TABLE", str(tmp_path / "missing.json"))
    with pytest.raises(TableError, match=r"missing\.json"):
        tuner.lookup("scale_rows", num_rows=64)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda data: data["rows"][0]["shape"].pop("num_rows"), r"row 0 \(columns=128\) is .*'num_rows' has no value"),
        (lambda data: data["rows"][0]["shape"].update(num_rows="many"), "'num_rows' is 'many'; expected an integer"),
        (lambda data: data["rows"][0]["shape"].update(num_rows=-5), "'num_rows' is -5"),
        (lambda data: data["rows"][0]["shape"].pop("columns"), "expected num_rows=64,columns=128"),
        (lambda data: data["rows"][0]["shape"].update(words=1), "Unknown dimension of scale_rows 'words'"),
        (lambda data: data["rows"][1].update(implementation="nope"), r"row 1 .*Unknown implementation 'nope'"),
        (lambda data: data["rows"][0].update(parameters={"WHAT": 3}), "has the parameters WHAT; expected BLOCK_ROWS"),
        (lambda data: data["rows"][0]["do_not_specialize"].append("no"), "Unknown argument of .* 'no'"),
        (lambda data: data["rows"][0]["do_not_specialize_on_alignment"].append("no"), "Unknown argument of .* 'no'"),
        (lambda data: data["portfolio"]["buckets"][1].update(fixed={}), r"bucket 1 .*expected num_rows=65,columns=128"),
        (lambda data: data["portfolio"]["variants"][0].update(parameters={}), "bucket 0 .*has the parameters none"),
        (
            lambda data: data["rows"].clear() or data["portfolio"].update(dynamic="columns"),
            "its buckets are of 'columns'",
        ),
    ],
)
def test_a_table_with_a_row_that_is_not_of_the_kernel_is_an_error(
    edit: Callable[[Any], None], told: str, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = winner(kernel, 64, 4), winner(kernel, 8, 2)
    set_table(tmp_path, monkeypatch, *rows)
    path = tmp_path / "content" / "db" / "winners" / "file" / "scale_rows.json"
    fixed = FrozenMapping[int | str](columns=128)
    buckets = Bucket(fixed, 1, 64, scale_rows_variant(4)), Bucket(fixed, 65, None, scale_rows_variant(2))
    portfolio = Portfolio("num_rows", buckets, 2, 0.0, 0.01)
    table = WinnerTable(kernel.name, kernel.source_digest, ESTIMATED, rows, portfolio)
    data = table.to_json()
    path.write_text(json.dumps(data))
    assert api.winner_tables(kernel)[0].portfolio == portfolio
    forget()
    edit(data)
    if "bucket" not in told:
        data["portfolio"] = None
    path.write_text(json.dumps(data))
    with pytest.raises(TableError, match=told) as caught:
        tuner.lookup("scale_rows", num_rows=64)
    assert caught.value.message.startswith(f"{path}: ")


def test_wrong_names_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'scale_rows'"):
        tuner.lookup("scale_row", num_rows=64)
    with pytest.raises(UnknownNameError, match="did you mean 'num_rows'"):
        tuner.lookup("scale_rows", num_row=64)
    with pytest.raises(UserError, match="'num_rows' has no value"):
        tuner.lookup("scale_rows")


def test_a_spec_may_hold_plain_mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": ("    flops=flops,", "    flops=flops,\n    tolerances={},")})
    monkeypatch.setenv("TUNER_KERNEL_PATH", str(tmp_path))
    assert load_kernel("scale_rows").spec.tolerances == {}
    assert chosen(64) == (1, Origin.BASELINE)


def test_an_answer_is_kept_and_errors_are_not(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, winner(kernel, 64, 4))
    first = tuner.lookup("scale_rows", num_rows=64)
    with monkeypatch.context() as broken:
        broken.setattr(api, "look_up", None)
        assert tuner.lookup("scale_rows", num_rows=64) is first
        with pytest.raises(TypeError):
            tuner.lookup("scale_rows", num_rows=65)
    for _ in range(2):
        with pytest.raises(UnknownNameError, match="did you mean 'num_rows'"):
            tuner.lookup("scale_rows", num_row=64)


@pytest.mark.parametrize("value", [512.0, 512.5, torch.tensor(512.0), torch.tensor(512), -1])
def test_what_is_no_size_is_told_whatever_was_asked_before(value: Any, kernel: Kernel) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"'num_rows' is .*; expected an integer >= 0"):
            tuner.lookup("scale_rows", num_rows=value)
        with pytest.raises(UserError, match="'num_rows' is"):
            tuner.explain("scale_rows", num_rows=value)
        tuner.lookup("scale_rows", num_rows=512)


@pytest.mark.parametrize("number", [1, True, np.int64(1), np.uint8(1)])
def test_whole_numbers_of_any_type_are_sizes(number: Any, kernel: Kernel) -> None:
    for found in (tuner.lookup("scale_rows", num_rows=number), tuner.explain("scale_rows", num_rows=number).answer):
        assert found.shape == Shape(num_rows=1, columns=128)
        assert type(found.shape["num_rows"]) is int
    choice = {"num_heads": 64, "n_groups": 8, "tma_aligned_scales": number}
    assert tuner.lookup("fused_inv_rope_fp8_quant", num_tokens=5, **choice).shape["tma_aligned_scales"] == 1


def test_an_error_within_is_told_as_it_is(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the lookup that ended in it is not made again."""
    asked = []

    def broken(*given: Any) -> None:
        asked.append(given)
        raise TypeError("within")

    monkeypatch.setattr(api, "look_up", broken)
    with pytest.raises(TypeError, match="within"):
        tuner.lookup("scale_rows", num_rows=64)
    assert len(asked) == 1


def old_store(tmp_path: Path, revision: str = "0001") -> str:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as opened:
        opened.executescript((Path(__file__).parents[1] / "schemas" / "0001.sql").read_text())
        opened.execute("UPDATE tuner_alembic_version SET version_num = ?", [revision])
    opened.close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("revision", "told"), [("0001", "Make it writable and run `tuner run`"), ("9", "upgrade tuner")]
)
def test_a_store_of_another_schema_leaves_the_published_winners(
    revision: str, told: str, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    publish(tmp_path, "H100", winner(kernel, 64, 4))
    url = old_store(tmp_path, revision)
    monkeypatch.setenv("TUNER_DB", url)
    assert [chosen(rows) for rows in (64, 65)] == [(4, Origin.EXACT), (4, Origin.BUCKET)]
    (record,) = caplog.records
    assert "old.db" in record.getMessage()
    assert "scale_rows has the published winners alone" in record.getMessage()
    assert told in record.getMessage()
    with pytest.raises(StoreError):  # asked for by name
        api.winner_tables(kernel, url)
    forget()
    monkeypatch.setenv("TUNER_STRICT", "1")
    with pytest.raises(StoreError, match="has schema"):
        tuner.lookup("scale_rows", num_rows=64)


def test_a_store_that_cannot_be_read_is_an_error(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank may have read it."""
    publish(tmp_path, "H100", winner(kernel, 64, 4))
    (tmp_path / "no.db").write_text("no database" * 100)
    monkeypatch.setenv("TUNER_DB", f"sqlite:///{tmp_path / 'no.db'}")
    with pytest.raises(StoreError, match="not a database"):
        tuner.lookup("scale_rows", num_rows=64)


def test_a_new_shape_waits_for_no_file(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, winner(kernel, 64, 4), winner(kernel, 8, 2))
    assert chosen(64) == (4, Origin.EXACT)

    def no_file(path: Path, *_: Any) -> None:
        raise AssertionError(path)

    with monkeypatch.context() as without_files:
        for name in ("stat", "open", "iterdir", "resolve"):
            without_files.setattr(Path, name, no_file)
        found = [chosen(rows) for rows in (8, 60, 1000)]
    assert found == [(2, Origin.EXACT), (4, Origin.BUCKET), (1, Origin.BASELINE)]


def test_strict_lookups_need_a_winner(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, winner(kernel, 64, 4))
    monkeypatch.setenv("TUNER_STRICT", "1")
    assert tuner.lookup("scale_rows", num_rows=64).origin is Origin.EXACT
    with pytest.raises(UserError, match=r"scale_rows has no winner at num_rows=9000.* for cuda:90") as caught:
        tuner.lookup("scale_rows", num_rows=9000)
    assert "tuner run scale_rows" in caught.value.hint
    monkeypatch.setenv("TUNER_STRICT", "0")
    assert tuner.lookup("scale_rows", num_rows=9000).origin is Origin.BASELINE


def test_an_explanation_names_what_was_considered(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tuner.explain("scale_rows", num_rows=3)
    assert nothing.answer == tuner.lookup("scale_rows", num_rows=3)
    assert str(nothing).splitlines()[-1] == "considered  no table: there are no winners"
    forget()
    store(tmp_path, monkeypatch, winner(kernel, 64, 4), winner(kernel, 8, 2), winner(kernel, 8, 2, OLDER))
    found = tuner.explain("scale_rows", num_rows=9)
    assert found.answer == tuner.lookup("scale_rows", num_rows=9)
    assert [each.sizes for each in found.considered] == [(8, 64), (8,)]
    lines = str(found).splitlines()
    assert lines[0].startswith("scale_rows at num_rows=9")
    assert lines[1].startswith(f"runs        {found.answer.config.label}; do_not_specialize: ")
    assert lines[2] == f"because     {found.answer.origin}: {found.answer.explanation}"
    assert lines[3] == "here        no GPU, or torch is not loaded, cuda:90"
    assert "winners at 8, 64" in lines[4]
    assert "NVIDIA H100" in lines[5]
    assert "no winner with these" in str(tuner.explain("scale_rows", num_rows=9, columns=512))
