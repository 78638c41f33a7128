"""Runs a variant once on poisoned outputs and compares with the reference."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from tuner.catalog import Bounds, Kernel, Tensors
from tuner.compile.module import LoadedVariant, load_variant
from tuner.records import Agreement, Config, Shape
from tuner.verify.agreement import compare, poison


def expected_outputs(kernel: Kernel, inputs: Tensors, shape: Shape) -> Mapping[str, Tensor | Bounds]:
    """What the outputs must be: the reference's word, or the baseline's output for a kernel without a reference."""
    spec = kernel.spec
    if spec.reference is not None:
        return spec.reference(inputs, shape)
    device = next(iter(inputs.values())).device.type
    outputs = spec.make_outputs(shape, device)
    load_variant(kernel, spec.baseline_variant).run(spec.launch(inputs, outputs, shape, spec.baseline))
    return dict(outputs)


def check_variant(
    kernel: Kernel,
    loaded: LoadedVariant,
    config: Config,
    shape: Shape,
    inputs: Tensors,
    outputs: Tensors,
    expected: Mapping[str, Tensor | Bounds],
) -> Agreement:
    """Poison the outputs, launch, compare every element."""
    poison(outputs)
    loaded.run(kernel.spec.launch(inputs, outputs, shape, config))
    agreement = compare(outputs, expected, kernel.spec.tolerances)
    if kernel.spec.reference is None and not agreement.detail:
        return replace(agreement, detail="held against the baseline's output, for the kernel has no reference")
    return agreement
