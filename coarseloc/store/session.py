"""Opening the database: engine, schema, the two kinds of transaction, and the back-up."""

from __future__ import annotations

import logging
import math
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from coarseloc.core import files
from coarseloc.core.errors import InputError, StoreError, without_passwords
from coarseloc.store.tables import IdentityRow

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_TIMEOUT_MS = 30_000
_MIGRATION_LOCK = 5_107_304  # any number, the same in every process


class Database:
    """An engine with its two kinds of transaction. Sessions never leave the `with` that opened them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # A SQLite reader that turns writer can fail at once with "database is locked"; a writer that
        # says so from the start waits its turn instead.
        self._writer = engine.execution_options(coarseloc_begin="BEGIN IMMEDIATE")
        # SQLite's readers see one state throughout; PostgreSQL's each statement a newer one, unless told.
        is_sqlite = engine.dialect.name == "sqlite"
        self._reader = engine if is_sqlite else engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a reading session: it sees the database as of its first query, whatever is written meanwhile."""
        with _clear_errors(self.engine), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a writing session: it commits at the end and rolls back on any error."""
        with (
            _clear_errors(self.engine),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @cached_property
    def identity(self) -> str:
        """32 hex digits, this database's own for good: vector stores that several databases share tell them apart
        by it."""
        with self.read() as session:
            return session.scalars(select(IdentityRow.uid)).one()

    @property
    def location(self) -> str:
        """The URL without its passwords, for messages."""
        return without_passwords(repr(self.engine.url))

    def revision(self) -> str | None:
        """The schema's revision, None for an empty database."""
        with _clear_errors(self.engine), self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

    def damage(self, thorough: bool = False) -> str | None:
        """What SQLite's own check finds wrong, None where it is sound. A server looks after its pages itself.

        thorough: its indexes are held against its tables too, and references against what they refer to.
        """
        if self.engine.dialect.name != "sqlite":
            return None
        with _clear_errors(self.engine), self.engine.connect() as connection:
            pragma = "integrity_check" if thorough else "quick_check"
            report = [str(line) for (line,) in connection.exec_driver_sql(f"PRAGMA {pragma}(3)")]
            if thorough and report == ["ok"]:
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                report = [f"row {row[1]} of {row[0]} refers to no {row[2]}" for row in broken[:3]] or report
        return None if report == ["ok"] else "; ".join(" ".join(line.split()) for line in report)

    def back_up(self, path: Path) -> int:
        """Write the database as of now to `path`, whole or not at all, while others use it; returns its bytes.

        Raises InputError where something is there already, StoreError for a server (it has tools of its own) and where
        the copy cannot be written.
        """
        if self.engine.dialect.name != "sqlite":
            raise StoreError(
                f"{self.engine.url!r} is a server: back it up by `pg_dump --format=custom --file={path} postgresql://…`"
            )
        if path.exists():
            raise InputError(f"{path} is there already: give a new name, such as one with the date")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # SQLAlchemy's own connections begin a transaction first. VACUUM reads only: writers go on.
            with files.replacing(path, durable=True) as partial, closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("VACUUM INTO ?", (str(partial),))
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.engine.url!r} cannot be copied to {path}: {error}. Make room there; `coarseloc doctor` says "
                "whether the database is sound"
            ) from error
        return path.stat().st_size

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, migrate: bool = True) -> Database:
    """Connect, and bring the schema to the newest revision (`migrate=False`: refuse an older one).

    Raises StoreError naming the database, what was wrong and what to do.
    """
    engine = open_engine(url)
    database = Database(engine)
    revision, newest = database.revision(), head_revision()
    if revision == newest:
        return database
    if not migrate:
        raise StoreError(
            f"the schema of {engine.url!r} is at {revision or 'nothing'}, this version needs {newest}: "
            "run `coarseloc migrate`"
        )
    _upgrade(engine)
    return database


def open_engine(url: str) -> Engine:
    """Connect to a database, without looking at its schema."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            f"database URL {url!r} cannot be read: expected sqlite:///FILE or postgresql+psycopg://…"
        ) from None
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite and parsed.database:
        _make_folder(Path(parsed.database).parent)
    try:
        engine = create_engine(parsed, pool_pre_ping=not is_sqlite)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise StoreError(f"database {parsed!r} cannot be used: {error}") from None
    if is_sqlite:
        _set_up_sqlite(engine)
    return engine


def head_revision() -> str:
    """The newest revision, from the names of the migrations: Alembic would take half a second to say the same."""
    names = (resource.name for resource in (resources.files("migrations") / "versions").iterdir())
    revisions = sorted(name[:4] for name in names if re.match(r"\d{4}_.*\.py$", name))
    if not revisions:
        raise StoreError("this installation holds no migrations: reinstall coarseloc")
    return revisions[-1]


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    return config


def _upgrade(engine: Engine) -> None:
    """Bring the schema to head in one transaction: one process migrates, the others wait for its lock
    and find nothing left to do."""
    from alembic import command
    from alembic.util.exc import CommandError

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = _alembic_config()
    try:
        with schema_change(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"the schema of {engine.url!r} cannot be migrated: {error}. "
            "It may come from a newer coarseloc: upgrade this one, or point COARSELOC_DATABASE_URL elsewhere."
        ) from None


@contextmanager
def schema_change(engine: Engine) -> Iterator[Connection]:
    """Open the one transaction for migrations, exclusive to this process.

    SQLite rebuilds a table by dropping it, which with foreign keys on deletes the rows that refer to it: they are off
    meanwhile, and checked before the commit.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    with _clear_errors(engine), engine.execution_options(coarseloc_begin="BEGIN IMMEDIATE").connect() as connection:
        raw = connection.connection.driver_connection
        if is_sqlite and raw is not None:
            raw.execute("PRAGMA foreign_keys=OFF")  # has no effect inside a transaction
        try:
            with connection.begin():
                if engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
                yield connection
                if is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                    raise StoreError(
                        f"the migration of {engine.url!r} would leave rows of {broken[0]} that refer to no "
                        f"{broken[2]}: nothing was changed. Run `coarseloc doctor`; the database may be damaged."
                    )
        finally:
            if is_sqlite and raw is not None:
                raw.execute("PRAGMA foreign_keys=ON")


@contextmanager
def _clear_errors(engine: Engine) -> Iterator[None]:
    """A database's own failures (unreachable, locked, full, corrupt) as one clear line."""
    try:
        yield
    except DBAPIError as error:
        raise StoreError(
            f"database {engine.url!r}: {str(error.orig).splitlines()[0]}. "
            "Check that it is reachable, on a local disk with space, and not damaged (`coarseloc doctor`)."
        ) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes what it cannot read, and Python cannot read that
        raise StoreError(
            f"database {engine.url!r} is damaged ({error}): stop everything that uses it and restore a back-up, "
            "see docs/operations.md; `coarseloc doctor` says more"
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        files.make_private_folder(folder)
    except OSError as error:
        raise StoreError(
            f"folder {folder} cannot be made: {error.strerror}. Set COARSELOC_DATA_DIR to a writable folder."
        ) from None


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a committed embedding survives a power cut
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        for name, function in (("sin", math.sin), ("cos", math.cos)):  # some builds come without
            try:
                connection.execute(f"SELECT {name}(0.0)")
            except sqlite3.OperationalError:
                connection.create_function(name, 1, function, deterministic=True)

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("coarseloc_begin", "BEGIN"))
