"""Compares every element of every output with the reference."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tuner.catalog import Bounds, Tensors, Tolerance
from tuner.records import Agreement

# Elements compared at a time, so that the float copies of a large output stay small beside it.
_CHUNK = 1 << 26
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def poison(outputs: Tensors) -> None:
    """Fill every output with the byte 0xFF: NaN for floating point, -1 for integers."""
    for output in outputs.values():
        _storage_bytes(output).fill_(0xFF)


def compare(
    outputs: Tensors, expected: Mapping[str, Tensor | Bounds], tolerances: Mapping[str, Tolerance]
) -> Agreement:
    """Hold outputs against a reference.

    Within `Bounds` an element is right when it lies between low and high; where these are equal its bits must be
    theirs; integers wider than a byte count as packed and are held byte by byte. A plain tensor is held to its
    tolerance, exactly without one. ValueError when names or sizes differ.
    """
    if outputs.keys() != expected.keys():
        raise ValueError(f"the outputs are {sorted(outputs)}, the reference names {sorted(expected)}")
    elements = mismatched = undecided = 0
    detail = ""
    for name, reference in expected.items():
        wanted = reference.low if isinstance(reference, Bounds) else reference
        if outputs[name].numel() != wanted.numel():
            raise ValueError(f"{name} has {outputs[name].numel()} elements, the reference {wanted.numel()}")
        if isinstance(reference, Bounds):
            chunks = _against_bounds(outputs[name], reference)
        else:
            chunks = _against_tensor(outputs[name], reference, tolerances.get(name, Tolerance()))
        start = 0
        for actual, right, open_elements in chunks:
            wrong = int(right.numel() - right.count_nonzero())
            if wrong and not detail:
                first = int((~right).nonzero()[0])
                detail = f"{name}: flat element {start + first} is {actual[first].item()}"
            elements += right.numel()
            mismatched += wrong
            undecided += int(open_elements)
            start += right.numel()
    return Agreement(elements, mismatched, undecided, detail)


def _against_bounds(output: Tensor, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for actual, low, high in zip(*map(_packed_chunks, (output, bounds.low, bounds.high)), strict=True):
        right = bits(actual) == bits(low)
        undecided = bits(low) != bits(high)
        between = (undecided & ~right).nonzero().squeeze(1)  # few: with equal bounds the bits say all
        number, least, most = (bits(each)[between].view(each.dtype).float() for each in (actual, low, high))
        right[between] = (least <= number) & (number <= most)
        yield actual, right, undecided.count_nonzero()


def _against_tensor(output: Tensor, reference: Tensor, limit: Tolerance) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    nothing = torch.zeros((), dtype=torch.int64)
    for actual, right_value in zip(_chunks(output), _chunks(reference), strict=True):
        number, goal = actual.double(), right_value.double()
        distance = (number - goal).abs()
        close = goal.isfinite() & (distance <= limit.absolute + limit.relative * goal.abs())
        yield actual, close | (number == goal) | (number.isnan() & goal.isnan()), nothing


def _chunks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Flat pieces of a tensor."""
    return torch.split(tensor.contiguous().reshape(-1), _CHUNK)


def _packed_chunks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Flat pieces of a tensor; integers wider than a byte become their bytes."""
    packed = not tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1
    return _chunks(tensor.contiguous().reshape(-1).view(torch.uint8) if packed else tensor)


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
