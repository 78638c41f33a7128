"""Finds kernels and search spaces, and defines what a kernel must say of itself."""

from tuner.catalog.content import content_root
from tuner.catalog.kernels import Kernel, kernel_names, load_folder, load_kernel
from tuner.catalog.spec import Bounds, Dimension, HostFunction, Implementation, KernelSpec, Launch, Tensors, Tolerance

__all__ = [
    "Bounds",
    "Dimension",
    "HostFunction",
    "Implementation",
    "Kernel",
    "KernelSpec",
    "Launch",
    "Tensors",
    "Tolerance",
    "content_root",
    "kernel_names",
    "load_folder",
    "load_kernel",
]
