"""The state of the GPU through NVML, where it and its Python binding (`nvidia-ml-py`) are present."""

from functools import lru_cache
from typing import Any

import torch

from tuner.records import Conditions

# NVML's throttle reasons that lower the clock of a busy GPU, by the name of their bit.
_REASONS = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "hardware thermal slowdown",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "thermal slowdown",
}


def read_conditions() -> Conditions | None:
    """Clock, temperature and throttle reasons of the current GPU at this moment; None where NVML cannot say."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        handle = _handle(torch.cuda.current_device())
        clock_mhz = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
        temperature_c = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    except nvml.NVMLError:  # a partition of a GPU is not known by that name, a virtual one may not tell
        return None
    held_by = tuple(name for bit, name in _REASONS.items() if reasons & getattr(nvml, bit))
    return Conditions(int(clock_mhz), int(temperature_c), held_by)


@lru_cache(maxsize=1)
def _nvml() -> Any | None:
    """The initialized binding; None without it, and on a machine without NVIDIA's driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


@lru_cache(maxsize=16)
def _handle(device: int) -> Any:
    """NVML's handle; by UUID, for CUDA_VISIBLE_DEVICES renumbers torch's devices and not NVML's."""
    nvml = _nvml()
    assert nvml is not None
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
