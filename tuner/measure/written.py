"""The kernel in front: launches that find their inputs just written, and the time that is theirs alone."""

from collections.abc import Callable, Iterable
from statistics import median

import torch
from torch import Tensor

from tuner.measure.benchmark import Samples
from tuner.verify.agreement import words

# No launch takes less. A sample that seems to was taken at another clock.
_LEAST_US = 0.01


def writing(tensors: Iterable[Tensor]) -> Callable[[], None]:
    """A function that writes the first row of each tensor into all of its rows, front to back, and reads only that row.

    It has run once, so that a graph can capture it.
    """
    pairs = [(rows, rows[:1].clone().expand_as(rows)) for rows in map(words, tensors)]

    def write() -> None:
        for rows, first in pairs:
            torch.bitwise_or(first, 0, out=rows)  # a kernel at every size; of one row a copy would be none

    write()
    return write


def behind(write: Callable[[], None], launch: Callable[[], None]) -> Callable[[], None]:
    """The launch, behind the kernels that write."""

    def run() -> None:
        write()
        launch()

    return run


class HiddenTimeError(RuntimeError):
    """The time of a launch does not show behind the writing of its inputs."""


def own(samples: Samples) -> Samples:
    """What all but the last one take longer than it, the writing alone, does in the median.

    HiddenTimeError where one of them takes no longer, so that its time cannot be told.
    """
    *whole_us, writing_us = samples.times_us
    alone_us, least_us = median(writing_us), min(map(median, whole_us))
    if least_us <= alone_us:
        raise HiddenTimeError(
            f"in {len(writing_us)} rounds writing the inputs takes {alone_us:.2f} us, and with a launch behind it"
            f" {least_us:.2f} us: the launch's own time does not show"
        )
    return Samples([[max(each - alone_us, _LEAST_US) for each in times] for times in whole_us], samples.conditions)
