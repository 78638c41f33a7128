"""A bare function as a kernel folder: its arguments as expressions over sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tuner.catalog import Kernel
from tuner.catalog.function import function_kernel, function_spec
from tuner.errors import UserError
from tuner.records import Shape

SOURCE = "import triton\n\n\n@triton.jit\ndef f(x_ptr, n):\n    pass\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def launched(arguments: Mapping[str, str], **sizes: int) -> Mapping[str, Any]:
    spec = function_spec("f", "f", arguments, {})
    shape = spec.shape(sizes)
    return spec.launch(
        spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta"), shape, spec.baseline
    ).arguments


def kernel_of(tmp_path: Path, source: str = SOURCE, **arguments: str) -> Kernel:
    path = tmp_path / "mine.py"
    path.write_text(source)
    return function_kernel(path, "f", arguments or {"n": "num_tokens"}, {"num_warps": 8})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("num_tokens", 17),
        (" (num_tokens + 3) // 4 * 4", 20),
        ("max(num_tokens, 64) if num_tokens > 16 else 1", 64),
        ("2**31", 2**31),
        ("-1", -1),
        ("1e-6", 1e-6),
        ("None", None),
        ("True", True),
        ("'pow2'", "pow2"),
        ("(num_tokens, 16)", (17, 16)),
    ],
)
def test_an_expression_gives_its_value(text: str, value: object) -> None:
    found = launched({"n": text, "other": "num_tokens"}, num_tokens=17)["n"]
    assert found == value
    assert type(found) is type(value)


def test_pointers_have_their_type_and_alignment() -> None:
    found = launched({"n": "num_tokens", "a": "*bf16", "b": "*fp8e4nv:unaligned", "c": "*i64:unaligned"}, num_tokens=1)
    assert [str(found[name].dtype) for name in "abc"] == ["torch.bfloat16", "torch.float8_e4m3fn", "torch.int64"]
    assert [found[name].data_ptr() % 16 == 0 for name in "abc"] == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"n": "num_tokens", "p": "*bf17"}, "Unknown type of the pointer p 'bf17'.*did you mean 'bf16'"),
        ({"n": "num_tokens", "p": "*bf16:odd"}, r"p='\*bf16:odd' is no pointer; expected \*TYPE or \*TYPE:unaligned"),
        ({"n": "num_tokens // 0"}, "n='num_tokens // 0' has no value at num_tokens=4: "),
        ({"n": "num_tokens.size"}, r"n='num_tokens.size' has no value"),
        ({"n": "open('x') + num_tokens"}, "Dimension 'open' has no value"),
        ({"n": "[num_tokens]"}, r"n='\[num_tokens\]' is \[4\]; expected a number, None, text or a tuple"),
        ({"n": "num_tokens +"}, r"n='num_tokens \+' does not parse"),
        ({"n": "4"}, "No argument depends on a size, so every step is the same"),
    ],
)
def test_what_is_no_sample_is_told(arguments: Mapping[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        launched(arguments, num_tokens=4)


@pytest.mark.parametrize(
    ("arguments", "dimensions", "dynamic"),
    [
        ({"a": "hidden * 2", "n": "num_tokens + max(batch, hidden)"}, ["hidden", "num_tokens", "batch"], "num_tokens"),
        ({"a": "rows", "b": "columns", "p": "*bf16"}, ["rows", "columns"], "rows"),
    ],
)
def test_names_in_expressions_are_dimensions(arguments: Mapping[str, str], dimensions: list[str], dynamic: str) -> None:
    spec = function_spec("f", "f", arguments, {})
    assert [each.name for each in spec.dimensions] == dimensions
    assert spec.dynamic_dimensions == (dynamic,)


def test_the_folder_holds_a_copy_and_is_found_again(tmp_path: Path, cache: Path) -> None:
    first = kernel_of(tmp_path)
    assert first.folder.parent == cache / "functions"
    assert first.source(first.spec.implementations[0]) == SOURCE
    assert first.spec.baseline.options["num_warps"] == 8
    assert kernel_of(tmp_path).folder == first.folder
    assert sorted(path.name for path in first.folder.iterdir() if path.is_file()) == ["kernel.py", "spec.py"]
    others = [kernel_of(tmp_path, n="num_tokens * 2"), kernel_of(tmp_path, SOURCE + "# more\n")]
    assert len({first.folder, *(each.folder for each in others)}) == 3


def test_its_traffic_is_unknown(tmp_path: Path) -> None:
    spec = kernel_of(tmp_path).spec
    for unknown in (spec.bytes_moved, spec.flops):
        with pytest.raises(UserError, match="says nothing of its tensors' sizes"):
            unknown(Shape(num_tokens=1))


def test_files_that_cannot_be_read_or_written_are_told(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"none.py: No such file"):
        function_kernel(tmp_path / "none.py", "f", {"n": "num_tokens"}, {})
    (tmp_path / "latin.py").write_bytes(b"# \xe9")
    with pytest.raises(UserError, match=r"latin.py is not UTF-8 text"):
        function_kernel(tmp_path / "latin.py", "f", {"n": "num_tokens"}, {})
    cache.write_text("a file")
    with pytest.raises(UserError, match="Not a directory"):
        kernel_of(tmp_path)
