"""Proposes variants; suggests and learns, and knows nothing of how a result is obtained."""

import hashlib

from tuner.records import Shape
from tuner.search.grid_search import GridSearch
from tuner.search.search import Cost, Method, Search
from tuner.space import SearchSpace

__all__ = ["Cost", "GridSearch", "Method", "Search", "create_search"]


def create_search(method: Method, space: SearchSpace, shape: Shape, seed: int, objectives: int = 1) -> Search:
    """A search over a space for one shape, for costs of so many values; seed and shape fix what it suggests."""
    if method is Method.GRID:
        return GridSearch(space, shape)
    from optuna.samplers import RandomSampler, TPESampler

    from tuner.search.optuna_search import OptunaSearch

    mixed = int(hashlib.sha256(f"{seed} {shape.canonical}".encode()).hexdigest()[:8], 16)
    sampler = TPESampler(seed=mixed) if method is Method.TPE else RandomSampler(seed=mixed)
    return OptunaSearch(space, shape, sampler, objectives, mixed)
