"""Search spaces: a YAML file read into a checked `SearchSpace`."""

from tuner.errors import SpaceError
from tuner.space.constraint import Constraint
from tuner.space.load import load_space
from tuner.space.source import Source
from tuner.space.space import ImplementationSpace, L2State, Objective, SearchSpace

__all__ = [
    "Constraint",
    "ImplementationSpace",
    "L2State",
    "Objective",
    "SearchSpace",
    "Source",
    "SpaceError",
    "load_space",
]
