"""The dispatcher: the variant of every size, and arguments and grids that are those of the kernel's spec."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import SCALE_ROWS, copy_kernel
from op_examples import arguments_of
from stub_driver import StubDriver

from tuner.catalog import load_folder, load_kernel
from tuner.compile.specialization import meta_launch
from tuner.errors import UserError
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Variant
from tuner.runtime.dispatch import Plans
from tuner.runtime.op import Op
from tuner.runtime.steps import Step, steps

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("caches")]

FUSED, NORM = load_kernel("fused_inv_rope_fp8_quant"), load_kernel("rms_norm")
TILE = {
    FUSED.name: Config(
        "tile",
        FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=4, TOKEN_TILES=2, LOAD_STAGES=1, HEADS_FIRST=1, LAST_FIRST=0),
        FrozenMapping(num_warps=4, num_stages=1),
    ),
    NORM.name: Config(
        "tile",
        FrozenMapping(BLOCK_ROWS=2, BLOCK_COLUMNS=4096, ROW_TILES=3, LOAD_STAGES=1, STREAM=0),
        FrozenMapping(num_warps=4),
    ),
}
SHAPES = [
    (FUSED, FUSED.spec.shape({"num_tokens": 1, "num_heads": 6, "n_groups": 2})),
    (FUSED, FUSED.spec.shape({"num_tokens": 1, "num_heads": 4, "n_groups": 4, "tma_aligned_scales": 1})),
    (NORM, NORM.spec.shape({"num_tokens": 1, "hidden_size": 2064})),
]


def variant(number: int) -> Variant:
    return Variant("some", Config("rows", FrozenMapping(BLOCK=number)))


@given(ends=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3)), max_size=6))
@settings(max_examples=100, deadline=None)
def test_steps_are_exactly_where_the_variant_changes(ends: list[tuple[int, int]]) -> None:
    pieces = sorted(dict(ends).items())
    asked: list[int] = []

    def choice_at(size: int) -> tuple[Variant, bool]:
        asked.append(size)
        chosen = next((chosen for end, chosen in pieces if size <= end), 9)
        return variant(chosen // 2), chosen % 2 == 0

    found = steps(choice_at, [end for end, _ in pieces] + [400])
    assert len(asked) < 80
    assert found[0].first == 1
    served = {size: (step.variant, step.tuned) for step in found for size in range(step.first, 401)}
    assert served == {size: choice_at(size) for size in range(1, 401)}
    assert all((one.variant, one.tuned) != (other.variant, other.tuned) for one, other in pairwise(found))


def two_steps(kernel: Any) -> Callable[[Shape], tuple[Step, ...]]:
    tile = Variant(kernel.name, TILE[kernel.name], SpecializationSet.of(["num_tokens"]))
    return lambda _: (Step(1, tile), Step(20, kernel.spec.baseline_variant))


@pytest.mark.parametrize(("kernel", "fixed"), SHAPES, ids=["fp32 scales", "packed scales", "rms_norm"])
def test_a_call_passes_what_the_spec_says(kernel: Any, fixed: Shape, stub: StubDriver) -> None:
    """Grid and every argument of the op are those of `KernelSpec.launch` on the op's own tensors."""
    op, spec = Op(kernel, two_steps(kernel)), kernel.spec
    for tokens in (1, 2, 3, 4, 16, 17, 19, 20, 21, 50, 64):
        shape = Shape({**fixed, "num_tokens": tokens})
        inputs = spec.make_inputs(shape, "cpu", 0)
        positional, keywords = arguments_of(kernel.name, inputs, shape)
        op(*positional, **keywords)
        config = TILE[kernel.name] if tokens < 20 else spec.baseline
        launched = stub.launches[-1]
        expected = spec.launch(inputs, spec.make_outputs(shape, "cpu"), shape, config)
        assert launched.grid == (*expected.grid, 1, 1)[:3]
        passed = dict(zip(launched.source.fn.arg_names, launched.arguments, strict=True))
        assert passed.keys() == expected.arguments.keys() - config.parameters.keys()
        for name, value in expected.arguments.items():
            if not isinstance(value, torch.Tensor):
                assert passed[name] == value, name
            elif any(value is each for each in inputs.values()):
                assert passed[name] == value.data_ptr()


@pytest.mark.parametrize(("kernel", "fixed"), SHAPES, ids=["fp32 scales", "packed scales", "rms_norm"])
def test_the_grid_is_that_of_the_spec(kernel: Any, fixed: Shape) -> None:
    for config in (TILE[kernel.name], kernel.spec.baseline):
        grid = kernel.host_function.grid(fixed, config)
        for tokens in (*range(1, 70), 4095, 4096, 8191):
            launch = meta_launch(kernel, Variant(kernel.name, config), Shape({**fixed, "num_tokens": tokens}))
            assert grid(tokens) == (*launch.grid, 1, 1)[:3]


def test_one_plan_serves_all_keys_of_the_same_dimensions(stub: StubDriver) -> None:
    plans = Plans(NORM, two_steps(NORM))
    device = torch.device("cpu")
    first = plans.add("a", device, {"hidden_size": 2048})
    assert plans.add("b", device, {"hidden_size": 2048}) is first
    assert plans.add("c", device, {"hidden_size": 4096}) is not first
    assert plans.get("b") is first
    assert len(plans.launchers()) == 4
    assert (plans.known("a"), plans.latest) == (first, ("a", first))
    assert (plans.known("d"), plans.latest) == (None, ("a", first))
    assert first.at(19) == first.launcher(1).launch != first.at(20) == first.launcher(9999).launch


def test_a_plan_may_come_while_launchers_are_listed(stub: StubDriver) -> None:
    op = Op(NORM, two_steps(NORM))

    class Busy:
        """Another thread adds a plan while this one is asked."""

        @property
        def launchers(self) -> tuple[()]:
            op.plans.of(None, {"hidden_size": 4096})
            return ()

    op.plans._by_dimensions[NORM.spec.shape({"num_tokens": 1, "hidden_size": 2048}), torch.device("cpu")] = Busy()  # type: ignore[assignment]
    assert op.counts["compiles"] == 0
    assert len(op.plans.launchers()) == 2


def test_a_plan_is_made_for_dimensions_and_devices_that_there_are(stub: StubDriver) -> None:
    plans = Plans(NORM, two_steps(NORM))
    with pytest.raises(UserError, match="2047; expected an integer >= 2048"):
        plans.add("a", torch.device("cpu"), {"hidden_size": 2047})
    with pytest.raises(UserError, match=r"on cuda:1; expected a device of type 'cpu'"):
        plans.add("a", torch.device("cuda", 1), {"hidden_size": 2048})
    assert not plans


def test_a_kernel_without_op_says_so() -> None:
    with pytest.raises(UserError, match=r"op\.py is missing") as caught:
        load_folder(SCALE_ROWS).host_function  # noqa: B018
    assert "HostFunction" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"), [("OP = 3\n", "defines no"), ("import nothing_here\n", "cannot be loaded")]
)
def test_an_op_that_is_none_says_so(text: str, message: str, tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    (folder / "op.py").write_text(text)
    with pytest.raises(UserError, match=rf"op\.py {message}"):
        load_folder(folder).host_function  # noqa: B018


def test_how_a_kernel_is_called_is_no_part_of_its_source(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    kernel = load_folder(folder)
    (folder / "op.py").write_text("OP = 3\n")
    assert not kernel.is_changed
    (folder / "more.py").write_text("OP = 3\n")
    assert kernel.is_changed
