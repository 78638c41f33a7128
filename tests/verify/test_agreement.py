"""Poison and compare: every element is looked at, and nothing that was not written passes."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.catalog import Bounds, Tolerance
from tuner.errors import UserError
from tuner.verify import agreement
from tuner.verify.agreement import compare, poison, poison_against

FLOATS = [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16, torch.float32, torch.float64]
OTHER_NAN = [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
INTEGERS = [torch.uint8, torch.int16, torch.int32, torch.int64]
NAN, INF = float("nan"), float("inf")


def tensor(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values).to(dtype)


def held(output: torch.Tensor, reference: torch.Tensor | Bounds, **limits: float) -> tuple[int, int]:
    """How many elements were wrong and undecided."""
    found = compare({"y": output}, {"y": reference}, {"y": Tolerance(**limits)} if limits else {})
    return found.mismatched, found.undecided


def fp8(*codes: int) -> torch.Tensor:
    return torch.tensor(codes, dtype=torch.uint8).view(torch.float8_e4m3fn)


def every_value(dtype: torch.dtype) -> torch.Tensor:
    """All that a byte can hold, and wider numbers that repeat it; NaN left out, for nothing tells it from poison."""
    codes = torch.arange(256).to(torch.uint8)
    if dtype is torch.bool:
        return (codes % 2).bool()
    values = codes[:, None].expand(256, dtype.itemsize).contiguous().view(dtype).squeeze(1)
    return values[~values.double().isnan()]


@pytest.mark.parametrize("dtype", [*FLOATS, *OTHER_NAN, *INTEGERS, torch.int8, torch.uint16, torch.bool], ids=str)
@pytest.mark.parametrize("bounded", [False, True])
def test_every_untouched_element_is_noticed(dtype: torch.dtype, bounded: bool) -> None:
    right = every_value(dtype)
    right = right[: len(right) // 2 * 2].reshape(2, -1)
    reference = Bounds(right, right.clone()) if bounded else right
    bytes_each = dtype.itemsize if bounded and not dtype.is_floating_point else 1
    outputs = {"y": torch.empty_like(right)}
    poison_against(outputs, {"y": reference})
    assert compare(outputs, {"y": reference}, {}).mismatched == right.numel() * bytes_each
    before = outputs["y"].clone()
    for untouched in range(right.numel()):
        outputs["y"].copy_(right)
        outputs["y"].view(-1)[untouched] = before.view(-1)[untouched]
        assert held(outputs["y"], reference)[0] == bytes_each


def untouched(reference: torch.Tensor | Bounds, size: torch.Tensor, **limits: float) -> int:
    """How many elements of an output like `size` are wrong when none is written."""
    output = torch.empty_like(size)
    poison_against({"y": output}, {"y": reference})
    return held(output, reference, **limits)[0]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64], ids=str)
def test_an_untouched_integer_is_noticed_where_others_are_right_too(dtype: torch.dtype) -> None:
    """Whatever one fill for all could be."""
    right = torch.arange(256).to(torch.uint8).to(dtype)
    assert untouched(right, right, absolute=4.0, relative=0.1) == 256
    high = every_value(dtype)
    low = high.view(torch.uint8).clamp(min=100).sub(100).view(dtype)  # of each byte
    if dtype is not torch.int8:
        assert untouched(Bounds(low, high), high) == 256 * dtype.itemsize


@pytest.mark.parametrize("dtype", OTHER_NAN, ids=str)
def test_an_untouched_number_is_noticed_where_any_other_is_right(dtype: torch.dtype) -> None:
    least, most = tensor(-240, dtype=dtype), tensor(240, dtype=dtype)
    assert untouched(Bounds(least, most), least) == 1
    assert untouched(most, most, absolute=1e9) == 1


def test_poison_is_of_the_outputs_type_and_keeps_its_layout() -> None:
    """A reference may have another type and, element by element, another shape; outputs may share a storage."""
    storage = torch.zeros(4, 8, dtype=torch.int16)
    outputs = {"one": storage[1:3, 2:5], "other": storage[:1].t()}
    expected = {"one": torch.arange(-1, 5.0), "other": torch.arange(8)[None]}
    poison_against(outputs, expected)
    found = compare(outputs, expected, {})
    assert found.mismatched == found.elements == 14
    for between in (storage[1:3, :2], storage[1:3, 5:], storage[3]):
        assert between.eq(-1).all()


def test_poison_reaches_what_lies_between_the_rows() -> None:
    storage = torch.zeros(4, 8, dtype=torch.bfloat16)
    poison({"view": storage[1:3, 2:5], "other": (other := torch.zeros(3, dtype=torch.int32))})
    assert storage.view(torch.uint8).eq(0xFF).all()
    assert other.eq(-1).all()


def test_within_bounds_both_ends_are_right() -> None:
    bounds = Bounds(tensor(1, 1, 1, 1, 1), tensor(2, 2, 2, 2, 2))
    assert held(tensor(1, 1.5, 2, 0.999, 2.001), bounds) == (2, 5)


def test_equal_bounds_decide_the_bits() -> None:
    bounds = Bounds(fp8(0x00, 0x00, 0x38, 0x38), fp8(0x00, 0x00, 0x38, 0x40))
    assert held(fp8(0x00, 0x80, 0x38, 0x38), bounds) == (1, 1)
    assert held(fp8(0x80, 0x80, 0x39, 0x40), bounds) == (3, 1)


CODES = st.integers(0, 0xFF).filter(lambda code: code & 0x7F != 0x7F)  # e4m3fn has two NaNs


@given(st.lists(st.tuples(CODES, CODES, st.integers(0, 0xFF)), min_size=1, max_size=40))
def test_bounds_mean_what_they_say(triples: list[tuple[int, int, int]]) -> None:
    """Element by element: with equal bits these alone are right, or else any number from the one to the other."""

    def number(code: int) -> float:
        return float(fp8(code).float())

    pairs = [sorted(pair, key=number) for *pair, _ in triples]
    actual = [code for *_, code in triples]
    wrong = [
        code != low if low == high else not number(low) <= number(code) <= number(high)
        for (low, high), code in zip(pairs, actual, strict=True)
    ]
    lows, highs = zip(*pairs, strict=True)
    undecided = sum(low != high for low, high in pairs)
    assert held(fp8(*actual), Bounds(fp8(*lows), fp8(*highs))) == (sum(wrong), undecided)


def test_zeros_of_both_signs_lie_between_zeros() -> None:
    bounds = Bounds(fp8(0x80, 0x80), fp8(0x00, 0x00))
    assert held(fp8(0x80, 0x00), bounds) == (0, 2)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_is_never_right_where_a_number_is_wanted(dtype: torch.dtype) -> None:
    nan = tensor(NAN, dtype=dtype)
    low, high = tensor(-1, dtype=dtype), tensor(1, dtype=dtype)
    assert held(nan, Bounds(low, high)) == (1, 1)
    assert held(nan, Bounds(low, low)) == (1, 0)
    assert held(nan, low) == (1, 0)
    assert held(nan, low, absolute=1e9, relative=1e9) == (1, 0)
    assert held(low, nan, absolute=1e9, relative=1e9) == (1, 0)


def test_packed_integers_are_held_byte_by_byte() -> None:
    low = torch.tensor([0x7F7E7D7C, 0], dtype=torch.int32)
    high = torch.tensor([0x7F7F7D7C, 0], dtype=torch.int32)
    assert held(torch.tensor([0x7F7E7D7C, 0], dtype=torch.int32), Bounds(low, high)) == (0, 1)
    assert held(torch.tensor([0x7F7F7D7C, 0], dtype=torch.int32), Bounds(low, high)) == (0, 1)
    # As one number it would lie between the two.
    assert held(torch.tensor([0x7F7E7E7C, 1], dtype=torch.int32), Bounds(low, high)) == (2, 1)
    found = compare({"y": low + 256}, {"y": Bounds(low, low)}, {})
    assert (found.elements, found.mismatched) == (8, 2)
    assert found.detail == "y: flat element 1 is 126, expected 125"


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_plain_integers_are_held_as_numbers(dtype: torch.dtype) -> None:
    low = tensor(100, 0, dtype=dtype)
    found = compare({"y": low + 2}, {"y": low}, {})
    assert (found.elements, found.mismatched, found.detail) == (2, 2, "y: flat element 0 is 102, expected 100")
    assert held(low + 2, low, absolute=1.0, relative=0.01) == (1, 0)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_any_layout_can_be_compared(dtype: torch.dtype) -> None:
    """Scales are stored column by column, with one column or more; a scalar has no columns at all."""
    storage = tensor(*range(24), dtype=dtype).reshape(4, 6)
    for view in (storage.t()[:, :1], storage[:1].t(), storage[1:3, 2:5], storage.t(), storage[0, 0]):
        for reference in (view.clone(), Bounds(view.clone(), view.clone()), Bounds(view, view)):
            assert held(view, reference) == (0, 0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64, torch.int32, torch.bool], ids=str)
def test_integers_are_held_to_every_bit(dtype: torch.dtype) -> None:
    """float64 has 53 of them; another integer type may say what is right."""
    wide = 0 if dtype in (torch.int32, torch.bool) else 1 << 60
    right = torch.tensor([wide, wide, wide + 1])
    assert held(torch.tensor([wide, wide + 1, wide + 1]).to(dtype), right) == (1, 0)
    assert held(right.to(dtype), right.to(dtype)) == (0, 0)


@pytest.mark.parametrize("bounded", [False, True])
def test_complex_numbers_are_refused(bounded: bool) -> None:
    real, other = torch.zeros(2), torch.tensor([1j, 2j])
    for output, right in ((other, other), (real, other), (other, real)):
        with pytest.raises(UserError, match=r"output y or its reference is complex.*\n.*view_as_real"):
            held(output, Bounds(right, right) if bounded else right)


def test_a_tolerance_is_absolute_plus_relative() -> None:
    reference = tensor(100, 100, 100, 0, 0)
    output = tensor(101, 101.5, 102, 0.5, 0.75)
    assert held(output, reference, relative=0.01, absolute=0.5) == (2, 0)
    assert held(output, reference) == (5, 0)
    assert held(reference, reference) == (0, 0)


def test_infinities_and_nans_of_a_reference_must_be_met() -> None:
    reference = tensor(INF, -INF, NAN)
    assert held(reference.clone(), reference) == (0, 0)
    assert held(tensor(-INF, INF, 0), reference) == (3, 0)
    assert held(tensor(1, 1, 1), reference, absolute=1.0) == (3, 0)


def test_a_number_is_not_close_to_infinity() -> None:
    assert held(tensor(1), tensor(INF), relative=0.01) == (1, 0)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_an_output_of_another_size_is_an_error(count: int, bounded: bool) -> None:
    right = tensor(5, 5, 5)
    with pytest.raises(ValueError, match=f"y has {count} elements, the reference 3"):
        held(tensor(*[5] * count), Bounds(right, right) if bounded else right)


@pytest.mark.parametrize("names", ["", "a", "abc", "ac"])
def test_a_reference_names_each_output_and_nothing_else(names: str) -> None:
    with pytest.raises(ValueError, match=r"the outputs are \['a', 'b'\], the reference names"):
        compare({name: tensor(1) for name in "ab"}, {name: tensor(1) for name in names}, {})


@given(data=st.data(), chunk=st.integers(1, 20))
def test_chunks_change_nothing(data: st.DataObject, chunk: int) -> None:
    count = data.draw(st.integers(1, 40))
    kind: Any = data.draw(st.sampled_from([torch.float32, torch.int16]))
    low = torch.zeros(count, dtype=kind)
    high = torch.tensor(data.draw(st.lists(st.sampled_from([0, 1]), min_size=count, max_size=count)), dtype=kind)
    output = torch.tensor(data.draw(st.lists(st.sampled_from([0, 1, 3]), min_size=count, max_size=count)), dtype=kind)
    reference = data.draw(st.sampled_from([Bounds(low, high), high]))
    whole = compare({"y": output}, {"y": reference}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "_CHUNK", chunk)
        assert compare({"y": output}, {"y": reference}, {}) == whole
    above = high if isinstance(reference, Bounds) else None
    wrong = [
        index
        for index in range(count)
        if (output[index] > above[index] if above is not None else output[index] != high[index])
    ]
    assert whole.mismatched == len(wrong)
    if wrong:
        per_element = kind.itemsize if kind is torch.int16 and above is not None else 1
        assert f"flat element {wrong[0] * per_element} is" in whole.detail


def test_several_outputs_are_added_up() -> None:
    outputs = {"a": tensor(1, 2), "b": tensor(3, 4, 5)}
    found = compare(outputs, {"a": tensor(1, 2), "b": Bounds(tensor(3, 4, 6), tensor(3, 5, 6))}, {})
    assert (found.elements, found.mismatched, found.undecided) == (5, 1, 1)
    assert found.detail == "b: flat element 2 is 5.0, expected 6.0"
