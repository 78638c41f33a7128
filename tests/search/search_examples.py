"""A small space with every feature that a search must respect, and a larger one with a landscape."""

from dataclasses import replace

from tuner.records import FrozenMapping, Shape, Variant
from tuner.space import Constraint, ImplementationSpace, SearchSpace

SHAPE = Shape(num_tokens=16, num_heads=8)

# Three configs of `tile` meet its constraints at that shape, one of `plain`; each with 3 specialization sets.
SMALL = SearchSpace(
    kernel="scale",
    implementations=(
        ImplementationSpace(
            "tile",
            FrozenMapping(BLOCK=(4, 16)),
            FrozenMapping(num_warps=(1, 4)),
            (Constraint("BLOCK <= num_tokens"), Constraint("BLOCK * num_warps <= 4 * num_heads")),
        ),
        ImplementationSpace("plain", options=FrozenMapping(num_warps=(4,))),
    ),
    shapes=(SHAPE,),
    candidates=("stride",),
    alignment_candidates=("stride",),
)
SMALL_SIZE = (3 + 1) * 3

# One of 4096 configs meets the constraint, so that sampling seldom meets it.
NEEDLE = SearchSpace(
    kernel="scale",
    implementations=(
        ImplementationSpace(
            "tile",
            FrozenMapping({f"P{number}": (1, 2, 4, 8) for number in range(6)}),
            constraints=(Constraint("P0 + P1 + P2 + P3 + P4 + P5 == 48"),),
        ),
    ),
    shapes=(SHAPE,),
)

# Seven of 4096: a few are left when sampling has run out of patience.
SPARSE = replace(
    NEEDLE,
    implementations=(
        replace(NEEDLE.implementations[0], constraints=(Constraint("P0 + P1 + P2 + P3 + P4 + P5 >= 44"),)),
    ),
)
SPARSE_SIZE = 7

LARGE = SearchSpace(
    kernel="scale",
    implementations=(
        ImplementationSpace(
            "tile",
            FrozenMapping(BLOCK_ROWS=(1, 2, 4, 8, 16), BLOCK_COLUMNS=(16, 32, 64, 128)),
            FrozenMapping(num_warps=(1, 2, 4, 8), num_stages=(1, 2, 3)),
        ),
    ),
    shapes=(SHAPE,),
    candidates=("num_tokens",),
)
LARGE_SIZE = 5 * 4 * 4 * 3 * 2


def time_us(variant: Variant) -> float:
    """A separable landscape over `LARGE`: each axis costs by itself; the least is 10."""
    values = {**variant.config.parameters, **variant.config.options}
    cost = abs(values["BLOCK_ROWS"].bit_length() - 4) * 3.0
    cost += abs(values["BLOCK_COLUMNS"].bit_length() - 7) * 4.0
    cost += abs(values["num_warps"].bit_length() - 3) * 2.0
    cost += abs(values["num_stages"] - 2) * 1.0
    return 10.0 + cost + 0.5 * len(variant.specialization.do_not_specialize)
