"""Compares every element of every output with the reference."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from tuner.catalog import Bounds, Tensors, Tolerance
from tuner.errors import UserError
from tuner.records import Agreement

# Elements compared at a time, so that the float copies of a large output stay small beside it.
_CHUNK = 1 << 26
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Floating point whose only NaN is the byte 0x80.
_NAN_IS_0X80 = (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)

# A piece of an output, which of its elements are right, how many have several right values, and those of an element.
_Compared = tuple[Tensor, Tensor, Tensor, Callable[[int], str]]


def poison(outputs: Tensors) -> None:
    """Fill every output with the byte 0xFF, which is NaN for floating point, or with NaN where that is another byte."""
    for output in outputs.values():
        _storage_bytes(output).fill_(0xFF)
    for output in outputs.values():
        if output.dtype in _NAN_IS_0X80:
            bits(output).fill_(0x80)


def poison_against(outputs: Tensors, expected: Mapping[str, Tensor | Bounds]) -> None:
    """Poison outputs so that no element is right before it is written; errors are those of `compare`.

    Where a type has no NaN an element becomes the right one with the top bit of each byte turned, or the other truth
    value. That may be right too where half of all values are, as NaN is where NaN is right.
    """
    poison(outputs)
    for _, output, reference in _pairs(outputs, expected):
        if not output.is_floating_point():
            right = reference.high if isinstance(reference, Bounds) else reference
            output.copy_(right.reshape(output.shape))
            turned = b"\1" if output.dtype is torch.bool else b"\x80" * output.itemsize
            bits(output).bitwise_xor_(int.from_bytes(turned, signed=output.itemsize > 1))


def compare(
    outputs: Tensors, expected: Mapping[str, Tensor | Bounds], tolerances: Mapping[str, Tolerance]
) -> Agreement:
    """Hold outputs against a reference.

    Within `Bounds` an element is right when it lies between low and high; where these are equal its bits must be
    theirs; integers wider than a byte count as packed and are held byte by byte. A plain tensor is held to its
    tolerance, exactly without one. ValueError when names or sizes differ, UserError for complex numbers.
    """
    elements = mismatched = undecided = 0
    detail = ""
    for name, output, reference in _pairs(outputs, expected):
        if isinstance(reference, Bounds):
            found = _against_bounds(output, reference)
        else:
            found = _against_tensor(output, reference, tolerances.get(name, Tolerance()))
        start = 0
        for actual, right, open_elements, wanted in found:
            wrong = int(right.numel() - right.count_nonzero())
            if wrong and not detail:
                first = int((~right).nonzero()[0])
                detail = f"{name}: flat element {start + first} is {actual[first].item()}, expected {wanted(first)}"
            elements += right.numel()
            mismatched += wrong
            undecided += int(open_elements)
            start += right.numel()
    return Agreement(elements, mismatched, undecided, detail)


def _pairs(outputs: Tensors, expected: Mapping[str, Tensor | Bounds]) -> Iterator[tuple[str, Tensor, Tensor | Bounds]]:
    """Each output's name, the output and its reference, if they go together."""
    if outputs.keys() != expected.keys():
        raise ValueError(f"the outputs are {sorted(outputs)}, the reference names {sorted(expected)}")
    for name, reference in expected.items():
        output, wanted = outputs[name], reference.low if isinstance(reference, Bounds) else reference
        if output.numel() != wanted.numel():
            raise ValueError(f"{name} has {output.numel()} elements, the reference {wanted.numel()}")
        if output.is_complex() or wanted.is_complex():
            raise UserError(
                f"The output {name} or its reference is complex; expected real numbers.",
                hint="Let both hold real and imaginary parts: see torch.view_as_real.",
            )
        yield name, output, reference


def _against_bounds(output: Tensor, bounds: Bounds) -> Iterator[_Compared]:
    for actual, low, high in zip(*map(_packed_chunks, (output, bounds.low, bounds.high)), strict=True):
        right = bits(actual) == bits(low)
        undecided = bits(low) != bits(high)
        between = (undecided & ~right).nonzero().squeeze(1)  # few: with equal bounds the bits say all
        number, least, most = (bits(each)[between].view(each.dtype).float() for each in (actual, low, high))
        right[between] = (least <= number) & (number <= most)
        yield actual, right, undecided.count_nonzero(), partial(_between, low, high)


def _against_tensor(output: Tensor, reference: Tensor, limit: Tolerance) -> Iterator[_Compared]:
    nothing = torch.zeros((), dtype=torch.int64)
    for actual, right_value in zip(chunks(output), chunks(reference), strict=True):
        yield actual, _is_right(actual, right_value, limit), nothing, partial(_between, right_value, right_value)


def _between(low: Tensor, high: Tensor, index: int) -> str:
    """The right values of an element, for people."""
    least, most = low[index].item(), high[index].item()
    return f"{least}" if bits(low)[index] == bits(high)[index] else f"{least} to {most}"


def _is_right(actual: Tensor, right: Tensor, limit: Tolerance) -> Tensor:
    if limit == Tolerance() and not (actual.is_floating_point() or right.is_floating_point()):
        return actual.long() == right.long()  # float64 would hold 53 bits of them
    number, goal = actual.double(), right.double()
    distance = (number - goal).abs()
    close = goal.isfinite() & (distance <= limit.absolute + limit.relative * goal.abs())
    return close | (number == goal) | (number.isnan() & goal.isnan())


def chunks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Flat pieces of a tensor."""
    return torch.split(tensor.contiguous().reshape(-1), _CHUNK)


def _packed_chunks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Flat pieces of a tensor; integers wider than a byte become their bytes."""
    packed = not tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1
    return chunks(tensor.contiguous().reshape(-1).view(torch.uint8) if packed else tensor)


def bits(tensor: Tensor) -> Tensor:
    """The elements as integers of their size."""
    return tensor.view(_BITS[tensor.dtype.itemsize])


def words(tensor: Tensor) -> Tensor:
    """The elements' bytes as integers, eight or four at a time where they lie so, which is read and written faster."""
    for wide in (torch.int64, torch.int32):
        try:
            return tensor.view(wide)
        except RuntimeError:  # sizes, strides or the start are no multiples
            continue
    return bits(tensor)


def _storage_bytes(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
