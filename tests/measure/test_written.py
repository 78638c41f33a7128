"""What stands in for the kernel in front of a launch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.benchmark import Samples
from tuner.measure.written import HiddenTimeError, behind, own, writing
from tuner.verify.agreement import bits

TYPES = (torch.bfloat16, torch.float32, torch.int64, torch.float8_e4m3fn, torch.bool)


@given(st.sampled_from(TYPES), st.integers(0, 3), st.integers(0, 9), st.booleans())
def test_every_row_becomes_the_first_and_nothing_else_changes(
    dtype: torch.dtype, padding: int, rows: int, turned: bool
) -> None:
    """Bit for bit, NaN included; what lies between strided rows stays as it was."""
    buffer = torch.randint(0, 2, ((rows + 1) * 16 * dtype.itemsize,), dtype=torch.uint8).view(dtype).view(rows + 1, 16)
    whole = buffer.T.contiguous().T if turned else buffer
    tensor, before = whole[:, padding:], bits(whole).clone()
    writing([tensor])()
    expected = before.clone()
    expected[:, padding:] = before[:1, padding:]
    assert torch.equal(bits(whole), expected)


def test_it_writes_without_reading_what_it_writes() -> None:
    tensor = torch.zeros(4, 8)
    write = writing([tensor])
    tensor[0] = 7.0
    write()
    assert tensor.count_nonzero() == 0


def test_all_are_written_before_the_launch() -> None:
    tensors, seen = [torch.zeros(3), torch.ones(2)], list[list[int]]()
    run = behind(writing(tensors), lambda: seen.append([each._version for each in tensors]))
    for _ in range(2):
        run()
    assert seen == [[2, 2], [3, 3]]  # once when it was made


def test_the_own_time_is_what_comes_on_top_of_the_usual_writing() -> None:
    assert own(Samples([[3.0, 5.0, 4.0], [1.5, 2.0, 1.5], [1.0, 1.0, 4.0]], None)).times_us == [
        [2.0, 4.0, 3.0],
        [0.5, 1.0, 0.5],
    ]


def test_a_sample_out_of_line_is_no_time_of_nought_or_less() -> None:
    """Ratios are taken of them."""
    assert own(Samples([[3.0, 3.0, 1.0, 0.5, 3.0], [1.0] * 5], None)).times_us == [[2.0, 2.0, 0.01, 0.01, 2.0]]


def test_a_time_that_does_not_show_is_an_error() -> None:
    with pytest.raises(HiddenTimeError, match=r"in 2 rounds writing the inputs takes 2.00 us.* behind it 1.50 us"):
        own(Samples([[3.0, 3.0], [1.0, 2.0], [2.0, 2.0]], None))
    with pytest.raises(HiddenTimeError):
        own(Samples([[3.0, 3.0], [2.0, 2.0], [2.0, 2.0]], None))
