"""Describes where results are obtained: versions, device, driver."""

import torch
import triton
from triton.backends.nvidia.compiler import get_ptxas

from tuner.measure.installed import nvidia_driver
from tuner.records import Environment, Evidence, L2State, Target


def estimated_environment(target: Target) -> Environment:
    """The environment of a run without a GPU: what compiles, and for which target."""
    return Environment(
        target=target,
        evidence=Evidence.ESTIMATED,
        device="",
        torch=torch.__version__,
        triton=triton.__version__,
        driver="",
        ptxas=_ptxas(target),
    )


def device_environment(l2: str = L2State.WARM) -> Environment:
    """The environment of this machine's first GPU; RuntimeError when torch sees none."""
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU")
    target = device_target()
    return Environment(
        target=target,
        evidence=Evidence.MEASURED,
        device=torch.cuda.get_device_name(0),
        torch=torch.__version__,
        triton=triton.__version__,
        driver=_driver(),
        ptxas=_ptxas(target),
        l2=l2,
    )


def environment_here(like: Environment) -> Environment:
    """The environment that a result has which is obtained here and now as one of `like` was.

    A measurement is obtained on this machine's first GPU; without one, and for an estimate, the result is an estimate
    for the target of `like`.
    """
    if like.evidence is Evidence.MEASURED and torch.cuda.is_available():
        return device_environment(like.l2)
    return estimated_environment(like.target)


def device_uuid() -> str:
    """What names this machine's first GPU, whatever number it has for this process."""
    return str(torch.cuda.get_device_properties(0).uuid)


def device_target() -> Target:
    """What code for this machine's first GPU is compiled for."""
    if torch.version.hip:
        return Target("hip", torch.cuda.get_device_properties(0).gcnArchName.split(":")[0])
    major, minor = torch.cuda.get_device_capability(0)
    return Target("cuda", str(10 * major + minor))


def _driver() -> str:
    """The driver's version as the kernel module states it, else the CUDA version that the driver supports."""
    if torch.version.hip:
        return str(torch.version.hip)
    if stated := nvidia_driver():
        return stated
    return str(getattr(torch._C, "_cuda_getDriverVersion")())  # noqa: B009 - absent from CPU builds' type stubs


def _ptxas(target: Target) -> str:
    return str(get_ptxas(int(target.arch)).version) if target.backend == "cuda" else ""
