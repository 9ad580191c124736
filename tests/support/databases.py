"""The database of a test's folder: SQLite in it, or a schema of its own in COARSELOC_TEST_DATABASE_URL's PostgreSQL."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
from pathlib import Path

from coarseloc.core.config import Settings
from coarseloc.store.session import open_database, open_engine

SERVER = os.environ.get("COARSELOC_TEST_DATABASE_URL")
_RUN = os.getpid()  # a forked child's databases are its parent's
_made: set[str] = set()


def database_url(folder: Path) -> str:
    """The same for the same folder, and empty when first asked for."""
    if not SERVER:
        return f"sqlite:///{folder / 'coarseloc.db'}"
    schema = f"test_{_RUN}_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if schema not in _made:
        if not _made:
            atexit.register(_drop)
        _made.add(schema)
        execute(f"CREATE SCHEMA {schema}")
    return f"{SERVER}?options=-csearch_path%3D{schema}"


def settings_of(folder: Path) -> Settings:
    """The settings of a data folder and its database, which is migrated where nobody else would do it."""
    return Settings(data_dir=folder, database_url=environment_of(folder).get("COARSELOC_DATABASE_URL"))


def environment_of(folder: Path) -> dict[str, str]:
    """What a command needs in its environment, so that it finds the database of its data folder; migrated likewise."""
    if not SERVER:
        return {}
    open_database(database_url(folder)).close()
    return {"COARSELOC_DATABASE_URL": database_url(folder)}


def empty(folder: Path) -> None:
    """Make the folder's database as if nobody had asked for it."""
    if SERVER:
        schema = database_url(folder).rpartition("%3D")[2]
        execute(f"DROP SCHEMA {schema} CASCADE")
        execute(f"CREATE SCHEMA {schema}")
    for path in folder.glob("coarseloc.db*"):
        path.unlink()


def server_tool(name: str) -> str | None:
    """PostgreSQL's own program of that name, as new as the server's where Debian has put both."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return str(versions[-1]) if versions else shutil.which(name)


def _drop() -> None:
    for schema in _made:
        execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def execute(statement: str) -> None:
    engine = open_engine(SERVER or "")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
