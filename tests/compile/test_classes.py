"""Class tables: the compiles of any set of marks at once, the same as Triton's own keys give one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import SCALE_ROWS, copy_kernel

from tuner.catalog import Kernel, load_folder, load_kernel
from tuner.compile.classes import ArgumentClass, ClassTable, Mark, class_table
from tuner.compile.specialization import reachable_keys
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Target, Variant

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("fresh_caches")]

CUDA, HIP = Target("cuda", "90"), Target("hip", "gfx942")
FUSED, NORM = load_kernel("fused_inv_rope_fp8_quant"), load_kernel("rms_norm")
FUSED_TILE = Config(
    "tile",
    FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=2, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0),
    FrozenMapping(num_warps=4, num_stages=1),
)
CASES = [(FUSED, FUSED.spec.baseline), (FUSED, FUSED_TILE), (NORM, NORM.spec.baseline)]
# What takes each kind of argument; `mixed` changes its type and its value from size to size.
KINDS = """\
import triton
import triton.language as tl


@triton.jit
def scale_rows_kernel(
    x_ptr, num_rows, nothing, eps, pair, flag, wide, mixed, typed: tl.int32, COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr
):
    tl.store(x_ptr + num_rows, 1.0)
"""
LAUNCH = """\
    x = inputs["x"]
    arguments = {
        "x_ptr": x[0, rows % 2 :], "num_rows": rows, "nothing": None, "eps": 1e-6, "pair": (rows, 1), "flag": True,
        "wide": 2**31 - 8 + rows, "mixed": (None, rows, 0.5, x, 2**63)[rows % 5], "typed": rows,
        "COLUMNS": shape.size("columns"),
    }
"""


def shape_of(kernel: Kernel, tokens: int, wide: bool) -> Shape:
    if kernel is FUSED:
        return FUSED.spec.shape({"num_tokens": tokens, "num_heads": 64, "n_groups": 8})
    return NORM.spec.shape({"num_tokens": tokens, "hidden_size": 2048, "row_padding": 3 if wide else 64})


names = st.sampled_from(["num_tokens", "x_row_stride", "scale_stride_block", "fp8_stride_group", "x_ptr", "eps"])
marks = st.builds(lambda full, aligned: SpecializationSet.of(full, aligned), st.sets(names), st.sets(names))


@settings(deadline=None, max_examples=40)
@given(
    case=st.sampled_from(CASES),
    sizes=st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=12),
    chosen=marks,
    target=st.sampled_from([CUDA, HIP]),
)
def test_a_count_is_that_of_reachable_keys(
    case: tuple[Kernel, Config], sizes: list[tuple[int, bool]], chosen: SpecializationSet, target: Target
) -> None:
    kernel, config = case
    shapes = [shape_of(kernel, *size) for size in sizes]
    table = class_table(kernel, config, shapes, target)
    own = SpecializationSet.of(
        [name for name in chosen.do_not_specialize if name in table.runtime],
        [name for name in chosen.do_not_specialize_on_alignment if name in table.runtime],
    )
    reached = reachable_keys(kernel, Variant(kernel.name, config, own), shapes, target)
    assert table.count(chosen) == len(table.keys(chosen)) == len(reached)
    assert list(table.keys(chosen).values()) == list(reached.values())
    assert {table.key(chosen, shape) for shape in table.shapes} == set(table.keys(chosen))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    folder = copy_kernel(SCALE_ROWS, tmp_path_factory.mktemp("kinds"))
    (folder / "kernel.py").write_text(KINDS)
    text = (folder / "spec.py").read_text()
    start, end = text.index("    arguments = {"), text.index("    return Launch(")
    (folder / "spec.py").write_text(text[:start] + LAUNCH + text[end:])
    return load_folder(folder)


def table_of(kernel: Kernel, rows: range) -> ClassTable:
    shapes = [kernel.spec.shape({"num_rows": each}) for each in rows]
    return class_table(kernel, kernel.spec.baseline, shapes, CUDA)


def test_each_kind_of_argument_has_its_classes(kinds: Kernel) -> None:
    table = table_of(kinds, range(1, 34))
    found = {name: list(dict.fromkeys(each.label for each in table.of(name))) for name in table.names}
    assert found == {
        "x_ptr": ["*bf16", "*bf16, divisible by 16"],
        "num_rows": ["= 1", "i32", "i32, divisible by 16"],
        "nothing": ["= None"],
        "eps": ["fp32"],
        "pair": [
            "('constexpr', 'constexpr') (1, 1)",
            "('i32', 'constexpr') ('', 1)",
            "('i32', 'constexpr') ('D', 1)",
        ],
        "flag": ["u1"],
        "wide": ["i32", "i64, divisible by 16", "i64"],
        "mixed": [
            "= 1",
            "fp32",
            "*bf16, divisible by 16",
            "u64, divisible by 16",
            "= None",
            "i32",
            "i32, divisible by 16",
        ],
        "typed": ["i32 1", "i32", "i32, divisible by 16"],
        "COLUMNS": ["= 128"],
    }
    assert {each.type for each in table.of("wide", Mark.SPECIALIZATION)} == {"i32", "i64"}
    assert {each.label for each in table.of("x_ptr", Mark.ALIGNMENT)} == {"*bf16"}
    assert {each.label for each in table.of("num_rows", Mark.ALIGNMENT)} == {"= 1", "i32"}


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 40).map(lambda first: range(first, first + 24)),
    full=st.sets(st.sampled_from(["x_ptr", "num_rows", "nothing", "eps", "pair", "flag", "wide", "mixed", "typed"])),
    aligned=st.sets(st.sampled_from(["x_ptr", "num_rows", "eps", "pair", "wide", "mixed", "typed"])),
)
def test_a_count_is_exact_for_every_kind(kinds: Kernel, rows: range, full: set[str], aligned: set[str]) -> None:
    chosen = SpecializationSet.of(full, aligned)
    shapes = [kinds.spec.shape({"num_rows": each}) for each in rows]
    variant = Variant(kinds.name, kinds.spec.baseline, chosen)
    assert table_of(kinds, rows).count(chosen) == len(reachable_keys(kinds, variant, shapes, CUDA))


def test_on_amd_what_a_pointer_reaches_counts() -> None:
    """Beyond 2 GiB another class, and so another compile; NVIDIA's compiler is not told."""
    config = NORM.spec.baseline
    shapes = [NORM.spec.shape({"num_tokens": tokens, "hidden_size": 16384}) for tokens in (17, 2**17 + 1)]
    for target, count in ((CUDA, 1), (HIP, 2)):
        assert class_table(NORM, config, shapes, target).count(SpecializationSet()) == count
        assert len(reachable_keys(NORM, Variant(NORM.name, config), shapes, target)) == count
    labels = [each.label for each in class_table(NORM, config, shapes, HIP).of("x_ptr")]
    assert labels == ["*bf16, divisible by 16, below 2 GiB", "*bf16, divisible by 16"]


def test_what_a_set_takes_and_what_leaves_the_key() -> None:
    shapes = [shape_of(FUSED, tokens, False) for tokens in (1, 17, 14, 32)]
    table = class_table(FUSED, FUSED.spec.baseline, shapes, CUDA)
    one, divisible = ArgumentClass("constexpr", "1"), ArgumentClass("i32", divisible_by_16=True)
    assert table.lost(SpecializationSet.of(["num_tokens", "scale_stride_block"])) == (
        (("num_tokens", one),),
        (),
        (("scale_stride_block", divisible),),
        (("num_tokens", divisible), ("scale_stride_block", divisible)),
    )
    assert table.lost(SpecializationSet.of([], ["num_tokens"]))[0] == ()
    nothing = SpecializationSet()
    assert [table.count(nothing, without=name) for name in (None, "num_tokens", "NOPE_DIM")] == [4, 2, 4]


def test_a_shape_that_launches_nothing_has_no_row() -> None:
    shapes = [shape_of(FUSED, tokens, False) for tokens in (0, 5)]
    table = class_table(FUSED, FUSED.spec.baseline, shapes, CUDA)
    assert table.shapes == (shapes[1],)
    with pytest.raises(KeyError):
        table.key(SpecializationSet(), shapes[0])
    with pytest.raises(ValueError, match="not in tuple"):
        table.of("num_rows")
