"""Runs a variant on poisoned outputs, once per case, and compares with the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.catalog import Bounds, Kernel, Tensors
from tuner.compile.module import LoadedVariant, load_variant
from tuner.records import Agreement, Config, Shape
from tuner.verify.agreement import compare, poison, words

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
    """Inputs with the reference's word on them, or the baseline's output for a kernel without a reference."""
    spec = kernel.spec
    if spec.reference is not None:
        return Case(name, inputs, spec.reference(inputs, shape), _sums(inputs))
    outputs = spec.make_outputs(shape, next(iter(inputs.values())).device.type)
    load_variant(kernel, spec.baseline_variant).run(spec.launch(inputs, outputs, shape, spec.baseline))
    return Case(name, inputs, dict(outputs), _sums(inputs))


def check_cases(
    kernel: Kernel, loaded: LoadedVariant, config: Config, shape: Shape, cases: Sequence[Case], outputs: Tensors
) -> Agreement:
    """For each case poison the outputs, launch, and compare every element; inputs must stay as they were.

    Elements are added up over the cases. The first wrong case is the last one: its name stands in `detail`.
    """
    elements = undecided = 0
    for case in cases:
        poison(outputs)
        loaded.run(kernel.spec.launch(case.inputs, outputs, shape, config))
        if written := [name for name, total in _sums(case.inputs).items() if total != case.sums[name]]:
            return Agreement(elements, 1, undecided, f"on {case.name} inputs, it wrote to its input {written[0]}")
        found = compare(outputs, case.expected, kernel.spec.tolerances)
        elements += found.elements
        undecided += found.undecided
        if found.mismatched:
            return Agreement(elements, found.mismatched, undecided, f"on {case.name} inputs, {found.detail}")
    return Agreement(elements, 0, undecided, "" if kernel.spec.reference else _NO_REFERENCE)


def _sums(inputs: Tensors) -> dict[str, int]:
    """The sum of each input's bytes, as integers of up to eight of them."""
    return {name: int(words(tensor).sum(dtype=torch.int64)) for name, tensor in inputs.items()}
