"""Doubles a matrix of 128 columns, right and in many wrong ways. One program per ROWS rows, or per row."""

import triton
import triton.language as tl


@triton.jit
def _tile(num_rows, ROWS: tl.constexpr):
    """Rows [ROWS, 1] of this program, offsets [ROWS, 128], and which of the rows there are."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    return row, row * 128 + tl.arange(0, 128)[None, :], row < num_rows


@triton.jit
def right(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """y = 2 * x."""
    _, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * 2, mask=mask)


@triton.jit
def wrong_element(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """One element of the first row is off."""
    _, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * 2 + tl.where(at == 5, 1.0, 0.0), mask=mask)


@triton.jit
def wrong_last_tile(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """The last row is not doubled."""
    row, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * tl.where(row == num_rows - 1, 1.0, 2.0), mask=mask)


@triton.jit
def wrong_scale(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """Off by one part in a thousand."""
    _, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * 2.002, mask=mask)


@triton.jit
def wrong_when_huge(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """Saturates where fp16 would, which no random value reaches."""
    _, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.minimum(tl.load(x_ptr + at, mask=mask) * 2, 65504.0), mask=mask)


@triton.jit
def wrong_elsewhere(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """Works in pairs of rows: of an odd number of rows the last one is never written."""
    row, at, _ = _tile(num_rows, ROWS)
    mask = row < num_rows // 2 * 2
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * 2, mask=mask)


@triton.jit
def not_a_number(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """NaN where a value is negative."""
    _, at, mask = _tile(num_rows, ROWS)
    x = tl.load(x_ptr + at, mask=mask)
    tl.store(y_ptr + at, tl.where(x < 0, float("nan"), x * 2), mask=mask)


@triton.jit
def partial_write(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """The last column is never written."""
    _, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * 2, mask=mask & (at % 128 < 127))


@triton.jit
def out_of_bounds(x_ptr, y_ptr, num_rows, zero):
    """Writes a terabyte past the output."""
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    tl.store(y_ptr + at.to(tl.int64) + (1 << 38), tl.load(x_ptr + at) * 2)


@triton.jit
def infinite_loop(x_ptr, y_ptr, num_rows, zero):
    """Waits for a change that never comes."""
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    turns = zero
    while turns >= 0:
        tl.store(y_ptr + at, tl.load(x_ptr + at) * 2)
        turns = turns * 0
    tl.store(y_ptr + at, tl.load(x_ptr + at))


@triton.jit(debug=True)
def device_assert(x_ptr, y_ptr, num_rows, zero):
    """Asserts what is not so."""
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    tl.device_assert(zero > 0, "zero is not positive")
    tl.store(y_ptr + at, tl.load(x_ptr + at) * 2)


@triton.jit
def compile_error(x_ptr, y_ptr, num_rows, zero):
    """Does not compile."""
    tl.static_assert(1 > 2, "one is not greater than two")


@triton.jit
def endless_compile(x_ptr, y_ptr, num_rows, zero):
    """Unrolls a loop so long that its compile takes many minutes."""
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    x = tl.load(x_ptr + at)
    for step in tl.static_range(200000):
        x = x * 1.0001 + tl.load(x_ptr + at + step % 7)
    tl.store(y_ptr + at, x)


@triton.jit
def too_much_shared(x_ptr, y_ptr, num_rows, zero, ROWS: tl.constexpr):
    """Multiplies matrices of an eighth of a megabyte each, which go through shared memory whole."""
    row = tl.arange(0, 128)
    column = tl.arange(0, 512)
    left = tl.load(x_ptr + (row[:, None] * 3 + column[None, :]) % 128).to(tl.bfloat16)
    right = tl.load(x_ptr + (column[:, None] * 5 + row[None, :]) % 128).to(tl.bfloat16)
    product = tl.sum(tl.sum(tl.dot(left, right), axis=0), axis=0)
    _, at, mask = _tile(num_rows, ROWS)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mask) * 2 + tl.where(product < 0, zero, 0), mask=mask)
