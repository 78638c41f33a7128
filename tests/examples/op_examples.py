"""Calls of the bundled ops with the inputs of their specs, and their outputs as the storages that a reference names."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import Tensors
from tuner.records import Shape


def arguments_of(kernel: str, inputs: Tensors, shape: Shape) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an op for a shape."""
    if kernel == "rms_norm":
        return (inputs["x"], inputs["weight"]), {}
    groups = shape.size("n_groups")
    sizes = (groups, shape.size("num_heads") // groups, shape.size("nope_dim"), shape.size("rope_dim"), 128)
    tensors = (inputs["o"], inputs["positions"], inputs["cos_sin_cache"])
    options = {"scale_rounding": shape["scale_rounding"], "rope_style": shape["rope_style"]}
    return (*tensors, *sizes, bool(shape["tma_aligned_scales"])), options


def storages(kernel: str, returned: Any) -> dict[str, Tensor]:
    """What an op returned, as the contiguous storages of `make_outputs`, padding included."""
    if kernel == "rms_norm":
        return {"y": returned}
    o_fp8, o_scale = returned
    whole = torch.empty(0, dtype=o_scale.dtype, device=o_scale.device).set_(o_scale.untyped_storage())
    return {"o_fp8": o_fp8.transpose(0, 1), "o_scale": whole}


def poisoned(allocate: Callable[[torch.device], Any]) -> Callable[[torch.device], Any]:
    """For `tuner.runtime.dispatch._empty`: outputs start as bytes 0xFF, as under `verify.poison`."""

    def empty(device: torch.device) -> Any:
        plain = allocate(device)

        def filled(size: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            tensor: Tensor = plain(size, strides, dtype)
            torch.empty(0, dtype=torch.uint8, device=device).set_(tensor.untyped_storage()).fill_(0xFF)
            return tensor

        return filled

    return empty
