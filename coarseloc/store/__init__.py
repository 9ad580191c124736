"""The SQL database: the one truth. Everything else is derived from it."""

from sqlalchemy.orm import Session

from coarseloc.store.session import Database, open_database

__all__ = ["Database", "Session", "open_database"]
