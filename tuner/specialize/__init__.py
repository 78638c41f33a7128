"""Says which arguments of a kernel Triton should not specialize on: what each mark saves, what it costs, and why."""

from tuner.specialize.advice import Advice, ArgumentReport
from tuner.specialize.effect import Comparison, Effect, TimeRatio
from tuner.specialize.function import bare_function, is_bare_function
from tuner.specialize.patch import Patch
from tuner.specialize.scope import Scope, looked_at
from tuner.specialize.specialize import MarkedSet, Recommendation, Request, config_of, recommend

__all__ = [
    "Advice",
    "ArgumentReport",
    "Comparison",
    "Effect",
    "MarkedSet",
    "Patch",
    "Recommendation",
    "Request",
    "Scope",
    "TimeRatio",
    "bare_function",
    "config_of",
    "is_bare_function",
    "looked_at",
    "recommend",
]
