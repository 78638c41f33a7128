"""The environment of a run without a GPU, and what is said where a GPU is needed."""

import dataclasses
import importlib.metadata

import pytest
import store_examples
import torch

from tuner.measure import environment as module
from tuner.measure.environment import device_environment, environment_here, estimated_environment
from tuner.records import KNOWN_TARGETS, Evidence, Target

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("text", KNOWN_TARGETS)
def test_an_estimate_names_its_software_and_no_device(text: str) -> None:
    environment = estimated_environment(Target.parse(text))
    assert environment.evidence is Evidence.ESTIMATED
    assert environment.device == environment.driver == environment.l2 == ""
    assert environment.torch == importlib.metadata.version("torch")
    assert environment.triton == importlib.metadata.version("triton")
    assert bool(environment.ptxas) == text.startswith("cuda")


def test_measuring_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="torch sees no GPU"):
        device_environment()


def test_a_measurement_is_held_against_the_gpu_here_and_an_estimate_against_its_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = dataclasses.replace(store_examples.ENVIRONMENT, target=Target("cuda", "80"), l2="cold")
    estimated = dataclasses.replace(measured, evidence=Evidence.ESTIMATED)
    ours = estimated_environment(measured.target)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment_here(measured) == environment_here(estimated) == ours
    device = dataclasses.replace(measured, device="NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "device_environment", lambda l2: dataclasses.replace(device, l2=l2))
    assert environment_here(measured) == device
    assert environment_here(dataclasses.replace(measured, l2="warm")).l2 == "warm"
    assert environment_here(estimated) == ours
