"""What a run is asked for is held against the kernel before anything is spent."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS, copy_kernel
from session_fakes import KERNEL, SHAPES

from tuner.catalog import Dimension, Kernel, Launch, Tensors, Tolerance, load_folder
from tuner.errors import SpaceError, UnknownNameError, UserError
from tuner.records import Config, L2State, Shape
from tuner.session import find_workload, load_fitting_space, whole_shapes
from tuner.session.request import served_shapes
from tuner.space import SearchSpace
from tuner.workload import workload_paths

SPACE_TEXT = """\
kernel: scale_rows
implementations:
  rows:
    parameters: {BLOCK_ROWS: [1, 2]}
    constraints: [BLOCK_ROWS * columns <= 512]
shapes:
  - {num_rows: 3}
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], SearchSpace]:
    """The space that a text stands for, as a run loads it."""

    def load(text: str) -> SearchSpace:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return load_fitting_space(KERNEL, path)

    return load


def test_the_kernels_own_space_is_the_default() -> None:
    space = load_fitting_space(KERNEL, None)
    assert whole_shapes(KERNEL, space, []) == SHAPES


def test_a_space_for_another_kernel_is_refused(load: Callable[[str], SearchSpace]) -> None:
    with pytest.raises(SpaceError, match=r"space\.yaml.*'scale_columns'.*'scale_rows'"):
        load(SPACE_TEXT.replace("scale_rows", "scale_columns"))


def test_names_are_held_against_the_kernels(load: Callable[[str], SearchSpace]) -> None:
    with pytest.raises(SpaceError, match=r"space\.yaml:4: .*'BLOCK_ROW'.*did you mean 'BLOCK_ROWS'"):
        load(SPACE_TEXT.replace("BLOCK_ROWS: ", "BLOCK_ROW: ").replace("BLOCK_ROWS *", "BLOCK_ROW *"))


def test_inputs_can_only_be_written_where_the_kernel_names_them(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE_TEXT + "measurement: {l2: written}\n")
    assert load_fitting_space(KERNEL, path).l2 is L2State.WRITTEN
    silent = dataclasses.replace(KERNEL, spec=dataclasses.replace(KERNEL.spec, written_inputs=()))
    with pytest.raises(SpaceError, match=r"space\.yaml:8: .*names no input that is written in front of it") as caught:
        load_fitting_space(silent, path)
    assert "KernelSpec.written_inputs" in str(caught.value)
    path.write_text(SPACE_TEXT)
    assert load_fitting_space(silent, path).l2 is L2State.WARM


def test_a_kernel_is_not_started_early_without_the_argument_that_tells_it_so(
    load: Callable[[str], SearchSpace],
) -> None:
    text = SPACE_TEXT.replace("    constraints:", "    options: {launch_pdl: [0, 1]}\n    constraints:")
    with pytest.raises(SpaceError, match=r"space\.yaml:5: 'rows' of scale_rows has no argument 'launch_pdl'"):
        load(text)
    assert load(text.replace("[0, 1]", "[0]")).implementation("rows").options == {"launch_pdl": (0,)}


def test_a_constraint_can_use_a_dimension_that_shapes_leave_to_its_default(load: Callable[[str], SearchSpace]) -> None:
    space = load(SPACE_TEXT)
    assert whole_shapes(KERNEL, space, []) == (Shape(num_rows=3, columns=128),)


def test_defaults_are_filled_in_and_a_repeated_shape_counts_once(load: Callable[[str], SearchSpace]) -> None:
    space = load(SPACE_TEXT.replace("columns <=", "num_rows <="))
    given = [{"num_rows": 5}, {"num_rows": 5, "columns": 128}, {"columns": 16, "num_rows": 5}]
    assert whole_shapes(KERNEL, space, given) == (Shape(num_rows=5, columns=128), Shape(num_rows=5, columns=16))


# The workload.

WORKLOAD = "workload: azure_conversation\n"


def dynamic_tokens() -> Kernel:
    """The example with the dimension that the shipped workloads have sizes of."""
    spec = dataclasses.replace(KERNEL.spec, dimensions=(Dimension("num_tokens", dynamic=True), Dimension("columns")))
    return dataclasses.replace(KERNEL, spec=spec)


def test_the_workload_is_the_given_one_or_the_spaces_or_none(load: Callable[[str], SearchSpace]) -> None:
    with_one, without = load(SPACE_TEXT + WORKLOAD), load(SPACE_TEXT)
    kernel = dynamic_tokens()
    found = [find_workload(kernel, space, given) for space in (with_one, without) for given in ("azure_code", None)]
    assert [each and each.name for each in found] == ["azure_code", "azure_conversation", "azure_code", None]


def test_a_path_in_a_space_is_relative_to_its_file(load: Callable[[str], SearchSpace], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "chat.json").write_text(workload_paths()["azure_code"].read_text())
    found = find_workload(dynamic_tokens(), load(SPACE_TEXT + "workload: mine/chat.json\n"), None)
    assert found is not None
    assert found.name == "azure_code"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("workload: azure_conversatio\n", r"space\.yaml:8: Unknown workload.*did you mean 'azure_conversation'"),
        ("workload: nowhere.json\n", r"space\.yaml:8: .*nowhere\.json"),
        (WORKLOAD, r"space\.yaml:8: .*sizes of 'num_tokens'; expected a dynamic dimension of scale_rows: num_rows"),
    ],
)
def test_a_workload_of_a_space_that_cannot_be_used_is_refused_with_its_line(
    load: Callable[[str], SearchSpace], text: str, told: str
) -> None:
    with pytest.raises(SpaceError, match=told):
        find_workload(KERNEL, load(SPACE_TEXT + text), None)


def test_a_given_workload_that_cannot_be_used_is_refused(load: Callable[[str], SearchSpace]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'azure_code'"):
        find_workload(KERNEL, load(SPACE_TEXT), "azure_cod")
    with pytest.raises(UserError, match="dynamic dimension of scale_rows: num_rows"):
        find_workload(KERNEL, load(SPACE_TEXT), "azure_code")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"num_row": 3}, UnknownNameError, "did you mean 'num_rows'"),
        ({}, UserError, "'num_rows' has no value"),
        ({"num_rows": "many"}, UserError, "'many'; expected an integer"),
        ({"num_rows": -1}, UserError, "-1; expected an integer >= 0"),
        ({"num_rows": 0}, UserError, "launches nothing"),
        ({"num_rows": 3, "columns": 1024}, SpaceError, r"No config meets the constraints at .*columns=1024"),
        ({"num_rows": 2**70}, UserError, "num_rows"),
        ({"num_rows": 2**62}, UserError, "num_rows"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_shape_that_cannot_be_tuned_is_refused(
    load: Callable[[str], SearchSpace], given: dict[str, int | str], error: type[UserError], told: str
) -> None:
    space = load(SPACE_TEXT.replace("num_rows: 3}", "num_rows: 3, columns: 128}"))
    with pytest.raises(error, match=told):
        whole_shapes(KERNEL, space, [given])


# The shapes that a winner may serve.


def kernel_with(**changes: object) -> Kernel:
    """The example with another spec."""
    return dataclasses.replace(KERNEL, spec=dataclasses.replace(KERNEL.spec, **changes))  # type: ignore[arg-type]


def rows(*counts: int, columns: int = 128) -> list[Shape]:
    return [Shape(num_rows=count, columns=columns) for count in counts]


def test_a_winner_may_serve_the_shapes_that_differ_in_a_dynamic_dimension_and_their_neighbours() -> None:
    shapes = [*rows(3, 64), *rows(5, columns=16)]
    for won in rows(3, 64):
        assert set(served_shapes(KERNEL, shapes)[won]) == set(rows(2, 3, 4, 63, 64, 65))
    assert set(served_shapes(KERNEL, shapes)[shapes[-1]]) == set(rows(4, 5, 6, columns=16))


def test_each_served_shape_comes_once() -> None:
    served = served_shapes(KERNEL, rows(3, 4, 5))[rows(4)[0]]
    assert sorted(shape.size("num_rows") for shape in served) == [2, 3, 4, 5, 6]


def test_a_neighbour_that_launches_nothing_is_left_out() -> None:
    assert set(served_shapes(KERNEL, rows(1))[rows(1)[0]]) == set(rows(1, 2))


def test_a_neighbour_below_the_least_that_the_kernel_takes_is_left_out() -> None:
    kernel = kernel_with(dimensions=(Dimension("num_rows", dynamic=True, minimum=3), Dimension("columns")))
    assert set(served_shapes(kernel, rows(3))[rows(3)[0]]) == set(rows(3, 4))


def test_a_neighbour_that_is_no_choice_of_the_kernels_is_left_out() -> None:
    rows_of = Dimension("num_rows", dynamic=True, choices=(3, 4, 64))
    kernel = kernel_with(dimensions=(rows_of, Dimension("columns")))
    assert set(served_shapes(kernel, rows(3, 64))[rows(3)[0]]) == set(rows(3, 4, 64))


def test_a_neighbour_that_the_kernel_cannot_launch_is_left_out() -> None:
    def launch(inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
        if shape.size("num_rows") % 2 == 0:
            raise ValueError("the rows are even")
        return KERNEL.spec.launch(inputs, outputs, shape, config)

    assert set(served_shapes(kernel_with(launch=launch), rows(3, 7))[rows(3)[0]]) == set(rows(3, 7))


def test_neighbours_are_one_off_in_one_dynamic_dimension() -> None:
    dimensions = (Dimension("num_rows", dynamic=True), Dimension("columns", dynamic=True))
    served = served_shapes(kernel_with(dimensions=dimensions), [*rows(3), *rows(9, columns=16)])[rows(3)[0]]
    at_first = {*rows(2, 3, 4), *rows(3, columns=127), *rows(3, columns=129)}
    at_second = {*rows(8, 9, 10, columns=16), *rows(9, columns=15), *rows(9, columns=17)}
    assert set(served) == at_first | at_second


def test_without_a_dynamic_dimension_a_winner_serves_its_own_shape() -> None:
    kernel = kernel_with(dimensions=(Dimension("num_rows"), Dimension("columns")))
    assert served_shapes(kernel, rows(3, 64))[rows(3)[0]] == (rows(3)[0],)


def with_spec(**changes: object) -> Kernel:
    return dataclasses.replace(KERNEL, spec=dataclasses.replace(KERNEL.spec, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"written_inputs": ("y",)}, "'y'"),
        ({"tolerances": {"yy": Tolerance()}}, "did you mean 'y'?"),
    ],
    ids=["an input that is none", "an output that is none"],
)
def test_tensors_that_the_spec_names_must_be_there(
    load: Callable[[str], SearchSpace], changes: dict[str, object], told: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        whole_shapes(with_spec(**changes), load(SPACE_TEXT), [])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: {**found, "row_strid": 1}, "did you mean 'row_stride'?"),
        (lambda found: {name: each for name, each in found.items() if name != "num_rows"}, "passes no num_rows"),
    ],
    ids=["one too many", "one missing"],
)
def test_a_launch_and_its_function_must_agree(
    load: Callable[[str], SearchSpace], change: Callable[[dict[str, object]], dict[str, object]], told: str
) -> None:
    def launch(*given: object) -> Launch:
        found = KERNEL.spec.launch(*given)  # type: ignore[arg-type]
        return Launch(found.grid, change(dict(found.arguments)))

    with pytest.raises(UserError) as caught:
        whole_shapes(with_spec(launch=launch), load(SPACE_TEXT), [])
    assert told in str(caught.value)


def test_an_argument_named_like_an_option_is_not_the_launchs(
    load: Callable[[str], SearchSpace], tmp_path: Path
) -> None:
    takes_it = ("    BLOCK_ROWS: tl.constexpr,\n", "    BLOCK_ROWS: tl.constexpr,\n    num_warps: tl.constexpr,\n")
    kernel = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": takes_it}))
    assert whole_shapes(kernel, load(SPACE_TEXT), [])


def test_where_a_spec_fails_is_told(load: Callable[[str], SearchSpace], tmp_path: Path) -> None:
    broken = ('    rows = shape.size("num_rows")', '    rows = shape.size("num_row")')
    kernel = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": broken}))
    with pytest.raises(UserError, match=r"KeyError: 'num_row' \(spec\.py:\d+, in launch\)"):
        whole_shapes(kernel, load(SPACE_TEXT), [])


@pytest.mark.parametrize("line", ["import numpy as np", "from numpy import *", "from numpy.linalg import norm as n"])
def test_what_a_kernel_imports_from_elsewhere_is_refused(tmp_path: Path, line: str) -> None:
    """It is no part of the source's digest, so that a change there would be measured under the old name."""
    imports = ("import triton\n", f"import math\nimport triton\n{line}\n")
    kernel = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": imports}))
    with pytest.raises(UserError, match=r"kernel\.py imports numpy: "):
        load_fitting_space(kernel, None)


def test_an_output_of_some_shapes_alone_may_have_a_tolerance(load: Callable[[str], SearchSpace]) -> None:
    def make_outputs(shape: Shape, device: str) -> Tensors:
        made = KERNEL.spec.make_outputs(shape, device)
        return {**made, "extra": made["y"]} if shape["columns"] == 64 else made

    kernel = with_spec(make_outputs=make_outputs, tolerances={"extra": Tolerance()})
    shapes = [{"num_rows": 3, "columns": columns} for columns in (128, 64)]
    assert len(whole_shapes(kernel, load(SPACE_TEXT), shapes)) == 2
    with pytest.raises(UnknownNameError, match="'extra'"):
        whole_shapes(kernel, load(SPACE_TEXT), shapes[:1])
