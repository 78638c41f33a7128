"""Results for people and for programs."""

from tuner.report.json_report import lookup_report, run_report
from tuner.report.tables import compile_table, speedup_text, time_text, winner_table

__all__ = ["compile_table", "lookup_report", "run_report", "speedup_text", "time_text", "winner_table"]
