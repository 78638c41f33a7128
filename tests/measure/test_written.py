"""What stands in for the kernel in front of a launch."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.written import behind, beyond, write_again

TYPES = (torch.bfloat16, torch.float32, torch.int64, torch.float8_e4m3fn)


@given(st.sampled_from(TYPES), st.binary(min_size=96, max_size=96))
def test_everything_is_written_and_nothing_changes(dtype: torch.dtype, content: bytes) -> None:
    """NaN, both zeros and padding between rows included."""
    buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    tensor = buffer.view(dtype).view(2, -1)[:, 1:]
    before = tensor._version
    write_again([tensor])()
    assert tensor._version == before + 1
    assert bytes(buffer.tolist()) == content


def test_all_are_written_before_the_launch() -> None:
    tensors, seen = [torch.zeros(3), torch.ones(2)], list[list[int]]()
    run = behind(write_again(tensors), lambda: seen.append([each._version for each in tensors]))
    run()
    run()
    assert seen == [[1, 1], [2, 2]]


def test_the_own_time_is_what_comes_on_top_of_the_usual_writing() -> None:
    assert beyond([3.0, 5.0, 4.0], [1.0, 1.0, 4.0]) == [2.0, 4.0, 3.0]


def test_no_time_is_nought_or_less() -> None:
    """Their ratios are taken."""
    assert beyond([3.0, 1.0, 0.5], [1.0, 1.0, 1.0]) == [2.0, 0.01, 0.01]
