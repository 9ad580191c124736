"""The SQL database: the one truth. Everything else is derived from it."""

from coarseloc.store.session import Database, Session, open_database

__all__ = ["Database", "Session", "open_database"]
