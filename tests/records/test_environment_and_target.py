"""Environment and Target: what a stored result is keyed by."""

import dataclasses
from typing import Any

import pytest
import store_examples
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("field", "here", "reason"),
    [
        ("device", "NVIDIA H200", "measured on NVIDIA H100 80GB HBM3, here is NVIDIA H200"),
        ("device", "", "measured on NVIDIA H100 80GB HBM3, here is no GPU"),
        ("torch", "2.13.0+cu130", "torch 2.13.0, here 2.13.0+cu130"),
        ("triton", "3.9.0", "triton 3.6.0, here 3.9.0"),
        ("ptxas", "12.9", "ptxas 12.8, here 12.9"),
        ("driver", "570.1", "driver 580.65, here 570.1"),
        ("protocol", 1000, f"timing protocol {store_examples.ENVIRONMENT.protocol}, here 1000"),
    ],
)
def test_each_difference_is_told_by_itself(field: str, here: Any, reason: str) -> None:
    environment = store_examples.ENVIRONMENT
    changed = dataclasses.replace(environment, **{field: here})
    assert environment.differences(changed) == (reason,)
    assert environment.differences(dataclasses.replace(changed, l2="warm")) == (reason,)
    estimated = dataclasses.replace(environment, evidence=Evidence.ESTIMATED, device="", driver="", l2="")
    assert estimated.differences(changed) == (() if field in ("device", "driver") else (reason,))


versions = st.sampled_from(["", "1", "2"])
environments = st.builds(
    Environment,
    target=st.sampled_from([Target("cuda", "90"), Target("cuda", "100")]),
    evidence=st.sampled_from(Evidence),
    device=st.sampled_from(["", "H100", "B200"]),
    torch=versions,
    triton=versions,
    driver=versions,
    ptxas=versions,
    l2=st.sampled_from(["warm", "cold"]),
    protocol=st.integers(1, 2),
)


@given(environments, environments)
def test_environments_differ_in_as_many_ways_as_compared_fields(stored: Environment, here: Environment) -> None:
    measured = stored.evidence is Evidence.MEASURED
    known = [name for name in ("torch", "triton", "ptxas") if getattr(stored, name) and getattr(here, name)]
    known += ["driver"] if measured and stored.driver and here.driver else []
    compared = [*known, "protocol", *(["device"] if measured else [])]
    differing = [name for name in compared if getattr(stored, name) != getattr(here, name)]
    assert len(stored.differences(here)) == len(differing)
    assert stored.differences(stored) == ()


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
