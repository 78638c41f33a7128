"""Which kernels are found, by which names, and what is said of those that cannot be loaded."""

import os
from pathlib import Path

import pytest
from kernel_examples import DOUBLED, SCALE_ROWS, copy_kernel

from tuner.catalog import Kernel, content_root, kernel_names, load_folder, load_kernel
from tuner.errors import UnknownNameError, UserError

BUNDLED = "fused_inv_rope_fp8_quant"


@pytest.fixture(autouse=True)
def no_further_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNER_KERNEL_PATH", raising=False)


def test_bundled_kernels_are_found_and_loaded_by_name() -> None:
    found = kernel_names()
    assert BUNDLED in found
    for name, folder in found.items():
        kernel = load_kernel(name)
        assert kernel.name == folder.name == name
        assert kernel.folder == folder.resolve()
        for implementation in kernel.spec.implementations:
            assert implementation.function in kernel.source(implementation)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{BUNDLED}'"):
        load_kernel("fused_inv_rope_fp8_quan")


@pytest.mark.parametrize("name", ["..", ".", "", "../scale_rows", "outer/scale_rows", "outer.scale_rows", "ABSOLUTE"])
def test_only_plain_names_are_looked_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would reach a spec.py when it was joined to a folder's path."""
    folder, bundled = copy_kernel(SCALE_ROWS, tmp_path), kernel_names()
    copy_kernel(SCALE_ROWS, folder / "outer")
    copy_kernel(SCALE_ROWS, folder / "outer.scale_rows")
    (folder / "outer.scale_rows" / "spec.py").write_text((SCALE_ROWS / "spec.py").read_text())
    monkeypatch.setenv("TUNER_KERNEL_PATH", str(folder))
    assert kernel_names() == bundled
    with pytest.raises(UnknownNameError, match="Unknown kernel"):
        load_kernel(str(folder) if name == "ABSOLUTE" else name)


def test_kernels_on_the_path_are_found_and_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, bundled = tmp_path / "first", tmp_path / "second", kernel_names()
    for parent in (first, second):
        copy_kernel(SCALE_ROWS, parent)
    shadow = first / BUNDLED
    shadow.mkdir()
    (shadow / "spec.py").touch()
    (first / "not-a-name").mkdir()
    (first / "not-a-name" / "spec.py").touch()
    monkeypatch.setenv("TUNER_KERNEL_PATH", os.pathsep.join(map(str, (tmp_path / "missing", first, second))))
    assert kernel_names() == {**bundled, "scale_rows": first / "scale_rows", BUNDLED: shadow}
    assert load_kernel("scale_rows").folder == (first / "scale_rows").resolve()


def test_a_folder_is_loaded_by_path() -> None:
    kernel = load_folder(SCALE_ROWS)
    assert kernel.name == "scale_rows"
    assert kernel.space_path == SCALE_ROWS.resolve() / "space.yaml"
    assert load_folder(SCALE_ROWS / ".." / "scale_rows") is kernel
    assert load_kernel(BUNDLED).space_path == content_root() / "search_spaces" / f"{BUNDLED}.yaml"


def test_equal_names_in_two_folders_stay_apart(tmp_path: Path) -> None:
    copy = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": ("Doubles a bf16 matrix.", "Another.")}))
    assert copy.spec.summary == "Another."
    assert load_folder(SCALE_ROWS).spec.summary == "Doubles a bf16 matrix."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import torch\n", "import torch_that_is_not_there\n", "cannot be loaded: ModuleNotFoundError.*torch_that"),
        ("SPEC = KernelSpec(", "SPEC = KernelSpec(((", "cannot be loaded: SyntaxError"),
        ("SPEC = KernelSpec(", "SPEC = dict(", "defines no `SPEC = KernelSpec"),
        ("SPEC = KernelSpec(", "OTHER = KernelSpec(", "defines no `SPEC = KernelSpec"),
        ('name="scale_rows"', 'name="scale_columns"', "names the kernel 'scale_columns'; its folder says 'scale_rows'"),
        ('name="scale_rows",', "", "cannot be loaded: TypeError.*name"),
    ],
)
def test_a_spec_that_cannot_be_used_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": (old, new)})
    with pytest.raises(UserError, match=message) as caught:
        load_folder(folder)
    assert str(folder / "spec.py") in str(caught.value)


def test_a_folder_without_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has no spec\.py"):
        load_folder(tmp_path)


def test_source_digest_follows_every_python_file_and_nothing_else(tmp_path: Path) -> None:
    """The spec too: what it launches and compares with decides what a time means."""
    loaded = load_folder(copy_kernel(SCALE_ROWS, tmp_path))
    digests = [load_folder(SCALE_ROWS).source_digest]

    def now() -> Kernel:
        return Kernel(loaded.folder, loaded.spec)

    (loaded.folder / "notes.txt").touch()
    (loaded.folder / "space.yaml").unlink()
    (loaded.folder / "op.py").touch()
    (loaded.folder / ".hidden").mkdir()
    (loaded.folder / ".hidden" / "note.py").touch()
    (loaded.folder / "empty" / ".hidden").mkdir(parents=True)
    (loaded.folder / "empty" / ".hidden" / "note.py").touch()
    assert now().source_digest == digests[0]
    for name, old, new in (("kernel.py", DOUBLED, "x * 3"), ("spec.py", 'inputs["x"] * 2', 'inputs["x"] * 3')):
        path = loaded.folder / name
        path.write_text(path.read_text().replace(old, new))
        digests.append(now().source_digest)
    (loaded.folder / "reference.py").touch()
    digests.append(now().source_digest)
    (loaded.folder / "reference.py").rename(loaded.folder / "other.py")
    digests.append(now().source_digest)
    (loaded.folder / "parts").mkdir()
    (loaded.folder / "other.py").rename(loaded.folder / "parts" / "other.py")
    digests.append(now().source_digest)
    assert len(set(digests)) == len(digests)


def test_a_loaded_kernel_stays_of_one_source_and_tells_that_its_folder_has_another(tmp_path: Path) -> None:
    kernel = load_folder(copy_kernel(SCALE_ROWS, tmp_path))
    (implementation,) = kernel.spec.implementations
    digest, source = kernel.source_digest, kernel.source(implementation)
    assert not kernel.is_changed
    (kernel.folder / "kernel.py").write_text(source.replace(DOUBLED, "x * 3"))
    assert kernel.is_changed
    assert (kernel.source_digest, kernel.source(implementation)) == (digest, source)


def test_content_folders_are_no_packages() -> None:
    """An installed `kernels` package would collide with the one on PyPI."""
    found = [
        path for name in ("kernels", "search_spaces", "db") for path in (content_root() / name).rglob("__init__.py")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        ('Config("row", FrozenMapping(BLOCK_ROWS=1)', "did you mean 'rows'?"),
        ('Config("rows", FrozenMapping(BLOCK_ROW=1)', "expected BLOCK_ROWS"),
    ],
    ids=["implementation", "parameter"],
)
def test_a_baseline_is_a_config_of_the_kernel(tmp_path: Path, baseline: str, told: str) -> None:
    written = ('Config("rows", FrozenMapping(BLOCK_ROWS=1)', baseline)
    with pytest.raises(UserError) as caught:
        load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": written}))
    assert told in str(caught.value)


def test_a_source_outside_the_folder_is_refused(tmp_path: Path) -> None:
    """Its digest would not see it."""
    named = ('Implementation("rows", "kernel.py"', 'Implementation("rows", "../kernel.py"')
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": named})
    (folder / "kernel.py").rename(tmp_path / "kernel.py")
    with pytest.raises(UserError, match=r"names the source '\.\./kernel\.py'; expected a \.py file in the folder"):
        load_folder(folder)


def test_line_ends_are_those_that_python_reads(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    text = (folder / "kernel.py").read_text()
    (folder / "kernel.py").write_bytes(text.replace("\n", "\r\n").encode())
    kernel = load_folder(folder)
    assert kernel.source(kernel.spec.implementations[0]) == text
