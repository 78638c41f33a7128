"""What each command answers when all is well."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_examples import BUNDLED, ESTIMATED, EXAMPLE, ROOT, Tuner, chosen

from tuner.catalog import load_folder
from tuner.records import DEFAULT_TARGET, Shape, Target
from tuner.runtime import WinnerTable, read_table
from tuner.store import Store

COMMANDS = (
    *("run", "show", "lookup", "export-config", "import", "emit", "kernels", "specialize", "replay", "prebuild"),
    *("workload", "doctor"),
)
EMIT = ("emit", EXAMPLE, "--set", "BLOCK_ROWS=4", "--set", "num_warps=2", "--do-not-specialize", "num_rows")


def plain(text: str) -> bool:
    """Whether the text holds no control characters but line ends."""
    return all(char.isprintable() or char == "\n" for char in text)


# Help.


def test_the_first_words_say_what_it_is_for_and_how_to_start(tuner: Tuner) -> None:
    result = tuner("--help")
    assert result.code == 0
    assert "tuner doctor" in result.out
    assert f"tuner run {BUNDLED}" in result.out
    assert all(f" {name} " in result.out for name in COMMANDS)
    assert tuner().code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_the_command_and_its_options(tuner: Tuner, command: str) -> None:
    result = tuner(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert plain(result.out)
    assert f"tuner {command}" in result.out
    options = [line for line in result.out.splitlines() if "  --" in line or "│ --" in line]
    assert all(line.strip("│ ").count(" ") > 3 for line in options), "an option without a description"


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("run", ['--shapes "num_tokens=1,512 num_heads=64 n_groups=8"', "cuda:90", "goes on where it was"]),
        ("lookup", ["num_tokens=512 num_heads=64 n_groups=8", "exact", "bucket", "baseline"]),
        ("export-config", ["--format vllm -o configs/", "> winners.json"]),
        ("emit", ["tuner emit fused_inv_rope_fp8_quant --set BLOCK_TOKENS=4"]),
    ],
)
def test_help_shows_examples_that_can_be_copied(tuner: Tuner, command: str, taught: list[str]) -> None:
    text = tuner(command, "--help").out
    assert "Example" in text
    assert all(each in text for each in taught)


def test_the_example_of_emit_works(tuner: Tuner) -> None:
    lines = [line.strip(" \\") for line in tuner("emit", "--help").out.splitlines()]
    start = lines.index("Example:") + 2
    words = shlex.split(" ".join(lines[start : lines.index("", start)]))
    assert words[0] == "tuner"
    result = tuner(*words[1:])
    assert (result.code, result.err) == (0, "")


# Kernels.


def test_kernels_lists_names_dimensions_and_folders(tuner: Tuner) -> None:
    result = tuner("kernels")
    assert (result.code, result.err) == (0, "")
    assert f"{BUNDLED}  Inverse RoPE" in result.out
    assert "num_tokens, num_heads, n_groups, tma_aligned_scales=0" in result.out
    assert plain(result.out)


def test_kernels_of_the_users_own_folders_come_first(
    tuner: Tuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "scale_rows"
    shutil.copytree(EXAMPLE, own)
    monkeypatch.setenv("TUNER_KERNEL_PATH", f"{own.parent}:/nowhere")
    listed = json.loads(tuner("kernels", "--json").out)
    assert [each["name"] for each in listed][:2] == ["scale_rows", BUNDLED]
    assert listed[0] == {
        "name": "scale_rows",
        "summary": "Doubles a bf16 matrix.",
        "folder": str(own),
        "space": str(own / "space.yaml"),
        "dimensions": ["num_rows", "columns"],
        "implementations": ["rows"],
    }
    assert tuner("emit", "scale_rows", "--set", "BLOCK_ROWS=1").code == 0


# Emit.


def test_emit_prints_the_same_bytes_each_time_and_to_a_file(tuner: Tuner, tmp_path: Path) -> None:
    first = tuner(*EMIT)
    assert (first.code, first.err) == (0, "")
    assert tuner(*EMIT).out == first.out
    file = tmp_path / "variant.py"
    assert tuner(*EMIT, "-o", file).out == ""
    assert file.read_bytes() == first.out.encode()
    assert '@triton.jit(do_not_specialize=["num_rows"])' in first.out
    assert "BLOCK_ROWS = tl.constexpr(4)" in first.out
    assert 'COMPILE_OPTIONS = {"num_warps": 2}' in first.out
    compile(first.out, "variant.py", "exec")


def test_emit_takes_the_implementation_and_alignment_marks(tuner: Tuner) -> None:
    words = ("--implementation", "per_head", "--do-not-specialize-on-alignment", "num_tokens, o_stride_token")
    result = tuner("emit", BUNDLED, *words)
    assert result.code == 0
    assert 'do_not_specialize_on_alignment=["num_tokens", "o_stride_token"]' in result.out


# Doctor.


@pytest.mark.triton
def test_doctor_finds_this_machine_fit(tuner: Tuner) -> None:
    result = tuner("doctor", "--json")
    found = {each["name"]: each for each in json.loads(result.out)}
    assert result.code == 0
    assert {"tuner", "python", "triton", "torch", "device", "kernels", "cache", "store"} <= set(found)
    assert all(each["ok"] for each in found.values())
    assert "the first run creates it" in found["store"]["found"]
    assert BUNDLED in found["kernels"]["found"]


def test_doctor_counts_what_the_store_holds(tuner: Tuner, tuned: str) -> None:
    result = tuner("doctor", "--db", tuned)
    assert result.code == 0
    assert f"{tuned.removeprefix('sqlite:///')}: 1 runs, 5 winners" in result.out
    assert plain(result.out)


def test_doctor_says_what_is_missing_and_what_to_do(
    tuner: Tuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.db").write_text("my notes\n" * 1000)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "file"))
    result = tuner("doctor", "--db", f"sqlite:///{tmp_path}/notes.db", "--json")
    assert result.code == 1
    broken = {each["name"]: each for each in json.loads(result.out) if not each["ok"]}
    assert set(broken) == {"cache", "store"}
    assert "TUNER_CACHE" in broken["cache"]["todo"]
    assert "not a database" in broken["store"]["found"]
    assert all(each["todo"] for each in broken.values())
    text = tuner("doctor", "--db", f"sqlite:///{tmp_path}/notes.db")
    assert text.code == 1
    assert text.out.count("missing") == 2


# Lookup.


@pytest.mark.parametrize(
    ("rows", "origin", "tuned_rows", "warps"),
    [(3, "exact", 3, 2), (100, "bucket", 64, 2), (10**6, "baseline", None, 1)],
)
def test_lookup_says_which_variant_and_why(
    tuner: Tuner, tuned: str, rows: int, origin: str, tuned_rows: int | None, warps: int
) -> None:
    words = ("lookup", EXAMPLE, f"num_rows={rows}", "--db", tuned)
    answer = json.loads(tuner(*words, "--json").out)
    assert (answer["origin"], answer["options"]) == (origin, {"num_warps": warps})
    assert answer["shape"] == {"num_rows": rows, "columns": 128}
    assert answer["tuned_shape"] == (tuned_rows and {"num_rows": tuned_rows, "columns": 128})
    assert answer["evidence"] == (tuned_rows and "estimated")
    assert answer["do_not_specialize"] == (["num_rows"] if tuned_rows else [])
    text = tuner(*words)
    assert (text.code, text.err) == (0, "")
    assert f"{origin}: " in text.out
    assert f"num_warps={warps}" in text.out
    assert ("~2.00" in text.out) == (tuned_rows is not None)
    assert plain(text.out)


def test_lookup_without_a_store_answers_with_the_baseline(tuner: Tuner, tmp_path: Path) -> None:
    """Not a named one: that there is none is then an error."""
    answer = json.loads(tuner("lookup", EXAMPLE, "num_rows=3", "--json").out)
    assert answer["origin"] == "baseline"
    assert not (tmp_path / "data").exists()


# Export.


def test_export_writes_the_table_that_lookup_reads(tuner: Tuner, tuned: str, tmp_path: Path) -> None:
    printed = tuner("export-config", EXAMPLE, "--db", tuned)
    table = WinnerTable.from_json(json.loads(printed.out))
    assert {row.shape for row in table.rows} == {Shape(num_rows=3, columns=128), Shape(num_rows=64, columns=128)}
    assert (table.kernel, table.environment.target) == ("scale_rows", DEFAULT_TARGET)
    file = tmp_path / "new folder" / "winners.json"
    written = tuner("export-config", EXAMPLE, "--db", tuned, "-o", file)
    assert written.out == f"{file}\n"
    assert file.read_text() == printed.out
    assert read_table(file) == table
    assert tuner("export-config", EXAMPLE, "--db", tuned, "-o", tmp_path).out == f"{tmp_path}/scale_rows.json\n"


def test_export_takes_the_newest_of_each_shape_and_says_what_it_leaves_out(tuner: Tuner, tuned: str) -> None:
    """Winners under another ptxas, and of another target, of which one must be named."""
    kernel, shape = load_folder(EXAMPLE), Shape(num_rows=64, columns=128)
    with Store.open(tuned) as store:
        store.save_winners([chosen(kernel, shape, 1.0, replace(ESTIMATED, ptxas="13.9"))])
    result = tuner("export-config", EXAMPLE, "--db", tuned)
    table = WinnerTable.from_json(json.loads(result.out))
    assert [row.timing.median_us for row in table.rows] == [3.0, 1.0]
    assert table.environment.ptxas == "13.4 or 13.9"
    assert result.err == "Winners left out: 1 older at its shapes.\n"
    with Store.open(tuned) as store:
        store.save_winners([chosen(kernel, shape, 1.0, replace(ESTIMATED, target=Target("cuda", "100")))])
    assert "several devices: cuda:100, cuda:90" in tuner("export-config", EXAMPLE, "--db", tuned).err
    result = tuner("export-config", EXAMPLE, "--db", tuned, "--device", "cuda:90")
    assert WinnerTable.from_json(json.loads(result.out)) == table
    assert "1 of cuda:100" in result.err


def test_export_as_yaml_holds_the_same(tuner: Tuner, tuned: str) -> None:
    as_json = json.loads(tuner("export-config", EXAMPLE, "--db", tuned).out)
    result = tuner("export-config", EXAMPLE, "--db", tuned, "--format", "yaml")
    assert yaml.safe_load(result.out) == as_json
    assert "evidence: estimated" in result.out


def test_export_for_vllm_writes_a_file_for_each_combination_of_fixed_dimensions(
    tuner: Tuner, tuned: str, tmp_path: Path
) -> None:
    folder = tmp_path / "configs"
    result = tuner("export-config", BUNDLED, "--db", tuned, "--format", "vllm", "-o", f"{folder}/")
    paths = [Path(line) for line in result.out.splitlines()]
    assert sorted(paths) == sorted(folder.iterdir())
    rest = [path for path in paths if path.name.endswith(".variants.json")]
    paths = [path for path in paths if path not in rest]
    bodies = {"n_groups=8" in path.name: json.loads(path.read_text()) for path in paths}
    assert set(bodies[True]) == {"triton_version", "1", "512"}
    assert set(bodies[False]) == {"triton_version", "512"}
    assert all(json.loads(path.read_text())["512"]["do_not_specialize"] == ["num_tokens"] for path in rest)
    where = "device_name=cuda_90_estimated"
    assert sorted(path.name for path in paths) == [f"{BUNDLED},num_heads=64,n_groups={n},{where}.json" for n in (4, 8)]


# Show.


def test_show_prints_winners_beside_the_baseline_in_lines_that_do_not_break(
    tuner: Tuner, tuned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal from which it is piped
    result = tuner("show", EXAMPLE, "--db", tuned)
    assert (result.code, result.err) == (0, "")
    assert "scale_rows on cuda:90 (estimated)" in result.out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines()]
    assert ["64", "128.0", "64.0", "~2.00", "rows BLOCK_ROWS=2 num_warps=2", "num_rows", "1"] in cells
    assert BUNDLED not in result.out
    assert plain(result.out)
    everything = tuner("show", "--db", tuned)
    assert BUNDLED in everything.out
    tables = [WinnerTable.from_json(each) for each in json.loads(tuner("show", "--db", tuned, "--json").out)]
    assert {(table.kernel, len(table.rows)) for table in tables} == {("scale_rows", 2), (BUNDLED, 3)}


def test_show_of_a_store_without_winners_says_what_finds_some(tuner: Tuner, tuned: str) -> None:
    bare = tuned.replace("tuned.db", "bare.db")
    Store.open(bare).close()
    result = tuner("show", "--db", bare)
    assert (result.code, result.err) == (0, "")
    assert "tuner run KERNEL" in result.out
    assert json.loads(tuner("show", "--db", bare, "--json").out) == []


# As a process of its own.


def process(*words: str, stdout: Any) -> subprocess.CompletedProcess[str]:
    """As a user starts it, with an output that is written in blocks."""
    command = [sys.executable, "-m", "tuner.cli.main", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=stdout, stderr=subprocess.PIPE, timeout=200, check=False
    )


def test_a_reader_that_leaves_early_causes_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = process("emit", BUNDLED, "--implementation", "per_head", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_output_that_the_disk_does_not_take_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = process("emit", BUNDLED, "--implementation", "per_head", stdout=full)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.usefixtures("no_workers")
def test_a_run_prints_json_and_a_repeated_one_lines(tuner: Tuner, tmp_path: Path) -> None:
    """The first run really compiles; the second finds everything stored."""
    words = ["run", str(EXAMPLE), "--target", "cuda:90", "--trials", "2", "--jobs", "1"]
    words += ["--shapes", "num_rows=3,64", "--db", f"sqlite:///{tmp_path}/new/store.db"]
    first = tuner(*words, "--json")
    assert first.code == 0, first.err
    report = json.loads(first.out)
    assert report["evidence"] == "estimated"
    assert report["evaluated"] >= 4
    assert not report["timed_out"]
    assert {row["shape"]["num_rows"] for row in report["winners"]["rows"]} == {3, 64}
    counts = {tuple(each["do_not_specialize"]): each["compiles"] for each in report["compiles"]}
    assert (counts[()], counts[("num_rows",)]) == (2, 1)
    assert "4 evaluations" in first.err
    assert plain(first.err)

    second = tuner(*words)
    assert (second.code, second.err) == (0, "")
    assert plain(second.out)
    assert "4 evaluations, 4 of them stored already" in second.out
    assert "0 evaluations added to" in second.out
    assert "Compiles over 2 shapes" in second.out
    assert "scale_rows on cuda:90 (estimated)" in second.out
