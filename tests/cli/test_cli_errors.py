"""Each mistake gets one message that names what was found, what was expected and what to try, and the exit code 2."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_examples import BUNDLED, ESTIMATED, EXAMPLE, Result, Tuner

Refused = Callable[..., str]
RUN = ("run", EXAMPLE, "--target", "cuda:90", "--trials", "1")

SPACE = """\
kernel: scale_rows
implementations:
  rows:
    parameters: {BLOCK_ROWS: [1, 2]}
    options: {num_warps: [1]}
shapes:
  - {num_rows: 3}
"""


# Names and values.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "fused_inv_rope_fp8_quantt"), ["Unknown kernel", f"did you mean {BUNDLED!r}?", "tuner kernels"]),
        (("show", "scale"), ["Unknown kernel 'scale'", "Expected one of"]),
        (("emit", ".."), ["Unknown kernel '..'"]),
        (("emit", "."), ["Unknown kernel '.'"]),
        (("emit", "../x"), ["No kernel in '../x'", "no spec.py", "Name a folder with a spec.py"]),
        (("run", "/etc"), ["No kernel in '/etc'"]),
        (("lookup", "kernels/../../x", "a=1"), ["No kernel in 'kernels/../../x'"]),
        (("emit", ""), ["Unknown kernel ''"]),
        (("emit", "\x1b[31mred"), ["Unknown kernel '\\x1b[31mred'"]),
        (("emit", "[bold]x"), ["Unknown kernel '[bold]x'"]),
        (("emit", EXAMPLE, "--set", "BLOCK_ROW=2"), ["'BLOCK_ROW'", "did you mean 'BLOCK_ROWS'?"]),
        (("emit", EXAMPLE, "--set", "num_warp=2"), ["'num_warp'", "did you mean 'num_warps'?"]),
        (("emit", EXAMPLE, "--set", "BLOCK_ROWS=two"), ["BLOCK_ROWS='two' is not an integer"]),
        (("emit", EXAMPLE, "--set", "BLOCK_ROWS"), ["'BLOCK_ROWS' is not a setting", "expected name=value"]),
        (("emit", EXAMPLE, "--set", "BLOCK_ROWS=1", "--set", "BLOCK_ROWS=2"), ["'BLOCK_ROWS' is given twice"]),
        (("emit", EXAMPLE), ["'rows' needs a value for BLOCK_ROWS", "Add --set BLOCK_ROWS=<value>"]),
        (
            ("emit", EXAMPLE, "--set", "BLOCK_ROWS=1", "--do-not-specialize", "num_row"),
            ["'num_row'", "did you mean 'num_rows'?"],
        ),
        (("emit", EXAMPLE, "--implementation", "row"), ["Unknown implementation 'row'", "did you mean 'rows'?"]),
        (("lookup", EXAMPLE, "num_row=3"), ["Unknown dimension of scale_rows 'num_row'", "did you mean 'num_rows'?"]),
        (("lookup", EXAMPLE, "columns=3"), ["'num_rows' has no value", "Add num_rows=<value>"]),
        (("lookup", EXAMPLE, "num_rows=many"), ["'num_rows' is 'many'", "expected an integer >= 0"]),
        (("lookup", BUNDLED, "num_tokens=1", "num_heads=3", "n_groups=2"), ["not a multiple of n_groups=2"]),
        (("lookup", EXAMPLE, "num_rows"), ["'num_rows' is not a dimension", "expected name=value"]),
        (("lookup", BUNDLED, "num_tokens=1", "num_heads=64", "n_groups=8", "rope_style=gptj"), ["'interleaved'"]),
        (("run", EXAMPLE, "--shapes", "num_row=3"), ["did you mean 'num_rows'?"]),
        (("run", EXAMPLE, "--shapes", "num_rows=-3"), ["'num_rows' is -3", "expected an integer >= 0"]),
        (("run", EXAMPLE, "--shapes", "num_rows=3.5"), ["'num_rows' is '3.5'"]),
        (("run", EXAMPLE, "--shapes", "num_rows=,"), ["num_rows"]),
        (("run", EXAMPLE, "--shapes", "num_rows=0"), ["launches nothing"]),
        (("run", EXAMPLE, "--shapes", f"num_rows={2**62}"), ["num_rows"]),
        (("run", EXAMPLE, "--shapes", ""), ["'num_rows' has no value"]),
        (("run", BUNDLED, "--shapes", "num_tokens=1 num_heads=3 n_groups=2"), ["not a multiple of n_groups=2"]),
        (("run", EXAMPLE, "--target", "cuda:91"), ["Unknown target 'cuda:91'", "did you mean 'cuda:90'?"]),
        (("run", EXAMPLE, "--target", "h100"), ["Unknown target 'h100'", "cuda:90"]),
        (("run", EXAMPLE, "--trials", "0"), ["--trials", "greater than or equal to 1"]),
        (("run", EXAMPLE, "--trials", "many"), ["--trials"]),
        (("run", EXAMPLE, "--jobs", "0"), ["--jobs"]),
        (("run", EXAMPLE, "--timeout", "-1"), ["--timeout"]),
        (("run", EXAMPLE, "--search", "anneal"), ["'anneal' is not one of 'tpe', 'random', 'grid'"]),
        (("export-config", EXAMPLE, "--format", "xml"), ["'xml' is not one of 'json', 'yaml', 'vllm'"]),
        (("rnu",), ["No such command 'rnu'", "Did you mean 'run'?"]),
        (("run",), ["Missing argument 'KERNEL'"]),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(EXAMPLE), "example") if isinstance(value, tuple) else None,
)
def test_a_wrong_name_or_value_is_told_with_the_right_one(
    refused: Refused, words: tuple[str, ...], told: list[str]
) -> None:
    message = refused(*words)
    assert all(each in message for each in told), message


def test_a_seed_that_no_database_holds_is_refused(refused: Refused) -> None:
    assert "wider than 64 bits" in refused(*RUN, "--seed", str(2**64))


# Search spaces.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["space.yaml:1: The file is empty", "Start with `kernel:`"]),
        ("kernel: [scale_rows\n", ["space.yaml"]),
        ("- 1\n- 2\n", ["a list", "expected a mapping"]),
        (SPACE + "trails: 3\n", ["space.yaml:8:", "Unknown key 'trails'"]),
        (SPACE + "budget: {trial: 3}\n", ["'trial'", "did you mean 'trials'?"]),
        (SPACE.replace("BLOCK_ROWS:", "BLOCK_ROW:"), ["space.yaml:4:", "did you mean 'BLOCK_ROWS'?"]),
        (SPACE.replace("num_rows:", "num_row:"), ["space.yaml:7:", "did you mean 'num_rows'?"]),
        (SPACE.replace("num_warps: [1]", "num_warps: [3]"), ["power of two"]),
        (SPACE.replace("kernel: scale_rows", "kernel: scale_columns"), ["'scale_columns'", "'scale_rows'"]),
        (
            SPACE.replace("shapes:", "    constraints: [BLOCK_ROWS > num_rows]\nshapes:"),
            ["No config meets the constraints", "'BLOCK_ROWS > num_rows' rejects 2 of them alone", "Add values"],
        ),
        (
            SPACE.replace("shapes:", "    constraints: ['__import__(\"os\").getpid() > 0']\nshapes:"),
            ["space.yaml:6:"],
        ),
        (SPACE + "budget: {trials: 0}\n", ["budget.trials is 0", "1 or more"]),
    ],
    ids=["empty", "malformed", "list", "key", "nested key", "parameter", "dimension", "warps", "kernel", "infeasible",
         "call", "no trials"],
)  # fmt: skip
def test_a_space_that_cannot_be_used_is_told_with_its_line(
    refused: Refused, tmp_path: Path, text: str, told: list[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    message = refused(*RUN, "--space", path)
    assert all(each in message for each in told), message
    assert not (tmp_path / "data").exists(), "a store was made before the request was checked"


def test_a_tag_that_would_run_code_does_not_run(refused: Refused, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    path = tmp_path / "space.yaml"
    path.write_text(f"kernel: !!python/object/apply:pathlib.Path.touch [{trace}]\n{SPACE.partition(chr(10))[2]}")
    assert "space.yaml:1:" in refused(*RUN, "--space", path)
    path.write_text(SPACE.replace("[1, 2]", f"!!python/object/apply:os.system ['touch {trace}']"))
    assert "space.yaml:4:" in refused(*RUN, "--space", path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["spaec.yaml", "."])
def test_a_space_file_that_is_not_there_is_named(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    message = refused(*RUN, "--space", tmp_path / name)
    assert str(tmp_path) in message
    assert "space.yaml" in message or "directory" in message


# Kernel folders.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise RuntimeError('no [luck] today')\n", ["spec.py cannot be loaded", "RuntimeError: no [luck] today"]),
        ("def broken(:\n", ["spec.py cannot be loaded", "SyntaxError"]),
        ("import no_such_module\n", ["spec.py cannot be loaded", "no_such_module"]),
        ("from .missing import x\n", ["spec.py cannot be loaded", "missing"]),
        ("SPEC = 3\n", ["defines no `SPEC = KernelSpec(...)`"]),
        ("import sys\nsys.exit(0)\n", ["spec.py cannot be loaded"]),
        ((EXAMPLE / "spec.py").read_text(), ["names the kernel 'scale_rows'", "'mine'"]),
    ],
    ids=["raises", "syntax", "import", "relative import", "no spec", "exits", "another name"],
)
def test_a_spec_that_cannot_be_loaded_is_told(refused: Refused, tmp_path: Path, text: str, told: list[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "spec.py").write_text(text)
    message = refused("run", folder)
    assert str(folder) in message
    assert all(each in message for each in told), message


def test_a_folder_without_a_spec_is_told(refused: Refused, tmp_path: Path) -> None:
    assert f"No kernel in {str(tmp_path)!r}: it has no spec.py" in refused("run", tmp_path)


def test_a_kernel_file_that_is_missing_or_broken_is_told(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "scale_rows"
    folder.mkdir()
    (folder / "spec.py").write_text((EXAMPLE / "spec.py").read_text())
    (folder / "space.yaml").write_text(SPACE)
    for words in (("emit", folder, "--set", "BLOCK_ROWS=1"), ("run", folder), ("lookup", folder, "num_rows=3")):
        assert "kernel.py" in refused(*words)
    (folder / "kernel.py").write_text("def scale_rows_kernel(:\n")
    for words in (("emit", folder, "--set", "BLOCK_ROWS=1"), ("run", folder)):
        assert ":1: the source does not parse" in refused(*words)


# Stores.


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def path(tuned: str) -> Path:
    """The file of the store with winners."""
    return Path(tuned.removeprefix("sqlite:///"))


READERS = [("show",), ("export-config", EXAMPLE), ("lookup", EXAMPLE, "num_rows=3")]
EVERYONE = pytest.mark.parametrize("words", [RUN, *READERS], ids=lambda words: words[0])


@EVERYONE
def test_a_file_that_is_no_database_is_told_and_kept(refused: Refused, tmp_path: Path, words: tuple[str, ...]) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 1000)
    message = refused(*words, "--db", f"sqlite:///{notes}")
    assert str(notes) in message
    assert "the file is not a database" in message
    assert "Try: " in message
    assert notes.read_text() == "my notes\n" * 1000


@EVERYONE
def test_a_damaged_store_is_told(refused: Refused, path: Path, words: tuple[str, ...]) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    message = refused(*words, "--db", f"sqlite:///{path}")
    assert "the file is damaged" in message
    assert "Try: " in message


@EVERYONE
def test_a_store_of_a_newer_version_is_told(refused: Refused, path: Path, words: tuple[str, ...]) -> None:
    execute(path, "UPDATE tuner_alembic_version SET version_num = '9999'")
    message = refused(*words, "--db", f"sqlite:///{path}")
    assert "has schema '9999'" in message
    assert "upgrade tuner" in message


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_a_missing_store_is_told_and_not_made(refused: Refused, tmp_path: Path, words: tuple[str, ...]) -> None:
    message = refused(*words, "--db", f"sqlite:///{tmp_path}/none.db")
    assert f"{tmp_path}/none.db" in message
    assert "There is no store at" in message
    assert "tuner run" in message
    assert not (tmp_path / "none.db").exists()


@EVERYONE
def test_a_folder_in_the_place_of_a_store_is_told(refused: Refused, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert "is a folder" in refused(*words, "--db", f"sqlite:///{tmp_path}")


@EVERYONE
def test_an_unknown_kind_of_database_is_told(refused: Refused, words: tuple[str, ...]) -> None:
    message = refused(*words, "--db", "postgres://me:secret@host/tuner")
    assert "did you mean 'postgresql'?" in message
    assert "secret" not in message


def test_a_store_where_nothing_can_be_written_is_told(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("/proc/self/tuner.db", f"{tmp_path}/file/tuner.db", "/dev/null/tuner.db"):
        message = refused(*RUN, "--db", f"sqlite:///{place}")
        assert f"Cannot open the store {place}" in message
        assert "Try: " in message


@pytest.mark.usefixtures("no_workers")
def test_a_status_that_no_version_knows_is_told(refused: Refused, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.session.static_evaluator.estimated_environment", lambda target: ESTIMATED)
    execute(path, "UPDATE tuner_evaluation SET status = 'exploded'")
    message = refused(*RUN, "--shapes", "num_rows=3", "--db", f"sqlite:///{path}")
    assert "Unknown status 'exploded'. Expected one of: compile error, crashed" in message
    assert "newer tuner" in message


# Winners and files.


def test_an_export_without_winners_says_what_finds_some(refused: Refused, path: Path) -> None:
    execute(path, "DELETE FROM tuner_winner")
    message = refused("export-config", EXAMPLE, "--db", f"sqlite:///{path}")
    assert "No winners are stored for scale_rows" in message
    assert "Try: Run `tuner run" in message


def test_an_export_of_winners_of_another_source_says_so(refused: Refused, path: Path) -> None:
    execute(path, "UPDATE tuner_winner SET source_digest = 'older'")
    message = refused("export-config", EXAMPLE, "--db", f"sqlite:///{path}")
    assert "2 belong to other sources of it" in message


def test_vllm_files_need_a_dimension_that_they_are_keyed_by(refused: Refused, tuned: str) -> None:
    message = refused("export-config", EXAMPLE, "--format", "vllm", "--db", tuned)
    assert "no dimension num_tokens" in message
    assert "json or yaml" in message


def test_several_files_need_a_folder(refused: Refused, tuned: str) -> None:
    assert "makes 4 files" in refused("export-config", BUNDLED, "--format", "vllm", "--db", tuned)


@pytest.mark.parametrize("place", ["/proc/none/out.txt", "{tmp}/file/out.txt", "/dev/full/out.txt"])
def test_an_output_that_cannot_be_written_is_told(refused: Refused, tuned: str, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    output = place.format(tmp=tmp_path)
    for words in (("emit", EXAMPLE, "--set", "BLOCK_ROWS=1"), ("export-config", EXAMPLE, "--db", tuned)):
        message = refused(*words, "-o", output)
        assert f"{output} cannot be written" in message


def test_a_table_that_cannot_be_read_is_told(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "winners.json"
    monkeypatch.setenv("TUNER_TABLE", str(table))
    for text in (None, "{", "[]", '{"schema": 99}', '{"schema": 1}'):
        if text is not None:
            table.write_text(text)
        assert str(table) in refused("lookup", EXAMPLE, "num_rows=3")


# A full disk.


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file grows beyond that: writes fail, as they do on a disk without room. Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_bytes", [0, 16 << 10])
def test_a_disk_without_room_for_a_store_is_told(tuner: Tuner, tmp_path: Path, room_bytes: int) -> None:
    with largest_file(room_bytes):
        result = tuner(*RUN, "--db", f"sqlite:///{tmp_path}/store.db")
    check_no_room(result, f"Cannot open the store {tmp_path}/store.db")


def test_a_disk_that_fills_up_loses_nothing_that_was_stored(tuner: Tuner, path: Path) -> None:
    with largest_file(0):
        result = tuner(*RUN, "--db", f"sqlite:///{path}")
    check_no_room(result, f"the store {path}")
    shown = tuner("show", "--db", f"sqlite:///{path}")
    assert (shown.code, "BLOCK_ROWS=2" in shown.out) == (0, True)


def test_a_disk_without_room_for_an_output_is_told(tuner: Tuner, tmp_path: Path) -> None:
    output = tmp_path / "variant.py"
    with largest_file(100):
        result = tuner("emit", EXAMPLE, "--set", "BLOCK_ROWS=1", "-o", output)
    check_no_room(result, f"{output} cannot be written")


def check_no_room(result: Result, told: str) -> None:
    assert result.code == 2, result
    assert result.err.count("Error:") == 1
    assert "Traceback" not in result.err
    assert told in result.err
