"""`tuner specialize`: as text, as JSON, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_examples import BUNDLED, EXAMPLE, SAMPLE, Tuner
from in_this_process import InThisProcess

from tuner.cli.options import parse_shapes
from tuner.errors import UserError

Refused = Callable[..., str]
ADD = """\
import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, n, PADDED: tl.constexpr):
    i = tl.arange(0, 128)
    tl.store(x_ptr + i, tl.load(x_ptr + i) + n, mask=i < PADDED)
"""


@pytest.fixture
def add(tmp_path: Path) -> str:
    (tmp_path / "add.py").write_text(ADD)
    return f"{tmp_path / 'add.py'}:add_kernel"


def test_the_fused_kernel_in_a_worker_process(tuner: Tuner) -> None:
    """Over the sizes of a small trace; tests/specialize has what is found over a whole one."""
    words = ("specialize", BUNDLED, "--workload", SAMPLE, "--target", "cuda:90", "--jobs", "1")
    result = tuner(*words, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["compiles"] == {"unmarked": 3, "declared": 2, "recommended": 1, "fewest": 1}
    assert found["recommended"]["do_not_specialize"] == ["num_tokens", "scale_stride_block"]
    assert (found["evidence"], found["fewest"]) == ("estimated", None)
    assert (found["looked_at"]["workload"], found["looked_at"]["steps"]) == ("sample", 9)
    assert found["looked_at"]["sizes"] == {"count": 6, "first": 1, "last": 16}
    arguments = {each["name"]: each for each in found["arguments"]}
    stride = arguments["fp8_stride_group"]["effects"]["do_not_specialize"]
    assert stride["narrowed"] == ["stores 16 -> 1 bytes"]
    assert {each["time_ratio"] is None for each in stride["at"]} == {False}
    assert stride["at"][0]["unmarked"]["stores"]["16"] == 1
    assert "16" not in stride["at"][0]["marked"]["stores"]
    assert sum(arguments["num_tokens"]["classes"].values()) == pytest.approx(1, abs=1e-5)
    assert found["patch"]["line"] > 1
    assert found["patch"]["path"].endswith("baseline.py")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles in this process."""

    class Pool(InThisProcess):
        def __init__(self, workers: int) -> None:
            super().__init__()
            assert workers == 3

    from tuner.specialize import specialize

    monkeypatch.setattr(specialize, "WorkerPool", Pool)


@pytest.mark.usefixtures("here")
def test_the_text_says_what_was_looked_at_what_to_do_and_why(tuner: Tuner) -> None:
    shapes = "num_rows=1..40 columns=128,256"
    result = tuner("specialize", EXAMPLE, "--shapes", shapes, "--target", "cuda:90", "--jobs", "3")
    assert result.code == 0, result.err
    text = " ".join(result.out.split())
    assert "Looked at: 40 sizes of num_rows from 1 to 40, of equal weight (no --workload)" in text
    assert "with columns=128 and columns=256" in text
    assert "i32: 92.5%" in text
    assert "loads 8 -> 2 bytes" in text
    assert "Time with the mark over time without it, estimated" in text
    assert "saves alone: compiles fewer when it alone is in do_not_specialize, against no mark." in text
    assert "COLUMNS" in text
    assert "its 2 values come from" in text
    assert (
        "Compiles over the steps: 6 with no mark, 6 with the marks of the source (none), 2 with the recommended" in text
    )
    assert 'Recommended: do_not_specialize=["num_rows"].' in text
    assert '+@triton.jit(do_not_specialize=["num_rows"])' in text


@pytest.mark.usefixtures("here")
def test_a_bare_function_is_compiled_but_not_timed(tuner: Tuner, add: str) -> None:
    words = (
        "specialize",
        add,
        "--arg",
        "x_ptr=*bf16",
        "--arg",
        "n=num_tokens",
        "--arg",
        "PADDED=(num_tokens+63)//64*64",
    )
    result = tuner(
        *words, "--shapes", "num_tokens=1..100", "--option", "num_warps=1", "--jobs", "3", "--target", "cuda:90"
    )
    assert result.code == 0, result.err
    assert "function num_warps=1, on cuda:90 (no times: a bare function has no sizes)" in result.out
    assert "Time with" not in result.out
    text = " ".join(result.out.replace("│", " ").split())
    assert (
        "PADDED: num_tokens feeds it, and each of its 2 values is a compile; a tl.constexpr cannot be marked." in text
    )
    assert '+@triton.jit(do_not_specialize=["n"])' in text


@pytest.mark.usefixtures("here")
def test_a_source_that_says_so_already_needs_no_patch(tuner: Tuner, add: str, tmp_path: Path) -> None:
    (tmp_path / "add.py").write_text(ADD.replace("@triton.jit", "@triton.jit(do_not_specialize=['n'])"))
    words = ("specialize", add, "--arg", "x_ptr=*bf16", "--arg", "n=num_tokens", "--arg", "PADDED=64", "--jobs", "3")
    text = tuner(*words, "--shapes", "num_tokens=1..20", "--target", "cuda:90").out
    assert "add.py:5 says so already: @triton.jit(do_not_specialize=['n'])" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((BUNDLED, "--arg", "n=1"), ["--arg and --option are for a bare function", "Name one as path.py:function"]),
        ((BUNDLED, "--implementation", "tiles"), ["Unknown implementation 'tiles'", "did you mean 'tile'?"]),
        ((BUNDLED, "--workload", "azure"), ["Unknown workload 'azure'"]),
        (
            (BUNDLED, "--workload", "azure_code", "--shapes", "num_tokens=1"),
            ["'num_tokens' is given by"],
        ),
        ((BUNDLED, "--shapes", "num_tokens=9..1"), ["'9..1' is no range of 1 to 100000 sizes", "as in 1..4096"]),
        ((BUNDLED, "--shapes", "num_tokens=1 n_groups=7"), ["num_heads=64 is not a multiple of n_groups=7"]),
        ((BUNDLED, "--target", "cuda:91"), ["Unknown target 'cuda:91'"]),
        (("add.py:add_kernel", "--implementation", "x"), ["a bare function has none"]),
        (("add.py:add_kernel",), ["needs a sample of x_ptr, n, PADDED", "Add --arg x_ptr=<value>"]),
        (("add.py:add_kernel", "--arg", "n"), ["'n' is not a sample argument; expected name=value"]),
        (("add.py:add_kernel", "--option", "warps=1"), ["Unknown compile option 'warps'", "did you mean 'num_warps'?"]),
        (("add.py:add_kernel", "--option", "num_warps=x"), ["num_warps='x' is not an integer"]),
        (("none.py:f",), ["none.py cannot be read: No such file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_told(
    refused: Refused, add: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused("specialize", *words)
    for each in told:
        assert each in error


def test_a_range_stands_for_its_sizes() -> None:
    found = parse_shapes(["n=1..3,16 mode=a..b"])
    assert [(shape["n"], shape["mode"]) for shape in found] == [(size, "a..b") for size in (1, 2, 3, 16)]
    for text in ("n=2..1", "n=1..100001"):
        with pytest.raises(UserError, match="is no range of 1 to 100000 sizes"):
            parse_shapes([text])
    assert len(parse_shapes(["n=1..100000"])) == 100_000
