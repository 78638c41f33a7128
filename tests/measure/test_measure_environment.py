"""The environment of a run without a GPU, and what is said where a GPU is needed."""

import importlib.metadata

import pytest
import torch

from tuner.measure.environment import device_environment, estimated_environment
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
