"""Stored rows -> finalists, winners and portfolios; pure."""

from tuner.ranking.cover import hopeful_cover
from tuner.ranking.pareto import Point, Tradeoff, pareto_front, pareto_points
from tuner.ranking.portfolio import (
    Assignment,
    Cell,
    Keys,
    cells_of,
    consolidate,
    fixed_dimensions,
    portfolio_of,
    regret_curve,
    weighted,
)
from tuner.ranking.ranking import (
    Compiles,
    Contender,
    Stalls,
    confirmed_winner,
    estimated_winner,
    fastest,
    finalists,
    marked,
    median_us,
    no_stall,
    prefer_few_compiles,
)

__all__ = [
    "Assignment",
    "Cell",
    "Compiles",
    "Contender",
    "Keys",
    "Point",
    "Stalls",
    "Tradeoff",
    "cells_of",
    "confirmed_winner",
    "consolidate",
    "estimated_winner",
    "fastest",
    "finalists",
    "fixed_dimensions",
    "hopeful_cover",
    "marked",
    "median_us",
    "no_stall",
    "pareto_front",
    "pareto_points",
    "portfolio_of",
    "prefer_few_compiles",
    "regret_curve",
    "weighted",
]
