"""The structure that is common for normalization kernels in Triton: one program per row, which holds the whole row."""

import triton
import triton.language as tl


@triton.jit
def rms_norm_per_row_kernel(
    x_ptr,  # [T, hidden_size] bf16, rows x_row_stride apart
    weight_ptr,  # [hidden_size] bf16
    y_ptr,  # [T, hidden_size] bf16, rows y_row_stride apart
    num_tokens,  # not read, but in the compile key: these kernels take it beside the strides
    x_row_stride,
    y_row_stride,
    hidden_size,
    eps,
    BLOCK: tl.constexpr,  # the power of two from hidden_size on
):
    """Write y = x / sqrt(mean(x^2) + eps) * weight; T programs."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < hidden_size
    x = tl.load(x_ptr + row * x_row_stride + column, mask=mask, other=0.0).to(tl.float32)
    rstd = 1 / tl.sqrt(tl.sum(x * x, axis=0) / hidden_size + eps)
    weight = tl.load(weight_ptr + column, mask=mask).to(tl.float32)
    y = x * rstd * weight
    tl.store(y_ptr + row * y_row_stride + column, y.to(tl.bfloat16), mask=mask)
