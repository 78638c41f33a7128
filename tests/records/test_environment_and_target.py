"""Environment and Target: what a stored result is keyed by."""

import dataclasses
from typing import Any

import pytest
import store_examples

from tuner.errors import UnknownNameError
from tuner.records import DEFAULT_TARGET, KNOWN_TARGETS, Environment, Evidence, Target


def another(value: Any) -> Any:
    """Some other value of the same type."""
    match value:
        case Target():
            return Target(value.backend, value.arch + "0")
        case Evidence():
            return next(each for each in Evidence if each is not value)
        case str():
            return value + "x"
        case int():
            return value + 1
    raise NotImplementedError(type(value))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Environment)])
def test_every_field_changes_the_digest(field: str) -> None:
    environment = store_examples.ENVIRONMENT
    changed = dataclasses.replace(environment, **{field: another(getattr(environment, field))})
    assert changed.digest != environment.digest


def test_digest_is_the_same_in_every_process() -> None:
    """Another digest makes every stored measurement another environment's."""
    environment = Environment(
        Target("cuda", "90"), Evidence.MEASURED, "H100", "2.13.0", "3.9.0", "580.65", "12.8", l2="cold", protocol=1
    )
    assert environment.digest == "fa03ff923508c638"


@pytest.mark.parametrize("text", KNOWN_TARGETS)
def test_known_targets_are_read_and_written(text: str) -> None:
    target = Target.parse(text)
    assert str(target) == text
    assert target.warp_size == (64 if text.startswith("hip") else 32)


def test_the_default_target_is_known() -> None:
    assert str(DEFAULT_TARGET) in KNOWN_TARGETS


@pytest.mark.parametrize(("text", "nearest"), [("cuda:9", "cuda:90"), ("cuda90", "cuda:90"), ("gfx942", "hip:gfx942")])
def test_an_unknown_target_names_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        Target.parse(text)
    assert f"did you mean {nearest!r}" in str(caught.value)
    assert all(known in str(caught.value) for known in KNOWN_TARGETS)
