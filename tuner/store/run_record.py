"""One run of the tuning loop, as the store remembers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tuner.records import Environment


@dataclass(frozen=True)
class RunRecord:
    """A run: what was asked for, where, and how many evaluations it added.

    Times are UTC. `finished_at` is None while the run is going on, and stays None when it was interrupted.
    """

    id: int
    kernel: str
    source_digest: str
    environment: Environment
    seed: int
    arguments: Mapping[str, Any] = field(hash=False)
    started_at: datetime
    finished_at: datetime | None
    evaluations: int
