"""Checks a variant in Triton's CPU interpreter; runs in a worker process that has TRITON_INTERPRET=1 set.

The interpreter's own float conversions are wrong (3.6 to 3.9): float32 to float8e4nv loses the rounding carry and
does not saturate, float32 to bfloat16 truncates, bfloat16 to float32 loses subnormals. `patch_conversions` sends them
through torch, which converts right.
"""

import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuner.catalog import load_folder
from tuner.compile.module import load_variant
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.records import Agreement, Status, Variant
from tuner.verify.check import check_cases, make_cases

_FROM = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TO = {
    "fp8e4nv": (torch.float8_e4m3fn, torch.uint8),
    "fp8e5": (torch.float8_e5m2, torch.uint8),
    "bf16": (torch.bfloat16, torch.uint16),
    "fp32": (torch.float32, torch.uint32),
}


def patch_conversions() -> None:
    """Make the interpreter convert fp32, fp16 and bf16 to e4m3, e5m2, bf16 and fp32 as hardware does.

    Safe to call twice.
    """
    from triton.runtime import interpreter

    original = interpreter._convert_float
    if getattr(original, "rounds_through_torch", False):
        return

    def convert(values: Any, source: Any, target: Any, rounding_mode: Any) -> Any:
        wanted = _TO.get(target.name)
        to_nearest = rounding_mode in (None, interpreter._ir.ROUNDING_MODE.RTNE)
        if source.name not in _FROM or wanted is None or not to_nearest:
            return original(values, source, target, rounding_mode)
        numbers = torch.frombuffer(bytearray(values.tobytes()), dtype=_FROM[source.name])
        rounded = numbers.to(wanted[0]).view(wanted[1]).numpy()
        return np.ascontiguousarray(rounded).reshape(values.shape)

    convert.rounds_through_torch = True  # type: ignore[attr-defined]
    interpreter._convert_float = convert


INTERPRETER_ENVIRONMENT = {"TRITON_INTERPRET": "1"}


@np.errstate(all="ignore")  # as on a GPU: what overflows may well be selected away
def check_in_interpreter(folder: Path, variant: Variant) -> Agreement | Failure:
    """Compare a variant with the reference at the kernel's check shapes, on random inputs and on every edge.

    The interpreter sees neither compile options nor specialization, so one check speaks for every variant with the same
    implementation and parameters. UserError where the check shapes hold nothing to compare.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("check_in_interpreter needs a process that started with TRITON_INTERPRET=1")
    patch_conversions()
    kernel = load_folder(folder)
    elements = undecided = 0
    detail = ""
    for seed, shape in enumerate(map(kernel.spec.shape, kernel.spec.check_shapes)):
        try:
            cases, outputs = make_cases(kernel, shape, "cpu", seed), kernel.spec.make_outputs(shape, "cpu")
            agreement = check_cases(kernel, load_variant(kernel, variant), variant.config, shape, cases, outputs)
        except UserError:
            raise
        except Exception:  # noqa: BLE001 - a kernel may fail in any way; the trace becomes the variant's log
            return Failure(Status.CRASHED, f"in the interpreter at {shape.label}:\n{traceback.format_exc()}")
        if agreement.mismatched:
            return Failure(Status.WRONG_OUTPUT, f"in the interpreter at {shape.label}: {agreement.difference}")
        elements += agreement.elements
        undecided += agreement.undecided
        detail = agreement.detail
    if not elements:
        raise UserError(
            f"{kernel.name} cannot be checked without a GPU: at its check_shapes there is no output to compare.",
            hint="Give its KernelSpec small shapes in `check_shapes` that reach every path.",
        )
    return Agreement(elements, 0, undecided, detail)
