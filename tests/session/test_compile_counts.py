"""Compiles by specialization set, where implementations take different arguments."""

from dataclasses import replace
from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS, copy_kernel

from tuner.catalog import Implementation, Kernel, load_folder
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Target, Variant
from tuner.session import CompileCounts
from tuner.space import ImplementationSpace, SearchSpace


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
