"""Kills the process that imports it."""

import os

import triton
import triton.language as tl

os.abort()


@triton.jit
def crash_at_import(x_ptr, y_ptr, num_rows, zero):
    """Never reached."""
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    tl.store(y_ptr + at, tl.load(x_ptr + at) * 2)
