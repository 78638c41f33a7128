"""Inverse RoPE and FP8 block quantization of the attention output, as tiles of tokens x heads."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _split_pairs(
    x, TOKENS: tl.constexpr, HEADS: tl.constexpr, CHUNKS: tl.constexpr, ROPE_DIM: tl.constexpr, NEOX: tl.constexpr
):
    """Halves of the would-be RoPE pairs of `x` [TOKENS * HEADS, CHUNKS * ROPE_DIM].

    Two tensors [TOKENS, HEADS, CHUNKS, ROPE_DIM / 2]; with a pair in the last axis the partners share a thread.
    """
    if NEOX:
        pairs = tl.permute(tl.reshape(x, (TOKENS, HEADS, CHUNKS, 2, ROPE_DIM // 2)), (0, 1, 2, 4, 3))
    else:
        pairs = tl.reshape(x, (TOKENS, HEADS, CHUNKS, ROPE_DIM // 2, 2))
    return tl.split(pairs)


@triton.jit
def _join_pairs(first, second, ROWS: tl.constexpr, CHUNKS: tl.constexpr, ROPE_DIM: tl.constexpr, NEOX: tl.constexpr):
    """The inverse of `_split_pairs`."""
    pairs = tl.join(
        tl.reshape(first, (ROWS, CHUNKS, ROPE_DIM // 2)),
        tl.reshape(second, (ROWS, CHUNKS, ROPE_DIM // 2)),
    )
    if NEOX:
        pairs = tl.permute(pairs, (0, 1, 3, 2))
    return tl.reshape(pairs, (ROWS, CHUNKS * ROPE_DIM))


@triton.jit
def _store_scales(
    scale_ptr,
    scales,
    token,
    head,
    mask,
    scale_stride_group,
    scale_stride_block,
    HEADS_PER_GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCKS_PADDED: tl.constexpr,
    PACKED_SCALES: tl.constexpr,
):
    """Write `scales` [ROWS, BLOCKS_PADDED]: fp32 values, or biased exponents (int32) that go four to a word.

    With `BLOCKS % 4 == 0` a head owns whole words. Otherwise a word holds blocks of two heads, so that single bytes are
    written; the group's last head also clears the unused bytes of the last word.
    """
    group = (head // HEADS_PER_GROUP).to(tl.int64) * scale_stride_group + token
    first_block = head % HEADS_PER_GROUP * BLOCKS
    if PACKED_SCALES and BLOCKS % 4 == 0:
        WORDS: tl.constexpr = BLOCKS_PADDED // 4
        shift = 8 * tl.arange(0, 4)
        words = tl.sum(tl.reshape(scales, (ROWS, WORDS, 4)) << shift[None, None, :], axis=2)
        word = tl.arange(0, WORDS)
        index = (first_block // 4)[:, None] + word[None, :]
        pointers = scale_ptr + group[:, None] + index.to(tl.int64) * scale_stride_block
        tl.store(pointers, words, mask=mask[:, None] & (word < BLOCKS // 4)[None, :])
    elif PACKED_SCALES:
        byte_ptr = scale_ptr.to(tl.pointer_type(tl.uint8), bitcast=True)
        block = tl.arange(0, BLOCKS_PADDED)
        index = first_block[:, None] + block[None, :]
        bytes_at = 4 * (group[:, None] + (index // 4).to(tl.int64) * scale_stride_block) + index % 4
        tl.store(byte_ptr + bytes_at, scales.to(tl.uint8), mask=mask[:, None] & (block < BLOCKS)[None, :])
        group_blocks: tl.constexpr = HEADS_PER_GROUP * BLOCKS
        is_last = mask & (head % HEADS_PER_GROUP == HEADS_PER_GROUP - 1)
        for unused in tl.static_range(group_blocks % 4, 4 if group_blocks % 4 else 0):
            last_word = group + (group_blocks // 4) * tl.cast(scale_stride_block, tl.int64)
            tl.store(byte_ptr + 4 * last_word + unused, tl.zeros((ROWS,), tl.uint8), mask=is_last)
    else:
        block = tl.arange(0, BLOCKS_PADDED)
        index = first_block[:, None] + block[None, :]
        pointers = scale_ptr + group[:, None] + index.to(tl.int64) * scale_stride_block
        tl.store(pointers, scales, mask=mask[:, None] & (block < BLOCKS)[None, :])


@triton.jit
def fused_inv_rope_fp8_quant_kernel(
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
    NUM_HEADS: tl.constexpr,
    HEADS_PER_GROUP: tl.constexpr,
    NOPE_DIM: tl.constexpr,
    ROPE_DIM: tl.constexpr,
    PACKED_SCALES: tl.constexpr,  # UE8M0 bytes in int32 words instead of fp32
    POW2_SCALES: tl.constexpr,  # round scales up to powers of two
    NEOX: tl.constexpr,  # RoPE pairs (i, i + ROPE_DIM / 2) instead of (2i, 2i + 1)
    BLOCK_TOKENS: tl.constexpr,  # tokens in a tile
    BLOCK_HEADS: tl.constexpr,  # heads in a tile
    TOKEN_TILES: tl.constexpr,  # tiles that one program walks, along the tokens
    LOAD_STAGES: tl.constexpr,  # tiles in flight in that walk; 1 does not pipeline it
    HEADS_FIRST: tl.constexpr,  # neighbouring programs take neighbouring heads (1) or tokens (0)
    LAST_FIRST: tl.constexpr,  # the first programs take the last tiles (1), which were written last
    launch_pdl: tl.constexpr = 0,  # Triton's option of that name: started early, before the kernel in front has ended
):
    """Undo RoPE on the tail of every head, quantize blocks of 128 to e4m3fn, write values and scales.

    One dimension of programs: ceil(T4 / (BLOCK_TOKENS * TOKEN_TILES)) * ceil(NUM_HEADS / BLOCK_HEADS), where T4 is
    `num_tokens` rounded up to a multiple of 4; scales of the tokens past `num_tokens` are written as zero.
    """
    FP8_MAX: tl.constexpr = 448.0
    AMAX_MIN: tl.constexpr = 1e-10
    QUANT_BLOCK: tl.constexpr = 128
    DIM: tl.constexpr = NOPE_DIM + ROPE_DIM
    tl.static_assert(DIM % QUANT_BLOCK == 0, "nope_dim + rope_dim must be a multiple of 128")
    tl.static_assert(ROPE_DIM >= 2 and ROPE_DIM <= QUANT_BLOCK, "rope_dim must lie in 2..128")
    tl.static_assert((ROPE_DIM & (ROPE_DIM - 1)) == 0, "rope_dim must be a power of two")
    tl.static_assert(PACKED_SCALES <= POW2_SCALES, "packed scales are powers of two")
    DIM_PADDED: tl.constexpr = triton.next_power_of_2(DIM)
    BLOCKS: tl.constexpr = DIM // QUANT_BLOCK
    BLOCKS_PADDED: tl.constexpr = DIM_PADDED // QUANT_BLOCK
    CHUNKS: tl.constexpr = DIM_PADDED // ROPE_DIM
    PAIRS: tl.constexpr = QUANT_BLOCK // 2
    ROWS: tl.constexpr = BLOCK_TOKENS * BLOCK_HEADS
    HEAD_TILES: tl.constexpr = (NUM_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS

    padded_tokens = (num_tokens + 3) // 4 * 4
    program = tl.program_id(0)
    if LAST_FIRST:
        program = tl.num_programs(0) - 1 - program
    if HEADS_FIRST:
        token_program = program // HEAD_TILES
        head_tile = program % HEAD_TILES
    else:
        token_programs = tl.num_programs(0) // HEAD_TILES
        token_program = program % token_programs
        head_tile = program // token_programs

    row = tl.arange(0, ROWS)
    head = head_tile * BLOCK_HEADS + row % BLOCK_HEADS
    column = tl.arange(0, DIM_PADDED)
    frequency = tl.arange(0, ROPE_DIM // 2)
    rotated = (tl.arange(0, CHUNKS) == DIM // ROPE_DIM - 1)[None, None, :, None]
    o_head = head.to(tl.int64) * o_stride_head
    fp8_head = (head // HEADS_PER_GROUP).to(tl.int64) * fp8_stride_group + head % HEADS_PER_GROUP * DIM

    if launch_pdl:
        gdc_wait()
    for tile in tl.range(0, TOKEN_TILES, num_stages=LOAD_STAGES):
        first_token = (token_program * TOKEN_TILES + tile) * BLOCK_TOKENS
        token = first_token + row // BLOCK_HEADS
        token64 = token.to(tl.int64)
        is_token = (token < num_tokens) & (head < NUM_HEADS)
        mask = is_token[:, None] & (column < DIM)[None, :]
        x = tl.load(o_ptr + (token64 * o_stride_token + o_head)[:, None] + column[None, :], mask=mask, other=0.0)

        angle_token = first_token + tl.arange(0, BLOCK_TOKENS)
        position = tl.load(positions_ptr + angle_token, mask=angle_token < num_tokens, other=0).to(tl.int64)
        angle_ptr = cos_sin_ptr + (position * cache_stride)[:, None] + frequency[None, :]
        cos = tl.load(angle_ptr)[:, None, None, :]
        sin = tl.load(angle_ptr + ROPE_DIM // 2)[:, None, None, :]

        if launch_pdl:  # this program has asked for its memory: one of the next kernel may take its place
            gdc_launch_dependents()

        first, second = _split_pairs(x.to(tl.float32), BLOCK_TOKENS, BLOCK_HEADS, CHUNKS, ROPE_DIM, NEOX)
        turned_first = tl.where(rotated, first * cos + second * sin, first)
        turned_second = tl.where(rotated, second * cos - first * sin, second)
        first = tl.reshape(turned_first, (ROWS, BLOCKS_PADDED, PAIRS))
        second = tl.reshape(turned_second, (ROWS, BLOCKS_PADDED, PAIRS))

        amax = tl.max(tl.maximum(tl.abs(first), tl.abs(second)), axis=2)
        raw = tl.maximum(amax, AMAX_MIN) * (1.0 / FP8_MAX)
        if POW2_SCALES:
            # The biased exponent of the smallest power of two that is not below `raw`, a normal number.
            exponent = (raw.to(tl.int32, bitcast=True) + 0x7FFFFF) >> 23
            inverse = ((254 - exponent) << 23).to(tl.float32, bitcast=True)[:, :, None]
            first = first * inverse
            second = second * inverse
            scale = exponent if PACKED_SCALES else (exponent << 23).to(tl.float32, bitcast=True)
        else:
            first = tl.div_rn(first, tl.broadcast_to(raw[:, :, None], first.shape))
            second = tl.div_rn(second, tl.broadcast_to(raw[:, :, None], second.shape))
            scale = raw
        # Without a clamp: no quotient exceeds 448 by more than 2**-22 of it, and up to 464 e4m3 rounds to 448.
        quantized = _join_pairs(first, second, ROWS, CHUNKS, ROPE_DIM, NEOX).to(tl.float8e4nv)

        tl.store(fp8_ptr + (token64 * fp8_stride_token + fp8_head)[:, None] + column[None, :], quantized, mask=mask)
        _store_scales(
            scale_ptr, tl.where(is_token[:, None], scale, 0), token, head, (token < padded_tokens) & (head < NUM_HEADS),
            scale_stride_group, scale_stride_block, HEADS_PER_GROUP, ROWS, BLOCKS, BLOCKS_PADDED, PACKED_SCALES,
        )  # fmt: skip
