"""Keeps every result in SQLite or PostgreSQL and gives it back as the records that went in."""

from tuner.store.run_record import RunRecord
from tuner.store.store import Store

__all__ = ["RunRecord", "Store"]
