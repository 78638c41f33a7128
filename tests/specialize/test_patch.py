"""The change to the user's file: a diff that applies, of nothing but the decorator."""

import subprocess
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.records import SpecializationSet
from tuner.specialize.patch import declared_marks, decorator_patch

BODY = "def f(x_ptr, n, stride, BLOCK: tl.constexpr):\n    pass\n"
HEAD = "import triton\nimport triton.language as tl\n\n\n"


def written(tmp_path: Path, decorator: str, head: str = HEAD) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(f"{head}{decorator}\n{BODY}")
    return path


@pytest.mark.parametrize(
    ("decorator", "declared"),
    [
        ("@triton.jit", ((), ())),
        ("@triton.jit(do_not_specialize=['n'])", (("n",), ())),
        (
            "@triton.jit(do_not_specialize=(1, 'stride'), do_not_specialize_on_alignment=[0])",
            (("n", "stride"), ("x_ptr",)),
        ),
        ("@other\n@triton.jit(debug=True, do_not_specialize_on_alignment=['n'])", ((), ("n",))),
        ("@triton.jit(do_not_specialize=['BLOCK'])", ((), ())),  # a constant takes no mark
    ],
)
def test_the_present_marks_are_read(
    tmp_path: Path, decorator: str, declared: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    assert declared_marks(written(tmp_path, decorator), "f") == SpecializationSet(*declared)


@pytest.mark.parametrize(
    ("decorator", "new"),
    [
        ("@triton.jit", '@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["stride"])'),
        ("@other\n@triton.jit(debug=True)\n@third", '@triton.jit(do_not_specialize=["n"], '),
        (
            '@triton.jit(\n    do_not_specialize=["stride"],  # why\n    # and this\n)',
            '# why\n# and this\n@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["stride"])',
        ),
        ("# first\n# second\n@triton.jit", "@triton.jit(do_not_specialize="),
    ],
)
def test_the_patch_applies_and_gives_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decorator: str, new: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path, marks = written(tmp_path, decorator), SpecializationSet.of(["n"], ["stride"])
    patch = decorator_patch(path, "f", marks)
    before = path.read_text()
    assert patch.old in before
    assert patch.new.startswith(new)
    assert before.splitlines()[patch.line - 1].startswith("@triton.jit")
    assert path.read_text() == before
    subprocess.run(["git", "apply", "-p0"], input=patch.diff, text=True, check=True)
    assert declared_marks(path, "f") == marks
    assert path.read_text() == before.replace(patch.old, patch.new)


def test_a_file_that_says_so_already_stays(tmp_path: Path) -> None:
    path = written(tmp_path, "@triton.jit(do_not_specialize=('n',))")
    patch = decorator_patch(path, "f", SpecializationSet.of(["n"]))
    assert (patch.diff, patch.old, patch.new) == ("", "@triton.jit(do_not_specialize=('n',))", patch.old)


def test_the_decorator_is_known_by_what_it_stands_for(tmp_path: Path) -> None:
    path = written(tmp_path, "@compiled", "from triton import jit as compiled\nimport triton.language as tl\n\f\n")
    patch = decorator_patch(path, "f", SpecializationSet.of(["n"]))
    assert (patch.line, patch.new) == (4, '@compiled(do_not_specialize=["n"])')


def test_paths_below_the_working_folder_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "@triton.jit")
    monkeypatch.chdir(tmp_path)
    assert decorator_patch(path, "f", SpecializationSet.of(["n"])).diff.startswith("--- mine.py\n+++ mine.py\n@@ -4,3")


@pytest.mark.parametrize("value", ["NAMES", "[NAME]", "[*NAMES]"])
def test_marks_that_are_not_written_out_are_refused(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, f"@triton.jit(do_not_specialize={value})")
    with pytest.raises(UserError, match=r"do_not_specialize is .*; expected a list of names"):
        declared_marks(path, "f")
