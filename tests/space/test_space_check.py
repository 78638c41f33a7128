"""A space is held against what the kernel really has."""

from collections.abc import Callable

import pytest

from tuner.errors import SpaceError
from tuner.space import SearchSpace

Load = Callable[[str], SearchSpace]

PARAMETERS = {"tile": ["BLOCK_TOKENS", "BLOCK_HEADS"], "per_head": []}
SHARED = ["x_ptr", "num_tokens", "fp8_stride"]
ARGUMENTS = {"tile": [*SHARED, "tile_only"], "per_head": SHARED}
DIMENSIONS = ["num_tokens", "num_heads", "n_groups", "layout"]


def test_a_space_that_fits_its_kernel_passes(load: Load, good: str) -> None:
    load(good).check(PARAMETERS, ARGUMENTS, DIMENSIONS)


MISFITS = {
    "implementation": ("  tile:", "  tiel:", 3, ["implementation 'tiel'", "did you mean 'tile'?"]),
    "parameter": ("BLOCK_HEADS", "BLOCK_HEAD", 6, ["parameter 'BLOCK_HEAD'", "did you mean 'BLOCK_HEADS'?"]),
    "left out": ("      BLOCK_TOKENS: [1, 2, 4, 8]\n", "", 4, ["'BLOCK_TOKENS' has no values", "Add `BLOCK_TOKENS:"]),
    "left out with its section": ("per_head", "tile2", 13, ["'Z' has no values"]),
    "candidate": ("[num_tokens, fp8", "[num_token, fp8", 16, ["argument 'num_token'", "did you mean 'num_tokens'?"]),
    "alignment": ("alignment: [fp8_stride]", "alignment: [fp8]", 17, ["argument 'fp8'", "fp8_stride"]),
    "of one implementation only": ("[num_tokens, fp8", "[tile_only, fp8", 16, ["argument 'tile_only'"]),
    "parameter as candidate": ("alignment: [fp8_stride]", "alignment: [BLOCK_HEADS]", 17, ["'BLOCK_HEADS'"]),
    "dimension": ("n_groups: 8", "groups: 8", 20, ["dimension 'groups'", "did you mean 'n_groups'?"]),
    "baseline implementation": ("tion: per_head", "tion: perhead", 28, ["'perhead'", "did you mean 'per_head'?"]),
    "baseline parameter": ("parameters: {}", "parameters: {B: 1}", 29, ["parameter 'B'"]),
    "baseline left out": ("implementation: per_head", "implementation: tile", 29, ["'BLOCK_HEADS' has no values"]),
    "baseline argument": ("[num_tokens]\n", "[tile_only]\n", 31, ["argument 'tile_only'", "num_tokens"]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_name_that_the_kernel_lacks_is_refused_with_its_line(name: str, load: Load, good: str) -> None:
    old, new, line, parts = MISFITS[name]
    assert old in good
    count = -1 if old == "BLOCK_HEADS" else 1
    text = good.replace(old, new, count).replace("- BLOCK_TOKENS * BLOCK_HEADS <= 32", "- num_warps <= 32")
    space = load(text)
    with pytest.raises(SpaceError) as caught:
        space.check({**PARAMETERS, "tile2": ["Z"]}, {**ARGUMENTS, "tile2": SHARED}, DIMENSIONS)
    assert f"space.yaml:{line}: " in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_constraint_on_a_dimension_that_the_kernel_lacks_is_refused(load: Load, good: str) -> None:
    space = load(good)
    with pytest.raises(SpaceError) as caught:
        space.check(PARAMETERS, ARGUMENTS, ["num_tokens", "num_heads", "layout"])
    assert "space.yaml:11: Unknown name in a constraint: 'n_groups'" in str(caught.value)
    assert "space.yaml:19: Unknown dimension 'n_groups'" in str(caught.value)


def test_a_constraint_on_an_option_that_some_targets_lack_is_refused(load: Load, good: str) -> None:
    text = good.replace("num_stages: [1, 2]", "launch_pdl: [0, 1]").replace("HEADS <= 32", "HEADS <= 32 * launch_pdl")
    with pytest.raises(
        SpaceError, match=r":12: 'launch_pdl' stands in a constraint, but some targets have no such"
    ) as caught:
        load(text).check(PARAMETERS, ARGUMENTS, DIMENSIONS)
    assert "Unknown name" not in str(caught.value)


def test_a_dimension_with_the_name_of_a_parameter_is_refused(load: Load, good: str) -> None:
    with pytest.raises(SpaceError, match=r":6: 'BLOCK_HEADS' is a dimension of the shape too"):
        load(good).check(PARAMETERS, ARGUMENTS, [*DIMENSIONS, "BLOCK_HEADS"])
