"""The variant generator: bytes, meaning under Triton, and every refusal."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.spec import Implementation
from tuner.compile.source import FunctionSignature, arguments, emit
from tuner.errors import UnknownNameError, UserError
from tuner.processes import WorkerPool, result
from tuner.records import Config, FrozenMapping, SpecializationSet, Variant

GOLDEN = Path(__file__).parent / "golden"
SOURCE = (GOLDEN / "kernel.py").read_text()
RUNTIME = ("x_ptr", "out_ptr", "num_rows", "stride", "scale")
ROW_SUMS = Implementation("tiled", "kernel.py", "row_sums", ("BLOCK_ROWS", "BLOCK_COLUMNS"))
SIMPLE = "import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef k(x_ptr, n, B: tl.constexpr):\n    pass\n"


def variant(
    names: tuple[str, ...] = (), on_alignment: tuple[str, ...] = (), rows: int = 4, columns: int = 256
) -> Variant:
    parameters = FrozenMapping({"BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns})
    config = Config("tiled", parameters, FrozenMapping({"num_warps": 4, "num_stages": 2}))
    return Variant("row_sums", config, SpecializationSet.of(names, on_alignment))


def emitted(chosen: Variant) -> str:
    return emit(SOURCE, ROW_SUMS, chosen, source_name="row_sums/kernel.py")


def simple(source: str = SIMPLE, names: tuple[str, ...] = (), *, parameter: str = "B", value: int = 8) -> str:
    """A variant of a function `k` with one tuned parameter."""
    config = Config("only", FrozenMapping({parameter: value}), FrozenMapping({"num_warps": 1}))
    implementation = Implementation("only", "k.py", "k", (parameter,))
    return emit(source, implementation, Variant("k", config, SpecializationSet.of(names)), source_name="k.py")


def function(text: str, name: str) -> ast.FunctionDef:
    return next(each for each in ast.parse(text).body if isinstance(each, ast.FunctionDef) and each.name == name)


GOLDENS = {
    "plain.py": variant(),
    "both_sets.py": variant(("stride", "num_rows"), ("x_ptr",), rows=8, columns=64),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    assert emitted(GOLDENS[name]) == (GOLDEN / name).read_text()


def test_same_bytes_in_every_process() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_source as t\n"
        "sys.stdout.write(t.emitted(t.GOLDENS['both_sets.py']))\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script, str(Path(__file__).parent)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert found == (GOLDEN / "both_sets.py").read_text()


def test_order_of_a_mapping_changes_nothing() -> None:
    config = Config(
        "tiled",
        FrozenMapping({"BLOCK_COLUMNS": 256, "BLOCK_ROWS": 4}),
        FrozenMapping({"num_stages": 2, "num_warps": 4}),
    )
    assert emitted(Variant("row_sums", config)) == emitted(variant())


def test_imports_neither_torch_nor_triton() -> None:
    script = "import sys, tuner.compile.source; sys.exit(any(name in sys.modules for name in ('torch', 'triton')))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0


@settings(max_examples=40, deadline=None)
@given(
    names=st.sets(st.sampled_from(RUNTIME)),
    on_alignment=st.sets(st.sampled_from(RUNTIME)),
    rows=st.integers(-(2**40), 2**40),
    columns=st.integers(1, 4096),
)
def test_any_variant(names: set[str], on_alignment: set[str], rows: int, columns: int) -> None:
    text = emitted(variant(tuple(names), tuple(on_alignment), rows, columns))
    target = function(text, "row_sums")
    assert [each.arg for each in target.args.args] == [*RUNTIME, "COLUMNS"]
    (decorator,) = target.decorator_list
    assert isinstance(decorator, ast.Call)
    keywords = {each.arg: ast.literal_eval(each.value) for each in decorator.keywords}
    expected = {
        "do_not_specialize": [each for each in RUNTIME if each in names],
        "do_not_specialize_on_alignment": [each for each in RUNTIME if each in on_alignment],
    }
    assert keywords == {key: value for key, value in expected.items() if value} | {"debug": False}
    assert f"\nBLOCK_ROWS = tl.constexpr({rows})  # rows of one program\n" in text
    assert f"\nBLOCK_COLUMNS = tl.constexpr({columns})  # elements of one step\n" in text
    assert ast.get_docstring(ast.parse(text)) == ast.get_docstring(ast.parse(SOURCE))

    plain = emitted(variant((), (), rows, columns)).splitlines()
    differing = [a for a, b in zip(text.splitlines(), plain, strict=True) if a != b]
    assert all(each.startswith(("# variant:", "# do_not_specialize", "@triton.jit(")) for each in differing)


def test_all_comments_are_kept() -> None:
    comments = {line.split("#", 1)[1] for line in SOURCE.splitlines() if "#" in line}
    assert len(comments) > 10
    text = emitted(variant())
    assert [each for each in comments if f"#{each}" not in text] == []


@pytest.mark.parametrize(
    ("imports", "decorator", "expected"),
    [
        ("import triton", "@triton.jit", '@triton.jit(do_not_specialize=["n"])'),
        ("import triton", "@triton.jit()", '@triton.jit(do_not_specialize=["n"])'),
        ("import triton", "@(triton.jit)", '@(triton.jit)(do_not_specialize=["n"])'),
        ("import triton", "@triton.jit  # hot", '@triton.jit(do_not_specialize=["n"])  # hot'),
        ("import triton as t", '@t.jit(do_not_specialize=("x_ptr",))', '@t.jit(do_not_specialize=["n"])'),
        ("from triton import jit", "@jit(do_not_specialize=[0, 1])", '@jit(do_not_specialize=["n"])'),
        ("from triton import jit as j", "@j(\n    do_not_specialize=SET\n)", '@j(do_not_specialize=["n"])'),
        ("from triton.runtime.jit import jit", "@jit", '@jit(do_not_specialize=["n"])'),
        ("import triton.runtime.jit", "@triton.runtime.jit.jit", '@triton.runtime.jit.jit(do_not_specialize=["n"])'),
        ("from engine.triton_utils import triton", "@triton.jit", '@triton.jit(do_not_specialize=["n"])'),
        (
            "import triton",
            "@triton.jit(\n    noinline=True,\n    do_not_specialize_on_alignment={'n'},\n    # why\n    debug=1\n)",
            '# why\n@triton.jit(do_not_specialize=["n"], noinline=True, debug=1)',
        ),
        (
            "import triton",
            "@triton.jit(\n    repr=(\n        # why\n        name\n    ),\n)",
            '@triton.jit(do_not_specialize=["n"], repr=(\n        # why\n        name\n    ))',
        ),
        ("import triton", "@mine\n@triton.jit\n@yours", '@mine\n@triton.jit(do_not_specialize=["n"])\n@yours'),
    ],
)
def test_decorator(imports: str, decorator: str, expected: str) -> None:
    source = SIMPLE.replace("import triton\n", f"{imports}\n").replace("@triton.jit", decorator)
    assert f"\n\n{expected}\ndef k(x_ptr, n):\n" in simple(source, ("n",))
    ast.parse(simple(source, ("n",)))


def test_an_empty_set_gives_the_plain_decorator() -> None:
    source = SIMPLE.replace("@triton.jit", '@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=[0])')
    assert "\n\n@triton.jit\ndef k(" in simple(source)


@pytest.mark.parametrize(
    ("signature", "expected", "comment"),
    [
        ("(x, n, B: tl.constexpr)", "(x, n)", ""),
        ("(B: tl.constexpr, x, n)", "(x, n)", ""),
        ("(x, B: tl.constexpr, n,)", "(x, n,)", ""),
        ("(B: tl.constexpr)", "()", ""),
        ("(\n    x,  # one\n    B: tl.constexpr  # two\n)", "(\n    x  # one\n)", "  # two"),
        ("(\n    x, n, B: tl.constexpr,  # all\n)", "(\n    x, n,  # all\n)", ""),
        ("(\n    B: tl.constexpr, x,  # all\n    n)", "(\n    x,  # all\n    n)", ""),
        ("(\n    x,\n    # above\n    B: tl.constexpr = 3,  # two\n    # below\n    C: tl.constexpr = 4,\n)",
         "(\n    x,\n    # above\n    # below\n    C: tl.constexpr = 4,\n)", "  # two"),
        ("(\n    x,\n    B: tl.constexpr,  # two\n)", "(\n    x,\n)", "  # two"),
    ],
)  # fmt: skip
def test_signature(signature: str, expected: str, comment: str) -> None:
    text = simple(SIMPLE.replace("(x_ptr, n, B: tl.constexpr)", signature))
    assert f"\ndef k{expected}" in text
    assert f'\n\n\nB = tl.constexpr(8){comment}\nCOMPILE_OPTIONS = {{"num_warps": 1}}\n\n\n@triton.jit\n' in text
    ast.parse(text)


@settings(max_examples=60, deadline=None)
@given(
    tuned=st.lists(st.booleans(), min_size=1, max_size=6),
    breaks=st.lists(st.sampled_from([" ", "\n    ", "  # c\n    ", "  # c\n\n    # d\n    "]), min_size=7, max_size=7),
    comma=st.booleans(),
)
def test_any_layout_of_the_signature(tuned: list[bool], breaks: list[str], comma: bool) -> None:
    names = [f"a{index}" for index in range(len(tuned))]
    written = [f"{name}: tl.constexpr" if frozen else name for name, frozen in zip(names, tuned, strict=True)]
    inside = "".join(f"{gap}{each}," for gap, each in zip(breaks, written, strict=False))
    source = SIMPLE.replace("x_ptr, n, B: tl.constexpr", (inside if comma else inside[:-1]) + breaks[-1])
    frozen = tuple(name for name, each in zip(names, tuned, strict=True) if each)
    implementation = Implementation("only", "k.py", "k", frozen)
    config = Config("only", FrozenMapping(dict.fromkeys(frozen, 1)))
    text = emit(source, implementation, Variant("k", config), source_name="k.py")
    assert [each.arg for each in function(text, "k").args.args] == [each for each in names if each not in frozen]
    assert [text.count(f"# {each}\n") for each in "cd"] == [source.count(f"# {each}\n") for each in "cd"]
    assert text.endswith("):\n    pass\n")


@pytest.mark.parametrize(
    ("imports", "annotation", "expected"),
    [
        ("import triton.language as lang", "lang.constexpr", "B = lang.constexpr(8)"),
        ("from triton import language as tl", '"tl.constexpr"', "B = tl.constexpr(8)"),
        ("from triton.language import constexpr", "constexpr", "B = constexpr(8)"),
        ("import triton.language", "triton.language.constexpr", "B = triton.language.constexpr(8)"),
        ("import triton.language as lang", '"constexpr"', "B = lang.constexpr(8)"),
        ("", '"constexpr"', "import triton.language as tl\nB = tl.constexpr(8)"),
    ],
)
def test_constants_use_the_modules_own_name_of_the_language(imports: str, annotation: str, expected: str) -> None:
    source = SIMPLE.replace("import triton.language as tl", imports).replace("tl.constexpr", annotation)
    assert f"\n\n\n{expected}\nCOMPILE_OPTIONS" in simple(source)


def test_line_ends_mark_and_last_line() -> None:
    expected = simple().split("\n", 10)[10]
    for source in ("\ufeff" + SIMPLE, SIMPLE.replace("\n", "\r\n"), SIMPLE.rstrip("\n")):
        assert simple(source).split("\n", 10)[10] == expected


def test_arguments() -> None:
    constexpr = ("BLOCK_ROWS", "BLOCK_COLUMNS", "COLUMNS")
    found = arguments(SOURCE, "row_sums", source_name="k.py")
    assert found == FunctionSignature(RUNTIME, constexpr, ("scale", *constexpr))
    assert arguments(SOURCE, "_scaled", source_name="k.py") == FunctionSignature(("x", "scale"), ())


def edited(old: str, new: str) -> str:
    assert old in SIMPLE
    return SIMPLE.replace(old, new)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (edited("def k(", "def kk("), "Unknown function of k.py 'k'. Expected one of: kk; did you mean 'kk'?"),
        (edited("@triton.jit\n", ""), "'k' in k.py is not decorated with triton.jit."),
        (edited("@triton.jit", "@other.jit"), "'k' in k.py is not decorated with triton.jit."),
        (edited("@triton.jit", "@triton.jit\n@triton.jit"), "'k' in k.py is not decorated with triton.jit."),
        (edited("@triton", "@triton.autotune([], [])\n@triton"), "decorated with triton.autotune, but tuner owns"),
        (edited("@triton.jit", "@triton.jit\n@triton.heuristics({})"), "decorated with triton.heuristics, but tuner"),
        (edited("@triton.jit", "@triton.jit(**OPTIONS)"), "has an argument without a keyword"),
        (SIMPLE + SIMPLE, "'k' in k.py is defined 2 times; expected once."),
        (edited("B:", "C:"), "Unknown parameter of implementation 'only' of k 'B'. Expected one of: C"),
        (edited("B: tl.constexpr", "B"), "Parameter 'B' of implementation 'only' of k is not annotated tl.constexpr"),
        (edited("B: tl.constexpr", "B: tl.int32"), "is not annotated tl.constexpr in 'k'."),
        (edited("n, B", "n, *, B"), "'k' in k.py has `*` or `/` in its signature"),
        (edited("n, B", "n, /, B"), "'k' in k.py has `*` or `/` in its signature"),
        (edited("x_ptr", "*x_ptr"), "'k' in k.py has `*` or `/` in its signature"),
        (edited("    pass", "    return ("), "k.py:7: the source does not parse: '(' was never closed."),
        (edited("n, B", "n, n, B"), "k.py:6: the source does not parse: duplicate argument 'n'"),
        (SIMPLE + "\0", "the source does not parse"),
        (edited("import triton\n", "import triton\nfrom .helpers import h\n"), "has a relative import"),
        (edited("    pass", "    from . import helpers"), "has a relative import"),
        ("B = 3\n" + SIMPLE, "'B' is already a module-level name of k.py or a builtin"),
        ("if 1:\n    from m import B\n" + SIMPLE, "'B' is already a module-level name"),
        (SIMPLE + "class B: ...\n", "'B' is already a module-level name"),
        (SIMPLE + "COMPILE_OPTIONS = 1\n", "'COMPILE_OPTIONS' is already a module-level name"),
        (edited("    pass", "    B = B * 2"), "'k' in k.py assigns to 'B', which becomes a constant"),
        (edited("    pass", "    for B in range(3):\n        pass"), "'k' in k.py assigns to 'B'"),
        (SIMPLE + "def run(x):\n    k[(1,)](x, 1, B=2)\n", "k.py calls 'k' with 'B'"),
        (SIMPLE + "def run(x):\n    k[(1,)](x, 1, 2)\n", "k.py calls 'k' with 'B'"),
        (SIMPLE + "@triton.jit\ndef run(x):\n    k(x, 1, B=2)\n", "k.py calls 'k' with 'B'"),
        (SIMPLE + "k.warmup(1, 1, grid=(1,), B=2)\n", "k.py calls 'k' with 'B'"),
    ],
)
def test_refused_sources(source: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        simple(source)
    assert message in str(caught.value)


def test_a_builtin_is_not_a_name_for_a_parameter() -> None:
    with pytest.raises(UserError, match=r"'max' is already a module-level name of k\.py or a builtin"):
        simple(edited("B: tl", "max: tl"), parameter="max")


def test_what_may_stay() -> None:
    shadows = "def run(x, **more):\n    k[(1,)](x, 1, **more)\n\n\ndef helper(B):\n    B = 3\n    return other(B=B)\n"
    assert simple(SIMPLE + shadows).endswith(shadows)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (SpecializationSet(("num_row",)), "Unknown run-time argument of 'row_sums' 'num_row'.*did you mean 'num_rows'"),
        (SpecializationSet((), ("strides",)), "Unknown run-time argument of 'row_sums' 'strides'.*mean 'stride'"),
        (SpecializationSet(("BLOCK_ROWS",)), "Unknown run-time argument of 'row_sums' 'BLOCK_ROWS'"),
        (SpecializationSet(("COLUMNS",)), "Unknown run-time argument of 'row_sums' 'COLUMNS'"),
    ],
)
def test_refused_sets(chosen: SpecializationSet, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        emitted(Variant("row_sums", variant().config, chosen))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (Config("tiled", FrozenMapping(BLOCK_ROWS=4)), UserError, "no value for parameter 'BLOCK_COLUMNS'"),
        (
            Config("tiled", FrozenMapping(BLOCK_ROWS=4, BLOCK_COLUMNS=4, BLOCK_ROW=1)),
            UnknownNameError,
            "Unknown parameter of implementation 'tiled' of row_sums 'BLOCK_ROW'.*did you mean 'BLOCK_ROWS'",
        ),
        (Config("split", FrozenMapping(BLOCK_ROWS=4, BLOCK_COLUMNS=4)), UserError, "is for implementation 'split'"),
        (
            Config("tiled", FrozenMapping[Any]({"BLOCK_ROWS": "4", "BLOCK_COLUMNS": 4})),
            UserError,
            "'BLOCK_ROWS' of implementation 'tiled' of row_sums is '4'; expected an integer",
        ),
    ],
)
def test_refused_configs(config: Config, error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        emitted(Variant("row_sums", config))


def test_an_argument_with_the_name_of_an_option_takes_its_value() -> None:
    source = SIMPLE.replace("B: tl.constexpr", "B: tl.constexpr, num_warps: tl.constexpr, launch_pdl: tl.constexpr = 0")
    implementation = Implementation("only", "k.py", "k", ("B",))
    for options, expected in (({"num_warps": 2, "launch_pdl": 1}, (2, 1)), ({"num_warps": 4}, (4, 0))):
        config = Config("only", FrozenMapping(B=8), FrozenMapping(options))
        text = emit(source, implementation, Variant("k", config), source_name="k.py")
        assert [argument.arg for argument in function(text, "k").args.args] == ["x_ptr", "n"]
        constants = "B = tl.constexpr(8)\nnum_warps = tl.constexpr({})\nlaunch_pdl = tl.constexpr({})\n".format(
            *expected
        )
        assert constants in text
        assert f"COMPILE_OPTIONS = {dict(sorted(options.items()))}".replace("'", '"') in text


def test_a_kernel_that_does_not_wait_is_not_started_early() -> None:
    config = Config("tiled", FrozenMapping(BLOCK_ROWS=4, BLOCK_COLUMNS=4), FrozenMapping(launch_pdl=1))
    with pytest.raises(UserError, match=r"launch_pdl starts 'row_sums' before .*, and it does not wait") as caught:
        emitted(Variant("row_sums", config))
    assert "gdc_wait() before the first load" in str(caught.value.hint)
    emitted(Variant("row_sums", Config("tiled", config.parameters, FrozenMapping(launch_pdl=0))))


def test_arguments_with_a_default_may_be_left_out() -> None:
    text = "import triton\n@triton.jit\ndef k(a, b=1, C: tl.constexpr = 2): pass\n"
    assert arguments(text, "k", source_name="k.py") == FunctionSignature(("a", "b"), ("C",), ("b", "C"))


def test_arguments_refuses_what_emit_refuses() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'row_sums'"):
        arguments(SOURCE, "row_sum", source_name="kernel.py")
    with pytest.raises(UserError, match=r"kernel\.py:1: the source does not parse"):
        arguments("def (", "k", source_name="kernel.py")


def load(text: str, folder: Path, name: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classes(module: ModuleType) -> tuple[dict[str, Any], Any, tuple[Any, ...]]:
    """What Triton's key sees of each argument at 64 rows of stride 512, and what it takes to compile."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    kernel, target = module.row_sums, GPUTarget("cuda", 90, 32)
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    x, out = (torch.empty(64, 512, device="meta"), torch.empty(64, device="meta"))
    bound, key, options = bind(x_ptr=x, out_ptr=out, num_rows=64, stride=512, scale=2.0, **module.COMPILE_OPTIONS)
    return dict(zip(bound, key, strict=True)), target, (backend, bound, key, options)


@pytest.mark.triton
def test_the_emitted_module_compiles_and_its_key_is_unspecialized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    import triton
    from triton.compiler import ASTSource

    plain = load(emitted(variant()), tmp_path, "plain")
    marked = load(emitted(variant(("num_rows",), ("x_ptr",))), tmp_path, "marked")
    key, target, (backend, bound, raw, options) = classes(marked)
    assert classes(plain)[0] == key | {"num_rows": ("i32", "D"), "x_ptr": ("*fp32", "D")}
    assert (key["num_rows"][0], key["stride"]) == ("i32", ("i32", "D"))
    assert not key["num_rows"][1] and not key["x_ptr"][1]

    chosen, signature, constants, attributes = marked.row_sums._pack_args(backend, options, bound, raw, options)
    source = ASTSource(marked.row_sums, signature, constants, attributes)
    binary = triton.compile(source, target=target, options=chosen.__dict__)
    assert binary.asm["cubin"]
    assert (binary.metadata.num_warps, binary.metadata.num_stages) == (4, 2)
    assert "tensor<4x256xf32" in binary.asm["ttir"]


def sums_in_interpreter(folder: Path, text: str) -> list[bool]:
    """Whether each of five sums of a row is right, and a sixth element left alone."""
    import torch

    module, x, out = load(text, folder, "emitted"), torch.randn(5, 512), torch.full((6,), 7.0)
    module.row_sums[(3,)](x, out, 5, 512, 2.0, **module.COMPILE_OPTIONS)
    return [*torch.isclose(out[:5], x.sum(1), atol=1e-3).tolist(), bool(out[5] == 7)]


@pytest.mark.triton
def test_the_emitted_module_computes_in_the_interpreter(tmp_path: Path, interpreter: WorkerPool) -> None:
    text = emitted(variant(("num_rows",), rows=2, columns=128))
    found = result(interpreter.submit(sums_in_interpreter, tmp_path, text, timeout_s=120.0))
    assert found == [True] * 6, found


if __name__ == "__main__":  # writes the golden files anew: read the difference before you commit it
    for file_name, each_variant in GOLDENS.items():
        (GOLDEN / file_name).write_text(emitted(each_variant))
