"""What an objective makes small; worked out from stored evaluations, so that every objective shares them."""

from statistics import median

from tuner.ranking import Compiles
from tuner.records import Binary, Evaluation, Variant
from tuner.search import Cost
from tuner.space import Objective

# Host time of a launch through Triton's JIT path: 24 to 31 us on the host of an H100 (docs/objectives.md). It is the
# same for all variants, so that it is told and decides nothing.
HOST_LAUNCH_US = 27.5
# A binary from Triton's disk cache is there after a few milliseconds; what took less than this was no compile.
_REAL_COMPILE_S = 0.05
# Until a real compile is known: 0.2 to 0.4 s were seen on an H100's host.
_USUAL_COMPILE_S = 0.3


def was_compiled(compile_s: float) -> bool:
    """Whether so many seconds were a compile, not a look into Triton's disk cache."""
    return compile_s >= _REAL_COMPILE_S


class Costs:
    """The costs of variants under one objective.

    A variant's stall is the time for which its compiles stop a server, spread over so many engine steps. All compiles
    count the same seconds, the median of those that are known: the load of the machine changes the seconds of one
    compile by as much as a config does, and chance must not decide.
    """

    def __init__(self, objective: Objective, steps: int, compiles: Compiles) -> None:
        self._objective = objective
        self._steps = steps
        self._compiles = compiles
        self._seconds: list[float] = []

    def learn(self, binary: Binary) -> None:
        """Take note of how long a compile took."""
        if was_compiled(binary.compile_s):
            self._seconds.append(binary.compile_s)

    @property
    def compile_s(self) -> float:
        """Seconds of one compile."""
        return median(self._seconds) if self._seconds else _USUAL_COMPILE_S

    def stall_us(self, variant: Variant) -> float:
        """Microseconds of compiling for each step."""
        return self._compiles(variant) * self.compile_s * 1e6 / self._steps

    def ranked_stall_us(self, variant: Variant) -> float:
        """The stall that decides winners: none unless the objective is serving."""
        return self.stall_us(variant) if self._objective is Objective.SERVING else 0.0

    @property
    def count(self) -> int:
        """How many values a cost has."""
        return 2 if self._objective is Objective.PARETO else 1

    def of(self, evaluation: Evaluation) -> Cost | None:
        """What a search learns of an evaluation; None when it did not pass."""
        if evaluation.timing is None:
            return None
        time_us = evaluation.timing.median_us
        if self._objective is Objective.PARETO:
            return time_us, self.stall_us(evaluation.variant)
        return (time_us + self.ranked_stall_us(evaluation.variant),)
