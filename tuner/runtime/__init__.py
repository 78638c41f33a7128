"""What a serving process uses: winner tables and lookups. Light to import."""

from tuner.runtime.lookup import Lookup, Origin, find
from tuner.runtime.table import SCHEMA_VERSION, WinnerTable, read_table

__all__ = ["SCHEMA_VERSION", "Lookup", "Origin", "WinnerTable", "find", "read_table"]
