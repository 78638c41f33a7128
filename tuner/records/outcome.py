"""What came of evaluating one variant at one shape."""

from dataclasses import dataclass, field
from enum import StrEnum

from tuner.records.frozen import FrozenMapping
from tuner.records.shape import Shape
from tuner.records.variant import Variant


class Status(StrEnum):
    """How an evaluation ended. Only `PASSED` can carry a time."""

    PASSED = "passed"
    COMPILE_ERROR = "compile error"
    OUT_OF_RESOURCES = "out of resources"
    WRONG_OUTPUT = "wrong output"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Binary:
    """Machine code of a variant for one specialization class and target, and what it needs.

    `digest` names the code without names and debug info. `load_bytes` and `store_bytes` count the global memory
    instructions by bytes per thread: `{"16": 4, "1": 2}` is four 16-byte and two 1-byte instructions.
    """

    digest: str
    specialization_key: str
    registers: int
    spills: int
    shared_bytes: int
    instructions: int
    load_bytes: FrozenMapping[int]
    store_bytes: FrozenMapping[int]
    compile_s: float


@dataclass(frozen=True)
class Agreement:
    """How the outputs compared with the reference.

    `undecided` counts elements for which the reference allows more than one value, because fp32 arithmetic and the
    float64 reference may fall on two sides of a rounding boundary. `detail` shows the first mismatch.
    """

    elements: int
    mismatched: int
    undecided: int
    detail: str = ""

    @property
    def difference(self) -> str:
        """How many elements differ, and where, for people; the detail alone where none were counted."""
        counted = f"{self.mismatched} of {self.elements} elements differ; " if self.elements else ""
        return counted + self.detail


@dataclass(frozen=True)
class Timing:
    """A time in microseconds: median with first and third quartile, and how many samples are behind it.

    An estimate counts one sample and has no spread. `samples_us` may be left out where only the summary travels.
    """

    median_us: float
    low_us: float
    high_us: float
    count: int
    samples_us: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Conditions:
    """The state of the GPU while it timed: clock, temperature, and what held the clock down, if anything did."""

    sm_clock_mhz: int
    temperature_c: int
    throttle: tuple[str, ...] = ()

    def worst(self, other: "Conditions | None") -> "Conditions":
        """The lower clock, the higher temperature and every throttle reason of the two."""
        if other is None:
            return self
        return Conditions(
            min(self.sm_clock_mhz, other.sm_clock_mhz),
            max(self.temperature_c, other.temperature_c),
            tuple(sorted({*self.throttle, *other.throttle})),
        )


@dataclass(frozen=True)
class Evaluation:
    """One variant at one shape: how it ended, and whatever was learned on the way."""

    variant: Variant
    shape: Shape
    status: Status
    log: str = ""
    binary: Binary | None = None
    agreement: Agreement | None = None
    timing: Timing | None = None
    conditions: Conditions | None = None

    @property
    def reason(self) -> str:
        """The last line of the log, which for a trace names the error; empty without a log."""
        lines = self.log.strip().splitlines()
        return lines[-1].strip() if lines else ""

    def __post_init__(self) -> None:
        if (self.timing is not None) != (self.status is Status.PASSED):
            raise ValueError(f"a time needs the status 'passed' and the other way round, not {self.status.value!r}")
