"""A function named by file, with what is missing or wrong told before anything is bound."""

from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.specialize import bare_function, is_bare_function

SOURCE = """\
import triton
import triton.language as tl


@triton.jit
def f(x_ptr, n, BLOCK: tl.constexpr, eps=1e-6):
    pass


def plain(n):
    pass
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a/b.py:f", True), ("b.py:f", True), ("rms_norm", False), ("./folder", False), ("b.py", False), ("b.py:", False)],
)
def test_a_function_is_told_from_a_kernel(text: str, is_one: bool) -> None:
    assert is_bare_function(text) is is_one


def test_what_has_a_default_may_be_left_out(path: Path) -> None:
    kernel, source = bare_function(f"{path}:f", {"x_ptr": "*bf16", "n": "num_tokens", "BLOCK": "128"}, {})
    assert source == path
    assert kernel.spec.implementations[0].function == "f"


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("f", {"n": "num_tokens"}, "mine.py:f needs a sample of x_ptr, BLOCK"),
        ("f", {"m": "1"}, "Unknown argument of f 'm'. Expected one of: BLOCK, eps, n, x_ptr"),
        ("g", {}, "Unknown function of .*mine.py 'g'"),
        ("plain", {"n": "num_tokens"}, "'plain' in .*mine.py is not decorated with triton.jit"),
    ],
)
def test_what_is_missing_or_unknown_is_told(path: Path, name: str, given: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        bare_function(f"{path}:{name}", given, {})


def test_a_missing_sample_comes_with_what_to_add(path: Path) -> None:
    with pytest.raises(UserError) as error:
        bare_function(f"{path}:f", {"n": "num_tokens", "BLOCK": "64"}, {})
    assert error.value.hint.startswith("Add --arg x_ptr=<value>, for example")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.py cannot be read: No such file"):
        bare_function(f"{tmp_path}/none.py:f", {}, {})
