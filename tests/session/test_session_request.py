"""What a run is asked for is held against the kernel before anything is spent."""

from collections.abc import Callable
from pathlib import Path

import pytest
from session_fakes import KERNEL, SHAPES

from tuner.errors import SpaceError, UnknownNameError, UserError
from tuner.records import Shape
from tuner.session import load_fitting_space, whole_shapes
from tuner.space import SearchSpace

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


def test_a_constraint_can_use_a_dimension_that_shapes_leave_to_its_default(load: Callable[[str], SearchSpace]) -> None:
    space = load(SPACE_TEXT)
    assert whole_shapes(KERNEL, space, []) == (Shape(num_rows=3, columns=128),)


def test_defaults_are_filled_in_and_a_repeated_shape_counts_once(load: Callable[[str], SearchSpace]) -> None:
    space = load(SPACE_TEXT.replace("columns <=", "num_rows <="))
    given = [{"num_rows": 5}, {"num_rows": 5, "columns": 128}, {"columns": 16, "num_rows": 5}]
    assert whole_shapes(KERNEL, space, given) == (Shape(num_rows=5, columns=128), Shape(num_rows=5, columns=16))


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
