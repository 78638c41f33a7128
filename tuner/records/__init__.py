"""Frozen typed records that the stages hand to each other."""

from tuner.records.environment import PROTOCOL_VERSION, Environment, Evidence, L2State
from tuner.records.frozen import FrozenMapping
from tuner.records.outcome import Agreement, Binary, Conditions, Evaluation, Status, Timing
from tuner.records.portfolio import Bucket, Portfolio
from tuner.records.shape import DimensionValue, Shape
from tuner.records.target import DEFAULT_TARGET, KNOWN_TARGETS, Target
from tuner.records.variant import LAUNCH_PDL, OPTION_NAMES, Config, SpecializationSet, Variant
from tuner.records.winner import Speedup, Winner

__all__ = [
    "DEFAULT_TARGET",
    "KNOWN_TARGETS",
    "LAUNCH_PDL",
    "OPTION_NAMES",
    "PROTOCOL_VERSION",
    "Agreement",
    "Binary",
    "Bucket",
    "Conditions",
    "Config",
    "DimensionValue",
    "Environment",
    "Evaluation",
    "Evidence",
    "FrozenMapping",
    "L2State",
    "Portfolio",
    "Shape",
    "SpecializationSet",
    "Speedup",
    "Status",
    "Target",
    "Timing",
    "Variant",
    "Winner",
]
