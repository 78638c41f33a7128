"""Stored rows -> finalists and winners; pure."""

from tuner.ranking.ranking import (
    Compiles,
    Contender,
    confirmed_winner,
    estimated_winner,
    fastest,
    finalists,
    marked,
    median_us,
    prefer_few_compiles,
)

__all__ = [
    "Compiles",
    "Contender",
    "confirmed_winner",
    "estimated_winner",
    "fastest",
    "finalists",
    "marked",
    "median_us",
    "prefer_few_compiles",
]
