"""Which shapes are looked at: the workload's sizes or every one, joined with the dimensions that stay."""

from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS, copy_kernel
from specialize_examples import FUSED, NORM

from tuner.catalog import load_folder
from tuner.errors import UserError
from tuner.records import Shape
from tuner.specialize import Scope, looked_at
from tuner.workload import Workload


def test_without_a_workload_every_size_weighs_the_same() -> None:
    scope = looked_at(FUSED)
    assert (len(scope.shares), scope.dynamic, scope.workload, scope.steps) == (4096, "num_tokens", None, None)
    assert {scope.size(shape) for shape in scope.shares} == set(range(1, 4097))
    assert list(scope.shares.values()) == pytest.approx([1 / 4096] * 4096)
    assert {(shape["num_heads"], shape["n_groups"], shape["position_bits"]) for shape in scope.shares} == {(64, 8, 64)}


def test_a_workload_gives_its_sizes_and_their_shares(conversation: Workload) -> None:
    scope = looked_at(NORM, [], conversation)
    assert (scope.workload, scope.steps, len(scope.shares)) == ("azure_conversation", 155_485, 2962)
    usual = NORM.spec.shape({"num_tokens": 27, "hidden_size": 2048})
    assert scope.shares[usual] == pytest.approx(conversation.weights()[27])
    assert sum(scope.shares.values()) == pytest.approx(1)


def test_given_dimensions_replace_those_of_the_space_and_share_the_steps(conversation: Workload) -> None:
    given = [{"row_padding": padding, "num_tokens": size} for padding in (0, 3) for size in (1, 16)]
    scope = looked_at(NORM, given)
    assert {(shape["num_tokens"], shape["row_padding"]): share for shape, share in scope.shares.items()} == {
        (1, 0): 0.25, (16, 0): 0.25, (1, 3): 0.25, (16, 3): 0.25,
    }  # fmt: skip
    assert {shape["hidden_size"] for shape in scope.shares} == {2048}
    padded = looked_at(NORM, [{"row_padding": 0}, {"row_padding": 3}], conversation)
    assert len(padded.shares) == 2 * 2962
    assert sum(share for shape, share in padded.shares.items() if shape["row_padding"] == 3) == pytest.approx(0.5)


def test_a_kernel_without_a_space_needs_its_dimensions(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    (folder / "space.yaml").unlink()
    scope = looked_at(load_folder(folder), [{"num_rows": 4}])
    assert list(scope.shares) == [Shape(num_rows=4, columns=128)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([{"num_tokens": 4}], "'num_tokens' is given by --shapes and by the workload 'azure_conversation'"),
        ([{"heads": 4}], "Unknown dimension"),
    ],
)
def test_what_cannot_be_joined_is_told(given: list[dict[str, int | str]], told: str, conversation: Workload) -> None:
    with pytest.raises(UserError, match=told):
        looked_at(FUSED, given, conversation)


def test_a_workload_of_another_dimension_is_refused(conversation: Workload) -> None:
    with pytest.raises(UserError, match="has sizes of 'num_tokens', but the dimensions of scale_rows are num_rows"):
        looked_at(load_folder(SCALE_ROWS), [], conversation)


def test_quantiles_count_steps_and_parts_add_up_to_one() -> None:
    shapes = {size: Shape(num_tokens=size) for size in (1, 2, 8, 64)}
    scope = Scope({shapes[64]: 0.1, shapes[1]: 0.5, shapes[8]: 0.2, shapes[2]: 0.2}, "num_tokens")
    every = list(scope.shares)
    assert [scope.quantile(share, every) for share in (0.0, 0.5, 0.51, 0.9, 1.0)] == [1, 1, 2, 8, 64]
    assert scope.quantile(0.5, [shapes[2], shapes[8], shapes[64]]) == 8
    assert scope.among([shapes[2], shapes[8]]).shares == {shapes[2]: 0.5, shapes[8]: 0.5}
    assert Scope(scope.shares, None).size(shapes[64]) == 1
    assert scope.size(Shape(num_tokens=0)) == 1
