"""`tuner prebuild`: a bundle that a server takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import triton
from cli_examples import BUNDLED, ROOT, Tuner

from tuner.catalog import load_kernel
from tuner.runtime.bundle import Bundle, read_bundle

KERNEL = load_kernel("rms_norm")
WORDS = ("prebuild", "rms_norm", "--shapes", "hidden_size=2048", "--max-num-tokens", "20")


@pytest.fixture(autouse=True)
def triton_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def bundle_in(folder: Path) -> Bundle:
    found = read_bundle(folder, KERNEL.name, KERNEL.source_digest, triton.__version__)
    assert isinstance(found, Bundle), found
    return found


def test_it_writes_a_bundle_and_says_what_it_holds(tuner: Tuner, tmp_path: Path) -> None:
    result = tuner(*WORDS, "-o", tmp_path / "bundles")
    assert (result.code, result.err) == (0, "")
    found = bundle_in(tmp_path / "bundles")
    lines = result.out.splitlines()
    assert len(lines) == len(found.binaries) + 2
    assert lines[-2].endswith(f"{len(found.binaries)} binaries")
    assert lines[-1].startswith(f"{tmp_path / 'bundles' / 'rms_norm'}: {len(found.binaries)} binaries, 0.0")
    assert str(found.target) == "cuda:90"
    assert [dict(fixed)["hidden_size"] for fixed in found.steps] == [2048]
    tuner(*WORDS, "--target", "cuda:80", "-o", tmp_path / "bundles")
    again = bundle_in(tmp_path / "bundles")
    assert str(again.target) == "cuda:80"
    assert again.binaries.keys() == found.binaries.keys()
    tuner(*WORDS, "--target", "cuda:80", "--strides", "x_row_stride=2050", "-o", tmp_path / "bundles")
    strided = bundle_in(tmp_path / "bundles")
    general = again.binaries.keys() & strided.binaries.keys()
    assert 0 < len(general) < len(strided.binaries)
    again = strided
    assert {path.name for path in (tmp_path / "bundles").iterdir()} == {"rms_norm"}
    assert {path.name for path in again.folder.iterdir()} == again.files.keys()


def test_it_takes_winners_from_a_table(tuner: Tuner, tuned: str, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    words = ("prebuild", BUNDLED, "--shapes", "num_heads=64 n_groups=4,8", "--max-num-tokens", "4", "--table", table)
    assert tuner(*words, "-o", tmp_path).code == 0
    manifest = json.loads((tmp_path / BUNDLED / "manifest.json").read_text())
    assert [plan["shape"]["n_groups"] for plan in manifest["plans"]] == [4, 8]
    first = [plan["steps"][0]["variant"]["parameters"].get("BLOCK_TOKENS") for plan in manifest["plans"]]
    assert first == [None, 2]  # 512 tokens are out of reach with 4 groups; with 8 there is a winner at 1


def test_shapes_are_by_default_those_of_the_space(tuner: Tuner, tmp_path: Path) -> None:
    assert tuner("prebuild", "rms_norm", "--max-num-tokens", "1", "-o", tmp_path).code == 0
    assert len(bundle_in(tmp_path).steps) > 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*WORDS, "--target", "cuda:70"), "Unknown target 'cuda:70'"),
        ((*WORDS, "--strides", "stride=3"), "Unknown argument of rms_norm 'stride'"),
        ((*WORDS, "--strides", "x_row_stride=wide"), "x_row_stride is 'wide'; expected a number of elements"),
        ((*WORDS, "--shapes", "num_tokens=3 hidden_size=2048"), "num_tokens is the dimension that changes"),
        ((*WORDS, "--shapes", "hidden=2048"), "did you mean 'hidden_size'?"),
        (("prebuild", str(ROOT / "tests/examples/scale_rows"), "--shapes", "columns=128"), "op.py is missing"),
    ],
)
def test_a_mistake_is_told(refused: Callable[..., str], words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    assert told in refused(*words, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_source_and_another_folder_are_refused(
    refused: Callable[..., str], tuner: Tuner, tuned: str, tmp_path: Path
) -> None:
    table = tmp_path / "table.json"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    assert f"is for {BUNDLED}" in refused(*WORDS, "--table", table, "-o", tmp_path)
    (tmp_path / "rms_norm").mkdir()
    (tmp_path / "rms_norm" / "notes.txt").write_text("mine")
    assert "is not empty and no bundle" in refused(*WORDS, "-o", tmp_path)
    assert (tmp_path / "rms_norm" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"shape": {"num_heads": 8, "n_groups": 4}}, "row 1 (num_heads=8,n_groups=4) is not of"),
        ({"implementation": "nope"}, "Unknown implementation 'nope'"),
        ({"parameters": {"BLOCK": 4}}, "has the parameters BLOCK; expected"),
    ],
)
def test_a_row_that_is_not_of_the_kernel_is_refused_before_anything_is_compiled(
    edit: dict[str, Any], told: str, refused: Callable[..., str], tuner: Tuner, tuned: str, tmp_path: Path
) -> None:
    table, out = tmp_path / "table.json", tmp_path / "out"
    tuner("export-config", BUNDLED, "--db", tuned, "-o", table)
    data = json.loads(table.read_text())
    data["portfolio"] = None
    data["rows"][1].update(edit)
    table.write_text(json.dumps(data))
    message = refused("prebuild", BUNDLED, "--shapes", "num_heads=64 n_groups=8", "--table", table, "-o", out)
    assert told in message
    assert str(table) in message
    assert not out.exists()
    assert not (tmp_path / "triton").exists()


def test_a_file_in_the_way_is_told(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "rms_norm").write_text("mine")
    assert "rms_norm cannot be written: Not a directory" in refused(*WORDS, "-o", tmp_path)
    assert (tmp_path / "rms_norm").read_text() == "mine"


def test_the_bundle_before_stays_where_the_new_one_cannot_come(
    refused: Callable[..., str], tuner: Tuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuner(*WORDS, "-o", tmp_path).code == 0
    before, rename = bundle_in(tmp_path), Path.rename

    def fail(path: Path, to: Path) -> Path:
        if path.name == "made":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    assert "No space left on device" in refused(*WORDS, "-o", tmp_path)
    assert bundle_in(tmp_path) == before
    assert [path.name for path in tmp_path.glob("*rms_norm*")] == ["rms_norm"]
