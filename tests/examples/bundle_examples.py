"""A bundle of the bundled kernel at small sizes: the baseline, and from 40 tokens on a tile that wins."""

from pathlib import Path

from tuner.catalog import load_kernel
from tuner.prebuild import Prebuild, build_bundle, write_bundle
from tuner.records import (
    DEFAULT_TARGET,
    Config,
    Environment,
    Evidence,
    FrozenMapping,
    SpecializationSet,
    Speedup,
    Timing,
    Variant,
    Winner,
)
from tuner.runtime import WinnerTable
from tuner.runtime.bundle import Bundle

FUSED = load_kernel("fused_inv_rope_fp8_quant")
# Other groups than those of other tests, whose functions keep what they compiled.
SIZES: dict[str, int | str] = {"num_heads": 8, "n_groups": 4}
LARGEST = 70
TILE = Variant(
    FUSED.name,
    Config(
        "tile",
        FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=2, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0),
        FrozenMapping(num_warps=4, num_stages=1),
    ),
    SpecializationSet.of(["num_tokens"]),
)
PLAIN = Variant(FUSED.name, FUSED.spec.baseline)
ENVIRONMENT = Environment(DEFAULT_TARGET, Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "13.4")


def winner(tokens: int, variant: Variant) -> Winner:
    """A row of a table in which everything takes a microsecond."""
    shape = FUSED.spec.shape({"num_tokens": tokens, **SIZES})
    time = Timing(1.0, 1.0, 1.0, 1)
    baseline, digest = FUSED.spec.baseline_variant, FUSED.source_digest
    return Winner(variant, baseline, shape, ENVIRONMENT, digest, time, time, Speedup(1.0, 1.0, 1.0), 1, "")


# By ratio 40 is nearer to 64 than to 24.
ROWS = (winner(1, PLAIN), winner(24, PLAIN), winner(64, TILE))
TABLE = WinnerTable(FUSED.name, FUSED.source_digest, ENVIRONMENT, ROWS)


def small_bundle(folder: Path) -> Bundle:
    """Build and write it; about four seconds."""
    request = Prebuild(FUSED, DEFAULT_TARGET, (SIZES,), LARGEST, (TABLE,))
    bundle, _ = build_bundle(request, folder)
    write_bundle(bundle)
    return bundle
