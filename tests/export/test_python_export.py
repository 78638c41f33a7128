"""`--format python`: a file that stands alone and computes and launches what the op does."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from bundle_examples import ENVIRONMENT, FUSED, PLAIN, SIZES, TABLE, TILE
from kernel_examples import copy_kernel
from op_examples import arguments_of, storages
from stub_driver import stub_driver

from tuner.catalog import kernels, load_folder, load_kernel
from tuner.errors import UserError
from tuner.export import Format, export
from tuner.export.python_code import Call, Name, code
from tuner.processes import WorkerPool, result
from tuner.records import Evidence, Shape, Speedup, Timing, Winner
from tuner.runtime import WinnerTable
from tuner.runtime.binaries import Arguments
from tuner.runtime.op import Op
from tuner.runtime.steps import Step
from tuner.verify.interpreter import patch_conversions

NORM = load_kernel("rms_norm")
STEPS = (Step(1, PLAIN), Step(40, TILE))
LARGE = Shape({"num_heads": 16, "n_groups": 4})


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(folder / "tuner"))
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        yield folder


def text_of(table: WinnerTable) -> str:
    (file,) = export(table, Format.PYTHON, load_kernel(table.kernel))
    assert file.name == f"{table.kernel}.py"
    return file.text


@pytest.fixture(scope="module")
def path(caches: Path) -> Path:
    found = caches / "exported.py"
    found.write_text(text_of(TABLE))
    return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def norm_table() -> WinnerTable:
    shape, time = NORM.spec.shape({"num_tokens": 8, "hidden_size": 2048}), Timing(1.0, 1.0, 1.0, 1)
    baseline = NORM.spec.baseline_variant
    row = Winner(baseline, baseline, shape, ENVIRONMENT, NORM.source_digest, time, time, Speedup(1.0, 1.0, 1.0), 1, "")
    return WinnerTable(NORM.name, NORM.source_digest, ENVIRONMENT, (row,))


def outputs_in_interpreter(path: Path, name: str, steps: tuple[Step, ...], shapes: tuple[Shape, ...]) -> list[bool]:
    """Whether the bytes of every output of the file are those of the op."""
    patch_conversions()
    kernel, module = load_kernel(name), load(path)
    op, found = Op(kernel, lambda _: steps), []
    for seed, shape in enumerate(shapes):
        positional, keywords = arguments_of(name, kernel.spec.make_inputs(shape, "cpu", seed), shape)
        ours = storages(name, getattr(module, name)(*positional, **keywords))
        right = storages(name, op(*positional, **keywords))
        found += [torch.equal(ours[each].view(torch.uint8), right[each].view(torch.uint8)) for each in right]
        found.append(any(bool(each.view(torch.uint8).any()) for each in right.values()))
    return found


@pytest.mark.parametrize("name", [FUSED.name, NORM.name])
def test_it_gives_the_results_of_the_op(name: str, path: Path, tmp_path: Path, interpreter: WorkerPool) -> None:
    kernel, steps = load_kernel(name), STEPS
    shapes = tuple(FUSED.spec.shape({"num_tokens": tokens, **SIZES}) for tokens in (3, 4, 45))
    if kernel is NORM:
        path, steps = tmp_path / "norm.py", (Step(1, NORM.spec.baseline_variant),)
        path.write_text(text_of(norm_table()))
        shapes = tuple(NORM.spec.shape({"num_tokens": tokens, "hidden_size": 2048}) for tokens in (1, 5))
    found = result(interpreter.submit(outputs_in_interpreter, path, name, steps, shapes, timeout_s=200.0))
    assert isinstance(found, list), found.log
    assert found == [True] * (len(shapes) * (3 if kernel is FUSED else 2))


def test_it_stands_alone(path: Path, tmp_path: Path) -> None:
    """Loaded without this project's folder, it loads nothing but torch, triton and what these need."""
    script = (
        f"import importlib.util as u, sys; s = u.spec_from_file_location('exported', {str(path)!r}); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); "
        "print(m.fused_inv_rope_fp8_quant.__name__, [n for n in sys.modules if n.split('.')[0] == 'tuner'])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "fused_inv_rope_fp8_quant []\n", done.stderr


@pytest.mark.triton
def test_it_launches_what_the_op_launches(path: Path) -> None:
    module = load(path)
    with stub_driver() as stub:
        op = Op(FUSED, lambda _: STEPS)
        for tokens in (1, 4, 5, 16, 48, 50):
            shape = FUSED.spec.shape({"num_tokens": tokens, **SIZES})
            positional, keywords = arguments_of(FUSED.name, FUSED.spec.make_inputs(shape, "cpu", 0), shape)
            returned = [function(*positional, **keywords) for function in (module.fused_inv_rope_fp8_quant, op)]
            ours, right = stub.launches[-2:]
            names = [name for name in right.source.fn.arg_names if name in FUSED.host_function.arguments]
            assert {name: ours.classes[name] for name in names} == {name: right.classes[name] for name in names}
            assert (ours.grid, ours.source.fn.__name__) == (right.grid, right.source.fn.__name__)
            for option in ("num_warps", "num_stages", "enable_fp_fusion"):
                assert getattr(ours.metadata, option) == getattr(right.metadata, option)
            for one, other in zip(*returned, strict=True):
                assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def test_each_size_has_the_variant_of_the_table(path: Path) -> None:
    module = load(path)
    (tuned,) = module.plans._tuned
    first, second, third = tuned.steps
    assert (first[0], first[1].config.implementation) == (1, "per_head")
    assert (second[0], second[1].config.parameters) == (40, dict(TILE.config.parameters))
    assert third[1].function is not first[1].function  # the baseline again, with its own set
    assert third[1].config == first[1].config
    assert second[1].function.do_not_specialize == ["num_tokens"]
    assert first[1].function.do_not_specialize in ([], None)


@pytest.mark.triton
@pytest.mark.parametrize("name", [FUSED.name, NORM.name])
def test_where_nothing_was_tuned_it_launches_the_baseline(name: str, path: Path, tmp_path: Path) -> None:
    kernel, sizes = (FUSED, LARGE) if name == FUSED.name else (NORM, Shape({"hidden_size": 4096}))
    if kernel is NORM:
        path = tmp_path / "norm.py"
        path.write_text(text_of(norm_table()))
    module, baseline = load(path), kernel.spec.baseline_variant
    with stub_driver() as stub:
        shape = kernel.spec.shape({"num_tokens": 4, **sizes})
        positional, keywords = arguments_of(name, kernel.spec.make_inputs(shape, "cpu", 0), shape)
        for function in (getattr(module, name), Op(kernel, lambda _: (Step(1, baseline),))):
            function(*positional, **keywords)
        ours, right = stub.launches[-2:]
    assert (ours.grid, ours.source.fn.__name__) == (right.grid, right.source.fn.__name__)
    assert ours.metadata.num_warps == right.metadata.num_warps
    fixed = module.Shape({name: value for name, value in shape.items() if name != "num_tokens"})
    constants = dict(Arguments.of(kernel, baseline, shape).constants)
    assert module.plans._untuned(fixed).constants == {baseline.config.implementation: constants}


def test_wrong_inputs_and_dimensions_that_cannot_be_are_told(path: Path) -> None:
    module = load(path)
    shape = FUSED.spec.shape({"num_tokens": 4, **LARGE})
    positional, _ = arguments_of(FUSED.name, FUSED.spec.make_inputs(shape, "cpu", 0), shape)
    with pytest.raises(module.UserError, match="'scale_rounding' is 'up'; expected 'pow2' or 'none'"):
        module.fused_inv_rope_fp8_quant(*positional, scale_rounding="up")
    with pytest.raises(module.UserError, match="packed scales hold exponents only"):
        module.fused_inv_rope_fp8_quant(*positional[:-1], True, scale_rounding="none")
    with pytest.raises(module.UserError, match=r"o is torch\.float32; expected torch.bfloat16"):
        module.fused_inv_rope_fp8_quant(positional[0].float(), *positional[1:])


def test_only_the_files_that_run_are_in_it() -> None:
    text = text_of(replace(TABLE, rows=tuple(replace(row, variant=PLAIN) for row in TABLE.rows)))
    assert "fused_inv_rope_fp8_quant_per_head_kernel" in text
    assert "def _split_pairs" not in text
    assert text == text_of(replace(TABLE, rows=tuple(replace(row, variant=PLAIN) for row in TABLE.rows)))


def test_a_device_of_any_name_is_but_a_text() -> None:
    device = '"""\nraise SystemExit\n"""\\ \x00\ud800'
    where = replace(ENVIRONMENT, device=device, evidence=Evidence.MEASURED)
    rows = tuple(replace(row, environment=where) for row in TABLE.rows)
    module = ast.parse(text_of(replace(TABLE, environment=where, rows=rows)))
    assert device in (ast.get_docstring(module, clean=False) or "")
    assert isinstance(module.body[1], ast.Import | ast.ImportFrom)


def test_another_source_is_refused() -> None:
    with pytest.raises(UserError, match="The table is for source 0000000000000000"):
        export(replace(TABLE, source_digest="0" * 16), Format.PYTHON, FUSED)


@pytest.mark.parametrize(
    ("file", "edit", "told"),
    [
        ("op.py", ("from .spec import EPS, PER_ROW", "from .spec import EPS, PER_ROW, SPEC"), "'SPEC', a KernelSpec"),
        (
            "op.py",
            ("from tuner.errors import UserError", "from tuner.errors import TableError, UserError"),
            "imports 'TableError' from tuner",
        ),
        ("op.py", ("def _check(", "def rms_norm_per_row_kernel():\n    pass\n\n\ndef _check("), "more than once"),
        ("baseline.py", ("import triton\n", "import triton\nfrom .reference import reference\n"), "relative import"),
        ("baseline.py", ("import triton\n", "import triton\nfrom tuner.errors import UserError\n"), "one of tuner"),
        ("baseline.py", ("import triton\n", "import triton\nimport tuner.errors\n"), "one of tuner"),
        (
            "spec.py",
            (
                "    tokens, hidden = _sizes(shape)\n    x, y =",
                "    reference\n    tokens, hidden = _sizes(shape)\n    x, y =",
            ),
            "spec.py of rms_norm imports 'reference', a function",
        ),
    ],
)
def test_what_cannot_stand_alone_is_told(
    file: str, edit: tuple[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_kernel(NORM.folder, tmp_path, {file: edit})
    monkeypatch.setenv("TUNER_KERNEL_PATH", str(tmp_path))
    digest = load_folder(folder).source_digest
    table = norm_table()
    rows = tuple(replace(row, source_digest=digest) for row in table.rows)
    with pytest.raises(UserError, match=told):
        export(replace(table, source_digest=digest, rows=rows), Format.PYTHON, load_folder(folder))
    assert kernels.kernel_names()["rms_norm"] == folder


@pytest.mark.parametrize(
    "value",
    [
        1,
        "a\"b'",
        1.5,
        None,
        True,
        (1,),
        (),
        [],
        {},
        {"a": [1, {"b": (2, 3)}]},
        ["word" * 10] * 20,
        {"k" * 40: "v" * 90},
    ],
)
def test_values_are_written_as_what_they_are(value: Any) -> None:
    assert eval(code(value)) == value
    assert all(len(line) <= 150 for line in code(value).splitlines())


def test_calls_and_names_are_written_as_such() -> None:
    assert code(Call("f", (Name("x"), "x", [Name("y")]), {"mark": ("z",)})) == 'f(x, "x", [y], mark=("z",))'
    assert code(Call("function", ("word" * 14, "word" * 14))).splitlines() == [
        "function(",
        f'    "{"word" * 14}",',
        f'    "{"word" * 14}",',
        ")",
    ]
