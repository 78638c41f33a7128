"""Where a result was obtained; part of the key under which it is stored."""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from tuner.records.target import Target

# Raised whenever checking, timing or estimating changes in a way that makes old numbers incomparable.
PROTOCOL_VERSION = 1


class Evidence(StrEnum):
    """What stands behind a time: a clock, or the roofline model."""

    MEASURED = "measured"
    ESTIMATED = "estimated"


@dataclass(frozen=True)
class Environment:
    """The machine and software behind a result. A change in any field makes it another measurement.

    `device` is the device's own name (`NVIDIA H100 80GB HBM3`), empty when the result was estimated. `l2` says whether
    timed launches found their inputs in the L2 cache (`warm` or `cold`), empty for an estimate.
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
