"""Results for people and for programs."""

from tuner.report.json_report import lookup_report, run_report
from tuner.report.portfolio_table import portfolio_report, portfolio_tables
from tuner.report.replay_report import replay_lines, replay_report, replay_tables
from tuner.report.staleness import stale_reasons
from tuner.report.tables import compile_table, speedup_text, stale_table, time_text, winner_table

__all__ = [
    "compile_table",
    "lookup_report",
    "portfolio_report",
    "portfolio_tables",
    "replay_lines",
    "replay_report",
    "replay_tables",
    "run_report",
    "speedup_text",
    "stale_reasons",
    "stale_table",
    "time_text",
    "winner_table",
]
