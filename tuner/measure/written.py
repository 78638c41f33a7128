"""The kernel in front: launches that find their inputs just written, and the time that is theirs alone."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from torch import Tensor

from tuner.verify.agreement import bits

# No launch takes less. A sample that seems to was taken at another clock.
_LEAST_US = 0.01


def write_again(tensors: Iterable[Tensor]) -> Callable[[], None]:
    """A function that writes every element again as it is, one kernel for each tensor, front to back."""
    integers = [bits(tensor) for tensor in tensors]

    def write() -> None:
        for each in integers:
            each.bitwise_or_(0)

    return write


def behind(write: Callable[[], None], launch: Callable[[], None]) -> Callable[[], None]:
    """The launch, behind the kernels that write."""

    def run() -> None:
        write()
        launch()

    return run


def beyond(whole_us: Sequence[float], writing_us: Sequence[float]) -> list[float]:
    """What the whole took longer than the writing alone, whose median counts: a round of it may have been disturbed."""
    alone_us = median(writing_us)
    return [max(each - alone_us, _LEAST_US) for each in whole_us]
