"""`tuner import`: what was exported comes back into a store."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_examples import BUNDLED, ESTIMATED, Tuner, chosen

from tuner.catalog import load_kernel
from tuner.store import Store


@pytest.mark.parametrize(("form", "suffix"), [("json", "json"), ("yaml", "yaml")])
def test_an_export_of_an_import_is_the_same_file(
    form: str, suffix: str, tuner: Tuner, tuned: str, tmp_path: Path
) -> None:
    table, url = tmp_path / f"winners.{suffix}", f"sqlite:///{tmp_path / 'new.db'}"
    assert tuner("export-config", BUNDLED, "--format", form, "--db", tuned, "-o", table).code == 0
    result = tuner("import", table, "--db", url)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"3 winners of {BUNDLED}, cuda:90 (estimated), torch 2.13.0, triton 3.9.0\n"
    assert tuner("export-config", BUNDLED, "--format", form, "--db", url).out == table.read_text()
    with Store.open(tuned) as before, Store.open(url) as after:
        assert after.winners(BUNDLED) == before.winners(BUNDLED)


def test_a_later_import_replaces_winners_at_the_same_shapes(tuner: Tuner, tuned: str, tmp_path: Path) -> None:
    table, url = tmp_path / "winners.json", f"sqlite:///{tmp_path / 'new.db'}"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    tuner("import", table, "--db", url)
    data = json.loads(table.read_text())
    data["rows"] = data["rows"][:1]
    data["rows"][0]["reason"] = "another run"
    data["portfolio"] = None
    table.write_text(json.dumps(data))
    tuner("import", table, "--db", url)
    with Store.open(url) as store:
        assert sorted(each.reason for each in store.winners(BUNDLED)) == [
            "another run",
            "best estimate",
            "best estimate",
        ]


def test_an_import_of_ones_own_export_changes_nothing(tuner: Tuner, tuned: str, tmp_path: Path) -> None:
    """What a run found stays with its samples, also where its table has rows of several versions."""
    table, kernel = tmp_path / "winners.json", load_kernel(BUNDLED)
    shape = kernel.spec.shape({"num_tokens": 1, "num_heads": 64, "n_groups": 8})
    newer = chosen(kernel, shape, 2.0, replace(ESTIMATED, ptxas="13.9"))
    with Store.open(tuned) as store:
        store.save_winners([replace(newer, timing=replace(newer.timing, samples_us=(2.0,)))])
        tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
        before = store.winners()
        result = tuner("import", table, "--db", tuned)
        assert result.out.splitlines() == [
            f"0 winners of {BUNDLED}, {ESTIMATED.label}",
            "3 others in the table were left: the store has them, or has better founded ones.",
        ]
        assert store.winners() == before


def test_winners_of_another_source_are_stored_and_it_is_said(tuner: Tuner, tuned: str, tmp_path: Path) -> None:
    table = tmp_path / "winners.json"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    data = json.loads(table.read_text())
    table.write_text(json.dumps({**data, "source_digest": "0" * 16}))
    out = tuner("import", table, "--db", f"sqlite:///{tmp_path / 'new.db'}").out
    assert "of source 0000000000000000, not of the one here" in out


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.json", None, "none.json cannot be read"),
        ("none.yaml", None, "none.yaml cannot be read"),
        ("words.json", "words", "words.json cannot be read"),
        ("list.yaml", "[1, 2", "list.yaml cannot be read"),
        ("list.yml", "- 1", "list.yml: This is no winner table"),
        ("newer.json", '{"schema": 99}', "has schema 99"),
    ],
)
def test_what_is_no_table_is_refused_and_nothing_is_stored(
    name: str, text: str | None, told: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert told in refused("import", tmp_path / name, "--db", f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"shape": {"num_heads": 8, "n_groups": 4}}, "row 1 (num_heads=8,n_groups=4) is not of"),
        ({"implementation": "nope"}, "Unknown implementation 'nope'"),
    ],
)
def test_a_row_that_is_not_of_the_kernel_is_refused_and_nothing_is_stored(
    edit: dict[str, Any], told: str, tuner: Tuner, refused: Callable[..., str], tuned: str, tmp_path: Path
) -> None:
    table = tmp_path / "winners.json"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    data = json.loads(table.read_text())
    data["portfolio"] = None
    data["rows"][1].update(edit)
    table.write_text(json.dumps(data))
    assert told in refused("import", table, "--db", f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()


def test_a_kernel_that_cannot_be_loaded_is_told_before_anything_is_stored(
    tuner: Tuner, refused: Callable[..., str], tuned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, folder = tmp_path / "winners.json", tmp_path / "kernels" / BUNDLED
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    folder.mkdir(parents=True)
    (folder / "spec.py").write_text("1 / 0\n")
    monkeypatch.setenv("TUNER_KERNEL_PATH", str(folder.parent))
    assert "ZeroDivisionError" in refused("import", table, "--db", f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()


def test_an_imported_table_is_exported_as_a_module(tuner: Tuner, tuned: str, tmp_path: Path) -> None:
    table, url = tmp_path / "winners.json", f"sqlite:///{tmp_path / 'new.db'}"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    tuner("import", table, "--db", url)
    result = tuner("export-config", BUNDLED, "--format", "python", "--db", url, "-o", tmp_path / "ops")
    assert (result.code, result.out) == (0, f"{tmp_path / 'ops' / BUNDLED}.py\n")
    text = (tmp_path / "ops" / f"{BUNDLED}.py").read_text()
    assert f"\ndef {BUNDLED}(\n    o: Tensor," in text
    assert text.count("Tuned(\n") == 2  # 4 groups and 8
