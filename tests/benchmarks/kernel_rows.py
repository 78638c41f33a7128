"""Rows as `benchmarks/kernel.py` writes them, with times near those of an H100."""

from typing import Any

from benchmarks.kernel import compared

ROUNDS = 8
ARMS = ("ours", "baseline", "loop 8", "loop 16", "loop 32", "copy", "stream")
# Microseconds by tokens, for 64 heads in 8 groups.
TIMES_US = {
    1: (1.57, 1.68, 4.36, 4.51, 4.92, 1.24, 1.30),
    512: (18.8, 22.6, 22.5, 22.0, 22.3, 22.8, 20.0),
    1024: (38.2, 43.2, 38.5, 38.0, 37.9, 35.7, 35.0),
    8192: (272.5, 340.3, 283.4, 284.0, 290.0, 270.7, 272.0),
}


def row(tokens: int, num_heads: int = 64, l2: str = "written", slower: float = 1.0) -> dict[str, Any]:
    """A row where ours takes `slower` times as long as it did."""
    samples = {name: [time] * ROUNDS for name, time in zip(ARMS, TIMES_US[tokens], strict=True)}
    samples["ours"] = [slower * time for time in samples["ours"]]
    return {
        "num_tokens": tokens,
        "num_heads": num_heads,
        "n_groups": num_heads // 8,
        "tma_aligned_scales": 0,
        "l2": l2,
        "origin": "exact",
        "variant": f"tile T{tokens}",
        "bytes": 3 * 512 * num_heads * tokens,
        **compared(samples),
    }
