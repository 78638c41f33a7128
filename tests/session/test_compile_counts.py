"""Compiles by specialization set over sizes, and what the machine code says of the marks that save none."""

import time
from concurrent.futures import Future
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS, copy_kernel

from tuner.catalog import Implementation, Kernel, load_folder, load_kernel
from tuner.compile.builder import Built, CompileJob, build
from tuner.compile.specialization import reachable_keys
from tuner.processes import Failure
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Target, Variant
from tuner.session import CompileCounts
from tuner.session.compile_counts import with_mark
from tuner.session.machine_code import MachineCode
from tuner.space import ImplementationSpace, SearchSpace

KERNEL = load_kernel("fused_inv_rope_fp8_quant")
H100 = Target("cuda", "90")
CANDIDATES = ("num_tokens", "o_stride_token", "cache_stride", "fp8_stride_group", "scale_stride_group")
SHAPES = tuple(
    KERNEL.spec.shape({"num_tokens": tokens, "num_heads": 64, "n_groups": 8}) for tokens in (1, 2, 5, 12, 16, 37, 512)
)
TILE = ImplementationSpace(
    "tile",
    FrozenMapping(
        BLOCK_TOKENS=(1,), BLOCK_HEADS=(4,), TOKEN_TILES=(1,), LOAD_STAGES=(1,), HEADS_FIRST=(0,), LAST_FIRST=(0,)
    ),
    FrozenMapping(num_warps=(4,), num_stages=(1,)),
)
SPACE = SearchSpace(
    KERNEL.name, (TILE,), SHAPES, (*CANDIDATES, "scale_stride_block"), alignment_candidates=("scale_stride_block",)
)
CONFIG = next(TILE.configs(SHAPES[0]))


def subsets(names: tuple[str, ...]) -> list[SpecializationSet]:
    chosen = [each for count in range(len(names) + 1) for each in combinations(names, count)]
    return [SpecializationSet.of(each) for each in chosen]


@pytest.mark.triton
def test_counts_are_those_of_tritons_keys() -> None:
    counts = CompileCounts(KERNEL, SPACE, SHAPES, H100)
    for marks in [
        *subsets(("num_tokens", "fp8_stride_group", "scale_stride_block")),
        SpecializationSet((), CANDIDATES),
    ]:
        variant = Variant(KERNEL.name, CONFIG, marks)
        assert counts.of(variant) == len(reachable_keys(KERNEL, variant, SHAPES, H100))
    assert counts.smallest_set(CONFIG) == SpecializationSet.of(["num_tokens", "scale_stride_block"])


@pytest.mark.triton
def test_a_mark_saves_a_compile_exactly_where_it_does_beside_some_set_of_the_others() -> None:
    counts = CompileCounts(KERNEL, SPACE, SHAPES, H100)
    saving = set()
    for name, on_alignment in [*((name, False) for name in SPACE.candidates), ("scale_stride_block", True)]:
        beside = subsets(tuple(each for each in SPACE.candidates if each != name))
        if name != "scale_stride_block":
            beside += [
                with_mark(each, "scale_stride_block", True)
                for each in beside
                if "scale_stride_block" not in each.do_not_specialize
            ]
        found = any(
            counts.of_set(CONFIG, with_mark(each, name, on_alignment)) < counts.of_set(CONFIG, each) for each in beside
        )
        assert counts.saves(CONFIG, name, on_alignment) == found
        saving |= {(name, on_alignment)} if found else set()
    assert saving == {("num_tokens", False), ("scale_stride_block", False), ("scale_stride_block", True)}


def compile_here(variant: Variant, shape: Shape) -> "Future[Built | Failure]":
    future: Future[Built | Failure] = Future()
    future.set_result(build(CompileJob(KERNEL.folder, variant, shape, H100)))
    return future


@pytest.mark.triton
def test_marks_that_save_nothing_are_dropped_by_what_they_do_to_the_code() -> None:
    counts = CompileCounts(KERNEL, SPACE, SHAPES, H100)
    found = MachineCode(SHAPES, counts, compile_here, 1).dropped_candidates(SPACE)
    assert {each.name: each.reason for each in found} == {
        "o_stride_token": "it saves no compile, and marking it narrows loads from 16 bytes to 2",
        "cache_stride": "it saves no compile, and marking it narrows loads from 16 bytes to 4",
        "fp8_stride_group": "it saves no compile, and marking it narrows stores from 16 bytes to 1",
        "scale_stride_group": "it saves no compile, and marking it changes no machine code",
    }
    assert not any(each.on_alignment for each in found)


@pytest.mark.triton
def test_what_is_not_compiled_in_time_is_searched() -> None:
    counts = CompileCounts(KERNEL, SPACE, SHAPES, H100)
    begun = list[Future[Built | Failure]]()

    def only_an_example_ends(variant: Variant, shape: Shape) -> "Future[Built | Failure]":
        if variant.specialization == SpecializationSet():
            return compile_here(variant, shape)
        begun.append(Future())
        return begun[-1]

    code, until = MachineCode(SHAPES, counts, only_an_example_ends, 1), time.monotonic() + 0.01
    assert code.dropped_candidates(SPACE, until) == []
    assert code.twin(KERNEL.spec.baseline_variant, until) is None
    assert begun
    code.stop()
    assert all(each.cancelled() for each in begun)


@pytest.mark.triton
def test_the_baseline_has_its_code_under_a_set_that_compiles_once() -> None:
    counts = CompileCounts(KERNEL, SPACE, SHAPES, H100)
    begun = list[tuple[Variant, Shape]]()

    def compile_noted(variant: Variant, shape: Shape) -> "Future[Built | Failure]":
        begun.append((variant, shape))
        return compile_here(variant, shape)

    code, baseline = MachineCode(SHAPES, counts, compile_noted, 1), KERNEL.spec.baseline_variant
    least = SpecializationSet.of(["num_tokens", "scale_stride_block"])
    assert code.twin(baseline) == replace(baseline, specialization=least)
    assert len(begun) == 2 + 1  # one for each compile key of the two
    assert code.twin(replace(baseline, specialization=least)) is None
    assert code.twin(replace(baseline, specialization=SpecializationSet())) is None  # 1 token has code of its own


@pytest.mark.triton
def test_a_candidate_that_the_baseline_does_not_take_is_left_out_of_its_table(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    source = (folder / "kernel.py").read_text()
    (folder / "old.py").write_text(source.replace("row_stride", "stride_of_rows"))
    kernel = load_folder(folder)
    new, old = kernel.spec.implementations[0], Implementation("old", "old.py", "scale_rows_kernel", ("BLOCK_ROWS",))
    config = Config("old", FrozenMapping(BLOCK_ROWS=1), FrozenMapping(num_warps=1))

    def launch(inputs, outputs, shape, config):  # type: ignore[no-untyped-def]
        found = load_folder(folder).spec.launch(inputs, outputs, shape, config)
        renamed = {"stride_of_rows" if name == "row_stride" else name: each for name, each in found.arguments.items()}
        return replace(found, arguments=renamed if config.implementation == "old" else found.arguments)

    spec = replace(kernel.spec, implementations=(new, old), baseline=config, launch=launch)
    shapes = (Shape(num_rows=3, columns=128), Shape(num_rows=64, columns=128))
    space = SearchSpace(
        kernel="scale_rows",
        implementations=(ImplementationSpace("rows", FrozenMapping(BLOCK_ROWS=(1,)), FrozenMapping(num_warps=(1,))),),
        shapes=shapes,
        candidates=("num_rows", "row_stride"),
    )
    counts = CompileCounts(Kernel(folder, spec), space, shapes, Target("cuda", "90"))
    assert counts.table(Variant("scale_rows", config)) == {
        SpecializationSet(): 2,
        SpecializationSet.of(["num_rows"]): 1,
    }


@pytest.mark.triton
@pytest.mark.parametrize("order", [(1, 16, 64), (64, 16, 1)], ids=["smallest first", "largest first"])
def test_configs_that_are_launched_with_other_arguments_are_counted_apart(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    source = (folder / "kernel.py").read_text()
    (folder / "kernel.py").write_text(source.replace("    row_stride,\n", "    row_stride,\n    programs,\n"))
    kernel = load_folder(folder)

    def launch(inputs, outputs, shape, config):  # type: ignore[no-untyped-def]
        found = kernel.spec.launch(inputs, outputs, shape, config)
        if found.grid[0] > 100:
            raise ValueError("too many programs")
        return replace(found, arguments={**found.arguments, "programs": found.grid[0]})

    shapes = tuple(Shape(num_rows=rows, columns=128) for rows in (16, 32, 48, 64, 1024))
    space = ImplementationSpace("rows", FrozenMapping(BLOCK_ROWS=order), FrozenMapping(num_warps=(1, 2)))
    searched = SearchSpace("scale_rows", (space,), shapes, ("programs", "num_rows"))
    counts = CompileCounts(Kernel(folder, replace(kernel.spec, launch=launch)), searched, shapes, H100)
    none = {
        config.parameters["BLOCK_ROWS"]: counts.of_set(config, SpecializationSet())
        for config in space.configs(shapes[0])
    }
    # Programs: 16, 32, 48, 64 or refused; 1, 2, 3, 4, 64; 1, 1, 1, 1, 16. All sizes are divisible by 16.
    assert none == {1: 1, 16: 3, 64: 2}
    refused = Variant(
        "scale_rows", next(each for each in space.configs(shapes[0]) if each.parameters["BLOCK_ROWS"] == 1)
    )
    assert counts.key(refused, shapes[-1]) == shapes[-1]
    assert counts.key(refused, shapes[0]) == counts.key(refused, shapes[1])


@pytest.mark.triton
@pytest.mark.parametrize("order", [(2, 256), (256, 2)])
def test_configs_that_differ_at_even_sizes_alone_are_counted_apart(order: tuple[int, int], tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    source = (folder / "kernel.py").read_text()
    (folder / "kernel.py").write_text(source.replace("    row_stride,\n", "    row_stride,\n    EVEN: tl.constexpr,\n"))
    kernel = load_folder(folder)

    def launch(inputs, outputs, shape, config):  # type: ignore[no-untyped-def]
        found = kernel.spec.launch(inputs, outputs, shape, config)
        even = shape["num_rows"] % config.parameters["BLOCK_ROWS"] == 0
        return replace(found, arguments={**found.arguments, "EVEN": even})

    shapes = tuple(Shape(num_rows=rows, columns=128) for rows in range(1, 1200))
    space = ImplementationSpace("rows", FrozenMapping(BLOCK_ROWS=order), FrozenMapping(num_warps=(1,)))
    searched = SearchSpace("scale_rows", (space,), shapes, ("num_rows",))
    counts = CompileCounts(Kernel(folder, replace(kernel.spec, launch=launch)), searched, shapes[:1100], H100)
    marked = SpecializationSet.of(["num_rows"])
    found = {each.parameters["BLOCK_ROWS"]: counts.of_set(each, marked) for each in space.configs(shapes[0])}
    assert found == {2: 2, 256: 2}
    few = CompileCounts(Kernel(folder, replace(kernel.spec, launch=launch)), searched, shapes[:200], H100)
    found = {each.parameters["BLOCK_ROWS"]: few.of_set(each, marked) for each in space.configs(shapes[0])}
    assert found == {2: 2, 256: 1}
