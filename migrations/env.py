"""Alembic's entry: run by `coarseloc.store.session` on a connection it opened, or by the `alembic` command."""

from alembic import context
from sqlalchemy import Connection

from coarseloc.core import config
from coarseloc.store.tables import Base


def run(connection: Connection) -> None:
    # SQLite cannot alter most things in place: batch mode rebuilds the table instead.
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    from coarseloc.store.session import open_engine, schema_change

    with schema_change(open_engine(config.load().database)) as opened:
        run(opened)
