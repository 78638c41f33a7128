# A kernel for the tests of the variant generator: what real files hold, in little.
"""Scaled row sums of a strided matrix, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-6)


# Helpers take what they need as arguments.
@triton.jit
def _row_offsets(pid, stride, BLOCK_ROWS: tl.constexpr):
    rows = pid.to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    return rows, rows * stride


@triton.jit(do_not_specialize=["x"], noinline=False)
def _scaled(x, scale):
    return x * scale / (scale + EPSILON)


# Each program sums BLOCK_ROWS rows, BLOCK_COLUMNS elements at a time.
@triton.jit(
    do_not_specialize=["num_rows"],  # changes in every step of the engine
    debug=False,
)
def row_sums(
    # storages
    x_ptr,  # [num_rows, columns]
    out_ptr,  # [num_rows]
    # sizes
    num_rows,
    stride,
    scale: tl.float32 = 1.0,
    # tuned
    BLOCK_ROWS: tl.constexpr = 4,  # rows of one program
    BLOCK_COLUMNS: tl.constexpr = 128,  # elements of one step
    # fixed by the shape
    COLUMNS: tl.constexpr = 512,
):
    """Sums of rows."""
    pid = tl.program_id(0)
    rows, offsets = _row_offsets(pid, stride, BLOCK_ROWS)  # int64: rows * stride may pass 2**31
    inside = rows < num_rows
    total = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    for start in tl.static_range(0, COLUMNS, BLOCK_COLUMNS):
        columns = start + tl.arange(0, BLOCK_COLUMNS)
        x = tl.load(x_ptr + offsets[:, None] + columns[None, :], mask=inside[:, None], other=0.0)
        total += tl.sum(x.to(tl.float32), axis=1)
    tl.store(out_ptr + rows, _scaled(total, scale), mask=inside)


@triton.jit
def other_implementation(x_ptr, n, BLOCK_COLUMNS: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK_COLUMNS), n)
