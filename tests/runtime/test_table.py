"""The winner table as JSON: nothing is lost, and nothing else is taken for one."""

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import store_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import TableError, UserError
from tuner.records import Bucket, FrozenMapping, Portfolio, Shape, Target, Timing, Variant, Winner
from tuner.runtime import SCHEMA_VERSION, WinnerTable, read_table

DELETED = object()
SCHEMA_1 = Path(__file__).with_name("winner_table_schema_1.json")


def of_table(table: WinnerTable, row: Winner) -> Winner:
    """A row as it is in a table: of its kernel, source and environment, and with times in summary."""

    def summary(timing: Timing) -> Timing:
        return dataclasses.replace(timing, samples_us=())

    def named(variant: Variant) -> Variant:
        return dataclasses.replace(variant, kernel=table.kernel)

    return dataclasses.replace(
        row,
        variant=named(row.variant),
        baseline=named(row.baseline),
        environment=table.environment,
        source_digest=table.source_digest,
        timing=summary(row.timing),
        baseline_timing=summary(row.baseline_timing),
    )


@st.composite
def tables(draw: st.DrawFn) -> WinnerTable:
    table = WinnerTable(draw(store_examples.names), draw(store_examples.words), draw(store_examples.environments), ())
    rows = draw(st.lists(store_examples.winners, max_size=2))
    found = dataclasses.replace(table, rows=tuple(of_table(table, row) for row in rows))
    return with_portfolio(draw, found) if draw(st.booleans()) else found


def with_portfolio(draw: st.DrawFn, table: WinnerTable) -> WinnerTable:
    """The table with its rows at one and two of a dimension, of which the first bucket ends at one."""
    fixed = FrozenMapping(draw(store_examples.shapes))
    rows = tuple(
        dataclasses.replace(row, shape=Shape({**fixed, "a size": number})) for number, row in enumerate(table.rows, 1)
    )
    variants = [dataclasses.replace(draw(store_examples.variants), kernel=table.kernel) for _ in range(2)]
    buckets = (Bucket(fixed, 1, 1, variants[0]), Bucket(fixed, 2, draw(st.none() | st.just(9)), variants[1]))
    compiles, regret, bound = draw(store_examples.counts), draw(store_examples.ratios), draw(store_examples.ratios)
    return dataclasses.replace(table, rows=rows, portfolio=Portfolio("a size", buckets, compiles, regret, bound))


@settings(deadline=None, max_examples=50)
@given(tables())
def test_json_round_trip(table: WinnerTable) -> None:
    text = json.dumps(table.to_json())
    assert WinnerTable.from_json(json.loads(text)) == table
    assert json.dumps(WinnerTable.from_json(json.loads(text)).to_json()) == text


def example() -> WinnerTable:
    """Two rows, at one and two tokens, and a portfolio of a bucket for each."""
    table = WinnerTable("scale", store_examples.SOURCE, store_examples.ENVIRONMENT, ())
    fixed = FrozenMapping[int | str](hidden=4096, dtype="bf16")
    buckets = (Bucket(fixed, 1, 1, store_examples.variant(5)), Bucket(fixed, 2, None, store_examples.variant(0)))
    return dataclasses.replace(
        table,
        rows=tuple(of_table(table, store_examples.winner(n, 2**n)) for n in range(2)),
        portfolio=Portfolio("num_tokens", buckets, compiles=3, regret=0.008, bound=0.01),
    )


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    data = example().to_json()
    assert (data["schema"], data["kernel"], data["evidence"]) == (SCHEMA_VERSION, "scale", "measured")
    assert data["environment"]["target"] == "cuda:90"
    assert data["rows"][0]["timing_us"] == {"median": 10.1, "low": 10.0, "high": 10.4, "samples": 3}
    assert [data["portfolio"][name] for name in ("dynamic", "compiles", "regret", "bound")] == [
        "num_tokens",
        3,
        0.008,
        0.01,
    ]
    assert [each["parameters"] for each in data["portfolio"]["variants"]] == [{"BLOCK": 96}, {"BLOCK": 16}]
    fixed = {"hidden": 4096, "dtype": "bf16"}
    assert data["portfolio"]["buckets"][1] == {"fixed": fixed, "first": 2, "last": None, "variant": 1}
    path.write_text(json.dumps(data))
    assert read_table(path) == example()


def test_a_table_of_schema_1_is_still_read() -> None:
    """The winners of version 0.1 before there were portfolios, three of the ten."""
    table = read_table(SCHEMA_1)
    assert json.loads(SCHEMA_1.read_text())["schema"] == 1
    assert [row.shape["num_tokens"] for row in table.rows] == [1, 512, 8192]
    assert table.portfolio is None
    again = table.to_json()
    assert (again["schema"], again["portfolio"]) == (SCHEMA_VERSION, None)
    assert WinnerTable.from_json(again) == table


def test_every_row_is_in_a_bucket() -> None:
    data = example().to_json()
    edit(data, ("portfolio", "buckets", 0, "first"), 2)
    with pytest.raises(TableError, match="a row is in no bucket"):
        WinnerTable.from_json(data)


def refusal(path: Path, content: bytes | None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    text = json.dumps(example().to_json()).encode()
    assert "No such file" in refusal(path, None)
    assert "cannot be read" in refusal(path, text[: len(text) // 2])
    assert "cannot be read" in refusal(path, b"")
    assert "cannot be read" in refusal(path, b"\xff\xfe")
    assert "no schema version" in refusal(path, b"[1, 2]")
    assert "no schema version" in refusal(path, b'{"rows": []}')
    newer = refusal(path, json.dumps({**example().to_json(), "schema": SCHEMA_VERSION + 1}).encode())
    assert f"schema {SCHEMA_VERSION + 1}; this tuner reads 1 to {SCHEMA_VERSION}" in newer
    assert "Upgrade tuner" in newer
    assert "cannot be read" in refusal(tmp_path, None)


def edit(data: Any, path: tuple[Any, ...], value: Any) -> None:
    *parents, last = path
    for part in parents:
        data = data[part]
    if value is DELETED:
        del data[last]
    else:
        data[last] = value


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested JSON data, but for the open mappings of names to numbers."""
    found = [at] if at else []
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in inner:
        if at[-1:] not in (("shape",), ("parameters",), ("options",), ("fixed",)):
            found += places(value, (*at, name))
    return found


# Facts that are stated twice for people, or have a default.
OPTIONAL = {("evidence",), ("environment", "l2")}
FIELDS = [place for place in places(example().to_json()) if isinstance(place[-1], str) and place not in OPTIONAL]


@pytest.mark.parametrize("place", [place for place in FIELDS if 1 not in place], ids=lambda at: ".".join(map(str, at)))
def test_a_table_without_a_field_is_refused(place: tuple[Any, ...]) -> None:
    data = example().to_json()
    edit(data, place, DELETED)
    with pytest.raises(TableError):
        WinnerTable.from_json(data)


def test_a_target_that_only_a_gpu_knows_is_read() -> None:
    data = example().to_json()
    edit(data, ("environment", "target"), "cuda:120")
    assert WinnerTable.from_json(data).environment.target == Target("cuda", "120")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("environment",), "cuda:90"),
        (("environment", "unknown"), 1),
        (("environment", "evidence"), "guessed"),
        (("environment", "target"), 90),
        (("environment", "target"), "cuda"),
        (("environment", "protocol"), "1"),
        (("rows",), 3),
        (("rows",), {"a": 1}),
        (("rows", 0), None),
        (("rows", 0, "baseline"), None),
        (("rows", 0, "shape"), 7),
        (("rows", 0, "shape"), []),
        (("rows", 0, "shape"), {"num_tokens": [1]}),
        (("rows", 0, "shape"), {"num_tokens": 1.5}),
        (("rows", 0, "parameters"), []),
        (("rows", 0, "parameters"), {"BLOCK": {}}),
        (("rows", 0, "parameters"), {"BLOCK": "16"}),
        (("rows", 0, "options"), {"num_warps": "four"}),
        (("rows", 0, "baseline", "options"), {"num_warps": True}),
        (("rows", 0, "do_not_specialize"), 5),
        (("rows", 0, "do_not_specialize"), "num_tokens"),
        (("rows", 0, "do_not_specialize"), {"num_tokens": 1}),
        (("rows", 0, "do_not_specialize"), [1]),
        (("rows", 0, "baseline", "do_not_specialize_on_alignment"), "stride"),
        (("rows", 0, "timing_us", "median"), "fast"),
        (("rows", 0, "timing_us", "median"), "10.1"),
        (("rows", 0, "timing_us", "median"), None),
        (("rows", 0, "baseline_timing_us", "samples"), "3"),
        (("rows", 0, "compiles"), "many"),
        (("rows", 0, "compiles"), "3"),
        (("rows", 0, "compiles"), math.inf),
        (("rows", 0, "speedup"), [1, 2, 3]),
        (("rows", 0, "speedup", "median"), "fast"),
        (("rows", 0, "speedup", "low"), "1.2"),
        (("portfolio",), []),
        (("portfolio", "dynamic"), "hidden_size"),
        (("portfolio", "dynamic"), 1),
        (("portfolio", "regret"), "0.01"),
        (("portfolio", "bound"), None),
        (("portfolio", "compiles"), 1.5),
        (("portfolio", "variants"), {}),
        (("portfolio", "variants", 0, "options"), []),
        (("portfolio", "buckets"), {}),
        (("portfolio", "buckets", 0), []),
        (("portfolio", "buckets", 0, "variant"), 2),
        (("portfolio", "buckets", 0, "variant"), -1),
        (("portfolio", "buckets", 0, "first"), "1"),
        (("portfolio", "buckets", 0, "last"), 1.5),
        (("portfolio", "buckets", 0, "fixed"), []),
        (("portfolio", "buckets", 0, "fixed"), {"hidden": None}),
    ],
    ids=str,
)
def test_values_of_wrong_types_are_refused(place: tuple[Any, ...], value: Any) -> None:
    data = example().to_json()
    edit(data, place, value)
    with pytest.raises(TableError, match="cannot be read"):
        WinnerTable.from_json(data)


plain = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.text(max_size=4)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(place=st.sampled_from(places(example().to_json())), value=anything)
def test_a_damaged_table_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    data = example().to_json()
    edit(data, place, value)
    with contextlib.suppress(UserError):
        assert WinnerTable.from_json(data).kernel == str(data["kernel"])
