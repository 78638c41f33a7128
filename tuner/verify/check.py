"""Runs a variant on poisoned outputs, once per case, and compares with the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.catalog import Bounds, Kernel, Tensors
from tuner.compile.module import LoadedVariant, load_variant
from tuner.errors import UserError
from tuner.records import Agreement, Config, Shape
from tuner.verify.agreement import chunks, compare, poison, poison_against, words

RANDOM = "random"
_NO_REFERENCE = "held against the baseline's output, for the kernel has no reference"


@dataclass(frozen=True)
class Case:
    """One set of inputs, and what the outputs must be; `name` is "random" or that of the edge.

    `sums` tell an input that was written to.
    """

    name: str
    inputs: Tensors
    expected: Mapping[str, Tensor | Bounds]
    sums: Mapping[str, int]


def make_cases(kernel: Kernel, shape: Shape, device: str, seed: int) -> tuple[Case, ...]:
    """The random inputs and after them every edge of the kernel, each with what must come out, on `device`."""
    random = make_case(kernel, shape, RANDOM, kernel.spec.make_inputs(shape, device, seed))
    return (random, *make_edge_cases(kernel, shape, device, seed))


def make_edge_cases(kernel: Kernel, shape: Shape, device: str, seed: int) -> tuple[Case, ...]:
    """Every edge of the kernel, with what must come out."""
    makers = kernel.spec.edge_inputs
    return tuple(make_case(kernel, shape, name, make(shape, device, seed)) for name, make in makers.items())


def make_case(kernel: Kernel, shape: Shape, name: str, inputs: Tensors) -> Case:
    """Inputs with the reference's word on them, or the baseline's output for a kernel without a reference.

    UserError when what says so writes to the inputs.
    """
    sums, reference = _sums(inputs), kernel.spec.reference
    expected = reference(dict(inputs), shape) if reference else _baseline_outputs(kernel, shape, inputs)
    if written := _written(inputs, sums):
        source = "reference" if reference else "baseline"
        raise UserError(
            f"The {source} of {kernel.name} writes to its input {written}.",
            hint="Let it leave its inputs as they are; a kernel that works in place cannot be tuned yet.",
        )
    return Case(name, inputs, expected, sums)


def _baseline_outputs(kernel: Kernel, shape: Shape, inputs: Tensors) -> Tensors:
    spec = kernel.spec
    outputs = spec.make_outputs(shape, next(iter(inputs.values())).device.type)
    poison(outputs)
    load_variant(kernel, spec.baseline_variant).run(spec.launch(inputs, outputs, shape, spec.baseline))
    return outputs


def check_cases(
    kernel: Kernel, loaded: LoadedVariant, config: Config, shape: Shape, cases: Sequence[Case], outputs: Tensors
) -> Agreement:
    """For each case poison the outputs, launch, and compare every element; inputs must stay as they were.

    Elements are added up over the cases. The first wrong case is the last one: its name stands in `detail`. Where it is
    an input that changed, no elements are counted.
    """
    elements = undecided = 0
    for case in cases:
        poison_against(outputs, case.expected)
        loaded.run(kernel.spec.launch(case.inputs, outputs, shape, config))
        if written := _written(case.inputs, case.sums):
            return Agreement(0, 1, 0, f"on {case.name} inputs, it wrote to its input {written}")
        found = compare(outputs, case.expected, kernel.spec.tolerances)
        elements += found.elements
        undecided += found.undecided
        if found.mismatched:
            return Agreement(elements, found.mismatched, undecided, f"on {case.name} inputs, {found.detail}")
    return Agreement(elements, 0, undecided, "" if kernel.spec.reference else _NO_REFERENCE)


def _written(inputs: Tensors, sums: Mapping[str, int]) -> str | None:
    """The first input that is not as it was when its sum was taken."""
    return next((name for name, total in _sums(inputs).items() if total != sums[name]), None)


def _sums(inputs: Tensors) -> dict[str, int]:
    return {name: _sum(tensor) for name, tensor in inputs.items()}


def _sum(tensor: Tensor) -> int:
    """The sum of a tensor's bytes, as integers of up to eight of them, each times an odd number of its own.

    So a change of any one shows, and nearly every change of their order. It wraps around.
    """
    total, first = 0, 1
    for piece in chunks(words(tensor)):
        end = first + 2 * piece.numel()
        total += int(torch.arange(first, end, 2, device=piece.device).mul_(piece).sum())
        first = end
    return total
