"""Which row answers a shape: the order of preference, the reach of a neighbour, the same answer every time."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence

import pytest
import store_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.records import Bucket, Environment, Evidence, FrozenMapping, Portfolio, Shape, Target, Variant, Winner
from tuner.records.portfolio import REACH
from tuner.runtime import Found, Origin, WinnerTable, find

CUDA, OLDER, AMD = Target("cuda", "90"), Target("cuda", "80"), Target("hip", "gfx942")
H100, H200 = "NVIDIA H100", "NVIDIA H200"


def environment(device: str, target: Target = CUDA, triton: str = "3.9.0") -> Environment:
    evidence = Evidence.MEASURED if device else Evidence.ESTIMATED
    return Environment(target, evidence, device, torch="2.13.0", triton=triton, driver="", ptxas="")


def shape(tokens: int, heads: int = 8) -> Shape:
    return Shape(num_tokens=tokens, num_heads=heads)


def table(where: Environment, *shapes: Shape) -> WinnerTable:
    rows = tuple(
        dataclasses.replace(store_examples.winner(number), shape=each, environment=where)
        for number, each in enumerate(shapes)
    )
    return WinnerTable("scale", "source", where, rows)


def answer(
    asked: Shape, *tables: WinnerTable, device: str = H100, target: Target = CUDA
) -> tuple[Winner, Origin] | None:
    found = find(tables, asked, ["num_tokens"], device, target)
    if found is None:
        return None
    assert found.variant == found.winner.variant, "without a portfolio"
    assert found.portfolio is None
    return found.winner, found.origin


# From the most to the least preferred, for 64 tokens on an H100.
PREFERENCE = [
    (table(environment(H100), shape(64)), Origin.EXACT),
    (table(environment(H100), shape(96)), Origin.BUCKET),
    (table(environment(H200), shape(64)), Origin.FAMILY),
    (table(environment(H200), shape(96)), Origin.FAMILY),
    (table(environment(""), shape(64)), Origin.EXACT),
    (table(environment(""), shape(96)), Origin.BUCKET),
]


@pytest.mark.parametrize("first", range(len(PREFERENCE)))
def test_the_order_of_preference(first: int) -> None:
    best, origin = PREFERENCE[first]
    for later in (PREFERENCE[first:], PREFERENCE[first:][::-1]):
        assert answer(shape(64), *(each for each, _ in later)) == (best.rows[0], origin)


def test_nothing_that_does_not_fit_answers() -> None:
    assert answer(shape(64)) is None
    other_targets = [table(environment("", target), shape(64)) for target in (OLDER, AMD)]
    assert answer(shape(64), *other_targets, table(environment("A100", OLDER), shape(64))) is None
    assert answer(shape(64), table(environment(H100), shape(64, heads=16))) is None


def test_without_a_device_measurements_of_its_architecture_come_first() -> None:
    measured, estimated = table(environment(H100), shape(64)), table(environment(""), shape(64))
    assert answer(shape(64), estimated, measured, device="") == (measured.rows[0], Origin.FAMILY)
    assert answer(shape(64), estimated, device="") == (estimated.rows[0], Origin.EXACT)


def test_the_first_of_equal_tables_answers() -> None:
    new, old = table(environment(H100, triton="3.9.0"), shape(64)), table(environment(H100, triton="3.6.0"), shape(64))
    for asked, origin in ((64, Origin.EXACT), (70, Origin.BUCKET)):
        assert answer(shape(asked), new, old) == (new.rows[0], origin)
        assert answer(shape(asked), old, new) == (old.rows[0], origin)


@pytest.mark.parametrize(
    ("asked", "tuned"),
    [
        (63, 64),
        (65, 64),
        (90, 64),
        (91, 128),
        (127, 128),
        (1000, 1024),
        (2048, 1024),
        (16, 16),
        (8, 16),
        (22, 16),
        (23, 32),
    ],
)
def test_the_nearest_size_by_ratio_answers(asked: int, tuned: int) -> None:
    """Between 64 and 128 the border is at their geometric mean, 90.5."""
    sizes = table(environment(H100), *map(shape, (1024, 16, 64, 128, 32)))
    found = answer(shape(asked), sizes)
    assert found is not None
    assert found[0].shape == shape(tuned)


def test_of_two_equally_near_sizes_the_smaller_answers() -> None:
    for sizes in ((32, 128), (128, 32)):
        found = answer(shape(64), table(environment(H100), *map(shape, sizes)))
        assert found is not None
        assert found[0].shape == shape(32)


@pytest.mark.parametrize(
    ("asked", "reached"), [(7, False), (8, True), (32, True), (128, True), (129, False), (0, False)]
)
def test_a_neighbour_reaches_as_far_as_a_factor_of_two(asked: int, reached: bool) -> None:
    assert (answer(shape(asked), table(environment(H100), shape(16), shape(64))) is not None) == reached


def test_a_kernel_without_exactly_one_dynamic_dimension_has_no_buckets() -> None:
    sizes = table(environment(H100), shape(64))
    for dynamic in ([], ["num_tokens", "num_heads"]):
        assert find([sizes], shape(65), dynamic, H100, CUDA) is None
        found = find([sizes], shape(64), dynamic, H100, CUDA)
        assert found is not None
        assert (found.winner, found.origin) == (sizes.rows[0], Origin.EXACT)


# One variant at 1 to 90 tokens and one from there to 2048, of the rows at 16, 64, 512 and 1024 tokens.
ONE, TWO = store_examples.variant(7), store_examples.variant(8)
HEADS = FrozenMapping[int | str](num_heads=8)
SOME = Portfolio("num_tokens", (Bucket(HEADS, 8, 90, ONE), Bucket(HEADS, 91, 2048, TWO)), 2, 0.008, 0.01)


@pytest.mark.parametrize(
    ("asked", "variant", "row", "origin"),
    [
        (16, ONE, 0, Origin.EXACT),
        (20, ONE, 0, Origin.BUCKET),
        (64, ONE, 1, Origin.EXACT),
        (90, ONE, 1, Origin.BUCKET),
        (91, TWO, 1, Origin.BUCKET),
        (1024, TWO, 3, Origin.EXACT),
        (2048, TWO, 3, Origin.BUCKET),
    ],
)
@pytest.mark.parametrize("device", [H100, H200])
def test_every_size_runs_the_variant_of_its_bucket(
    asked: int, variant: Variant, row: int, origin: Origin, device: str
) -> None:
    """Also a tuned one: a server that asks at each step compiles the portfolio and no winner beside it."""
    winners = dataclasses.replace(table(environment(H100), *map(shape, (16, 64, 512, 1024))), portfolio=SOME)
    found = find([winners], shape(asked), ["num_tokens"], device, CUDA)
    assert found == Found(winners.rows[row], origin if device == H100 else Origin.FAMILY, variant, SOME)


def test_a_portfolio_answers_for_the_rows_of_its_table_alone() -> None:
    with_one = dataclasses.replace(table(environment(H100), shape(16)), portfolio=SOME)
    without = table(environment(H100), shape(64), shape(64, heads=16))
    for tables in ([with_one, without], [without, with_one]):
        for asked, found in (
            (shape(20), Found(with_one.rows[0], Origin.BUCKET, ONE, SOME)),
            (shape(64), Found(without.rows[0], Origin.EXACT, without.rows[0].variant, None)),
            (shape(64, heads=16), Found(without.rows[1], Origin.EXACT, without.rows[1].variant, None)),
        ):
            assert find(tables, asked, ["num_tokens"], H100, CUDA) == found


def test_beyond_its_buckets_the_nearest_row_answers() -> None:
    """Where another table's rows reach further than the portfolio's own."""
    small = dataclasses.replace(table(environment(H100), shape(1024)), portfolio=SOME)
    large = table(environment(H100), shape(8192))
    found = find([small, large], shape(2500), ["num_tokens"], H100, CUDA)
    assert found == Found(small.rows[0], Origin.BUCKET, small.rows[0].variant, None)


class Counted(tuple[Winner, ...]):
    """Rows that count how often they are gone through."""

    times = 0

    def __iter__(self) -> Iterator[Winner]:
        self.times += 1
        return super().__iter__()


def test_rows_of_other_fixed_dimensions_cost_an_answer_nothing() -> None:
    whole = table(environment(H100), *(shape(tokens, heads) for heads in range(1, 50) for tokens in (16, 64)))
    buckets = tuple(Bucket(FrozenMapping(num_heads=heads), 8, 128, ONE) for heads in range(1, 50))
    rows = Counted(whole.rows)
    whole = dataclasses.replace(whole, rows=rows, portfolio=dataclasses.replace(SOME, buckets=buckets))
    for heads in range(1, 50):
        for tokens, tuned in ((16, 16), (17, 16), (64, 64), (100, 64)):
            found = find([whole], shape(tokens, heads), ["num_tokens"], H100, CUDA)
            assert found is not None
            assert (found.winner.shape, found.variant) == (shape(tuned, heads), ONE)
        group = whole.group(shape(3, heads), ["num_tokens"])
        assert (group.rows, group.buckets) == (whole.rows[2 * heads - 2 : 2 * heads], (buckets[heads - 1],))
    assert rows.times == 1
    assert whole.group(shape(16, 50), ["num_tokens"]) == ((), ())


class Watched(Shape):
    """A shape that counts how often one of its kind is read."""

    reads = 0

    def __getitem__(self, name: str) -> int | str:
        Watched.reads += 1
        return super().__getitem__(name)


@pytest.mark.parametrize("count", [10, 10_000])
def test_rows_of_the_same_fixed_dimensions_cost_a_new_size_little(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do buckets."""
    sizes = range(10, 10 * count + 1, 10)
    first = table(environment(H100), shape(10)).rows[0]
    rows = tuple(dataclasses.replace(first, shape=Watched(shape(size))) for size in sizes)
    buckets = tuple(Bucket(HEADS, size, size + 9, ONE) for size in sizes)
    whole = WinnerTable("scale", "source", environment(H100), rows, dataclasses.replace(SOME, buckets=buckets))
    held, holds = [], Bucket.holds

    def counted(bucket: Bucket, asked: Shape, dynamic: str) -> bool:
        held.append(bucket)
        return holds(bucket, asked, dynamic)

    monkeypatch.setattr(Bucket, "holds", counted)
    for place in (1, 0, count // 2, count - 1):
        Watched.reads = 0
        found = find([whole], shape(sizes[place] + 2), ["num_tokens"], H100, CUDA)
        assert found == Found(rows[place], Origin.BUCKET, ONE, whole.portfolio)
        assert held.pop() == buckets[place]
        assert not held
        if place != 1:  # the first answer goes through all rows
            assert 0 < Watched.reads < 40


small = st.builds(shape, st.integers(0, 40), st.sampled_from([8, 16]))
some_tables = st.lists(
    st.builds(
        lambda where, shapes: table(where, *shapes),
        st.builds(environment, st.sampled_from(["", H100, H200]), st.sampled_from([CUDA, AMD])),
        st.lists(small, max_size=4),
    ),
    max_size=4,
)


@settings(deadline=None)
@given(tables=some_tables, asked=small, device=st.sampled_from(["", H100]))
def test_what_every_answer_keeps(tables: list[WinnerTable], asked: Shape, device: str) -> None:
    found = answer(asked, *tables, device=device)
    reread = [WinnerTable.from_json(json.loads(json.dumps(each.to_json()))) for each in tables]
    again = answer(asked, *reread, device=device)
    usable = [row for each in tables for row in each.rows if row.environment.target == CUDA]
    if found is None:
        assert again is None
        assert asked not in [row.shape for row in usable]
        return
    row, origin = found
    assert again is not None
    assert (again[0].variant, again[0].shape, again[1]) == (row.variant, row.shape, origin)
    assert row in usable
    assert row.shape["num_heads"] == asked["num_heads"]
    assert (row.shape == asked) or origin is not Origin.EXACT
    if origin is not Origin.FAMILY:
        assert row.environment.device in (device, "")
    measured = [each.shape for each in usable if each.environment.evidence is Evidence.MEASURED]
    assert row.environment.evidence is Evidence.MEASURED or asked not in measured


@pytest.mark.parametrize("asked", [300, 310, 600, 1024])
def test_whatever_is_stale_answers_after_what_is_not(asked: int) -> None:
    """Also where its size is the very one, or nearer; beyond the reach of all others it still answers."""
    old = environment(H100, triton="3.6.0")
    current, stale = table(environment(H100), *map(shape, (256, 512, 1024))), table(old, *map(shape, (300, 520, 4096)))
    for tables in ([current, stale], [stale, current]):
        found = [find(tables, shape(each), ["num_tokens"], H100, CUDA, [old]) for each in (asked, 2500, 4096)]
        assert [each.winner.environment == old for each in found if each] == [False, True, True]
        assert find([stale], shape(asked), ["num_tokens"], H100, CUDA, [old])


def test_a_stale_winner_of_this_device_comes_before_those_of_others() -> None:
    old = environment(H100, triton="3.6.0")
    tables = [table(environment(H200), shape(64)), table(environment(""), shape(64)), table(old, shape(96))]
    found = find(tables, shape(64), ["num_tokens"], H100, CUDA, [old])
    assert found is not None
    assert found.winner == tables[-1].rows[0]


def plain_answer(
    tables: Iterable[WinnerTable],
    asked: Shape,
    dynamic: Sequence[str],
    device: str,
    target: Target,
    stale: Sequence[Environment],
) -> Found | None:
    """What `find` answers, from all rows and buckets one after another."""

    def fixed(each: Shape) -> dict[str, int | str]:
        return {name: value for name, value in each.items() if name not in dynamic}

    def found(where: WinnerTable, row: Winner, origin: Origin) -> Found:
        buckets = where.portfolio.buckets if where.portfolio else ()
        variant = next((each.variant for each in buckets if each.holds(asked, "num_tokens")), None)
        return Found(row, origin, variant or row.variant, where.portfolio if variant else None)

    rows = [
        (each, row)
        for each in tables
        for row in each.rows
        if fixed(row.shape) == fixed(asked) and each.environment.target == target
    ]
    for evidence, wanted in ((Evidence.MEASURED, device), (Evidence.ESTIMATED, "")):
        known = [each for each in rows if each[0].environment.evidence is evidence]
        here = [each for each in known if each[0].environment.device == wanted]
        for candidates, exact, bucket in (
            ([each for each in here if each[0].environment not in stale], Origin.EXACT, Origin.BUCKET),
            (here, Origin.EXACT, Origin.BUCKET),
            ([each for each in known if each[0].environment not in stale], Origin.FAMILY, Origin.FAMILY),
            (known, Origin.FAMILY, Origin.FAMILY),
        ):
            for each, row in candidates:
                if row.shape == asked:
                    return found(each, row, exact)
            if len(dynamic) != 1 or not candidates or (size := asked.size(dynamic[0])) < 1:
                continue
            sizes = [row.shape.size(dynamic[0]) for _, row in candidates]
            if min(sizes) / REACH <= size <= max(sizes) * REACH:
                ratios = [max(each, size) / min(each, size) if each else math.inf for each in sizes]
                best = min(range(len(sizes)), key=lambda place: (ratios[place], sizes[place]))
                return found(*candidates[best], bucket)
    return None


few_sizes = st.integers(0, 20)
some_buckets = st.builds(
    lambda heads, first, length, variant: Bucket(
        FrozenMapping(num_heads=heads), first, None if length is None else first + length, variant
    ),
    st.sampled_from([8, 16]),
    few_sizes,
    st.none() | st.integers(-2, 15),
    st.sampled_from([ONE, TWO]),
)
some_portfolios = st.lists(some_buckets, max_size=6).map(
    lambda buckets: dataclasses.replace(SOME, buckets=tuple(buckets))
)


@settings(deadline=None, max_examples=200)
@given(
    tables=st.lists(
        st.builds(
            lambda each, portfolio: dataclasses.replace(each, portfolio=portfolio),
            st.builds(
                lambda where, shapes: table(where, *shapes),
                st.builds(
                    environment,
                    st.sampled_from(["", H100, H200]),
                    st.sampled_from([CUDA, CUDA, AMD]),
                    st.sampled_from(["3.9.0", "3.6.0"]),
                ),
                st.lists(st.builds(shape, few_sizes, st.sampled_from([8, 16])), max_size=12),
            ),
            st.none() | some_portfolios,
        ),
        max_size=4,
    ),
    dynamic=st.sampled_from([["num_tokens"]] * 4 + [[], ["num_tokens", "num_heads"]]),
    device=st.sampled_from(["", H100]),
)
def test_every_answer_is_that_of_going_through_all_rows(
    tables: list[WinnerTable], dynamic: list[str], device: str
) -> None:
    """Whatever the order of rows and buckets, those of the same shape and those that overlap."""
    stale = [each.environment for each in tables if each.environment.triton == "3.6.0"]
    for size in range(45):
        expected = plain_answer(tables, shape(size), dynamic, device, CUDA, stale)
        found = find(tables, shape(size), dynamic, device, CUDA, stale)
        assert found == expected
        assert found is None or expected is None or found.winner is expected.winner
