"""Where a result was obtained; part of the key under which it is stored."""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from tuner.records.target import Target

# Raised whenever checking, timing or estimating changes in a way that makes old numbers incomparable.
PROTOCOL_VERSION = 4


class Evidence(StrEnum):
    """What stands behind a time: a clock, or the roofline model."""

    MEASURED = "measured"
    ESTIMATED = "estimated"


class L2State(StrEnum):
    """What a timed launch finds in the L2 cache.

    WRITTEN: the inputs that the kernel in front of it writes (`KernelSpec.written_inputs`), written again before every
    launch; the time is what a launch adds to that. WARM: what the launch before it left there, which was the same over
    the same buffers. COLD: nothing of its buffers.
    """

    WRITTEN = "written"
    WARM = "warm"
    COLD = "cold"


@dataclass(frozen=True)
class Environment:
    """The machine and software behind a result. A change in any field makes it another measurement.

    `device` is the device's own name (`NVIDIA H100 80GB HBM3`), empty when the result was estimated. `l2` is an
    `L2State`, empty for an estimate.
    """

    target: Target
    evidence: Evidence
    device: str
    torch: str
    triton: str
    driver: str
    ptxas: str
    l2: str = ""
    protocol: int = PROTOCOL_VERSION

    @property
    def digest(self) -> str:
        """16 hex digits that name the environment."""
        text = json.dumps({**asdict(self), "target": str(self.target)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        place = self.device or str(self.target)
        return f"{place} ({self.evidence}), torch {self.torch}, triton {self.triton}"

    def differences(self, here: "Environment") -> tuple[str, ...]:
        """Why a result of this environment is none of the environment `here`; empty when it may be one.

        Each reason is a few words for people. An estimate is held against software only, a measurement also against
        device and driver; L2 states are asked for and no difference. A version that either side leaves empty is
        unknown or has no meaning there, and is not compared.
        """
        reasons = []
        software = ["torch", "triton", "ptxas"]
        if self.evidence is Evidence.MEASURED:
            software.append("driver")
            if self.device != here.device:
                reasons.append(f"measured on {self.device}, here is {here.device or 'no GPU'}")
        for name in software:
            then, now = getattr(self, name), getattr(here, name)
            if then and now and then != now:
                reasons.append(f"{name} {then}, here {now}")
        if self.protocol != here.protocol:
            reasons.append(f"timing protocol {self.protocol}, here {here.protocol}")
        return tuple(reasons)
