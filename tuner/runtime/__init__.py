"""What a serving process uses: winner tables and lookups. Light to import."""

from tuner.runtime.lookup import Found, Lookup, Origin, find
from tuner.runtime.table import SCHEMA_VERSION, WinnerTable, read_table

__all__ = ["SCHEMA_VERSION", "Found", "Lookup", "Origin", "WinnerTable", "find", "read_table"]
