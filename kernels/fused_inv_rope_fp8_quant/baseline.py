"""The structure that serving engines ship for this operation: one program per token and head, in one warp."""

import triton
import triton.language as tl


@triton.jit
def _store_head_scales(
    scale_ptr,
    scales,
    token,
    head_in_group,
    scale_stride_block,
    HEADS_PER_GROUP: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCKS_PADDED: tl.constexpr,
    PACKED_SCALES: tl.constexpr,
):
    """Write one head's `scales` [BLOCKS_PADDED] of a group: fp32, or biased exponents (int32), four to a word."""
    if PACKED_SCALES and BLOCKS % 4 == 0:
        WORDS: tl.constexpr = BLOCKS_PADDED // 4
        shift = 8 * tl.arange(0, 4)
        words = tl.sum(tl.reshape(scales, (WORDS, 4)) << shift[None, :], axis=1)
        word = tl.arange(0, WORDS)
        index = (head_in_group * BLOCKS // 4 + word).to(tl.int64)
        tl.store(scale_ptr + token + index * scale_stride_block, words, mask=word < BLOCKS // 4)
    elif PACKED_SCALES:
        byte_ptr = scale_ptr.to(tl.pointer_type(tl.uint8), bitcast=True)
        slot = tl.arange(0, BLOCKS_PADDED)
        block = head_in_group * BLOCKS + slot
        bytes_at = 4 * (token + (block // 4).to(tl.int64) * scale_stride_block) + block % 4
        tl.store(byte_ptr + bytes_at, scales.to(tl.uint8), mask=slot < BLOCKS)
        group_blocks: tl.constexpr = HEADS_PER_GROUP * BLOCKS
        if head_in_group == HEADS_PER_GROUP - 1:
            unused = group_blocks + tl.arange(0, 4)
            last_word = token + (group_blocks // 4) * tl.cast(scale_stride_block, tl.int64)
            tl.store(byte_ptr + 4 * last_word + unused % 4, 0, mask=unused < (group_blocks + 3) // 4 * 4)
    else:
        slot = tl.arange(0, BLOCKS_PADDED)
        index = (head_in_group * BLOCKS + slot).to(tl.int64)
        tl.store(scale_ptr + token + index * scale_stride_block, scales, mask=slot < BLOCKS)


@triton.jit(do_not_specialize=["num_tokens"])
def fused_inv_rope_fp8_quant_per_head_kernel(
    o_ptr,  # [T, H, D] bf16
    positions_ptr,  # [T] int32 or int64
    cos_sin_ptr,  # [max_pos, ROPE_DIM] fp32: cosines, then sines
    fp8_ptr,  # [G, T, heads_per_group * D] e4m3fn
    scale_ptr,  # [G, S, T4] fp32, or [G, ceil(S / 4), T4] int32
    num_tokens,
    o_stride_token,
    o_stride_head,
    cache_stride,
    fp8_stride_token,
    fp8_stride_group,
    scale_stride_group,
    scale_stride_block,  # from one block of 128 (fp32) or one word (packed) to the next
    HEADS_PER_GROUP: tl.constexpr,
    NOPE_DIM: tl.constexpr,
    ROPE_DIM: tl.constexpr,
    PACKED_SCALES: tl.constexpr,  # UE8M0 bytes in int32 words instead of fp32
    POW2_SCALES: tl.constexpr,  # round scales up to powers of two
    NEOX: tl.constexpr,  # RoPE pairs (i, i + ROPE_DIM / 2) instead of (2i, 2i + 1)
):
    """Undo RoPE on the tail of one head, quantize blocks of 128 to e4m3fn, write values and scales.

    Programs (T4, H), where T4 is `num_tokens` rounded up to a multiple of 4; scales past `num_tokens` are zero.
    """
    FP8_MAX: tl.constexpr = 448.0
    AMAX_MIN: tl.constexpr = 1e-10
    QUANT_BLOCK: tl.constexpr = 128
    DIM: tl.constexpr = NOPE_DIM + ROPE_DIM
    tl.static_assert(DIM % QUANT_BLOCK == 0, "nope_dim + rope_dim must be a multiple of 128")
    tl.static_assert(ROPE_DIM >= 2 and ROPE_DIM <= QUANT_BLOCK, "rope_dim must lie in 2..128")
    tl.static_assert((ROPE_DIM & (ROPE_DIM - 1)) == 0, "rope_dim must be a power of two")
    tl.static_assert(PACKED_SCALES <= POW2_SCALES, "packed scales are powers of two")
    BLOCKS: tl.constexpr = DIM // QUANT_BLOCK
    BLOCKS_PADDED: tl.constexpr = triton.next_power_of_2(BLOCKS)
    HALF: tl.constexpr = ROPE_DIM // 2

    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    head_in_group = head % HEADS_PER_GROUP
    group = (head // HEADS_PER_GROUP).to(tl.int64)
    group_scale_ptr = scale_ptr + group * scale_stride_group
    if token >= num_tokens:
        zeros = tl.zeros((BLOCKS_PADDED,), tl.int32 if PACKED_SCALES else tl.float32)
        _store_head_scales(
            group_scale_ptr, zeros, token, head_in_group, scale_stride_block,
            HEADS_PER_GROUP, BLOCKS, BLOCKS_PADDED, PACKED_SCALES,
        )  # fmt: skip
        return

    column = tl.arange(0, BLOCKS_PADDED * QUANT_BLOCK)
    in_head = column < DIM
    in_rope = (column >= NOPE_DIM) & in_head
    # NOPE_DIM is a multiple of ROPE_DIM, so a column's place in the rotated tail is its remainder.
    if NEOX:
        partner = column ^ HALF
        frequency = column % HALF
        is_second = column % ROPE_DIM >= HALF
    else:
        partner = column ^ 1
        frequency = column % ROPE_DIM // 2
        is_second = column % 2 == 1

    o_row = o_ptr + token * o_stride_token + head.to(tl.int64) * o_stride_head
    x = tl.load(o_row + column, mask=in_head, other=0.0).to(tl.float32)
    x_partner = tl.load(o_row + partner, mask=in_rope, other=0.0).to(tl.float32)
    angles = cos_sin_ptr + tl.load(positions_ptr + token).to(tl.int64) * cache_stride
    cos = tl.load(angles + frequency, mask=in_rope, other=1.0)
    sin = tl.load(angles + HALF + frequency, mask=in_rope, other=0.0)
    turned = tl.where(is_second, x * cos - x_partner * sin, x * cos + x_partner * sin)
    y = tl.where(in_rope, turned, x)

    blocks = tl.reshape(y, (BLOCKS_PADDED, QUANT_BLOCK))
    raw = tl.maximum(tl.max(tl.abs(blocks), axis=1), AMAX_MIN) * (1.0 / FP8_MAX)
    if POW2_SCALES:
        # The biased exponent of the smallest power of two that is not below `raw`, a normal number.
        exponent = (raw.to(tl.int32, bitcast=True) + 0x7FFFFF) >> 23
        scale = (exponent << 23).to(tl.float32, bitcast=True)
        stored = exponent if PACKED_SCALES else scale
    else:
        scale = raw
        stored = raw
    if POW2_SCALES:
        quotient = blocks / scale[:, None]
    else:
        quotient = tl.div_rn(blocks, tl.broadcast_to(scale[:, None], blocks.shape))
    quantized = tl.clamp(quotient, -FP8_MAX, FP8_MAX).to(tl.float8e4nv)
    fp8_row = fp8_ptr + group * fp8_stride_group + token * fp8_stride_token + head_in_group * DIM
    tl.store(fp8_row + column, tl.reshape(quantized, (BLOCKS_PADDED * QUANT_BLOCK,)), mask=in_head)
    _store_head_scales(
        group_scale_ptr, stored, token, head_in_group, scale_stride_block,
        HEADS_PER_GROUP, BLOCKS, BLOCKS_PADDED, PACKED_SCALES,
    )  # fmt: skip
