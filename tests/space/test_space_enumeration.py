"""Enumeration: all and only the configs and sets that are allowed, lazily, always in one order."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, islice, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import SpaceError, UnknownNameError
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Target, Variant
from tuner.space import Constraint, ImplementationSpace, SearchSpace

Load = Callable[[str], SearchSpace]

NAMES = ("A", "B", "num_warps")
SHAPE = Shape(n=4)

_values = st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True).map(tuple)
_constraints = st.lists(
    st.sampled_from(["A < B", "num_warps <= A", "A * B <= 4 * n", "B % n == 0", "n > 3", "n > 4", "A != num_warps"]),
    max_size=3,
)


@st.composite
def _implementations(draw: st.DrawFn) -> ImplementationSpace:
    return ImplementationSpace(
        draw(st.sampled_from(["tile", "row"])),
        FrozenMapping({"A": draw(_values), "B": draw(_values)}),
        FrozenMapping({"num_warps": draw(_values)}),
        tuple(Constraint(text) for text in draw(_constraints)),
    )


def _space(*implementations: ImplementationSpace, **fields: tuple[str, ...]) -> SearchSpace:
    return SearchSpace("quantize", implementations, (SHAPE,), **fields)  # type: ignore[arg-type]


@given(_implementations())
def test_enumeration_yields_what_brute_force_finds_in_the_same_order(each: ImplementationSpace) -> None:
    expected = []
    for values in product(*each.values.values()):
        names = dict(zip(NAMES, values, strict=True))
        if all(eval(constraint.text, {}, {**names, **SHAPE}) for constraint in each.constraints):
            parameters, options = FrozenMapping(A=names["A"], B=names["B"]), FrozenMapping(num_warps=names["num_warps"])
            expected.append(Config(each.name, parameters, options))
    assert list(_space(each).configs(SHAPE)) == expected


@given(_implementations(), st.tuples(*[st.integers(0, 13)] * 3))
def test_allows_says_whether_a_config_is_enumerated(each: ImplementationSpace, values: tuple[int, int, int]) -> None:
    space = _space(each)
    enumerated = set(space.configs(SHAPE))
    assert all(space.allows(config, SHAPE) for config in enumerated)
    config = Config(each.name, FrozenMapping(A=values[0], B=values[1]), FrozenMapping(num_warps=values[2]))
    assert space.allows(config, SHAPE) == (config in enumerated)


def test_allows_refuses_other_names(load: Load, good: str) -> None:
    space = load(good)
    shape = Shape(space.shapes[0])
    config = next(space.configs(shape))
    assert space.allows(config, shape)
    assert not space.allows(replace(config, implementation="per_head"), shape)
    assert not space.allows(replace(config, implementation="other"), shape)
    assert not space.allows(replace(config, parameters=FrozenMapping(BLOCK_TOKENS=1)), shape)
    assert not space.allows(replace(config, options=FrozenMapping({**config.options, "maxnreg": 64})), shape)


def test_configs_run_through_the_implementations_in_file_order(load: Load, good: str) -> None:
    space = load(good)
    shape = Shape(space.shapes[0])
    configs = list(space.configs(shape))
    # Of 4 x 4 tiles one has 64 elements; each of the others meets 4 x 2 options; then the one per_head config.
    assert len(configs) == 15 * 8 + 1
    assert configs[0].label == "tile BLOCK_TOKENS=1 BLOCK_HEADS=1 num_warps=1 num_stages=1"
    assert configs[1].label == "tile BLOCK_TOKENS=1 BLOCK_HEADS=1 num_warps=1 num_stages=2"
    assert configs[-1].label == "per_head num_warps=1 num_stages=1"
    assert configs == list(space.configs(shape))
    # 64 heads in 64 groups leave one head a block.
    assert {each.parameters.get("BLOCK_HEADS") for each in space.configs(Shape(space.shapes[1]))} == {1, None}


def test_enumeration_is_lazy_and_prunes() -> None:
    many = FrozenMapping({f"P{index}": tuple(range(20)) for index in range(12)})
    wide = ImplementationSpace("wide", many, constraints=(Constraint("P0 == 19"), Constraint("P1 + P0 == 38")))
    space = _space(wide)
    assert space.size == 20**12
    first = next(space.configs(SHAPE))
    assert (first.parameters["P0"], first.parameters["P1"]) == (19, 19)
    space.require_feasible(SHAPE)
    never = replace(wide, constraints=(Constraint("P0 + P1 > 99"),))
    assert list(_space(never).configs(SHAPE)) == []


def test_an_earlier_constraint_guards_a_later_one() -> None:
    values = FrozenMapping(A=(0, 2), B=(0, 1))
    guard, guarded = Constraint("A + B > 0 and A != 0"), Constraint("8 // A == 4")
    assert [
        each.parameters["A"] for each in ImplementationSpace("x", values, constraints=(guard, guarded)).configs(SHAPE)
    ] == [2, 2]
    with pytest.raises(SpaceError, match="A=0"):
        list(ImplementationSpace("x", values, constraints=(guarded, guard)).configs(SHAPE))


@given(
    st.lists(st.sampled_from("abcd"), unique=True).map(tuple), st.lists(st.sampled_from("abcd"), unique=True).map(tuple)
)
def test_specialization_sets_are_all_pairs_of_disjoint_subsets(
    names: tuple[str, ...], aligned: tuple[str, ...]
) -> None:
    def subsets(items: tuple[str, ...]) -> list[tuple[str, ...]]:
        return [each for size in range(len(items) + 1) for each in combinations(items, size)]

    expected = {
        SpecializationSet.of(one, two) for one in subsets(names) for two in subsets(aligned) if not {*one} & {*two}
    }
    space = _space(ImplementationSpace("x"), candidates=names, alignment_candidates=aligned)
    found = list(space.specialization_sets())
    assert set(found) == expected and len(found) == len(expected)
    assert found[0] == SpecializationSet()
    assert space.size == len(found)


def test_specialization_sets_are_lazy() -> None:
    space = _space(ImplementationSpace("x"), candidates=tuple(f"a{index}" for index in range(60)))
    assert len(list(islice(space.specialization_sets(), 3))) == 3


def test_size_counts_configs_of_all_implementations_times_sets(load: Load, good: str) -> None:
    # (4 x 4 x 4 x 2 + 1) configs; num_tokens marked or not; fp8_stride not, fully, or on alignment.
    assert load(good).size == 129 * 2 * 3


def test_contains_holds_every_part_of_a_variant_against_the_space(load: Load, good: str) -> None:
    space = load(good)
    shape = Shape(space.shapes[0])
    config = next(space.configs(shape))

    def contains(*names: str, aligned: tuple[str, ...] = (), kernel: str = "quantize") -> bool:
        return space.contains(Variant(kernel, config, SpecializationSet.of(names, aligned)), shape)

    assert contains() and contains("num_tokens", "fp8_stride") and contains("num_tokens", aligned=("fp8_stride",))
    assert not contains("other")
    assert not contains(aligned=("num_tokens",))
    assert not contains("fp8_stride", aligned=("fp8_stride",))
    assert not contains(kernel="other")
    large = replace(config, parameters=FrozenMapping(BLOCK_TOKENS=8, BLOCK_HEADS=8))
    assert not space.contains(Variant("quantize", large), shape)


@pytest.mark.parametrize(
    ("target", "has_it"), [("cuda:80", False), ("cuda:90", True), ("cuda:100", True), ("hip:gfx950", False)]
)
def test_a_target_without_early_launches_is_searched_without_them(
    target: str, has_it: bool, load: Load, good: str
) -> None:
    space = load(good.replace("num_stages: [1, 2]", "launch_pdl: [0, 1]")).on(Target.parse(target))
    options = space.implementation("tile").options
    assert options == {"num_warps": (1, 2, 4, 8), **({"launch_pdl": (0, 1)} if has_it else {})}
    assert space.implementation("per_head").options == {"num_warps": (1,), "num_stages": (1,)}


def test_an_infeasible_shape_says_what_each_constraint_rejects(load: Load, good: str) -> None:
    space = load(good.replace("<= 32", "<= 4 and num_warps > 8"))
    shape = Shape(num_tokens=1, num_heads=8, n_groups=4, layout="row")
    space.require_feasible(shape)
    alone = replace(space, implementations=space.implementations[:1])
    with pytest.raises(SpaceError) as caught:
        alone.require_feasible(shape)
    message = str(caught.value)
    assert "space.yaml:2: No config meets the constraints at num_tokens=1,num_heads=8" in message
    assert "tile: 128 configs" in message
    assert "line 11: 'BLOCK_HEADS <= num_heads // n_groups' rejects 64 of them alone" in message
    assert "line 12: 'BLOCK_TOKENS * BLOCK_HEADS <= 4 and num_warps > 8' rejects 128 of them alone" in message


def test_a_refusal_does_not_count_without_end() -> None:
    many = FrozenMapping({f"P{index}": tuple(range(100)) for index in range(4)})
    wide = ImplementationSpace("wide", many, constraints=(Constraint("n > 4"), Constraint("P0 + P1 + P2 + P3 > 0")))
    with pytest.raises(SpaceError, match="P3 > 0' has too many values to count"):
        _space(wide).require_feasible(SHAPE)


def test_an_unknown_implementation_names_the_nearest(load: Load, good: str) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tile'"):
        load(good).implementation("tiles")
