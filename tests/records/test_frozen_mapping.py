"""FrozenMapping and Shape: one value whatever the order, the same after every trip."""

import copy
import json
import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.records import FrozenMapping, Shape

items = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=6)


@given(items, st.randoms(use_true_random=False))
def test_order_does_not_matter(values: dict[str, int | str], random: Random) -> None:
    order = list(values)
    random.shuffle(order)
    first, second = FrozenMapping(values), FrozenMapping({name: values[name] for name in order})
    assert first == second
    assert hash(first) == hash(second)
    assert first.canonical == second.canonical
    assert first == values


@given(items, items)
def test_different_items_are_different(first: dict[str, int | str], second: dict[str, int | str]) -> None:
    assert (FrozenMapping(first) == FrozenMapping(second)) == (first == second)
    assert (FrozenMapping(first).canonical == FrozenMapping(second).canonical) == (first == second)
    assert json.loads(FrozenMapping(first).canonical) == first


@given(items)
def test_survives_pickling_and_copying(values: dict[str, int | str]) -> None:
    for original in (FrozenMapping(values), Shape(values)):
        for twin in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
            assert twin == original
            assert hash(twin) == hash(original)
            assert type(twin) is type(original)
            assert list(twin) == list(original)


def test_is_immutable() -> None:
    source = {"a": 1}
    mapping = FrozenMapping(source)
    with pytest.raises(TypeError):
        mapping["a"] = 2  # type: ignore[index]
    source["a"] = 2
    assert mapping == {"a": 1}


def test_canonical_and_label() -> None:
    mapping = FrozenMapping({"b": 2}, a="x")
    assert mapping.canonical == '{"a":"x","b":2}'
    assert mapping.label == "b=2,a=x"
    assert mapping != [("b", 2), ("a", "x")]


def test_an_unhashable_value_is_refused() -> None:
    with pytest.raises(TypeError):
        FrozenMapping(a=[1])


def test_shape_size() -> None:
    shape = Shape(num_tokens=4, layout="row")
    assert shape.size("num_tokens") == 4
    with pytest.raises(TypeError, match="'layout' is 'row'"):
        shape.size("layout")
    with pytest.raises(KeyError):
        shape.size("heads")
