"""A whole copy of the embedded database, made while others read and write it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from coarseloc.core.errors import InputError, StoreError
from coarseloc.store.session import Database


def back_up(db: Database, path: Path) -> int:
    """Write the database as of now to `path`, whole or not at all; returns its bytes.

    Raises InputError where something is there already, StoreError for a server (it has tools of its own) and where
    the copy cannot be written.
    """
    if db.engine.dialect.name != "sqlite":
        raise StoreError(
            f"{db.engine.url!r} is a server: back it up by `pg_dump --format=custom --file={path} postgresql://…`"
        )
    if path.exists():
        raise InputError(f"{path} is there already: give a new name, such as one with the date")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with closing(db.engine.raw_connection()) as connection:  # SQLAlchemy's own begin a transaction first
            connection.cursor().execute("VACUUM INTO ?", (str(partial),))  # it reads only: writers go on
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.rename(path)
    except sqlite3.Error as error:
        raise StoreError(
            f"{db.engine.url!r} cannot be copied to {path}: {error}. Make room there; `coarseloc doctor` says whether "
            "the database is sound"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size
