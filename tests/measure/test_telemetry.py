"""Clock, temperature and throttle reasons, from a driver library that stands in for NVML."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tuner.measure import telemetry
from tuner.measure.telemetry import read_conditions
from tuner.records import Conditions

# From nvml.h.
BITS = {
    "nvmlClocksThrottleReasonGpuIdle": 0x1,
    "nvmlClocksThrottleReasonApplicationsClocksSetting": 0x2,
    "nvmlClocksThrottleReasonSwPowerCap": 0x4,
    "nvmlClocksThrottleReasonHwSlowdown": 0x8,
    "nvmlClocksThrottleReasonSyncBoost": 0x10,
    "nvmlClocksThrottleReasonSwThermalSlowdown": 0x20,
    "nvmlClocksThrottleReasonHwThermalSlowdown": 0x40,
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": 0x80,
    "nvmlClocksThrottleReasonDisplayClockSetting": 0x100,
}
UUIDS = {0: "11111111-aaaa", 1: "22222222-bbbb"}


class NVMLError(Exception):
    pass


class NotSupportedError(NVMLError):
    pass


class FakeNvml(ModuleType):
    """The binding, with two GPUs; `unsupported` names a call that the GPU does not know."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupportedError
    NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.__dict__.update(BITS)
        self.reasons = 0
        self.has_driver = True
        self.unsupported = ""
        self.started = 0

    def nvmlInit(self) -> None:  # noqa: N802 - the binding's own name, like the ones below
        self.started += 1
        if not self.has_driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert self.started
        if uuid.removeprefix("GPU-") not in UUIDS.values() or not uuid.startswith("GPU-"):
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:  # noqa: N802
        self._require("clock")
        return {"GPU-11111111-aaaa": (1, 1755, 3), "GPU-22222222-bbbb": (1, 1200, 3)}[handle][clock]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        self._require("temperature")
        assert sensor == self.NVML_TEMPERATURE_GPU
        return {"GPU-11111111-aaaa": 61, "GPU-22222222-bbbb": 80}[handle]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        self._require("reasons")
        return self.reasons

    def _require(self, call: str) -> None:
        if call == self.unsupported:
            raise NotSupportedError("Not Supported")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What the module knows of the machine is forgotten before and after."""
    caches = [each for each in vars(telemetry).values() if hasattr(each, "cache_clear")]
    assert caches
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch's current device, by its number there."""
    current = SimpleNamespace(number=0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current.number)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=UUIDS[number]))
    return current


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, device: SimpleNamespace) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_gpu_that_nvml_does_not_know_has_no_conditions(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition of a GPU has another name there."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid="33333333-cccc"))
    assert read_conditions() is None


def test_clock_and_temperature_are_read(nvml: FakeNvml) -> None:
    assert read_conditions() == Conditions(1755, 61, ())


def test_the_gpu_is_the_one_that_torch_uses_now(nvml: FakeNvml, device: SimpleNamespace) -> None:
    read_conditions()
    device.number = 1
    assert read_conditions() == Conditions(1200, 80, ())


def test_the_library_is_started_once(nvml: FakeNvml) -> None:
    for _ in range(3):
        read_conditions()
    assert nvml.started == 1


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        ("SwPowerCap", "power cap"),
        ("HwSlowdown", "hardware slowdown"),
        ("HwThermalSlowdown", "hardware thermal slowdown"),
        ("HwPowerBrakeSlowdown", "power brake"),
        ("SwThermalSlowdown", "thermal slowdown"),
    ],
)
def test_each_reason_that_lowers_the_clock_is_named(nvml: FakeNvml, bit: str, name: str) -> None:
    nvml.reasons = BITS[f"nvmlClocksThrottleReason{bit}"] | BITS["nvmlClocksThrottleReasonGpuIdle"]
    assert read_conditions() == Conditions(1755, 61, (name,))


def test_reasons_come_together(nvml: FakeNvml) -> None:
    nvml.reasons = sum(BITS.values())
    conditions = read_conditions()
    assert conditions is not None
    assert len(conditions.throttle) == len(set(conditions.throttle)) == 5


@pytest.mark.parametrize("bit", ["GpuIdle", "ApplicationsClocksSetting", "SyncBoost", "DisplayClockSetting"])
def test_what_is_set_or_idle_is_no_throttling(nvml: FakeNvml, bit: str) -> None:
    nvml.reasons = BITS[f"nvmlClocksThrottleReason{bit}"]
    assert read_conditions() == Conditions(1755, 61, ())


def test_the_names_of_the_bits_are_the_bindings_own() -> None:
    pynvml: Any = pytest.importorskip("pynvml")
    assert {name: getattr(pynvml, name) for name in BITS} == BITS
    assert set(telemetry._REASONS) <= set(BITS)
    for name in ("NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU"):
        assert getattr(pynvml, name) == getattr(FakeNvml, name)


def test_nothing_is_known_without_the_binding(device: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_conditions() is None


def test_nothing_is_known_without_the_driver(nvml: FakeNvml) -> None:
    nvml.has_driver = False
    assert read_conditions() is None
    assert read_conditions() is None
    assert nvml.started == 1


@pytest.mark.parametrize("call", ["clock", "temperature", "reasons"])
def test_nothing_is_known_of_a_gpu_that_does_not_tell(nvml: FakeNvml, call: str) -> None:
    nvml.unsupported = call
    assert read_conditions() is None
