"""Stored rows -> finalists and winners; pure."""

from tuner.ranking.ranking import (
    Compiles,
    confirmed_winner,
    estimated_winner,
    fastest,
    finalists,
    marked,
    prefer_few_compiles,
)

__all__ = ["Compiles", "confirmed_winner", "estimated_winner", "fastest", "finalists", "marked", "prefer_few_compiles"]
