"""RMS normalization of rows, as tiles of rows x columns: in one pass where a tile holds whole rows, else in two."""

import triton
import triton.language as tl


@triton.jit
def _normalize_whole_rows(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_tokens,
    x_row_stride,
    y_row_stride,
    eps,
    HIDDEN_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    ROW_TILES: tl.constexpr,
    LOAD_STAGES: tl.constexpr,
    POLICY: tl.constexpr,
):
    """Walk ROW_TILES tiles of whole rows; the weight is loaded once and every row once."""
    column = tl.arange(0, BLOCK_COLUMNS)
    in_row = column < HIDDEN_SIZE
    weight = tl.load(weight_ptr + column, mask=in_row, other=0.0).to(tl.float32)
    for tile in tl.range(0, ROW_TILES, num_stages=LOAD_STAGES):
        row = (tl.program_id(0) * ROW_TILES + tile) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row64 = row.to(tl.int64)
        mask = (row < num_tokens)[:, None] & in_row[None, :]
        x_tile = x_ptr + (row64 * x_row_stride)[:, None] + column[None, :]
        x = tl.load(x_tile, mask=mask, other=0.0, eviction_policy=POLICY).to(tl.float32)
        rstd = tl.rsqrt(tl.sum(x * x, axis=1) * (1.0 / HIDDEN_SIZE) + eps)
        y = x * rstd[:, None] * weight[None, :]
        y_tile = y_ptr + (row64 * y_row_stride)[:, None] + column[None, :]
        tl.store(y_tile, y.to(tl.bfloat16), mask=mask, eviction_policy=POLICY)


@triton.jit
def _normalize_in_two_passes(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_tokens,
    x_row_stride,
    y_row_stride,
    eps,
    HIDDEN_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    ROW_TILES: tl.constexpr,
    LOAD_STAGES: tl.constexpr,
    POLICY: tl.constexpr,
):
    """Walk ROW_TILES tiles of rows, the columns of each twice: the squares first, then the results."""
    block = tl.arange(0, BLOCK_COLUMNS)
    for tile in range(ROW_TILES):
        row = (tl.program_id(0) * ROW_TILES + tile) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row64 = row.to(tl.int64)
        is_row = (row < num_tokens)[:, None]
        x_rows = x_ptr + (row64 * x_row_stride)[:, None]
        y_rows = y_ptr + (row64 * y_row_stride)[:, None]

        squares = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
        for start in tl.range(0, HIDDEN_SIZE, BLOCK_COLUMNS, num_stages=LOAD_STAGES):
            column = start + block
            mask = is_row & (column < HIDDEN_SIZE)[None, :]
            x = tl.load(x_rows + column[None, :], mask=mask, other=0.0).to(tl.float32)
            squares += x * x
        rstd = tl.rsqrt(tl.sum(squares, axis=1) * (1.0 / HIDDEN_SIZE) + eps)

        for start in tl.range(0, HIDDEN_SIZE, BLOCK_COLUMNS, num_stages=LOAD_STAGES):
            column = start + block
            in_row = column < HIDDEN_SIZE
            mask = is_row & in_row[None, :]
            weight = tl.load(weight_ptr + column, mask=in_row, other=0.0).to(tl.float32)
            x = tl.load(x_rows + column[None, :], mask=mask, other=0.0, eviction_policy=POLICY).to(tl.float32)
            y = x * rstd[:, None] * weight[None, :]
            tl.store(y_rows + column[None, :], y.to(tl.bfloat16), mask=mask, eviction_policy=POLICY)


@triton.jit
def rms_norm_kernel(
    x_ptr,  # [T, HIDDEN_SIZE] bf16, rows x_row_stride apart
    weight_ptr,  # [HIDDEN_SIZE] bf16
    y_ptr,  # [T, HIDDEN_SIZE] bf16, rows y_row_stride apart
    num_tokens,
    x_row_stride,
    y_row_stride,
    eps,
    HIDDEN_SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # rows in a tile
    BLOCK_COLUMNS: tl.constexpr,  # columns in a tile; from HIDDEN_SIZE on one pass over the rows is enough
    ROW_TILES: tl.constexpr,  # tiles that one program walks, along the rows
    LOAD_STAGES: tl.constexpr,  # tiles in flight, of that walk or of the two over the columns; 1 does not pipeline
    STREAM: tl.constexpr,  # let caches drop a row first once it is read or written for the last time
):
    """Write y = x / sqrt(mean(x^2) + eps) * weight; ceil(num_tokens / (BLOCK_ROWS * ROW_TILES)) programs."""
    POLICY: tl.constexpr = "evict_first" if STREAM else ""
    if BLOCK_COLUMNS >= HIDDEN_SIZE:
        _normalize_whole_rows(
            x_ptr, weight_ptr, y_ptr, num_tokens, x_row_stride, y_row_stride, eps,
            HIDDEN_SIZE, BLOCK_ROWS, BLOCK_COLUMNS, ROW_TILES, LOAD_STAGES, POLICY,
        )  # fmt: skip
    else:
        _normalize_in_two_passes(
            x_ptr, weight_ptr, y_ptr, num_tokens, x_row_stride, y_row_stride, eps,
            HIDDEN_SIZE, BLOCK_ROWS, BLOCK_COLUMNS, ROW_TILES, LOAD_STAGES, POLICY,
        )  # fmt: skip
