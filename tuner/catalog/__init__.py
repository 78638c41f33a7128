"""Finds kernels and search spaces, and defines what a kernel must say of itself."""

from tuner.catalog.spec import Bounds, Dimension, Implementation, KernelSpec, Launch, Tensors, Tolerance

__all__ = ["Bounds", "Dimension", "Implementation", "KernelSpec", "Launch", "Tensors", "Tolerance"]
