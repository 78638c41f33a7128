"""Variant: its JSON and the digest that names it everywhere."""

import dataclasses
import json

import pytest
import store_examples
from hypothesis import given, settings

from tuner.records import Config, FrozenMapping, SpecializationSet, Variant

CONFIG = Config("tile", FrozenMapping(BLOCK=8, UNROLL=2), FrozenMapping(num_warps=4, num_stages=2))
VARIANT = Variant("scale", CONFIG, SpecializationSet.of(["num_tokens", "stride"], ["x_ptr"]))
OTHERS = {
    "kernel": Variant("scales", CONFIG, VARIANT.specialization),
    "implementation": Variant("scale", dataclasses.replace(CONFIG, implementation="row"), VARIANT.specialization),
    "parameter": Variant(
        "scale", dataclasses.replace(CONFIG, parameters=FrozenMapping(BLOCK=16, UNROLL=2)), VARIANT.specialization
    ),
    "option": Variant(
        "scale", dataclasses.replace(CONFIG, options=FrozenMapping(num_warps=4, num_stages=3)), VARIANT.specialization
    ),
    "parameter as option": Variant(
        "scale",
        Config("tile", FrozenMapping(BLOCK=8), FrozenMapping(UNROLL=2, num_warps=4, num_stages=2)),
        VARIANT.specialization,
    ),
    "marked less": Variant("scale", CONFIG, SpecializationSet.of(["num_tokens"], ["x_ptr"])),
    "marked on alignment": Variant("scale", CONFIG, SpecializationSet.of(["num_tokens"], ["stride", "x_ptr"])),
    "unmarked": Variant("scale", CONFIG),
}


@settings(max_examples=40, deadline=None)
@given(store_examples.variants)
def test_json_round_trip(variant: Variant) -> None:
    read = Variant.from_json(json.loads(json.dumps(variant.to_json())))
    assert read == variant
    assert read.digest == variant.digest


def test_digest_is_the_same_in_every_release() -> None:
    """Stored rows, winner tables and emitted modules name variants by it."""
    assert VARIANT.digest == "277820bc8a262acc"


def test_digest_ignores_the_order_of_names() -> None:
    config = Config("tile", FrozenMapping(UNROLL=2, BLOCK=8), FrozenMapping(num_stages=2, num_warps=4))
    marks = SpecializationSet.of(["stride", "num_tokens", "stride"], ["x_ptr"])
    assert Variant("scale", config, marks).digest == VARIANT.digest


@pytest.mark.parametrize("what", OTHERS)
def test_digest_sees_every_part(what: str) -> None:
    assert OTHERS[what].digest != VARIANT.digest
    assert OTHERS[what] != VARIANT


@pytest.mark.parametrize("missing", VARIANT.to_json())
def test_json_without_a_part_is_no_variant(missing: str) -> None:
    data = VARIANT.to_json()
    del data[missing]
    with pytest.raises(KeyError, match=missing):
        Variant.from_json(data)


def test_labels_name_every_choice() -> None:
    assert CONFIG.label == "tile BLOCK=8 UNROLL=2 num_warps=4 num_stages=2"
    assert VARIANT.specialization.label == "num_tokens, stride, x_ptr (alignment)"
    assert SpecializationSet().label == "none"
