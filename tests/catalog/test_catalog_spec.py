"""KernelSpec.shape: whole shapes out of given values, and a message for each wrong one."""

from typing import Any

import pytest

from tuner.catalog import Launch, load_kernel
from tuner.errors import UnknownNameError, UserError

SPEC = load_kernel("fused_inv_rope_fp8_quant").spec
SIZES = {"num_tokens": 4, "num_heads": 8, "n_groups": 2}


def test_defaults_are_filled_in_and_left_out_of_the_short_label() -> None:
    shape = SPEC.shape({"n_groups": 2, "num_heads": 8, "num_tokens": 4, "scale_rounding": "none"})
    assert list(shape) == [dimension.name for dimension in SPEC.dimensions]
    assert shape["rope_style"] == "interleaved"
    assert SPEC.short_label(shape) == "num_tokens=4,num_heads=8,n_groups=2,scale_rounding=none"
    assert SPEC.dynamic_dimensions == ("num_tokens",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_token", 4, "did you mean 'num_tokens'"),
        ("num_heads", None, "'num_heads' has no value"),
        ("num_heads", 0, "expected an integer >= 1"),
        ("num_tokens", -1, "expected an integer >= 0"),
        ("num_heads", True, "is True; expected an integer"),
        ("num_heads", "8", "is '8'; expected an integer"),
        ("num_heads", 8.0, r"is 8\.0; expected an integer"),
        ("scale_rounding", "up", "is 'up'; expected 'pow2' or 'none'"),
        ("position_bits", 16, "is 16; expected 32 or 64"),
        ("position_bits", 32.0, r"is 32\.0; expected 32 or 64"),
        ("tma_aligned_scales", True, "is True; expected 0 or 1"),
    ],
)
def test_wrong_values_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SPEC.shape({**SIZES, name: value})


def test_an_unknown_dimension_says_so() -> None:
    with pytest.raises(UnknownNameError, match="dimension of fused_inv_rope_fp8_quant 'tokens'"):
        SPEC.shape({**SIZES, "tokens": 4})


def test_zero_tokens_are_a_shape() -> None:
    assert SPEC.shape({**SIZES, "num_tokens": 0})["num_tokens"] == 0


def test_implementations_by_name() -> None:
    assert SPEC.implementation("tile").function == "fused_inv_rope_fp8_quant_kernel"
    with pytest.raises(UnknownNameError, match="did you mean 'tile'"):
        SPEC.implementation("tiles")


@pytest.mark.parametrize("grid", [4, [4], (), (1, 2, 3, 4)])
def test_a_grid_is_one_to_three_numbers_in_a_tuple(grid: object) -> None:
    with pytest.raises(UserError, match="expected one to three numbers in a tuple"):
        Launch(grid, {})  # type: ignore[arg-type]
    assert Launch((4,), {}).grid == (4,)
