"""Search spaces: a YAML file read into a checked `SearchSpace`."""

from tuner.errors import SpaceError
from tuner.space.constraint import Constraint
from tuner.space.load import load_space
from tuner.space.source import Problem, Source
from tuner.space.space import ImplementationSpace, Objective, SearchSpace

__all__ = [
    "Constraint",
    "ImplementationSpace",
    "Objective",
    "Problem",
    "SearchSpace",
    "Source",
    "SpaceError",
    "load_space",
]
