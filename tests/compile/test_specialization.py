"""Compile keys: exactly what Triton distinguishes, so that compiles under load can be counted without one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import SCALE_ROWS, scale_rows_variant

from tuner.catalog import load_folder, load_kernel
from tuner.compile.module import load_variant
from tuner.compile.specialization import bind, meta_launch, reachable_keys
from tuner.records import Config, FrozenMapping, SpecializationSet, Target, Variant

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("fresh_caches")]

CUDA = Target("cuda", "90")
FUSED = load_kernel("fused_inv_rope_fp8_quant")
TILE = Config(
    "tile",
    FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=2, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0),
    FrozenMapping(num_warps=4, num_stages=1),
)
# Every residue of the padded token count, both sides of each multiple of 16, and one.
TOKENS = [*range(1, 66), 100, 127, 128, 129, 1000, 1023, 1024, 1025, 2047, 2048, 4093, 4095, 4096]
SCALE = load_folder(SCALE_ROWS)


@pytest.mark.parametrize("config", [TILE, FUSED.spec.baseline], ids=lambda config: config.implementation)
@pytest.mark.parametrize(
    ("marks", "count"),
    [
        ([], 4),
        (["num_tokens"], 2),
        (["num_tokens", "fp8_stride_group", "scale_stride_group"], 2),
        (["num_tokens", "scale_stride_block"], 1),
    ],
)
def test_compiles_over_serving_sizes(config: Config, marks: list[str], count: int) -> None:
    variant = Variant(FUSED.name, config, SpecializationSet.of(marks))
    shapes = [FUSED.spec.shape({"num_tokens": tokens, "num_heads": 64, "n_groups": 8}) for tokens in TOKENS]
    keys = reachable_keys(FUSED, variant, shapes, CUDA)
    assert len(keys) == count
    for key, shape in keys.items():
        arguments = meta_launch(FUSED, variant, shape).arguments
        assert bind(load_variant(FUSED, variant), arguments, CUDA).key == key


@pytest.mark.parametrize("target", ["cuda:80", "hip:gfx942"])
def test_an_option_that_is_off_is_not_passed_where_it_may_be_unknown(target: str) -> None:
    config = Config(TILE.implementation, TILE.parameters, FrozenMapping({**TILE.options, "launch_pdl": 0}))
    variant = Variant(FUSED.name, config)
    arguments = meta_launch(
        FUSED, variant, FUSED.spec.shape({"num_tokens": 4, "num_heads": 8, "n_groups": 1})
    ).arguments
    loaded = load_variant(FUSED, variant)
    assert loaded.options == load_variant(FUSED, Variant(FUSED.name, TILE)).options
    assert bind(loaded, arguments, Target.parse(target)).options.num_warps == 4


def test_a_shape_that_launches_nothing_reaches_no_key() -> None:
    empty = SCALE.spec.shape({"num_rows": 0})
    assert reachable_keys(SCALE, scale_rows_variant(), [empty], CUDA) == {}


def test_the_first_shape_of_a_key_stands_for_it() -> None:
    shapes = [SCALE.spec.shape({"num_rows": rows}) for rows in (32, 64, 3, 5, 1)]
    assert list(reachable_keys(SCALE, scale_rows_variant(), shapes, CUDA).values()) == [shapes[0], shapes[2], shapes[4]]
    marked = scale_rows_variant(marks=("num_rows",))
    assert list(reachable_keys(SCALE, marked, shapes, CUDA).values()) == shapes[:1]


def specialization_class(value: int, *, marked: bool, on_alignment: bool) -> object:
    """What Triton sees of an integer argument."""
    width = "i32" if -(2**31) <= value < 2**31 else "i64" if value < 2**63 else "u64"
    if marked:
        return width
    if value == 1:
        return "one"
    return width, value % 16 == 0 and not on_alignment


sizes = st.one_of(
    st.sampled_from([0, 1, 2, 15, 16, 17, 32, 2**31 - 1, 2**31, 2**31 + 8, 2**32]),
    st.integers(0, 2**40),
    st.integers(0, 2**36).map(lambda number: number * 16),
)
mark_sets = st.sets(st.sampled_from(["num_rows", "row_stride"]))


@settings(deadline=None)
@given(first=st.tuples(sizes, sizes), second=st.tuples(sizes, sizes), marks=mark_sets, on_alignment=mark_sets)
def test_keys_are_equal_when_the_classes_are(
    first: tuple[int, int], second: tuple[int, int], marks: set[str], on_alignment: set[str]
) -> None:
    loaded = load_variant(SCALE, scale_rows_variant(marks=tuple(marks), on_alignment=tuple(on_alignment)))
    tensor = torch.empty(2, 16, dtype=torch.bfloat16, device="meta")
    keys, classes = [], []
    for rows, stride in (first, second):
        given = {"num_rows": rows, "row_stride": stride}
        arguments = {"x_ptr": tensor, "y_ptr": tensor, **given, "COLUMNS": 16}
        keys.append(bind(loaded, arguments, CUDA).key)
        classes.append(
            [
                specialization_class(value, marked=name in marks, on_alignment=name in on_alignment)
                for name, value in given.items()
            ]
        )
    assert (keys[0] == keys[1]) == (classes[0] == classes[1])


def test_keys_see_options_and_constants_but_not_the_parameters_frozen_in() -> None:
    shape = SCALE.spec.shape({"num_rows": 3})

    def key(variant: Variant, **changed: object) -> str:
        arguments = {**meta_launch(SCALE, variant, shape).arguments, **changed}
        return bind(load_variant(SCALE, variant), arguments, CUDA).key

    plain = key(scale_rows_variant())
    assert key(scale_rows_variant(num_warps=2)) != plain
    assert key(scale_rows_variant(), COLUMNS=64) != plain
    assert key(scale_rows_variant(), x_ptr=torch.empty(3, 128, dtype=torch.float32, device="meta")) != plain
