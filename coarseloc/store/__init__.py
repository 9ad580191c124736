"""The SQL database: the one truth. Everything else is derived from it."""

from coarseloc.store.session import Database, open_database

__all__ = ["Database", "open_database"]
